//! Any bytes: an error or weights, never a panic; weights come back the same from a file of our own writing.
#![no_main]

use weft::load::{safetensors_bytes, to_bytes};
use weft::tensor::Bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let weights = match safetensors_bytes(Bytes::from_vec(bytes.to_vec())) {
        Ok(weights) => weights,
        Err(e) => return assert!(e.code() == 401 && !e.to_string().is_empty()),
    };
    let again = safetensors_bytes(Bytes::from_vec(to_bytes(&weights).expect("what was read can be written")))
        .expect("what we write can be read");
    assert_eq!(weights.len(), again.len());
    assert_eq!(weights.metadata(), again.metadata());
    for ((name, tensor), (other, read)) in weights.iter().zip(again.iter()) {
        assert_eq!((name, tensor.ty(), tensor.bytes()), (other, read.ty(), read.bytes()));
        assert_eq!(tensor.to_f64().len(), tensor.elements());
    }
});
