//! What reductions and comparisons need of a lane's type.

/// f32, i32 or u32. Integer arithmetic wraps.
pub trait Number: Copy + Default + PartialOrd + Send + Sync + 'static {
    /// What a sum starts from.
    const ZERO: Self;
    /// What a product starts from.
    const ONE: Self;
    /// Below or equal to every number: what a maximum starts from.
    const LOWEST: Self;
    /// Above or equal to every number: what a minimum starts from.
    const HIGHEST: Self;
    /// The sum.
    fn plus(self, b: Self) -> Self;
    /// The product.
    fn times(self, b: Self) -> Self;
    /// Never, for integers.
    fn is_nan(self) -> bool;

    /// The larger; NaN if either is, as PyTorch.
    #[inline(always)]
    fn greatest(self, b: Self) -> Self {
        // x86's max gives the second operand where either is NaN: `beyond` is right but where `self` alone is
        let beyond = if self > b { self } else { b };
        if self.is_nan() { self } else { beyond }
    }

    /// The smaller; NaN if either is, as PyTorch.
    #[inline(always)]
    fn least(self, b: Self) -> Self {
        let beyond = if self < b { self } else { b };
        if self.is_nan() { self } else { beyond }
    }
}

impl Number for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const LOWEST: f32 = f32::NEG_INFINITY;
    const HIGHEST: f32 = f32::INFINITY;
    #[inline(always)]
    fn plus(self, b: f32) -> f32 {
        self + b
    }
    #[inline(always)]
    fn times(self, b: f32) -> f32 {
        self * b
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }
}

macro_rules! whole_number {
    ($T:ty) => {
        impl Number for $T {
            const ZERO: $T = 0;
            const ONE: $T = 1;
            const LOWEST: $T = <$T>::MIN;
            const HIGHEST: $T = <$T>::MAX;
            #[inline(always)]
            fn plus(self, b: $T) -> $T {
                self.wrapping_add(b)
            }
            #[inline(always)]
            fn times(self, b: $T) -> $T {
                self.wrapping_mul(b)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
        }
    };
}

whole_number!(i32);
whole_number!(u32);
