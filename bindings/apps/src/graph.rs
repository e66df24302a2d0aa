//! Graphs, from their text form.

use crate::error::Result;
use crate::owned::{Handle, Owned};
use abi::shared::caught;
use engine::graph::Graph;
use std::sync::Arc;

/// A graph.
#[derive(uniffi::Object)]
pub struct NativeGraph {
    pub(crate) of: Owned<Graph>,
}

#[uniffi::export]
impl NativeGraph {
    /// Reads a graph's text form.
    #[uniffi::constructor]
    pub fn parse(text: String) -> Result<Arc<NativeGraph>> {
        caught("graph_parse", || Ok(Arc::new(NativeGraph { of: Owned::new(Graph::parse(&text)?)? })))
    }

    /// Its text form.
    pub fn text(&self) -> Result<String> {
        caught("graph_text", || Ok(self.of.alone()?.data()?.to_string()))
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees the graph. What was compiled from it stays.
    pub fn release(&self) -> Result<()> {
        caught("graph_release", || self.of.close())
    }
}
