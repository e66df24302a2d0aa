//! Any text: an error or a graph, never a panic; a graph comes back the same from its own text.
#![no_main]

use weft::graph::Graph;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(graph) = Graph::parse(text) else { return };
    let printed = graph.to_string();
    let again = Graph::parse(&printed).expect("what we print can be parsed");
    assert_eq!(printed, again.to_string());
    assert!(graph == again, "{printed}");
});
