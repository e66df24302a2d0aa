//! Any bytes: an error or weights, never a panic; weights come back the same from a file of our own writing, those too of
//! dtypes that Weft does not compute with.
#![no_main]

use weft::load::{safetensors_bytes, to_bytes};
use weft::tensor::{Bytes, DType};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let weights = match safetensors_bytes(Bytes::from_vec(bytes.to_vec())) {
        Ok(weights) => weights,
        Err(e) => return assert!(e.code() == 401 && !e.to_string().is_empty()),
    };
    let again = safetensors_bytes(Bytes::from_vec(to_bytes(&weights).expect("what was read can be written")))
        .expect("what we write can be read");
    assert_eq!(weights.len(), again.len());
    assert_eq!(weights.metadata(), again.metadata());
    assert!(weights.names().eq(again.names()));
    for (name, _) in weights.names() {
        assert_eq!(weights.unusable(name), again.unusable(name));
    }
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        match weights.to_dtype(dtype) {
            Ok(converted) => assert_eq!(converted.names().count(), weights.names().count()),
            Err(e) => assert!(e.code() == 307 && !e.to_string().is_empty()),
        }
    }
    for ((name, tensor), (other, read)) in weights.iter().zip(again.iter()) {
        assert_eq!((name, tensor.ty(), tensor.bytes()), (other, read.ty(), read.bytes()));
        assert_eq!(tensor.to_f64().len(), tensor.elements());
    }
});
