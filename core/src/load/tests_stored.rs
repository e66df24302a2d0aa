//! Dtypes that Weft does not compute with: listed, verified, preserved, converted if lossless or f64.

use super::tests_bad::file;
use super::tests_good::{folder, sample};
use super::*;
use crate::error::Error;
use crate::tensor::{Bytes, DType, Tensor, TensorType, Weights};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;

/// Every dtype of the `safetensors` crate that we do not compute with: its name, and what it becomes.
const FOREIGN: [(Dtype, &str, Option<DType>); 14] = [
    (Dtype::F64, "F64", Some(DType::F32)),
    (Dtype::I8, "I8", Some(DType::I32)),
    (Dtype::I16, "I16", Some(DType::I32)),
    (Dtype::U16, "U16", Some(DType::I32)),
    (Dtype::U64, "U64", Some(DType::I64)),
    (Dtype::C64, "C64", None),
    (Dtype::F8_E4M3, "F8_E4M3", None),
    (Dtype::F8_E5M2, "F8_E5M2", None),
    (Dtype::F8_E8M0, "F8_E8M0", None),
    (Dtype::F8_E4M3FNUZ, "F8_E4M3FNUZ", None),
    (Dtype::F8_E5M2FNUZ, "F8_E5M2FNUZ", None),
    (Dtype::F6_E2M3, "F6_E2M3", None),
    (Dtype::F6_E3M2, "F6_E3M2", None),
    (Dtype::F4, "F4", None),
];

/// A file that the `safetensors` crate writes: a foreign tensor of `[2, 4]` beside an f32 one.
fn theirs(dtype: Dtype, name: &str, data: &[u8]) -> Vec<u8> {
    let elements = data.len() * 8 / dtype.bitsize();
    let used = 1.5f32.to_le_bytes();
    let views = [
        (name, TensorView::new(dtype, vec![elements / 4, 4], data).unwrap()),
        ("used", TensorView::new(Dtype::F32, vec![1], &used).unwrap()),
    ];
    let notes = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(views, Some(notes)).unwrap()
}

fn load(bytes: Vec<u8>) -> crate::error::Result<Weights> {
    safetensors_bytes(Bytes::from_vec(bytes))
}

/// Weights of one foreign tensor "w" of those bytes.
fn only(dtype: Dtype, data: &[u8]) -> Weights {
    let view = TensorView::new(dtype, vec![data.len() * 8 / dtype.bitsize()], data).unwrap();
    load(safetensors::serialize([("w", view)], None).unwrap()).unwrap()
}

