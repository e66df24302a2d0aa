//! Serialises measured tilings of products by class. Numbers are bounded when read; whether a tiling is valid for its product
//! and the device is checked at kernel generation, which falls back to the cost model's choice.

use super::read::{Damage, Read};
use super::{Reader, Writer};
use crate::profile::{Cut, ProductClass, Shape};

impl Writer {
    pub(crate) fn cut(&mut self, (class, cut): &(ProductClass, Cut)) {
        let ProductClass { shape, a, b, windows, precision } = class;
        let Shape { batch, m, n, k, a_vec, b_vec, c_vec, norm, gated_columns, concurrent } = shape;
        [batch, m, n, k].into_iter().for_each(|v| self.word(u64::from(*v)));
        [a_vec, b_vec].into_iter().for_each(|v| self.code(*v));
        [c_vec, norm, gated_columns, concurrent, windows].into_iter().for_each(|v| self.flag(*v));
        [a, b].into_iter().for_each(|v| self.code(*v));
        self.code(*precision);
        let (kernel, numbers) = cut.numbers();
        self.size(kernel);
        self.list(&numbers, |w, v| w.word(u64::from(*v)));
    }
}

impl Reader {
    /// A 32-bit number.
    fn number(&mut self) -> Read<u32> {
        let v = self.word()?;
        u32::try_from(v).map_err(|_| Damage::new("a number of 32 bits", v.to_string()))
    }

    pub(crate) fn cut(&mut self) -> Read<(ProductClass, Cut)> {
        let [batch, m, n, k] = [self.number()?, self.number()?, self.number()?, self.number()?];
        let [a_vec, b_vec] = [self.code()?, self.code()?];
        let [c_vec, norm, gated_columns] = [self.flag()?, self.flag()?, self.flag()?];
        let [concurrent, windows] = [self.flag()?, self.flag()?];
        let shape = Shape { batch, m, n, k, a_vec, b_vec, c_vec, norm, gated_columns, concurrent };
        let [a, b] = [self.code()?, self.code()?];
        let class = ProductClass { shape, a, b, windows, precision: self.code()? };
        let (kernel, numbers) = (self.size()?, self.list(Reader::number)?);
        let cut = Cut::of(kernel, &numbers);
        let cut =
            cut.ok_or_else(|| Damage::new("a cut of a product", format!("kernel {kernel}, {numbers:?}")))?;
        Ok((class, cut))
    }
}
