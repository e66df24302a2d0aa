//! Measured choices: the fastest tiling of each product on a device, as a table with a text form. Kernel generation consults it
//! before its cost model. Plain data; the `session` room measures.
//!
//! ```text
//! weft-tuning 1
//! device NVIDIA H200
//! gpu.threads 1024                  # and the other limits of the device, as in its profile
//! product 1 4096 384 384 k:f32 k:f32 four full rule_us=31.2 us=24.1 tiled tile=64x96x16 block=8x4 slices=1 …
//! product 1 4096 1536 384 k:f32 k:f32 four norm full rule_us=55.0 us=55.0 rule
//! device …                          # a file may contain several
//! ```
//!
//! A product's line is batch, m, n, k; for A and for B the axis along which it is vectorised, and its dtype; the properties of
//! the product that apply: `four` (C is stored four columns at a time), `norm`, `gated_columns`, `concurrent`, `windows`; the
//! precision; the microseconds of the cost model's choice and of the best one; `transpose_weight` if the best one reads B, a
//! weight, transposed; the best tiling, or `rule` if that is the cost model's. Files of earlier versions, with the words
//! `halves`, `beside` and `turned`, are still read.

use super::product::{Along, Cut, ProductClass, Shape};
use super::{DeviceProfile, Limits, Precision};
use crate::error::{Error, Result};
use crate::file::write_atomically;
use crate::tensor::DType;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The measurement for a product.
///
/// ```
/// fn shown(product: &weft::profile::TunedProduct) -> String {
///     format!("{}: {:.1} µs for {:.1}", product.class, product.us, product.rule_us)
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TunedProduct {
    /// The class of products.
    pub class: ProductClass,
    /// Whether reading B, a weight, transposed is best: it is transposed once, at init.
    pub transpose_weight: bool,
    /// The best tiling, for the transposed B if so; `None` if the cost model's choice is best.
    pub cut: Option<Cut>,
    /// Microseconds of the cost model's choice.
    pub rule_us: f64,
    /// Microseconds of the best tiling.
    pub us: f64,
}

/// The measurements for a device.
///
/// ```
/// let tuning: weft::profile::Tuning = "weft-tuning 1".parse()?;
/// for device in tuning.devices() {
///     println!("{}: {} products", device.name, device.products.len());
/// }
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TunedDevice {
    /// Its name.
    pub name: String,
    /// Its limits: kernels depend on them.
    pub limits: Limits,
    /// Products, one for each class.
    pub products: Vec<TunedProduct>,
}

/// Measured choices for one or more devices: `Tuning::measure` makes them, `Compiler::with_tuning` uses them.
///
/// ```
/// use weft::prelude::*;
/// use weft::profile::Tuning;
///
/// let mut tuning = Tuning::default();
/// tuning.merge(&"weft-tuning 1".parse()?);
/// let device = Device::cpu(1);
/// assert!(tuning.check(&device.profile()).is_err()); // it has nothing of that device
/// let compiler = Compiler::new(&device).with_tuning(&tuning); // and changes nothing there
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuning {
    devices: Vec<TunedDevice>,
}

/// The first line of the text form.
const OPENS: &str = "weft-tuning 1";
/// Maximum bytes of a file.
const MOST_BYTES: u64 = 64 << 20;

impl Tuning {
    /// The measurements of all devices.
    pub fn devices(&self) -> &[TunedDevice] {
        &self.devices
    }

    /// The measurements for a device with the same name and limits. None for a CPU, which has nothing to tune.
    pub fn of(&self, profile: &DeviceProfile) -> Option<&TunedDevice> {
        let limits = profile.gpu.as_ref()?;
        self.devices.iter().find(|d| d.name == profile.name && d.limits == *limits)
    }

