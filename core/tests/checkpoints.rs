//! Published weights files in sessions: only the tensors that a graph needs are read, in any supported dtype.

use weft::device::Device;
use weft::error::Error;
use weft::graph::Graph;
use weft::load;
use weft::session::{Compiled, Compiler, Optimizer, Session};
use weft::tensor::{Bytes, DType, Tensor, TensorType, Weights};

/// A safetensors file: names, dtypes, shapes and bytes, in the order of their data.
fn file(entries: &[(&str, &str, &str, Vec<u8>)]) -> Weights {
    let (mut header, mut data) = (vec![], vec![]);
    for (name, dtype, shape, bytes) in entries {
        let (from, to) = (data.len(), data.len() + bytes.len());
        header
            .push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#));
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{}}}", header.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    load::safetensors_bytes(Bytes::from_vec(file)).unwrap()
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// y = x·w + b, and the squared distance from a target.
fn line(training: bool) -> Compiled {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [8, 2]);
    let (w, b) = (g.parameter("w", [2, 1]), g.parameter("b", [1]));
    let y = g.add(g.matmul(x, w), b);
    g.output("y", y);
    let compiler = Compiler::new(&Device::cpu(1));
    if training {
        g.set_loss(g.mse_loss(y, g.input("target", DType::F32, [8, 1])));
        compiler.compile_training(&g).unwrap()
    } else {
        compiler.compile(&g).unwrap()
    }
}

const X: [f32; 16] = [1.0, 2.0, 3.0, -4.0, 0.0, 1.0, 2.0, 2.0, -1.0, 0.5, 0.25, 3.0, -2.0, -1.0, 1.0, 0.0];

fn outputs(mut session: Session) -> Vec<f32> {
    session.set_input("x", &X).unwrap();
    session.step().unwrap();
    session.read_output::<f32>("y").unwrap()
}

#[test]
fn what_no_graph_asks_for_may_have_any_dtype() {
    let odd = [
        ("F8_E4M3", 3, 3),
        ("F8_E5M2", 3, 3),
        ("C64", 1, 8),
        ("F4", 2, 1),
        ("F6_E2M3", 4, 3),
        ("I8", 3, 3),
        ("U64", 1, 8),
        ("U16", 2, 4),
        ("I16", 1, 2),
        ("F64", 1, 8),
    ];
    let (w, b) = ([0.5, -1.5], [2.0]);
    let wanted = outputs(
        line(false)
            .init(&file(&[("w", "F64", "[2,1]", doubles(&w)), ("b", "F64", "[1]", doubles(&b))]))
            .unwrap(),
    );
    let by_hand: Vec<f32> = X.chunks(2).map(|x| x[0] * 0.5 - x[1] * 1.5 + 2.0).collect();
    assert_eq!(wanted, by_hand);
    for (dtype, elements, bytes) in odd {
        let shape = format!("[{elements}]");
        let all = file(&[
            ("other", dtype, &shape, vec![0xff; bytes]),
            ("w", "F32", "[2,1]", w.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect()),
            ("b", "F64", "[1]", doubles(&b)),
        ]);
        let session = line(false).init(&all).unwrap();
        let said = format!("weight \"other\" ({dtype}[{elements}]) is not used by the graph");
        assert_eq!(session.warnings(), [said]);
        assert_eq!(outputs(session), wanted);
    }
}

#[test]
fn what_a_graph_needs_and_cannot_have_is_said() {
    let with = |dtype: &str, bytes: Vec<u8>| {
        let given = file(&[("w", dtype, "[2,1]", bytes), ("b", "F64", "[1]", doubles(&[1.0]))]);
        match line(false).init(&given).err() {
            Some(Error::WeightType { name, wanted, came }) => {
                assert_eq!((name.as_str(), wanted.as_str()), ("w", "f32[2, 1]"));
                came
            }
            other => panic!("{other:?}"),
        }
    };
    for (dtype, bytes) in [("F8_E4M3", 2), ("F8_E8M0", 2), ("C64", 16), ("F4", 1)] {
        let came = with(dtype, vec![0; bytes]);
        assert_eq!(
            came,
            format!("{dtype}[2, 1], which Weft does not compute with: save it as F32, F16 or BF16")
        );
    }
    assert_eq!(
        with("F64", doubles(&[1.0, -1e39])),
        "F64[2, 1] with -1e39 at position 1, which f32 cannot hold"
    );
    // integers are not floats, whatever they were
    assert_eq!(with("I8", vec![0; 2]), "i32[2, 1] (I8 in the file)");
    assert_eq!(with("F16", vec![0; 4]), "f16[2, 1]");
}

#[test]
fn a_table_of_small_integers_is_an_integer_parameter() {
    let g = Graph::new();
    let ids = g.parameter_of("ids", TensorType::new(DType::I32, [3]), false);
    g.output("y", g.cast(ids, DType::F32));
    let compiled = Compiler::new(&Device::cpu(1)).compile(&g).unwrap();
    for (dtype, bytes, wanted) in [
        ("I8", vec![1, 0xff, 0x80], [1.0, -1.0, -128.0]),
        ("I16", vec![1, 0, 0xff, 0xff, 0, 0x80], [1.0, -1.0, -32768.0]),
        ("U16", vec![1, 0, 0xff, 0xff, 0, 0x80], [1.0, 65535.0, 32768.0]),
    ] {
        let mut session = compiled.init(&file(&[("ids", dtype, "[3]", bytes)])).unwrap();
        session.step().unwrap();
        assert_eq!(session.read_output::<f32>("y").unwrap(), wanted, "{dtype}");
    }
}

/// A checkpoint of f16, bf16 or f64 is fine-tuned in f32, and saved as it was.
#[test]
fn a_checkpoint_of_any_floats_is_fine_tuned_in_f32() {
    let dir = std::env::temp_dir().join(format!("weft-checkpoints-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("model.safetensors");
    let first = [0.25, -0.75];
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let tensor = |shape: &[usize], values: &[f64]| {
            Tensor::from_f64(&TensorType::new(dtype, shape), values).unwrap()
        };
        let given: Weights =
            [("w".to_string(), tensor(&[2, 1], &first)), ("b".to_string(), tensor(&[1], &[0.5]))]
                .into_iter()
                .collect();
        load::save(&path, &given).unwrap();
        if dtype != DType::F32 {
            let e = line(true).init(&load::weights(&dir).unwrap()).err().unwrap();
            assert!(matches!(e, Error::WeightType { .. }), "{e}");
        }
        let mut session = line(true).init(&load::weights_as(&dir, DType::F32).unwrap()).unwrap();
        session.set_optimizer(Optimizer::sgd(0.05)).unwrap();
        let target: Vec<f32> = X.chunks(2).map(|x| x[0] - 2.0 * x[1] + 1.0).collect();
        let mut losses = vec![];
        for _ in 0..200 {
            session.set_input("x", &X).unwrap();
            session.set_input("target", &target).unwrap();
            session.step().unwrap();
            losses.push(session.read_output::<f32>("loss").unwrap()[0]);
        }
        assert!(losses[199] < losses[0] / 100.0, "{} to {}", losses[0], losses[199]);
        let learnt = session.parameters().to_weights().unwrap().to_dtype(dtype).unwrap();
        load::save(&path, &learnt).unwrap();
        let found = load::weights(&path).unwrap();
        let w = found.get("w").unwrap();
        assert_eq!(w.dtype(), dtype);
        assert!((w.to_f64()[0] - 1.0).abs() < 0.2 && (w.to_f64()[1] + 2.0).abs() < 0.2, "{:?}", w.to_f64());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
