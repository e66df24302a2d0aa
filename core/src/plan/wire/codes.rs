//! Serialised codes of enumerations. A code is never reassigned.

use crate::expr::{Binary, Compare, Fold, Kind, Unary};
use crate::plan::{Count, IndexKind};
use crate::profile::{Along, Precision};
use crate::tensor::DType;

/// An enumeration with codes.
pub(crate) trait Coded: Copy {
    /// Its name in messages.
    const WHAT: &'static str;
    /// The code of a value.
    fn code(self) -> u8;
    /// The value of a code.
    fn of(code: u8) -> Option<Self>;
}

macro_rules! coded {
    ($( $what:literal $ty:ident { $($name:ident = $code:literal),* $(,)? } )*) => { $(
        impl Coded for $ty {
            const WHAT: &'static str = $what;
            fn code(self) -> u8 {
                match self { $( $ty::$name => $code ),* }
            }
            fn of(code: u8) -> Option<Self> {
                match code { $( $code => Some($ty::$name), )* _ => None }
            }
        }
    )* };
}

coded! {
    "a dtype" DType { F32 = 0, F16 = 1, BF16 = 2, I32 = 3, U32 = 4, I64 = 5, U8 = 6, Bool = 7, Q8 = 8, Q4 = 9 }
    "a kind of register" Kind { F = 0, I = 1, U = 2, B = 3 }
    "a function" Unary {
        Neg = 0, Abs = 1, Exp = 2, Log = 3, Sqrt = 4, Rsqrt = 5, Recip = 6, Sin = 7, Cos = 8, Tanh = 9, Erf = 10,
        Floor = 11, Sigmoid = 12, Round = 13, Sign = 14, Not = 15, Log1p = 16, Expm1 = 17,
        Ndtr = 18,
    }
    "an operation" Binary {
        Add = 0, Sub = 1, Mul = 2, Div = 3, Pow = 4, Min = 5, Max = 6, Rem = 7, And = 8, Or = 9, Xor = 10,
    }
    "a comparison" Compare { Lt = 0, Le = 1, Gt = 2, Ge = 3, Eq = 4, Ne = 5 }
    "a reduction" Fold { Sum = 0, Prod = 1, Max = 2, Min = 3, ArgMax = 4, ArgMin = 5 }
    "a look-up" IndexKind { Take = 0, TakeAdd = 1, TakePut = 2, Gather = 3, ScatterAdd = 4, Check = 5 }
    "what a part counts" Count { Rows = 0, Columns = 1, Elements = 2 }
    "an axis to read along" Along { None = 0, K = 1, Outer = 2 }
    "a precision" Precision { Full = 0, Fast = 1 }
}
