//! Every kind of malformed weights is a typed error that says what was wanted and what came.

use super::tests_good::{folder, sample};
use super::*;
use crate::error::Error;
use crate::tensor::{Bytes, DType, Tensor, Weights};
use std::path::Path;

/// A safetensors file of that header and so many bytes of data.
pub(super) fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    bytes
}

fn load(bytes: Vec<u8>) -> crate::error::Result<Weights> {
    safetensors_bytes(Bytes::from_vec(bytes))
}

fn message(bytes: Vec<u8>) -> String {
    let e = load(bytes).unwrap_err();
    assert_eq!(e.code(), 401, "{e}");
    e.to_string().replace("bytes is not a valid safetensors file: ", "")
}

const DTYPES: &str = "F32, F16, BF16, I32, U32, I64, U8, BOOL, F64, I8, I16, U16, U64, C64, F8_E4M3, F8_E5M2, F8_E8M0, \
                      F8_E4M3FNUZ, F8_E5M2FNUZ, F6_E2M3, F6_E3M2, F4";

#[test]
fn each_malformed_header_says_what_was_wanted_and_what_came() {
    let f = |dtype: &str, shape: &str, from: i64, to: i64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let one = |name: &str, entry: String| format!(r#"{{"{name}":{entry}}}"#);
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let huge = "[4294967296,4294967296,4294967296]";
    let axes = format!("[{}1]", "1,".repeat(64));
    let cases: Vec<(String, usize, String)> = vec![
        (one("w", f("F32", "[2,3]", 0, 20)), 20, r#"wanted tensor "w" f32[2, 3] in 24 bytes, found 20 bytes"#.into()),
        (
            one("w", f("I4", "[4]", 0, 4)),
            4,
            format!(r#"wanted a dtype among {DTYPES}, found tensor "w" of unknown dtype "I4""#),
        ),
        (
            one("w", f("F32", huge, 0, 4)),
            4,
            r#"wanted a size in bytes that can be counted, found tensor "w" f32[4294967296, 4294967296, 4294967296]"#
                .into(),
        ),
        (one("w", f("U8", &axes, 0, 1)), 1, r#"wanted at most 64 axes, found tensor "w" with 65"#.into()),
        (
            one("w", f("F32", "[2]", 0, 8)),
            4,
            r#"wanted tensor "w" within the 4 bytes of data, found offsets 0 to 8"#.into(),
        ),
        (
            one("w", f("F32", "[2]", 8, 0)),
            8,
            r#"wanted tensor "w" within the 8 bytes of data, found offsets 8 to 0"#.into(),
        ),
        (
            one("w", f("F32", "[2]", i64::MAX - 8, i64::MAX)),
            8,
            r#"wanted tensor "w" within the 8 bytes of data, found offsets 9223372036854775799 to 9223372036854775807"#
                .into(),
        ),
        (
            two(f("F32", "[2]", 0, 8), f("F32", "[2]", 4, 12)),
            12,
            r#"wanted tensor "b" at offset 8, where "a" ends, found offset 4 (they overlap)"#.into(),
        ),
        (
            two(f("F32", "[2]", 0, 8), f("F32", "[2]", 12, 20)),
            20,
            r#"wanted tensor "b" at offset 8, where "a" ends, found offset 12 (a hole)"#.into(),
        ),
        (
            one("w", f("F32", "[2]", 4, 12)),
            12,
            r#"wanted tensor "w" at offset 0, where the header ends, found offset 4 (a hole)"#.into(),
        ),
        (
            one("w", f("F32", "[2]", 0, 8)),
            11,
            "wanted 8 bytes of data, as the tensors need, found 11".into(),
        ),
        (
            format!(r#"{{"a":{0},"a":{0}}}"#, f("U8", "[1]", 0, 1)),
            1,
            r#"wanted a well-formed header, found the name "a" twice at line 1 column 56"#.into(),
        ),
        (
            r#"{"__metadata__":{"k":"1","k":"2"}}"#.into(),
            0,
            r#"wanted a well-formed header, found the name "k" twice at line 1 column 33"#.into(),
        ),
        (
            one("w", f("F32", "[-2]", 0, 8)),
            8,
            "wanted a well-formed header, found invalid value: integer `-2`, expected usize at line 1 column 31"
                .into(),
        ),
        (
            r#"{"w":{"dtype":"F32","shape":[1]}}"#.into(),
            4,
            "wanted a well-formed header, found missing field `data_offsets` at line 1 column 32".into(),
        ),
        (
            r#"{"w":5}"#.into(),
            4,
            "wanted a well-formed header, found invalid type: integer `5`, expected a tensor's dtype, shape and data_offsets at line 1 column 6"
                .into(),
        ),
        (
            "{not json}".into(),
            0,
            "wanted a JSON header, found key must be a string at line 1 column 2".into(),
        ),
        ("{} {}".into(), 0, "wanted a JSON header, found trailing characters at line 1 column 4".into()),
        ("[]".into(), 0, "wanted a JSON header beginning with '{', found '['".into()),
        (String::new(), 0, "wanted a JSON header beginning with '{', found an empty header".into()),
        (
            one("w", f("BOOL", "[2]", 0, 2)).replace(",2]", ",3]").replace("[2]", "[3]"),
            3,
            String::new(), // three bytes of 1: fine
        ),
        (
            r#"{"__metadata__":{"weft.block.w":"q8 [32]"}}"#.into(),
            0,
            r#"wanted metadata "weft.block.w" true of a U8 tensor, found no tensor "w""#.into(),
        ),
        (
            format!(r#"{{"__metadata__":{{"weft.block.w":"q8 [64]"}},"w":{}}}"#, f("U8", "[34]", 0, 34)),
            34,
            r#"wanted metadata "weft.block.w" true of a U8 tensor, found q8 [64] in u8[34] (34 bytes)"#.into(),
        ),
        (
            format!(r#"{{"__metadata__":{{"weft.block.w":"f32 [1]"}},"w":{}}}"#, f("U8", "[4]", 0, 4)),
            4,
            r#"wanted metadata "weft.block.w" true of a U8 tensor, found "f32 [1]""#.into(),
        ),
    ];
    for (header, data, expected) in cases {
        match expected.as_str() {
            "" => assert!(load(file(&header, data)).is_ok(), "{header}"),
            _ => assert_eq!(message(file(&header, data)), expected, "{header}"),
        }
    }
}

#[test]
fn each_malformed_beginning_says_what_was_wanted_and_what_came() {
    let length = |n: u64| n.to_le_bytes().to_vec();
    let cases = [
        (vec![], "wanted a header length and a JSON header, found an empty file"),
        (vec![1; 5], "wanted 8 bytes of header length, found a file of 5 bytes"),
        (
            length(u64::MAX),
            "wanted a header of at most 100000000 bytes, found a length of 18446744073709551615",
        ),
        (length(100_000_001), "wanted a header of at most 100000000 bytes, found a length of 100000001"),
        // An entry-count bomb: claims to be large, is not, and must not be allocated for.
        (
            length(100_000_000),
            "wanted a header of 100000000 bytes, as its length says, found 0 bytes to the end of the file",
        ),
        (
            [length(2), vec![b'{']].concat(),
            "wanted a header of 2 bytes, as its length says, found 1 bytes to the end of the file",
        ),
        ([length(2), b"{\xff".to_vec()].concat(), "wanted a JSON header in UTF-8, found another byte at 1"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec(),
            "wanted a header length and a JSON header, found a Git LFS pointer (fetch the file itself: git lfs pull)",
        ),
        (b"GGUF\x03\0\0\0".to_vec(), "wanted a header length and a JSON header, found a GGUF file"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(message(bytes), expected);
    }
    let mut bools = file(r#"{"w":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}"#, 2);
    *bools.last_mut().unwrap() = 7;
    assert_eq!(message(bools), r#"wanted tensor "w" of booleans, 0 or 1, found 7 at position 1"#);
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    assert!(message(file(&deep, 0)).starts_with("wanted a"));
}

/// "Entry count bomb": a real header of very many tensors loads or fails in time and memory linear in the file.
#[test]
fn very_many_entries_are_only_as_large_as_the_file() {
    let entries: Vec<String> =
        (0..50_000).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    assert!(load(file(&format!("{{{}}}", entries.join(",")), 0)).unwrap().is_empty());
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_no_changed_header_byte_panics() {
    let whole = to_bytes(&sample()).unwrap();
    for cut in 0..whole.len() {
        assert_eq!(load(whole[..cut].to_vec()).unwrap_err().code(), 401, "cut at {cut}");
    }
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    for at in 0..header {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            if let Ok(weights) = load(changed) {
                weights.iter().for_each(|(_, t)| assert_eq!(t.to_f64().len(), t.elements()));
            }
        }
    }
}

#[test]
fn what_the_system_refuses_is_an_io_error_with_the_path() {
    let dir = folder("refused");
    let expect = |path: &Path, doing: &str, why: &str| match safetensors(path).unwrap_err() {
        Error::Io { path: p, doing: d, why: w, .. } => {
            assert_eq!((p.as_path(), d.as_str()), (path, doing));
            assert!(w.contains(why), "{w}");
        }
        e => panic!("{e}"),
    };
    expect(&dir, "read", "it is a folder");
    expect(&dir.join("none"), "open", "No such file");
    let message = weights(&dir).unwrap_err().to_string();
    assert!(message.starts_with("cannot find weights in ") && message.ends_with(".index.json"), "{message}");

    std::fs::write(dir.join("empty"), []).unwrap();
    let e = safetensors(dir.join("empty")).unwrap_err();
    assert!(e.to_string().ends_with("found an empty file"), "{e}");

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let locked = dir.join("locked");
        std::fs::write(&locked, to_bytes(&sample()).unwrap()).unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();
        // The superuser may read it all the same.
        if std::fs::read(&locked).is_err() {
            expect(&locked, "open", "denied");
        }
        expect(Path::new("/dev/null"), "read", "not a regular file");
    }
}

#[test]
fn each_wrong_index_is_named() {
    let dir = folder("index");
    let index = dir.join("model.safetensors.index.json");
    let one = |name: &str| -> Weights {
        [(name.to_string(), Tensor::from_vec([2], vec![1f32, 2.0]).unwrap())].into_iter().collect()
    };
    save(dir.join("1.safetensors"), &one("a")).unwrap();
    save(dir.join("2.safetensors"), &one("b")).unwrap();
    save(dir.join("3.safetensors"), &one("a")).unwrap();
    let path = index.display().to_string();
    let cases = [
        (
            r#"{"a":"../1.safetensors"}"#,
            r#"wanted names of files beside the index, found "../1.safetensors" for tensor "a""#,
        ),
        (
            r#"{"a":"/etc/passwd"}"#,
            r#"wanted names of files beside the index, found "/etc/passwd" for tensor "a""#,
        ),
        (r#"{"a":"c:\\x"}"#, r#"wanted names of files beside the index, found "c:\\x" for tensor "a""#),
        (r#"{"a":".."}"#, r#"wanted names of files beside the index, found ".." for tensor "a""#),
        ("{}", "wanted a weight_map from tensors to files, found an empty one"),
        (
            r#"{"a":"1.safetensors","b":"1.safetensors"}"#,
            r#"wanted tensor "b" in "1.safetensors", found it in no shard"#,
        ),
        (
            r#"{"a":"2.safetensors","b":"1.safetensors"}"#,
            r#"wanted tensor "a" in "2.safetensors", found it in "1.safetensors""#,
        ),
        (
            r#"{"a":"1.safetensors","x":"3.safetensors"}"#,
            r#"wanted tensor "x" in "3.safetensors", found it in no shard"#,
        ),
        (
            r#"{"a":"1.safetensors","a":"2.safetensors"}"#,
            r#"wanted a weight_map from tensors to files, found the name "a" twice at line 1 column 55"#,
        ),
        (
            "5",
            "wanted a weight_map from tensors to files, found invalid type: integer `5`, expected a map at line 1 column 15",
        ),
    ];
    for (map, expected) in cases {
        std::fs::write(&index, format!(r#"{{"weight_map":{map}}}"#)).unwrap();
        let e = weights(&dir).unwrap_err();
        assert_eq!(e.to_string(), format!("{path}: {expected}"));
        assert_eq!(inspect(&dir).unwrap_err(), e);
    }
    std::fs::write(&index, r#"{"weight_map":{"a":"1.safetensors","z":"9.safetensors"}}"#).unwrap();
    let e = weights(&dir).unwrap_err().to_string();
    assert!(e.starts_with("cannot open ") && e.contains("9.safetensors: No such file"), "{e}");
    std::fs::write(&index, "{").unwrap();
    assert_eq!(weights(&index).unwrap_err().code(), 402);
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let named = |name: &str, t: Tensor<'static>| to_bytes(&[(name.to_string(), t)].into_iter().collect());
    let empty = Tensor::from_vec::<f32>([0], vec![]).unwrap();
    let bools = Tensor::from_bytes(DType::Bool, [1], Bytes::from_vec(vec![3u8])).unwrap();
    let deep = Tensor::from_vec(vec![1; 65], vec![1f32]).unwrap();
    for (name, tensor, expected) in [
        ("w", empty, r#"save: wanted a tensor with elements, got "w" f32[0]"#),
        ("w", bools, r#"save: wanted booleans of 0 and 1, got "w" bool[1]"#),
        ("w", deep, "save: wanted at most 64 axes, got \"w\" f32[1, "),
        (
            "__metadata__",
            Tensor::scalar(1f32),
            r#"save: wanted a name other than __metadata__, got "__metadata__" f32[]"#,
        ),
    ] {
        let e = named(name, tensor).unwrap_err().to_string();
        assert!(e.starts_with(expected), "{e}");
    }
    let mut weights = Weights::new();
    weights.metadata_mut().insert("weft.block.x".into(), "q8 [32]".into());
    let e = to_bytes(&weights).unwrap_err().to_string();
    assert_eq!(e, r#"metadata: wanted keys not beginning with weft.block., got "weft.block.x""#);
}

#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_beside_it() {
    let dir = folder("failed");
    let path = dir.join("w");
    std::fs::write(&path, "old").unwrap();
    let e = write_atomically(&path, |out| {
        out.write_all(b"half of the n")?;
        Err(std::io::Error::other("power cut"))
    });
    assert!(e.unwrap_err().to_string().ends_with("power cut"));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(save(dir.join("none/w"), &sample()).unwrap_err().code(), 400);
    assert_eq!(save(dir.join(".."), &sample()).unwrap_err().code(), 307);
}
