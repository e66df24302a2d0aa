//! Generated files are those that the generator writes.

#[test]
fn generated_files_are_fresh() {
    let root = weft_bindings::root();
    for (path, make) in weft_bindings::files() {
        let committed = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let made = make(&root).unwrap();
        assert!(committed == made, "{path} is stale: run `cargo run -p weft-bindings` and commit it");
    }
}
