//! File format: a header of 64 bytes, then the contents that its hash covers.
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic |
//! | 4 | format version, little endian |
//! | 8 | size of the whole file in bytes |
//! | 32 | SHA-256 of everything after the header |
//! | 12 | zeros |
//!
//! Then, serialised as by [`wire`](crate::plan::wire): engine, device profile (its text form), metadata, weights, graphs.

use super::{Artifact, Weight, hash};
use crate::error::{Error, Result};
use crate::plan::FORMAT;
use crate::plan::wire::{Damage, Reader, Writer};
use crate::profile::{DeviceProfile, Precision};
use crate::session::Compiled;
use crate::target::Unverified;
use crate::tensor::{Bytes, TensorType};
use std::sync::Arc;

/// No text file starts like this, and conversions of line ends corrupt it detectably.
const MAGIC: [u8; 8] = *b"\x93WEFT\r\n\x1a";
/// Size of the header.
const HEAD: usize = 64;
/// The engine version that writes this format.
const ENGINE: &str = concat!("weft ", env!("CARGO_PKG_VERSION"));

/// A hash as hexadecimal text.
pub(super) fn hex(hash: Option<[u8; 32]>) -> String {
    hash.map_or("none".into(), |h| h.iter().take(8).map(|b| format!("{b:02x}")).collect())
}

pub(super) fn write(artifact: &Artifact) -> Result<Vec<u8>> {
    let Some(profile) = artifact.profile() else {
        return Err(Error::argument("artifact", "at least one graph", "none"));
    };
    let Artifact { graphs, metadata } = artifact;
    let mut w = Writer::default();
    w.raw(&[0; HEAD]);
    w.text(ENGINE);
    w.text(&profile.to_string());
    let metadata: Vec<(&String, &String)> = metadata.iter().collect();
    w.list(&metadata, |w, (key, value)| {
        w.text(key);
        w.text(value);
    });
    w.list(&artifact.weights(), |w, weight| {
        let Weight { name, ty, trainable, transformations } = weight;
        w.named(name, ty.dtype, &ty.shape);
        w.flag(*trainable);
        w.list(transformations, |w, (what, how)| {
            w.text(what);
            w.text(how);
        });
    });
    w.size(graphs.len());
    for (name, compiled) in graphs {
        w.text(name);
        w.code(compiled.precision);
        w.maybe(compiled.kernels, |w, hash| w.raw(&hash));
        w.target(&compiled.target)?;
    }
    let mut out = w.out;
    let hash = hash([&out[HEAD..]]);
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    let length = out.len() as u64;
    out[12..20].copy_from_slice(&length.to_le_bytes());
    out[20..52].copy_from_slice(&hash);
    Ok(out)
}

/// Why bytes are refused as an artifact.
struct Refusal {
    what: &'static str,
    damage: Box<Damage>,
}

fn refuse<T>(
    what: &'static str,
    wanted: impl Into<String>,
    came: impl Into<String>,
) -> std::result::Result<T, Refusal> {
    Err(Refusal { what, damage: Damage::new(wanted, came) })
}

impl From<Box<Damage>> for Refusal {
    fn from(damage: Box<Damage>) -> Refusal {
        Refusal { what: "contents", damage }
    }
}

/// Reads and verifies an artifact; its graphs are not yet on a device.
pub(super) fn read(bytes: Vec<u8>, file: &str) -> Result<Artifact> {
    let head = check_head(&bytes);
    head.and_then(|()| contents(&mut Reader::new(Bytes::from_vec(bytes), HEAD))).map_err(|r| {
        Error::Artifact {
            file: file.into(),
            what: r.what.into(),
            wanted: r.damage.wanted,
            came: r.damage.came,
        }
    })
}

fn check_head(bytes: &[u8]) -> std::result::Result<(), Refusal> {
    if !bytes.starts_with(&MAGIC) {
        let came: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        return refuse(
            "magic",
            "a compiled artifact of Weft",
            format!("a file that begins {}", came.join(" ")),
        );
    }
    if bytes.len() < HEAD {
        return refuse("length", format!("at least {HEAD} bytes"), format!("{}", bytes.len()));
    }
    let number =
        |from: usize, n: usize| bytes[from..from + n].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    if number(8, 4) != u64::from(FORMAT) {
        return refuse("format", format!("version {FORMAT}"), format!("version {}", number(8, 4)));
    }
    if number(12, 8) != bytes.len() as u64 {
        return refuse("length", format!("{} bytes", number(12, 8)), format!("{}", bytes.len()));
    }
    if bytes[52..HEAD].iter().any(|b| *b != 0) {
        return refuse("contents", "zeros at the head's end", "others");
    }
    let (wanted, came) = (&bytes[20..52], hash([&bytes[HEAD..]]));
    if *wanted != came {
        let hex = |h: &[u8]| h.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
        return refuse("hash", hex(wanted), hex(&came));
    }
    Ok(())
}

fn contents(r: &mut Reader) -> std::result::Result<Artifact, Refusal> {
    let engine = r.text()?;
    if engine != ENGINE {
        return refuse("engine", ENGINE, engine.chars().take(80).collect::<String>());
    }
    let profile = r.text()?.parse::<DeviceProfile>();
    let profile = Arc::new(profile.or_else(|e| refuse("contents", "a device profile", e.to_string()))?);
    let metadata = r.list(|r| Ok((r.text()?, r.text()?)))?.into_iter().collect();
    let manifest = r.list(weight)?;
    let mut artifact = Artifact { graphs: vec![], metadata };
    for (name, stored) in r.list(|r| graph(r, &profile))? {
        let Stored { precision, kernels, target } = stored;
        let target = match target.verified(profile.gpu.as_ref()) {
            Ok(target) => target,
            Err(flaw) => return refuse("plan", format!("{}: {}", flaw.part, flaw.wanted), flaw.came),
        };
        let mut compiled = Compiled::elsewhere(target, precision, profile.clone());
        compiled.kernels = kernels;
        artifact
            .add(name, &compiled)
            .or_else(|e| refuse("contents", "graphs over one set of weights", e.to_string()))?;
    }
    if artifact.graphs.is_empty() {
        return refuse("contents", "at least one graph", "none");
    }
    if manifest != artifact.weights() {
        return refuse("contents", "the weights that the graphs need", "others in the manifest");
    }
    match r.left() {
        0 => Ok(artifact),
        n => refuse("length", "nothing behind the last graph", format!("{n} bytes")),
    }
}

fn weight(r: &mut Reader) -> std::result::Result<Weight, Box<Damage>> {
    let (name, dtype, shape) = r.named()?;
    let trainable = r.flag()?;
    let transformations = r.list(|r| Ok((r.text()?, r.text()?)))?;
    if let Some((what, _)) = transformations.first() {
        return Err(Damage::new(
            "weights as they are in their file",
            format!("the transformation \"{what}\""),
        ));
    }
    Ok(Weight { name, ty: TensorType::new(dtype, shape), trainable, transformations })
}

/// A compiled graph as stored, not yet verified.
struct Stored {
    precision: Precision,
    kernels: Option<[u8; 32]>,
    target: Unverified,
}

fn graph(r: &mut Reader, profile: &DeviceProfile) -> std::result::Result<(String, Stored), Box<Damage>> {
    let name = r.text()?;
    let precision: Precision = r.code()?;
    let kernels = r.maybe(|r| {
        let mut hash = [0; 32];
        hash.copy_from_slice(r.raw(32)?);
        Ok(hash)
    })?;
    Ok((name, Stored { precision, kernels, target: r.target(profile.gpu.as_ref())? }))
}
