//! What is written is read back the same, by us and by the `safetensors` crate; maps are not copied.

use super::tests_bad::file;
use super::*;
use crate::tensor::{Bytes, DType, StoredDType, Tensor, TensorType, Weights};
use std::path::{Path, PathBuf};

/// An empty folder of a test's own, removed after it.
pub(super) struct Folder(PathBuf);

pub(super) fn folder(name: &str) -> Folder {
    let dir = std::env::temp_dir().join(format!("weft-load-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    Folder(dir)
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// A tensor of every dtype, a scalar, a transposed view, and metadata.
pub(super) fn sample() -> Weights {
    let mut weights = Weights::new();
    for (i, dtype) in DType::ALL.into_iter().enumerate() {
        let values: Vec<f64> = (0..96).map(|v| f64::from((v * 7 + i as i32) % 2)).collect();
        let ty = TensorType::new(dtype, [3, 32]);
        weights.insert(format!("layer.{dtype}"), Tensor::from_f64(&ty, &values).unwrap());
    }
    weights.insert("odd", Tensor::from_vec([3], vec![1u8, 2, 3]).unwrap());
    weights.insert("scalar", Tensor::scalar(0.25f32));
    let wide = Tensor::from_vec([2, 3], vec![1i64, 2, 3, 4, 5, -6]).unwrap();
    weights.insert("transposed \"é\n", wide.transposed().unwrap());
    weights.metadata_mut().insert("format".into(), "pt".into());
    weights
}

fn assert_same(a: &Weights, b: &Weights) {
    assert_eq!(a.len(), b.len());
    assert_eq!(a.metadata(), b.metadata());
    for ((name, t), (other, u)) in a.iter().zip(b.iter()) {
        assert_eq!((name, t.ty()), (other, u.ty()));
        assert_eq!(t.contiguous().bytes(), u.contiguous().bytes(), "{name}");
    }
}

#[test]
fn saved_weights_load_equal_and_mapped() {
    let dir = folder("good");
    let path = dir.join("model.safetensors");
    save(&path, &sample()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), to_bytes(&sample()).unwrap());
    let loaded = weights(&dir).unwrap();
    assert_same(&sample(), &loaded);
    assert_same(&loaded, &safetensors(&path).unwrap());
    // Views of one map: all within the file's length of one another.
    let starts: Vec<usize> = loaded.iter().map(|(_, t)| t.bytes().as_ptr().addr()).collect();
    let span = starts.iter().max().unwrap() - starts.iter().min().unwrap();
    assert!(span < std::fs::metadata(&path).unwrap().len() as usize);
    // Optimization over the very file that is mapped keeps what is mapped.
    save(&path, &loaded).unwrap();
    assert_same(&sample(), &loaded);
    assert_same(&sample(), &safetensors(&path).unwrap());
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn the_safetensors_crate_reads_what_we_write_and_we_what_it_writes() {
    use safetensors::SafeTensors;
    let ours = to_bytes(&sample()).unwrap();
    let theirs = SafeTensors::deserialize(&ours).unwrap();
    assert_eq!(theirs.len(), sample().len());
    for (name, tensor) in sample().iter() {
        let view = theirs.tensor(name).unwrap();
        assert_eq!(view.data(), tensor.contiguous().bytes(), "{name}");
        if !tensor.dtype().is_block() {
            assert_eq!(view.shape(), tensor.shape());
        }
    }
    let plain: Vec<_> = theirs.tensors().into_iter().filter(|(n, _)| !n.contains(".q")).collect();
    let written = safetensors::serialize(plain, None).unwrap();
    let mut expected = sample();
    for block in ["layer.q8", "layer.q4"] {
        expected.remove(block);
    }
    expected.metadata_mut().clear();
    assert_same(&expected, &safetensors_bytes(Bytes::from_vec(written)).unwrap());
}

/// Two readers of one format: what the crate refuses we refuse; we may refuse more, never read otherwise.
#[test]
fn the_safetensors_crate_refuses_nothing_that_we_accept() {
    let whole = to_bytes(&sample()).unwrap();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let mut accepted = 0;
    for at in 0..header {
        for flip in [1u8, 3, 4, 16, 64] {
            let mut changed = whole.clone();
            changed[at] ^= flip;
            let Ok(ours) = safetensors_bytes(Bytes::from_vec(changed.clone())) else { continue };
            let theirs = safetensors::SafeTensors::deserialize(&changed).unwrap();
            for (name, t) in ours.iter() {
                assert_eq!(theirs.tensor(name).unwrap().data(), t.bytes());
            }
            accepted += 1;
        }
    }
    assert!(accepted > 50); // changed names and metadata
}

#[test]
fn misaligned_data_loads_as_an_aligned_copy() {
    for pad in 0..8 {
        let header =
            r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#.to_string() + &" ".repeat(pad);
        let mut bytes = file(&header, 0);
        bytes.extend_from_slice(bytemuck::cast_slice(&[1.5f32, -2.0]));
        let weights = safetensors_bytes(Bytes::from_vec(bytes)).unwrap();
        assert_eq!(weights.get("w").unwrap().as_slice::<f32>(), Some(&[1.5f32, -2.0][..]));
    }
}

#[test]
fn tensors_without_elements_are_listed_but_not_loaded() {
    let dir = folder("zero");
    let header = r#"{"none":{"dtype":"F32","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[1,1]},
        "w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":null}"#;
    std::fs::write(dir.join("1.safetensors"), file(header, 1)).unwrap();
    let index = r#"{"metadata":{"total_size":1},"weight_map":{"none":"1.safetensors","w":"1.safetensors"}}"#;
    std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(weights(&dir).unwrap().iter().map(|(n, _)| n).collect::<Vec<_>>(), ["w"]);
    let listed = inspect(&dir).unwrap();
    assert_eq!(
        listed.tensors.iter().map(|t| (t.name.as_str(), t.bytes)).collect::<Vec<_>>(),
        [("none", 0), ("w", 1)]
    );
}

#[test]
fn shards_load_as_one_set() {
    let dir = folder("shards");
    let mut parts = [Weights::new(), Weights::new()];
    let mut map = std::collections::BTreeMap::new();
    for (i, (name, tensor)) in sample().iter().enumerate() {
        parts[i % 2].insert(name, tensor.clone());
        map.insert(name.to_string(), format!("{}.safetensors", i % 2));
    }
    *parts[0].metadata_mut() = sample().metadata().clone();
    save(dir.join("0.safetensors"), &parts[0]).unwrap();
    save(dir.join("1.safetensors"), &parts[1]).unwrap();
    let index = dir.join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({"weight_map": map}).to_string()).unwrap();
    assert_same(&sample(), &weights(&dir).unwrap());
    assert_same(&sample(), &weights(&index).unwrap());

    let listed = inspect(&dir).unwrap();
    assert_eq!(&listed.metadata, sample().metadata());
    assert_eq!(listed.tensors.len(), sample().len());
    for (info, (name, tensor)) in listed.tensors.iter().zip(sample().iter()) {
        let ty = (StoredDType::Known(tensor.dtype()), tensor.shape());
        assert_eq!((info.name.as_str(), (info.dtype, info.shape.as_slice())), (name, ty));
        assert_eq!(info.file, dir.join(&map[name]));
        assert_eq!(Some(info.bytes), tensor.ty().bytes());
    }
}

#[test]
fn no_weights_at_all_are_weights_too() {
    assert!(safetensors_bytes(Bytes::from_vec(to_bytes(&Weights::new()).unwrap())).unwrap().is_empty());
    assert!(safetensors_bytes(Bytes::from_vec(file("{}", 0))).unwrap().is_empty());
}
