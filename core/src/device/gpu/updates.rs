//! Which dispatches change which parameters: an optimizer's step over all of them in as few as the memory's blocks
//! allow. Pure: places in, tables out.

use super::run::Heap;
use crate::target::gpu::kernels::update::EACH;
use crate::target::gpu::program::Region;
use blade_graphics as blade;

/// A parameter to change: where its pieces, its gradient's and its moments' lie in their heaps, in bytes.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// How many elements.
    pub elements: usize,
    /// The parameter's pieces.
    pub parameter: Vec<usize>,
    /// The pieces of the buffer that holds the gradient.
    pub gradient: Vec<usize>,
    /// The gradient's first element in that buffer, a multiple of 4.
    pub offset: usize,
    /// The gradient's buffer is in the session's own heap, else in the arena.
    pub own: bool,
    /// The gradient's buffer may be another one later: it is bound by itself.
    pub alone: bool,
    /// The moments' pieces, as long as the parameter's; the same place in two heaps.
    pub moments: Vec<usize>,
}

/// A dispatch: what it binds, as bytes in the heaps, and for each workgroup its part.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Where the parameters' binding begins.
    pub parameters: usize,
    /// Where the gradients' does.
    pub gradients: usize,
    /// In the session's own heap, else in the arena.
    pub own: bool,
    /// Where the moments' does.
    pub moments: usize,
    /// For each workgroup: first parameter, gradient and moment, in fours of elements from these beginnings; how many
    /// elements.
    pub table: Vec<[u32; 4]>,
}

/// A part of an update that lies in one block of each heap: bytes in the heaps, and elements.
struct Part {
    at: [usize; 3],
    elements: usize,
}

/// The dispatches for all updates, where one binding covers `chunk` bytes of a heap.
pub fn arrange(updates: &[Update], chunk: usize) -> Vec<Batch> {
    // blocks of the three heaps, which heap the gradient is in, and the update if it is alone
    type Key = ([usize; 3], bool, Option<usize>);
    let mut batches: Vec<(Key, Vec<Part>)> = vec![];
    for (i, u) in updates.iter().enumerate() {
        for part in parts(u, chunk) {
            let key = (part.at.map(|at| at / chunk), u.own, u.alone.then_some(i));
            match batches.iter_mut().find(|b| b.0 == key) {
                Some(batch) => batch.1.push(part),
                None => batches.push((key, vec![part])),
            }
        }
    }
    batches
        .into_iter()
        .map(|((_, own, alone), parts)| batch(&parts, own, alone.map(|i| &updates[i])))
        .collect()
}

fn batch(parts: &[Part], own: bool, alone: Option<&Update>) -> Batch {
    let first = |n: usize| parts.iter().map(|p| p.at[n]).min().unwrap_or(0);
    let mut from = [first(0), first(1), first(2)];
    if let Some(u) = alone {
        // bound where the whole buffer is: it is found by that
        from[1] = u.gradient.iter().copied().filter(|&at| at <= from[1]).max().unwrap_or(from[1]);
    }
    let fours = |p: &Part, n: usize| ((p.at[n] - from[n]) / 16) as u32;
    let table = parts.iter().map(|p| [fours(p, 0), fours(p, 1), fours(p, 2), p.elements as u32]).collect();
    Batch { parameters: from[0], gradients: from[1], own, moments: from[2], table }
}

/// An update in parts for one workgroup each.
fn parts(u: &Update, chunk: usize) -> Vec<Part> {
    let each = chunk / 4;
    let (mut at, mut all) = (0, vec![]);
    while at < u.elements {
        let from = u.offset + at;
        let elements = (u.elements - at).min(EACH).min(each - at % each).min(each - from % each);
        let place = |pieces: &[usize], element: usize| pieces[element / each] + element % each * 4;
        let moments = if u.moments.is_empty() { 0 } else { place(&u.moments, at) };
        all.push(Part { at: [place(&u.parameter, at), place(&u.gradient, from), moments], elements });
        at += elements;
    }
    all
}

