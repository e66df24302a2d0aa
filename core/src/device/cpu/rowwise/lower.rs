//! From the plan's tape to the operations lanes know: every conversion, boolean and integer case of
//! [`expr`](crate::expr)'s `Scalar` spelt out, and f32 pairs fused. Knows no axes beyond which operands vary.

use super::super::vmath::{Cast, CompareOp, IntBinaryOp, IntUnaryOp, UnaryOp};
use super::geometry::Cursor;
use crate::error::{Error, Result};
use crate::expr::{Binary, Compare, Instr, Kind, Reg, Tape, Unary};
use crate::tensor::DType;
use weft_kernels::arithmetic::Two;

/// Index of a node.
pub(super) type Id = usize;

/// An operation on lanes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Map {
    /// f32 arithmetic.
    Two(Two),
    /// `second(first(a, b), c)`.
    Pair(Two, Two),
    /// On f32.
    Compare(CompareOp),
    /// `a != 0 ? b : c`.
    Select,
    /// f32 to f32.
    Unary(UnaryOp),
    /// aᵇ.
    Pow,
    /// Signed or not.
    IntUnary(IntUnaryOp, bool),
    /// Signed or not.
    IntBinary(IntBinaryOp, bool),
    /// Signed or not.
    IntCompare(CompareOp, bool),
    /// Between kinds.
    Cast(Cast),
    /// One lane at a time.
    Slow(fn(u32, u32) -> u32),
    /// Seed; of a counter and an index.
    Random(u64),
}

impl Map {
    /// How many sources it has.
    pub(super) fn arity(self) -> usize {
        match self {
            Map::Unary(_) | Map::IntUnary(..) | Map::Cast(_) => 1,
            Map::Pair(..) | Map::Select => 3,
            _ => 2,
        }
    }

    /// Whether a source may be one block repeated.
    pub(super) fn repeats(self) -> bool {
        matches!(
            self,
            Map::Two(_) | Map::Pair(..) | Map::Compare(_) | Map::Select | Map::Slow(_) | Map::Random(_)
        )
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    /// The element at a cursor.
    Load(usize),
    /// A cursor's own count.
    Index(usize),
    /// The result of a reduction.
    Reduced(usize),
    /// Bits.
    Const(u32),
    /// The same bits, of another kind.
    Same(Id),
    /// A value the same for all lanes, copied to each.
    Splat(Id),
    /// Random numbers of a seed and a counter, from the word a cursor counts on.
    Stream(u64, Id, usize),
    /// Computed.
    Map(Map, [Id; 3]),
}

impl Node {
    /// The nodes it reads.
    pub(super) fn reads(&self) -> &[Id] {
        match self {
            Node::Same(a) | Node::Splat(a) | Node::Stream(_, a, _) => std::slice::from_ref(a),
            Node::Map(op, from) => &from[..op.arity()],
            _ => &[],
        }
    }
}

/// Nodes in an order in which each comes after those it reads.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// The nodes and their kinds.
    pub(super) all: Vec<(Node, Kind)>,
}

fn broken(what: impl Into<String>) -> Error {
    Error::Graph { what: format!("a fused step's tape: {}", what.into()) }
}

