//! Writes the generated files: `cargo run -p weft-bindings`.

fn main() -> Result<(), String> {
    let root = weft_bindings::root();
    for (path, make) in weft_bindings::files() {
        let text = make(&root)?;
        let at = root.join(path);
        if std::fs::read_to_string(&at).is_ok_and(|old| old == text) {
            println!("{path}: as it was");
            continue;
        }
        std::fs::write(&at, text).map_err(|e| format!("cannot write {path}: {e}"))?;
        println!("{path}: written");
    }
    Ok(())
}
