//! Distinct segments of a graph: nodes that refer to each other and to numbered external values.

use super::outline::{Outline, is_leaf};
use crate::graph::{Attrs, Call, GraphData, Lowering, Node, NodeKind, Op, Value};
use crate::tensor::{Tensor, TensorType};
use std::collections::HashMap;

/// An input of a block's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ref {
    /// The n-th external value.
    External(usize),
    /// A node of the block.
    Local(usize),
}

/// A block's node without its inputs.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Constant(Tensor<'static>),
    Op(&'static dyn Op, Attrs),
}

#[derive(Debug, Clone)]
pub(super) struct BlockNode {
    pub part: Part,
    pub inputs: Vec<Ref>,
    pub ty: TensorType,
}

/// A segment, independent of its position in the graph.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    pub nodes: Vec<BlockNode>,
    /// Types of the external values, and whether they depend on weights and constants alone.
    pub externals: Vec<(TensorType, bool)>,
    /// Nodes that nodes outside read.
    pub outputs: Vec<usize>,
}

/// An occurrence of a block in the graph.
pub(super) struct Instance {
    pub block: usize,
    /// The graph's nodes in the block, in order.
    pub nodes: Vec<usize>,
    /// The graph's nodes for its external values.
    pub externals: Vec<usize>,
}

/// A graph as instances of distinct blocks.
pub(super) struct Blocks {
    pub blocks: Vec<Block>,
    pub instances: Vec<Instance>,
}

impl Block {
    /// Whether two blocks are equal.
    fn same(&self, other: &Block) -> bool {
        let part = |a: &Part, b: &Part| match (a, b) {
            (Part::Constant(a), Part::Constant(b)) => a.ty() == b.ty() && a.bytes() == b.bytes(),
            (Part::Op(a, p), Part::Op(b, q)) => *a == *b && p == q,
            _ => false,
        };
        let node =
            |a: &BlockNode, b: &BlockNode| a.inputs == b.inputs && a.ty == b.ty && part(&a.part, &b.part);
        self.outputs == other.outputs
            && self.externals == other.externals
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(|(a, b)| node(a, b))
    }

    /// Equal for equal blocks.
    fn digest(&self) -> String {
        let word = |n: &BlockNode| match &n.part {
            Part::Constant(_) => format!("{}", n.ty),
            Part::Op(op, _) => format!("{}{:?}", op.name(), n.inputs),
        };
        self.nodes.iter().map(word).collect::<Vec<_>>().join(";")
    }
}

/// Whether the planner folds an operation on weights at init. Decoding of block formats is not folded: it is done as a product
/// reads them, or in each step (`plan/fold.rs`), and so is work on its result.
pub(super) fn is_kept(op: &dyn Op, call: &Call<'_>) -> bool {
    !matches!(op.lower(call), Lowering::Dequantise)
}

/// For each node, whether its value is available before the first step: constants, and parameters that the plan's steps do not
/// change.
pub(super) fn weights(data: &GraphData, training: bool) -> Vec<bool> {
    let mut weight = vec![false; data.nodes.len()];
    for (i, node) in data.nodes.iter().enumerate() {
        weight[i] = match node.kind {
            NodeKind::Parameter { trainable } => !(training && trainable),
            NodeKind::Constant(_) => true,
            NodeKind::Input | NodeKind::State => false,
            NodeKind::Op(op, ref attrs) => {
                let fixed = |v: &Value| v.index().is_some_and(|j| weight[j]);
                let call = Call { inputs: &data.input_types(node), attrs };
                !node.inputs.is_empty() && node.inputs.iter().all(fixed) && is_kept(op, &call)
            }
        };
    }
    weight
}

/// The blocks of an outline. `read` marks the nodes that are results of the graph.
pub(super) fn blocks(data: &GraphData, outline: &Outline, weight: &[bool], read: &[bool]) -> Blocks {
    let mut segment_of = vec![usize::MAX; data.nodes.len()];
    for (s, range) in outline.segments.iter().enumerate() {
        outline.order[range.clone()].iter().for_each(|&i| segment_of[i] = s);
    }
    let mut outside = read.to_vec();
    for (s, range) in outline.segments.iter().enumerate() {
        for &i in &outline.order[range.clone()] {
            let inputs = data.nodes[i].inputs.iter().filter_map(|v| v.index());
            inputs.filter(|&j| segment_of[j] != s).for_each(|j| outside[j] = true);
        }
    }
    let mut all = Blocks { blocks: vec![], instances: vec![] };
    let mut known: HashMap<String, Vec<usize>> = HashMap::new();
    for range in &outline.segments {
        let nodes = outline.order[range.clone()].to_vec();
        let (block, externals) = block(data, &nodes, weight, &outside);
        let same = known.entry(block.digest()).or_default();
        let found = same.iter().copied().find(|&b| all.blocks[b].same(&block));
        let index = found.unwrap_or_else(|| {
            same.push(all.blocks.len());
            all.blocks.push(block);
            all.blocks.len() - 1
        });
        all.instances.push(Instance { block: index, nodes, externals });
    }
    all
}

fn block(data: &GraphData, nodes: &[usize], weight: &[bool], outside: &[bool]) -> (Block, Vec<usize>) {
    let local: HashMap<usize, usize> = nodes.iter().enumerate().map(|(l, &i)| (i, l)).collect();
    let mut externals: Vec<usize> = Vec::new();
    let mut block = Block::default();
    for (l, &i) in nodes.iter().enumerate() {
        let node: &Node = &data.nodes[i];
        let mut reference = |j: usize| match local.get(&j) {
            Some(&l) => Ref::Local(l),
            None => Ref::External(externals.iter().position(|&e| e == j).unwrap_or_else(|| {
                externals.push(j);
                externals.len() - 1
            })),
        };
        let inputs = node.inputs.iter().filter_map(|v| v.index()).map(&mut reference).collect();
        let part = match &node.kind {
            NodeKind::Constant(t) => Part::Constant(t.clone()),
            NodeKind::Op(op, attrs) => Part::Op(*op, attrs.clone()),
            _ => continue,
        };
        debug_assert!(!is_leaf(node));
        block.nodes.push(BlockNode { part, inputs, ty: node.ty.clone() });
        if outside[i] {
            block.outputs.push(l);
        }
    }
    block.externals = externals.iter().map(|&j| (data.nodes[j].ty.clone(), weight[j])).collect();
    (block, externals)
}