impl Batch {
    /// The table, a row for each workgroup of a grid that may have some more.
    pub fn bytes(&self, groups: [u32; 3]) -> Vec<u8> {
        let rows = groups.iter().product::<u32>() as usize;
        let mut bytes: Vec<u8> = bytemuck::cast_slice(&self.table).to_vec();
        bytes.resize(rows * 16, 0);
        bytes
    }

    /// Where a place in a heap is.
    pub fn piece(heap: &Heap, at: usize) -> blade::BufferPiece {
        heap.at(Region { at, bytes: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries out p −= g by a batch's tables on heaps of f32.
    fn run(batches: &[Batch], parameters: &mut [f32], gradients: [&[f32]; 2], chunk: usize) {
        for b in batches {
            for &[p, g, _, n] in &b.table {
                assert!(n as usize <= EACH);
                for i in 0..n as usize {
                    let (p, g) =
                        (b.parameters / 4 + p as usize * 4 + i, b.gradients / 4 + g as usize * 4 + i);
                    assert_eq!((b.parameters * 4 / 4) / chunk, p * 4 / chunk, "one binding covers it");
                    assert_eq!(b.gradients / chunk, g * 4 / chunk, "one binding covers it");
                    parameters[p] -= gradients[usize::from(b.own)][g];
                }
            }
        }
    }

    #[test]
    fn every_element_changes_once_by_its_own_gradient() {
        let chunk = 64 << 10;
        let sizes = [1usize, 3, 4, 4097, 16_384, 40_000, 9, 70_000];
        let (mut updates, mut at, mut wanted) = (vec![], [0usize; 3], vec![]);
        let mut heaps = vec![vec![0.0f32; 1 << 20]; 3];
        for (i, &elements) in sizes.iter().enumerate() {
            let (own, offset) = (i % 2 == 1, if i % 3 == 1 { 12 } else { 0 });
            // pieces of one heap's chunks each, as `memory::place` lays them
            let mut lay = |heap: usize, elements: usize| -> Vec<usize> {
                let mut pieces = vec![];
                let mut left = elements * 4;
                while left > 0 {
                    let bytes = left.min(chunk);
                    if at[heap] % chunk + bytes > chunk {
                        at[heap] = at[heap].next_multiple_of(chunk);
                    }
                    pieces.push(at[heap]);
                    at[heap] = (at[heap] + bytes).next_multiple_of(256);
                    left -= bytes;
                }
                pieces
            };
            let (parameter, gradient) = (lay(0, elements), lay(1 + usize::from(own), elements + offset));
            let find = |pieces: &[usize], n: usize| pieces[n * 4 / chunk] / 4 + n % (chunk / 4);
            for n in 0..elements {
                let value = (i * 100_000 + n) as f32;
                heaps[1 + usize::from(own)][find(&gradient, n + offset)] = value;
                wanted.push((find(&parameter, n), -value));
            }
            let alone = i == 5;
            updates.push(Update { elements, parameter, gradient, offset, own, alone, moments: vec![] });
        }
        let batches = arrange(&updates, chunk);
        let (parameters, gradients) = heaps.split_at_mut(1);
        run(&batches, &mut parameters[0], [&gradients[0], &gradients[1]], chunk);
        for (at, value) in &wanted {
            assert_eq!(parameters[0][*at], *value);
        }
        let changed = parameters[0].iter().filter(|v| **v != 0.0).count();
        assert_eq!(changed, wanted.iter().filter(|w| w.1 != 0.0).count());
    }

    #[test]
    fn what_one_block_holds_is_one_dispatch() {
        let update = |i: usize| Update {
            elements: 1000,
            parameter: vec![i * 4096],
            gradient: vec![i * 4096 + 256],
            alone: i == 7,
            ..Update::default()
        };
        let updates: Vec<Update> = (0..20).map(update).collect();
        let batches = arrange(&updates, 1 << 30);
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[1].gradients, 7 * 4096 + 256);
        assert_eq!(arrange(&updates, 8192).len(), 11);
    }
}
