//! Any text is a graph or an error with a message; a graph's text form parses back to the same text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft::graph::Graph;

fuzz_target!(|text: &str| {
    let graph = match Graph::parse(text) {
        Ok(graph) => graph,
        Err(e) => {
            assert!(!e.to_string().is_empty());
            return;
        }
    };
    let printed = graph.data().expect("a parsed graph is well formed").to_string();
    let again = Graph::parse(&printed).unwrap_or_else(|e| panic!("{e} in\n{printed}"));
    assert_eq!(again.data().expect("well formed").to_string(), printed);
});
