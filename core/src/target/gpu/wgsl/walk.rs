//! Index arithmetic: merges axes that can be iterated as one, converts positions to coordinates and coordinates to offsets.

/// Sizes and strides of axes after merging: `strides[i]` belongs to the i-th input.
pub struct Merged {
    /// Sizes; never empty (a domain of one element has one axis of size 1).
    pub sizes: Vec<usize>,
    /// Strides along them.
    pub strides: Vec<Vec<isize>>,
}

/// Drops axes of size 1, and merges neighbouring axes that are contiguous in every set of strides.
pub fn merge(sizes: &[usize], strides: &[&[isize]]) -> Merged {
    let mut out = Merged { sizes: vec![], strides: vec![vec![]; strides.len()] };
    for (axis, &n) in sizes.iter().enumerate().filter(|(_, n)| **n != 1) {
        let joins = out.sizes.last().is_some()
            && strides.iter().zip(&out.strides).all(|(s, o)| o.last() == Some(&(s[axis] * n as isize)));
        if joins {
            if let Some(last) = out.sizes.last_mut() {
                *last *= n;
            }
            for (s, o) in strides.iter().zip(&mut out.strides) {
                if let Some(last) = o.last_mut() {
                    *last = s[axis];
                }
            }
        } else {
            out.sizes.push(n);
            strides.iter().zip(&mut out.strides).for_each(|(s, o)| o.push(s[axis]));
        }
    }
    if out.sizes.is_empty() {
        out.sizes.push(1);
        out.strides.iter_mut().for_each(|s| s.push(0));
    }
    out
}

/// Lines that split the position `from` (a u32) into coordinates, and their names `{name}0`, `{name}1`, …
pub fn coordinates(name: &str, from: &str, sizes: &[usize]) -> (String, Vec<String>) {
    let names: Vec<String> = (0..sizes.len()).map(|i| format!("{name}{i}")).collect();
    let mut text = String::new();
    let mut rest = from.to_string();
    for i in (1..sizes.len()).rev() {
        text.push_str(&format!("let {name}{i} = {rest} % {}u;\n", sizes[i]));
        text.push_str(&format!("let {name}q{i} = {rest} / {}u;\n", sizes[i]));
        rest = format!("{name}q{i}");
    }
    text.push_str(&format!("let {name}0 = {rest};\n"));
    (text, names)
}

/// `offset + Σ coordinate · stride` as a u32 expression; negative numbers wrap around.
pub fn address(offset: isize, coordinates: &[String], strides: &[isize]) -> String {
    let mut terms: Vec<String> = vec![];
    for (c, &s) in coordinates.iter().zip(strides) {
        match s {
            0 => {}
            1 => terms.push(c.clone()),
            s => terms.push(format!("{c} * {}u", s as u32)),
        }
    }
    if offset != 0 || terms.is_empty() {
        terms.push(format!("{}u", offset as u32));
    }
    terms.join(" + ")
}

/// Maximum workgroups in one dimension of a grid.
pub const MOST_GROUPS: usize = 65_535;

/// A grid of at least that many workgroups, folded if one dimension cannot hold them.
pub fn fold(groups: usize) -> [u32; 3] {
    if groups <= MOST_GROUPS {
        return [groups.max(1) as u32, 1, 1];
    }
    let rows = groups.div_ceil(MOST_GROUPS);
    [groups.div_ceil(rows) as u32, rows as u32, 1]
}

/// The line that defines `group`, the workgroup's number in a grid made by [`fold`].
pub fn group_number(grid: [u32; 3]) -> String {
    match grid[1] {
        1 => "let group = wid.x;\n".into(),
        _ => format!("let group = wid.y * {}u + wid.x;\n", grid[0]),
    }
}

/// A grid with one work item per thread, and the lines that compute the item's number, called `name`; surplus threads return.
pub fn each(name: &str, work: usize, threads: usize) -> ([u32; 3], String) {
    let grid = fold(work.div_ceil(threads));
    let number = format!("let {name} = group * {threads}u + lid;\nif ({name} >= {work}u) {{ return; }}\n");
    (grid, group_number(grid) + &number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_merge_only_where_all_walk_them_as_one() {
        let all = merge(&[2, 3, 1, 4], &[&[12, 4, 9, 1], &[12, 4, 9, 1]]);
        assert_eq!((all.sizes, all.strides[0].clone()), (vec![24], vec![1]));
        let some = merge(&[2, 3, 4], &[&[12, 4, 1], &[4, 8, 1]]);
        assert_eq!((some.sizes, some.strides), (vec![2, 3, 4], vec![vec![12, 4, 1], vec![4, 8, 1]]));
        let repeated = merge(&[2, 3, 4], &[&[0, 0, 1]]);
        assert_eq!((repeated.sizes, repeated.strides), (vec![6, 4], vec![vec![0, 1]]));
        assert_eq!(merge(&[], &[&[]]).sizes, [1]);
    }

    #[test]
    fn grids_fold_past_the_limit_of_a_dimension() {
        assert_eq!(fold(65_535), [65_535, 1, 1]);
        for n in [65_536, 1 << 20, 10_000_019] {
            let [x, y, _] = fold(n);
            assert!(x as usize <= MOST_GROUPS && x as usize * y as usize >= n, "{n}");
        }
    }
}