/// The tape's live part as nodes: where each register went, and the cursors that loads (operand by operand, as `load`
/// gives them) and indices read.
pub(super) fn lower(
    tape: &Tape,
    roots: &[Reg],
    load: &dyn Fn(usize) -> Result<Cursor>,
    cursors: &mut Vec<Cursor>,
) -> Result<(Nodes, Vec<Option<Id>>)> {
    let mut live = vec![false; tape.code.len()];
    for &root in roots {
        *live.get_mut(root).ok_or_else(|| broken(format!("no register {root}")))? = true;
    }
    for reg in (0..tape.code.len()).rev() {
        if live[reg] {
            for read in tape.code[reg].0.reads() {
                if read >= reg {
                    return Err(broken(format!("register {reg} reads {read}, which comes later")));
                }
                live[read] = true;
            }
        }
    }
    let mut nodes = Nodes::default();
    let mut place: Vec<Option<Id>> = vec![None; tape.code.len()];
    let mut loads: Vec<(usize, usize)> = Vec::new();
    for (reg, (instr, kind)) in tape.code.iter().enumerate().filter(|(reg, _)| live[*reg]) {
        let at = |r: &Reg| place[*r].unwrap_or(0);
        let id = match instr {
            Instr::Load(i) => {
                let known = loads.iter().find(|(operand, _)| operand == i).map(|&(_, c)| c);
                let cursor = match known {
                    Some(cursor) => cursor,
                    None => {
                        cursors.push(load(*i)?);
                        loads.push((*i, cursors.len() - 1));
                        cursors.len() - 1
                    }
                };
                nodes.push(Node::Load(cursor), *kind)
            }
            Instr::Index(strides) => {
                cursors.push(Cursor::index(strides.clone()));
                nodes.push(Node::Index(cursors.len() - 1), Kind::U)
            }
            Instr::Reduced(i) => nodes.push(Node::Reduced(*i), *kind),
            Instr::Const(bits) => nodes.constant(*bits, *kind),
            Instr::Unary(op, a) => nodes.unary(*op, at(a)),
            Instr::Binary(op, a, b) => nodes.binary(*op, at(a), at(b)),
            Instr::Compare(op, a, b) => nodes.compare(*op, at(a), at(b)),
            Instr::Select(c, a, b) => {
                let (choice, kind) = (nodes.truth(at(c)), nodes.kind(at(a)));
                nodes.map(Map::Select, &[choice, at(a), at(b)], kind)
            }
            Instr::Cast(dtype, a) => nodes.cast(*dtype, at(a))?,
            Instr::Random(seed, counter, index) => {
                let (counter, index) = (nodes.count(at(counter)), nodes.count(at(index)));
                nodes.map(Map::Random(*seed), &[counter, index], Kind::F)
            }
        };
        place[reg] = Some(id);
    }
    Ok((nodes, place))
}

impl Nodes {
    pub(super) fn push(&mut self, node: Node, kind: Kind) -> Id {
        self.all.push((node, kind));
        self.all.len() - 1
    }

    /// A node's kind.
    pub(super) fn kind(&self, id: Id) -> Kind {
        self.all[id].1
    }

    fn constant(&mut self, bits: u32, kind: Kind) -> Id {
        let known =
            self.all.iter().position(|(node, k)| matches!(node, Node::Const(b) if *b == bits) && *k == kind);
        known.unwrap_or_else(|| self.push(Node::Const(bits), kind))
    }

    fn map(&mut self, op: Map, from: &[Id], kind: Kind) -> Id {
        let mut reads = [0; 3];
        reads[..from.len()].copy_from_slice(from);
        self.push(Node::Map(op, reads), kind)
    }

    fn bits(&mut self, op: IntBinaryOp, a: Id, bits: u32) -> Id {
        let kind = self.kind(a);
        let mask = self.constant(bits, kind);
        self.map(Map::IntBinary(op, kind == Kind::I), &[a, mask], kind)
    }

    /// As a condition: zero or not by its bits.
    fn truth(&mut self, a: Id) -> Id {
        if self.kind(a) != Kind::F {
            return a;
        }
        let zero = self.constant(0, Kind::F);
        self.map(Map::Compare(CompareOp::Ne), &[a, zero], Kind::B)
    }

    /// As a count: what `number() as u32` gives.
    fn count(&mut self, a: Id) -> Id {
        match self.kind(a) {
            Kind::F => self.map(Map::Cast(Cast::F32ToU32), &[a], Kind::U),
            Kind::I => self.bits(IntBinaryOp::Max, a, 0),
            Kind::U | Kind::B => a,
        }
    }

