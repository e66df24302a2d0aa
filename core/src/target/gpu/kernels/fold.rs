//! Identities and combining steps of reductions, as WGSL.

use crate::expr::{Binary, Fold, Kind};
use crate::target::gpu::wgsl::code;
use crate::target::gpu::wgsl::source::Source;

/// Whether a reduction gives a position (argmax, argmin), not a value.
pub fn is_place(fold: Fold) -> bool {
    matches!(fold, Fold::ArgMax | Fold::ArgMin)
}

/// The identity element of a reduction.
pub fn identity(source: &mut Source<'_>, fold: Fold, kind: Kind) -> String {
    let low = matches!(fold, Fold::Max | Fold::ArgMax);
    match (fold, kind) {
        (Fold::Sum, Kind::F) => "0.0f".into(),
        (Fold::Prod, Kind::F) => "1.0f".into(),
        (_, Kind::F) => code::float(source, if low { f32::NEG_INFINITY } else { f32::INFINITY }),
        (Fold::Sum, Kind::I) => "0i".into(),
        (Fold::Prod, Kind::I) => "1i".into(),
        (_, Kind::I) => format!("bitcast<i32>({}u)", if low { 0x8000_0000u32 } else { 0x7fff_ffff }),
        (Fold::Sum, Kind::U) => "0u".into(),
        (Fold::Prod, Kind::U) => "1u".into(),
        (_, Kind::U) => format!("{}u", if low { 0 } else { u32::MAX }),
        (Fold::Prod | Fold::Min | Fold::ArgMin, Kind::B) => "true".into(),
        (_, Kind::B) => "false".into(),
    }
}

/// Combines two values.
pub fn join(source: &mut Source<'_>, fold: Fold, kind: Kind, a: &str, b: &str) -> String {
    let op = match fold {
        Fold::Sum => Binary::Add,
        Fold::Prod => Binary::Mul,
        Fold::Max | Fold::ArgMax => Binary::Max,
        Fold::Min | Fold::ArgMin => Binary::Min,
    };
    code::binary(source, op, kind, a, b)
}

/// The name of a function (best, its position, value, its position) → whether the value replaces the best: it is better, or
/// equal and earlier; the first NaN wins. Position 2³² − 1 stands for none.
pub fn better(source: &mut Source<'_>, fold: Fold, kind: Kind) -> &'static str {
    let sign = if fold == Fold::ArgMax { ">" } else { "<" };
    let (name, of) = match (fold, kind) {
        (Fold::ArgMax, Kind::F) => ("above_f", "f32"),
        (Fold::ArgMax, Kind::I) => ("above_i", "i32"),
        (Fold::ArgMax, _) => ("above_u", "u32"),
        (_, Kind::F) => ("below_f", "f32"),
        (_, Kind::I) => ("below_i", "i32"),
        (_, _) => ("below_u", "u32"),
    };
    let nan = if kind == Kind::F {
        source.helper("is_nan");
        "let an = is_nan(a);\nlet bn = is_nan(b);\nif (an || bn) { return select(bn, bi < ai, an && bn); }\n"
    } else {
        ""
    };
    source.function(format!(
        "fn {name}(a: {of}, ai: u32, b: {of}, bi: u32) -> bool {{\nif (bi == 0xffffffffu) {{ return false; }}\n\
         if (ai == 0xffffffffu) {{ return true; }}\n{nan}return b {sign} a || (b == a && bi < ai);\n}}"
    ));
    name
}