    /// Checks that there are measurements for a device.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the devices with measurements.
    pub fn check(&self, profile: &DeviceProfile) -> Result<()> {
        if self.of(profile).is_some() {
            return Ok(());
        }
        let same = self.devices.iter().find(|d| d.name == profile.name);
        let came = match (same, self.devices.len()) {
            (Some(_), _) if profile.gpu.is_some() => {
                format!("those of a {} with other limits", profile.name)
            }
            (_, 0) => "none".to_string(),
            _ => self.devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", "),
        };
        Err(Error::argument("tuning", format!("measurements of {}", profile.name), came))
    }

    /// Adds a measurement, replacing an earlier one for the same products on that device. Ignored for a CPU.
    pub fn insert(&mut self, profile: &DeviceProfile, product: TunedProduct) {
        let Some(limits) = &profile.gpu else { return };
        let same = |d: &TunedDevice| d.name == profile.name && d.limits == *limits;
        let at = self.devices.iter().position(same).unwrap_or_else(|| {
            let (name, limits) = (profile.name.clone(), limits.clone());
            self.devices.push(TunedDevice { name, limits, products: vec![] });
            self.devices.len() - 1
        });
        let products = &mut self.devices[at].products;
        products.retain(|p| p.class != product.class);
        products.push(product);
    }

    /// Adds another tuning's measurements, which replace those for the same products on the same devices.
    pub fn merge(&mut self, other: &Tuning) {
        for from in &other.devices {
            let same = |d: &&mut TunedDevice| d.name == from.name && d.limits == from.limits;
            match self.devices.iter_mut().find(same) {
                Some(into) => {
                    let newer = |p: &TunedProduct| from.products.iter().any(|q| q.class == p.class);
                    into.products.retain(|p| !newer(p));
                    into.products.extend(from.products.iter().cloned());
                }
                None => self.devices.push(from.clone()),
            }
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Config`] with the wrong line; [`Error::Argument`] for implausible limits.
    pub fn load(path: impl AsRef<Path>) -> Result<Tuning> {
        let path = path.as_ref();
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, "read", &e))?.len();
        if size > MOST_BYTES {
            let came = format!("a file of {size} bytes");
            return Err(wrong(&format!("a tuning of at most {MOST_BYTES} bytes"), &came));
        }
        let text = std::fs::read(path).map_err(|e| Error::io(path, "read", &e))?;
        let text = String::from_utf8(text).map_err(|_| wrong("UTF-8", "other bytes"))?;
        text.parse()
    }

    /// Writes a file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path, |out| out.write_all(self.to_string().as_bytes()))
    }
}

fn wrong(wanted: &str, came: &str) -> Error {
    Error::config("tuning", wanted, format!("{:?}", came.chars().take(120).collect::<String>()))
}

/// Words for the properties of a product.
const FORMS: [&str; 5] = ["four", "norm", "gated_columns", "concurrent", "windows"];

/// The word for a transposed weight.
const TRANSPOSED: &str = "transpose_weight";

/// Words of earlier versions, which are still read, with the current ones.
const FORMER: [(&str, &str); 3] =
    [("halves", "gated_columns"), ("beside", "concurrent"), ("turned", TRANSPOSED)];

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{OPENS}")?;
        for TunedDevice { name, limits, products } in &self.devices {
            writeln!(f, "device {name}")?;
            limits.fields().into_iter().try_for_each(|(key, value)| writeln!(f, "{key} {value}"))?;
            products.iter().try_for_each(|p| writeln!(f, "product {}", Line(p)))?;
        }
        Ok(())
    }
}

/// A product's line.
struct Line<'a>(&'a TunedProduct);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // a new field is an error here
        let TunedProduct { class, transpose_weight, cut, rule_us, us } = self.0;
        let ProductClass { shape, a, b, windows, precision } = class;
        let &Shape { batch, m, n, k, a_vec, b_vec, c_vec, norm, gated_columns, concurrent } = shape;
        write!(f, "{batch} {m} {n} {k} {}:{a} {}:{b}", a_vec.name(), b_vec.name())?;
        for (name, is) in FORMS.iter().zip([c_vec, norm, gated_columns, concurrent, *windows]) {
            if is {
                write!(f, " {name}")?;
            }
        }
        write!(f, " {precision} rule_us={rule_us} us={us} ")?;
        if *transpose_weight {
            write!(f, "{TRANSPOSED} ")?;
        }
        match cut {
            Some(cut) => write!(f, "{cut}"),
            None => f.write_str("rule"),
        }
    }
}

impl FromStr for Tuning {
    type Err = Error;

    /// Reads the text form; a `#` at the start of a line starts a comment.
    ///
    /// # Errors
    /// [`Error::Config`] with the wrong line, [`Error::Argument`] for implausible limits.
    fn from_str(text: &str) -> Result<Tuning> {
        let mut lines = text
            .strip_prefix('\u{feff}')
            .unwrap_or(text)
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        let first = lines.next().unwrap_or("");
        if first != OPENS {
            return Err(wrong(&format!("the first line {OPENS:?}"), first));
        }
        let mut devices: Vec<TunedDevice> = vec![];
        let mut known: std::collections::BTreeSet<ProductClass> = Default::default();
        for line in lines {
            let (key, rest) = line.split_once(' ').ok_or_else(|| wrong("a name and a value", line))?;
            if key == "device" {
                known.clear();
                let limits = Limits::least();
                devices.push(TunedDevice { name: rest.trim().into(), limits, products: vec![] });
                continue;
            }
            let device = devices.last_mut().ok_or_else(|| wrong("a line that begins with device", line))?;
            if key == "product" {
                let product = product(rest).ok_or_else(|| wrong("a valid product", line))?;
                if !known.insert(product.class) {
                    return Err(wrong("each product of a device once", line));
                }
                device.products.push(product);
                continue;
            }
            let value = rest.trim().parse().map_err(|_| wrong(&format!("{key} and a number"), line))?;
            if !device.products.is_empty() || !device.limits.set(key, value) {
                return Err(wrong("device, the device's gpu.…, then its products", line));
            }
        }
        for (i, d) in devices.iter().enumerate() {
            d.limits.check()?;
            if devices[..i].iter().any(|e| e.name == d.name && e.limits == d.limits) {
                return Err(wrong("each device once", &d.name));
            }
        }
        Ok(Tuning { devices })
    }
}

/// Extents that kernels count in 32 bits.
const MOST: u32 = u32::MAX / 2;

/// A word in its current form.
fn current(word: &str) -> &str {
    FORMER.iter().find(|(former, _)| *former == word).map_or(word, |(_, now)| *now)
}

/// Parses the rest of a product's line.
fn product(text: &str) -> Option<TunedProduct> {
    let mut words = text.split_whitespace().map(current).peekable();
    let mut extent = || words.next()?.parse::<u32>().ok().filter(|n| (1..=MOST).contains(n));
    let [batch, m, n, k] = [extent()?, extent()?, extent()?, extent()?];
    let mut operand = || {
        let (along, dtype) = words.next()?.split_once(':')?;
        let along = Along::ALL.iter().find(|a| a.0 == along)?.1;
        Some((along, DType::from_name(dtype)?))
    };
    let ((a_vec, a), (b_vec, b)) = (operand()?, operand()?);
    let [c_vec, norm, gated_columns, concurrent, windows] =
        FORMS.map(|name| words.next_if_eq(&name).is_some());
    let precision = match words.next()? {
        "full" => Precision::Full,
        "fast" => Precision::Fast,
        _ => return None,
    };
    let mut time = |key: &str| {
        let (name, value) = words.next()?.split_once('=')?;
        let value: f64 = value.parse().ok()?;
        (name == key && value.is_finite() && value >= 0.0).then_some(value)
    };
    let (rule_us, us) = (time("rule_us")?, time("us")?);
    let transpose_weight = words.next_if_eq(&TRANSPOSED).is_some();
    let cut = match words.next()? {
        "rule" => None,
        kernel => Some(cut(kernel, &mut words)?),
    };
    let shape = Shape { batch, m, n, k, a_vec, b_vec, c_vec, norm, gated_columns, concurrent };
    let class = ProductClass { shape, a, b, windows, precision };
    words.next().is_none().then_some(TunedProduct { class, transpose_weight, cut, rule_us, us })
}

/// A kernel's numbers, in order.
fn cut<'a>(kernel: &str, words: &mut impl Iterator<Item = &'a str>) -> Option<Cut> {
    let at = Cut::KERNELS.iter().position(|(name, _)| *name == kernel)?;
    let mut numbers = vec![];
    for (field, count, _) in Cut::KERNELS[at].1 {
        let value = words.next()?.strip_prefix(field)?.strip_prefix('=')?;
        let before = numbers.len();
        for number in value.split('x') {
            numbers.push(number.parse().ok()?);
        }
        if numbers.len() != before + count {
            return None;
        }
    }
    Cut::of(at, &numbers)
}

#[cfg(test)]
#[path = "tuning_tests.rs"]
mod tests;