    /// To another kind, as storing in that kind's plain dtype.
    pub(super) fn convert(&mut self, to: Kind, a: Id) -> Id {
        let op = match (self.kind(a), to) {
            (from, to) if from == to => return a,
            (Kind::F, Kind::I) => Cast::F32ToI32,
            (Kind::F, Kind::U) => Cast::F32ToU32,
            (Kind::I, Kind::F) => Cast::I32ToF32,
            (_, Kind::F) => Cast::U32ToF32,
            (Kind::F, Kind::B) => return self.truth(a),
            (from, Kind::B) => {
                let zero = self.constant(0, from);
                return self.map(Map::IntCompare(CompareOp::Ne, from == Kind::I), &[a, zero], Kind::B);
            }
            _ => return self.push(Node::Same(a), to),
        };
        self.map(Map::Cast(op), &[a], to)
    }

    /// To a dtype, with its rounding.
    pub(super) fn cast(&mut self, dtype: DType, a: Id) -> Result<Id> {
        if dtype.is_block() || dtype == DType::I64 {
            return Err(broken(format!("a cast to {dtype}")));
        }
        // floats saturate, integers keep their low bits
        let narrow = if self.kind(a) == Kind::F { IntBinaryOp::Min } else { IntBinaryOp::And };
        let v = self.convert(Kind::of(dtype), a);
        Ok(match dtype {
            DType::F16 => self.map(Map::Unary(UnaryOp::RoundF16), &[v], Kind::F),
            DType::BF16 => self.map(Map::Unary(UnaryOp::RoundBf16), &[v], Kind::F),
            DType::U8 => self.bits(narrow, v, 255),
            _ => v,
        })
    }

    fn unary(&mut self, op: Unary, a: Id) -> Id {
        let kind = self.kind(a);
        if kind == Kind::F {
            return self.unary_real(op, a);
        }
        let int = |op| Map::IntUnary(op, kind == Kind::I);
        match (op, kind) {
            (Unary::Not, Kind::B) => self.bits(IntBinaryOp::Xor, a, 1),
            (Unary::Not, _) => self.map(int(IntUnaryOp::Not), &[a], kind),
            (Unary::Neg, Kind::I | Kind::U) => self.map(int(IntUnaryOp::Neg), &[a], kind),
            (Unary::Abs, Kind::I) => self.map(int(IntUnaryOp::Abs), &[a], kind),
            (Unary::Abs | Unary::Floor | Unary::Round, _) => a,
            _ => {
                let real = self.convert(Kind::F, a);
                let real = self.unary_real(op, real);
                self.convert(kind, real)
            }
        }
    }

    fn unary_real(&mut self, op: Unary, a: Id) -> Id {
        macro_rules! same {
            ($($name:ident),+) => {
                match op {
                    $(Unary::$name => UnaryOp::$name,)+
                    Unary::Not => {
                        let zero = self.constant(0, Kind::F);
                        let not = self.map(Map::Compare(CompareOp::Eq), &[a, zero], Kind::B);
                        return self.convert(Kind::F, not);
                    }
                }
            };
        }
        let op = same!(
            Neg, Abs, Exp, Expm1, Log, Log1p, Ndtr, Sqrt, Rsqrt, Recip, Sin, Cos, Tanh, Erf, Floor, Sigmoid,
            Round, Sign
        );
        self.map(Map::Unary(op), &[a], Kind::F)
    }