fn f64s(values: &[f64]) -> Weights {
    only(Dtype::F64, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

#[test]
fn each_dtype_is_no_reason_to_refuse_a_file() {
    let dir = folder("foreign");
    let path = dir.join("model.safetensors");
    for (dtype, name, becomes) in FOREIGN {
        let data: Vec<u8> = (0..dtype.bitsize() as u8).collect(); // eight elements
        std::fs::write(&path, theirs(dtype, "other", &data)).unwrap();
        let listed = inspect(&dir).unwrap();
        assert_eq!(listed.tensors.len(), 2);
        let other = &listed.tensors[0];
        assert_eq!((other.name.as_str(), other.dtype.name(), other.bytes), ("other", name, data.len()));
        assert_eq!((other.shape.as_slice(), other.dtype.used_as()), (&[2usize, 4][..], becomes));

        let weights = weights(&dir).unwrap();
        assert_eq!(weights.get("used").unwrap().to_vec::<f32>().unwrap(), [1.5]);
        assert_eq!(weights.len(), if becomes.is_some() { 2 } else { 1 });
        assert_eq!(
            weights.names().map(|(n, d)| (n, d.name())).collect::<Vec<_>>(),
            [("other", name), ("used", "f32")]
        );
        match becomes {
            Some(dtype) => assert_eq!(weights.get("other").unwrap().ty(), TensorType::new(dtype, [2, 4])),
            None => {
                assert!(weights.get("other").is_none());
                let why = weights.unusable("other").unwrap();
                assert_eq!(
                    why,
                    format!("{name}[2, 4], which Weft does not compute with: save it as F32, F16 or BF16")
                );
            }
        }
        assert_eq!((weights.unusable("used"), weights.unusable("none")), (None, None));

        // written as it came, converted or not
        let again = to_bytes(&weights).unwrap();
        let read = safetensors::SafeTensors::deserialize(&again).unwrap();
        let view = read.tensor("other").unwrap();
        assert_eq!((view.dtype(), view.shape(), view.data()), (dtype, &[2usize, 4][..], &data[..]));
        assert_eq!(load(again).unwrap().metadata()["format"], "pt");
    }
}

/// Two lists, of two makers: a dtype that only theirs has would be refused by name.
#[test]
fn every_dtype_of_the_safetensors_crate_is_known() {
    let known = FOREIGN.iter().map(|f| f.0).chain([
        Dtype::BOOL,
        Dtype::U8,
        Dtype::F16,
        Dtype::BF16,
        Dtype::I32,
        Dtype::U32,
        Dtype::F32,
        Dtype::I64,
    ]);
    let mut names: Vec<String> =
        known.map(|d| serde_json::to_value(d).unwrap().as_str().unwrap().into()).collect();
    // serde lists the crate's names where it is given another
    let refused = serde_json::from_str::<Dtype>("\"none\"").unwrap_err().to_string();
    let (_, all) = refused.split_once("expected one of ").unwrap();
    let mut all: Vec<String> = all.split('`').skip(1).step_by(2).map(String::from).collect();
    names.sort();
    all.sort();
    assert_eq!(names, all);
}

#[test]
fn headers_of_foreign_dtypes_are_checked_as_all_are() {
    let cases = [
        (
            r#"{"w":{"dtype":"F64","shape":[2],"data_offsets":[0,8]}}"#,
            8,
            r#"wanted tensor "w" F64[2] in 16 bytes, found 8 bytes"#,
        ),
        (
            r#"{"w":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,4]}}"#,
            4,
            r#"wanted tensor "w" F8_E4M3[3] in 3 bytes, found 4 bytes"#,
        ),
        (
            r#"{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#,
            2,
            r#"wanted a size in whole bytes, found tensor "w" F4[3]"#,
        ),
        (
            r#"{"w":{"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]}}"#,
            2,
            r#"wanted a size in whole bytes, found tensor "w" F6_E2M3[2]"#,
        ),
        (
            r#"{"w":{"dtype":"C64","shape":[2305843009213693952],"data_offsets":[0,8]}}"#,
            8,
            r#"wanted a size in bytes that can be counted, found tensor "w" C64[2305843009213693952]"#,
        ),
        (
            r#"{"w":{"dtype":"U16","shape":[4],"data_offsets":[0,8]}}"#,
            4,
            r#"wanted tensor "w" within the 4 bytes of data, found offsets 0 to 8"#,
        ),
        (
            r#"{"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"I8","shape":[4],"data_offsets":[2,6]}}"#,
            6,
            r#"wanted tensor "b" at offset 4, where "a" ends, found offset 2 (they overlap)"#,
        ),
        (
            r#"{"a":{"dtype":"I16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"I16","shape":[1],"data_offsets":[4,6]}}"#,
            6,
            r#"wanted tensor "b" at offset 2, where "a" ends, found offset 4 (a hole)"#,
        ),
        (
            r#"{"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]},"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}}"#,
            8,
            r#"the name "a" twice"#,
        ),
        (
            r#"{"w":{"dtype":"F128","shape":[1],"data_offsets":[0,16]}}"#,
            16,
            r#"found tensor "w" of unknown dtype "F128""#,
        ),
        (
            r#"{"w":{"dtype":"f64","shape":[1],"data_offsets":[0,8]}}"#,
            8,
            r#"found tensor "w" of unknown dtype "f64""#,
        ),
        (
            r#"{"__metadata__":{"weft.block.w":"q8 [32]"},"w":{"dtype":"I8","shape":[34],"data_offsets":[0,34]}}"#,
            34,
            "q8 [32] in I8[34] (34 bytes)",
        ),
    ];
    for (header, data, wanted) in cases {
        let e = load(file(header, data)).unwrap_err();
        assert_eq!(e.code(), 401);
        assert!(e.to_string().contains(wanted), "wanted {wanted} in {e}");
    }
    // two elements of 4 bits are a byte, four of 6 bits three, and no elements none
    for (header, data) in [
        (r#"{"w":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#, 1),
        (r#"{"w":{"dtype":"F6_E3M2","shape":[2,2],"data_offsets":[0,3]}}"#, 3),
        (r#"{"w":{"dtype":"F4","shape":[0,5],"data_offsets":[0,0]}}"#, 0),
    ] {
        let bytes = file(header, data);
        assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
        assert!(load(bytes).is_ok(), "{header}");
    }
}

#[test]
fn no_changed_header_byte_of_a_foreign_tensor_is_read_otherwise_than_the_crate_does() {
    for (dtype, _, _) in FOREIGN {
        let whole = theirs(dtype, "other", &vec![1; dtype.bitsize()]);
        let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
        for at in 0..header {
            for flip in [1u8, 2, 4, 8, 16, 64] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                let Ok(ours) = load(changed.clone()) else { continue };
                let theirs = safetensors::SafeTensors::deserialize(&changed).unwrap();
                ours.names().for_each(|(name, _)| drop(theirs.tensor(name).unwrap()));
            }
        }
    }
}

#[test]
fn f64_is_rounded_once_to_f32() {
    let just_above = 1.0 + f64::from(f32::EPSILON) / 2.0 + 1e-15; // a hair above the tie
    let values = [
        0.1,
        -0.0,
        1.0 + f64::from(f32::EPSILON) / 2.0,
        just_above,
        1e-45,
        1e-46,
        1e-50,
        f64::NAN,
        f64::INFINITY,
        f64::from(f32::MAX),
    ];
    let found = f64s(&values).get("w").unwrap().to_vec::<f32>().unwrap();
    let wanted = [
        0.1f32,
        -0.0,
        1.0,
        1.0 + f32::EPSILON,
        f32::from_bits(1),
        0.0,
        0.0,
        f32::NAN,
        f32::INFINITY,
        f32::MAX,
    ];
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!(
            found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan(),
            "{found}, wanted {wanted}"
        );
    }
    // what f32 cannot hold is not made infinite: the tensor cannot be used, the file can
    let weights = f64s(&[1.0, -1e300, 2.0]);
    assert!(weights.get("w").is_none());
    assert_eq!(weights.unusable("w").unwrap(), "F64[3] with -1e300 at position 1, which f32 cannot hold");
}

#[test]
fn integers_are_widened_where_nothing_is_lost() {
    let i8s = only(Dtype::I8, &[0, 127, 128, 255]);
    assert_eq!(i8s.get("w").unwrap().to_vec::<i32>().unwrap(), [0, 127, -128, -1]);
    let i16s = only(Dtype::I16, &[0x00, 0x80, 0xff, 0x7f]);
    assert_eq!(i16s.get("w").unwrap().to_vec::<i32>().unwrap(), [-32768, 32767]);
    let u16s = only(Dtype::U16, &[0x00, 0x80, 0xff, 0xff]);
    assert_eq!(u16s.get("w").unwrap().to_vec::<i32>().unwrap(), [32768, 65535]);
    let u64s = |v: [u64; 2]| only(Dtype::U64, &v.map(u64::to_le_bytes).concat());
    assert_eq!(u64s([7, 1 << 62]).get("w").unwrap().to_vec::<i64>().unwrap(), [7, 1 << 62]);
    let large = u64s([7, 1 << 63]);
    assert!(
        large.get("w").is_none()
            && large.unusable("w").unwrap().contains("at position 1, which i64 cannot hold")
    );
}

#[test]
fn where_shards_hold_a_tensor_twice_the_index_decides() {
    let dir = folder("twice");
    let index = dir.join("model.safetensors.index.json");
    let of = |all: &[(&str, f32)]| -> Weights {
        all.iter().map(|(n, v)| (n.to_string(), Tensor::scalar(*v))).collect()
    };
    save(dir.join("1.safetensors"), &of(&[("a", 1.0), ("both", 1.0), ("same", 5.0)])).unwrap();
    save(dir.join("2.safetensors"), &of(&[("b", 2.0), ("both", 2.0), ("same", 5.0)])).unwrap();
    let value = |w: &Weights, name: &str| w.get(name).unwrap().to_vec::<f32>().unwrap()[0];
    for (shard, wanted) in [("1", 1.0), ("2", 2.0)] {
        let map = format!(
            r#"{{"weight_map":{{"a":"1.safetensors","b":"2.safetensors","both":"{shard}.safetensors"}}}}"#
        );
        std::fs::write(&index, map).unwrap();
        let all = weights(&dir).unwrap();
        assert_eq!((value(&all, "both"), value(&all, "same"), all.len()), (wanted, 5.0, 4));
        let listed = inspect(&dir).unwrap().tensors;
        assert_eq!(listed.len(), 4);
        let both = listed.iter().find(|t| t.name == "both").unwrap();
        assert_eq!(both.file, dir.join(format!("{shard}.safetensors")));
    }
    // the index does not say which, and it matters
    std::fs::write(&index, r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#).unwrap();
    let e = weights(&dir).unwrap_err();
    assert!(matches!(e, Error::Config { .. }), "{e}");
    assert!(e.to_string().ends_with(r#"wanted the shard of tensor "both", found different ones in "1.safetensors" and "2.safetensors""#), "{e}");
}

#[test]
fn a_file_is_converted_as_its_weights_are() {
    let dir = folder("convert");
    let (from, to) = (dir.join("from.safetensors"), dir.join("to.safetensors"));
    let mut given = sample();
    let many: Vec<f32> = (0..100_000).map(|v| v as f32 * 0.37 - 5000.0).collect();
    given.insert("many", Tensor::from_vec([100_000], many).unwrap());
    save(&from, &given).unwrap();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let mut told = vec![];
        let done = convert(&from, &to, dtype, &mut |at, of| told.push((at, of))).unwrap();
        let (found, wanted) = (weights(&to).unwrap(), given.to_dtype(dtype).unwrap());
        assert_eq!((found.len(), found.metadata()), (wanted.len(), wanted.metadata()));
        for ((name, a), (_, b)) in found.iter().zip(wanted.iter()) {
            assert_eq!((a.ty(), a.bytes()), (b.ty(), b.contiguous().bytes()), "{name} to {dtype}");
        }
        // floats alone are others now
        for (name, tensor) in given.iter() {
            let now = if tensor.dtype().is_float() { dtype } else { tensor.dtype() };
            assert_eq!(found.get(name).unwrap().ty(), TensorType::new(now, tensor.shape()), "{name}");
            assert_eq!(done.converted.iter().any(|n| n == name), now != tensor.dtype(), "{name}");
        }
        assert_eq!(done.converted.len() + done.unchanged.len(), given.len());
        assert_eq!(done.bytes, [given.bytes() as u64, wanted.bytes() as u64]);
        assert!(told.is_sorted() && told.last() == Some(&(done.bytes[1], done.bytes[1])));
    }
    // over itself, and a set of shards
    convert(&from, &from, DType::BF16, &mut |_, _| {}).unwrap();
    assert_eq!(weights(&from).unwrap().get("many").unwrap().dtype(), DType::BF16);
    std::fs::write(
        dir.join("model.safetensors.index.json"),
        r#"{"weight_map":{"many":"from.safetensors","z":"1.safetensors"}}"#,
    )
    .unwrap();
    save(dir.join("1.safetensors"), &[("z".to_string(), Tensor::scalar(7f32))].into_iter().collect())
        .unwrap();
    convert(&dir, &to, DType::F16, &mut |_, _| {}).unwrap();
    assert_eq!(
        weights(&to).unwrap().get("z").unwrap().to_vec::<half::f16>().unwrap(),
        [half::f16::from_f32(7.0)]
    );
    assert_eq!(weights(&to).unwrap().len(), given.len() + 1);
}

#[test]
fn what_cannot_be_converted_leaves_the_old_file() {
    let dir = folder("unconverted");
    let (from, to) = (dir.join("from.safetensors"), dir.join("to.safetensors"));
    let large = Tensor::from_vec([3], vec![1f32, 70_000.0, -80_000.0]).unwrap();
    save(&from, &[("layer.weight".to_string(), large)].into_iter().collect()).unwrap();
    std::fs::write(&to, "old").unwrap();
    let wanted = r#"tensor "layer.weight": wanted values of at most 65504 in size, which f16 can hold, got -80000 at position 2"#;
    let none = &mut |_: u64, _: u64| {};
    assert_eq!(convert(&from, &to, DType::F16, none).unwrap_err().to_string(), wanted);
    assert_eq!(weights_as(&from, DType::F16).unwrap_err().to_string(), wanted);
    for dtype in [DType::I32, DType::Q8, DType::Bool] {
        let e = convert(&from, &to, dtype, none).unwrap_err().to_string();
        assert_eq!(e, format!("dtype: wanted f32, f16 or bf16, got {dtype}"));
        assert_eq!(weights_as(&from, dtype).unwrap_err().to_string(), e);
    }
    assert_eq!(convert(dir.join("none"), &to, DType::F16, none).unwrap_err().code(), 400);
    assert_eq!(std::fs::read(&to).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    // bf16 has the range of f32
    let found = weights_as(&from, DType::BF16).unwrap();
    assert_eq!(found.get("layer.weight").unwrap().to_f64(), [1.0, 70_144.0, -79_872.0]);
}

/// Files of F64 and of what cannot be computed with, too.
#[test]
fn foreign_floats_are_converted_and_the_rest_is_carried_along() {
    let dir = folder("carried");
    let (from, to) = (dir.join("from.safetensors"), dir.join("to.safetensors"));
    let doubles = [0.1f64, -3.5, 1e-9, 2048.5].map(f64::to_le_bytes).concat();
    for (dtype, data) in
        [(Dtype::F64, &doubles[..]), (Dtype::F8_E4M3, &[1, 2, 3, 4]), (Dtype::I16, &[1, 2, 3, 4, 5, 6, 7, 8])]
    {
        std::fs::write(&from, theirs(dtype, "other", data)).unwrap();
        let done = convert(&from, &to, DType::BF16, &mut |_, _| {}).unwrap();
        let bytes = std::fs::read(&to).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("used").unwrap().dtype(), Dtype::BF16);
        let other = read.tensor("other").unwrap();
        if dtype == Dtype::F64 {
            assert_eq!(other.dtype(), Dtype::BF16);
            let wanted: Vec<u8> = [0.1f32, -3.5, 1e-9, 2048.5]
                .iter()
                .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
                .collect();
            assert_eq!((other.data(), done.converted.len()), (&wanted[..], 2));
        } else {
            assert_eq!((other.dtype(), other.data(), done.converted.len()), (dtype, data, 1));
            assert_eq!(done.unchanged[0].0, "other");
        }
        assert_eq!(weights(&to).unwrap().metadata()["format"], "pt");
    }
}