    fn binary(&mut self, op: Binary, a: Id, b: Id) -> Id {
        let kind = self.kind(a);
        match kind {
            Kind::F => self.binary_real(op, a, b),
            Kind::B => {
                let op = match op {
                    Binary::And | Binary::Mul | Binary::Min => IntBinaryOp::And,
                    Binary::Xor | Binary::Sub => IntBinaryOp::Xor,
                    _ => IntBinaryOp::Or,
                };
                self.map(Map::IntBinary(op, false), &[a, b], kind)
            }
            Kind::I | Kind::U => {
                let signed = kind == Kind::I;
                let op = match op {
                    Binary::Add => IntBinaryOp::Add,
                    Binary::Sub => IntBinaryOp::Sub,
                    Binary::Mul => IntBinaryOp::Mul,
                    Binary::Div => IntBinaryOp::Div,
                    Binary::Rem => IntBinaryOp::Rem,
                    Binary::Min => IntBinaryOp::Min,
                    Binary::Max => IntBinaryOp::Max,
                    Binary::And => IntBinaryOp::And,
                    Binary::Or => IntBinaryOp::Or,
                    Binary::Xor => IntBinaryOp::Xor,
                    Binary::Pow => {
                        return self.map(Map::Slow(if signed { pow_i32 } else { pow_u32 }), &[a, b], kind);
                    }
                };
                self.map(Map::IntBinary(op, signed), &[a, b], kind)
            }
        }
    }

    fn binary_real(&mut self, op: Binary, a: Id, b: Id) -> Id {
        let op = match op {
            Binary::Add => Map::Two(Two::Add),
            Binary::Sub => Map::Two(Two::Sub),
            Binary::Mul => Map::Two(Two::Mul),
            Binary::Div => Map::Two(Two::Div),
            Binary::Min => Map::Two(Two::Min),
            Binary::Max => Map::Two(Two::Max),
            Binary::Pow => return self.pow(a, b),
            Binary::Rem => Map::Slow(|a, b| (f32::from_bits(a) % f32::from_bits(b)).to_bits()),
            Binary::And => Map::Slow(|a, b| truth(is(a) & is(b))),
            Binary::Or => Map::Slow(|a, b| truth(is(a) | is(b))),
            Binary::Xor => Map::Slow(|a, b| truth(is(a) ^ is(b))),
        };
        self.map(op, &[a, b], Kind::F)
    }

    /// aᵇ; small whole exponents by multiplication.
    fn pow(&mut self, a: Id, b: Id) -> Id {
        let times = Map::Two(Two::Mul);
        match self.all[b].0 {
            Node::Const(bits) if bits == 1.0_f32.to_bits() => a,
            Node::Const(bits) if bits == 2.0_f32.to_bits() => self.map(times, &[a, a], Kind::F),
            Node::Const(bits) if bits == 3.0_f32.to_bits() => {
                let square = self.map(times, &[a, a], Kind::F);
                self.map(times, &[square, a], Kind::F)
            }
            Node::Const(bits) if bits == (-1.0_f32).to_bits() => {
                self.map(Map::Unary(UnaryOp::Recip), &[a], Kind::F)
            }
            _ => self.map(Map::Pow, &[a, b], Kind::F),
        }
    }

    fn compare(&mut self, op: Compare, a: Id, b: Id) -> Id {
        let op = match op {
            Compare::Lt => CompareOp::Lt,
            Compare::Le => CompareOp::Le,
            Compare::Gt => CompareOp::Gt,
            Compare::Ge => CompareOp::Ge,
            Compare::Eq => CompareOp::Eq,
            Compare::Ne => CompareOp::Ne,
        };
        let op = match self.kind(a) {
            Kind::F => Map::Compare(op),
            kind => Map::IntCompare(op, kind == Kind::I),
        };
        self.map(op, &[a, b], Kind::B)
    }
}

fn is(bits: u32) -> bool {
    f32::from_bits(bits) != 0.0
}

fn truth(v: bool) -> u32 {
    f32::from(u8::from(v)).to_bits()
}

fn pow_i32(a: u32, b: u32) -> u32 {
    f64::from(a as i32).powf(f64::from(b as i32)) as i32 as u32
}

fn pow_u32(a: u32, b: u32) -> u32 {
    f64::from(a).powf(f64::from(b)) as u32
}
