//! The public Rust API: typed data of every dtype by name, errors with causes, options, `Debug`, arrays.

use weft::error::Error;
use weft::ops::{Conv2dOptions, MaxPool2dOptions};
use weft::prelude::*;
use weft::session::Outputs;
use weft::tensor::{Element, bf16, f16};

fn session(g: &Graph) -> Session {
    Compiler::new(&Device::cpu(1)).compile(g).unwrap().init(&Weights::new()).unwrap()
}

/// An input of that type straight to an output: by `run`, by the parts of it, and as a tensor.
fn through<T: Element + PartialEq + std::fmt::Debug + Send + Sync>(elements: &[T]) {
    let g = Graph::new();
    g.output("y", g.reshape(g.input("x", T::DTYPE, [elements.len()]), &[1, -1]));
    let mut s = session(&g);
    let outputs = s.run(&[("x", &elements)]).unwrap();
    assert_eq!(outputs.read::<T>("y").unwrap(), elements);
    let all: Vec<(String, Tensor<'static>)> = outputs.clone().into_iter().collect();
    assert_eq!((all.len(), all[0].0.as_str(), all[0].1.shape()), (1, "y", &[1, elements.len()][..]));

    let backwards: Vec<T> = elements.iter().rev().copied().collect();
    s.set_input("x", &backwards).unwrap();
    s.step().unwrap();
    assert_eq!(s.read_output::<T>("y").unwrap(), backwards);
    let mut into = elements.to_vec();
    s.read_output_into(OutputIndex(0), &mut into).unwrap();
    assert_eq!(into, backwards);

    let tensor = Tensor::from_vec([elements.len()], elements.to_vec()).unwrap();
    assert_eq!(s.run(&[("x", &tensor)]).unwrap().read::<T>("y").unwrap(), elements);
    assert_eq!(tensor.as_slice::<T>().unwrap(), elements);
}

#[test]
fn every_dtype_goes_in_and_comes_out_as_it_is() {
    through(&[1.5f32, -0.0, f32::INFINITY, 3e-40]);
    through(&[1.5f64, -2.0, 6e-8].map(f16::from_f64));
    through(&[1.5f64, -2.0, 1e30].map(bf16::from_f64));
    through(&[i32::MIN, -1, i32::MAX]);
    through(&[0u32, 7, u32::MAX]);
    through(&[i64::MIN, -1, 1 << 60]);
    through(&[0u8, 200, 255]);
    through(&[true, false, false, true, true]);
}

fn said<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn data_of_another_dtype_length_or_shape_is_refused_by_name() {
    let g = Graph::new();
    g.output("y", g.neg(g.input("x", DType::F32, [2, 3])));
    let mut s = session(&g);
    assert_eq!(said(s.set_input("x", &[1, 2, 3])), "\"x\" holds f32 elements, but i32 came");
    assert_eq!(said(s.set_input("x", &[1.0])), "\"x\" is f32[2, 3] (6 elements), but 1 elements came");
    assert_eq!(said(s.run(&[("x", &[true; 6])])), "\"x\" holds f32 elements, but bool came");
    assert_eq!(said(s.run(&[("z", &[0.0f32; 6])])), "no input named \"z\"; there are: x");
    assert_eq!(said(s.run(&[])), "set these inputs before the step: \"x\"");
    let turned = Tensor::from_vec([3, 2], vec![0.0f32; 6]).unwrap();
    assert_eq!(said(s.run(&[("x", &turned)])), "\"x\" is f32[2, 3], but f32[3, 2] came");
    // a view is read in its own order
    let columns =
        Tensor::from_vec([3, 2], vec![1.0f32, 4.0, 2.0, 5.0, 3.0, 6.0]).unwrap().transposed().unwrap();
    let outputs = s.run(&[("x", &columns)]).unwrap();
    assert_eq!(outputs.read::<f32>("y").unwrap(), [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
    assert_eq!(said(outputs.read::<i32>("y")), "\"y\" holds f32 elements, but i32 came");
    assert_eq!(said(outputs.get("z")), "no output named \"z\"; there are: y");
    assert_eq!(said(s.read_output::<i32>("y")), "\"y\" holds f32 elements, but i32 came");
    assert_eq!(
        said(s.read_output::<f32>(OutputIndex(1))),
        "output 1 asked for, but the session has 1 (from 0)"
    );
    assert_eq!(said(s.set_parameter("w", &[1.0])), "no parameter named \"w\"; there are: ");
}

#[test]
fn parameters_of_every_dtype_are_read_and_written() {
    let g = Graph::new();
    let w = g.parameter_of("w", TensorType::new(DType::F16, [2]), false);
    g.output("y", g.cast(w, DType::F32));
    let mut s = Compiler::new(&Device::cpu(1)).compile(&g).unwrap().init_zeros().unwrap();
    s.set_parameter("w", &[f16::from_f32(1.5), f16::NAN]).unwrap();
    s.step().unwrap();
    assert_eq!(s.read_output::<f32>("y").unwrap()[0], 1.5);
    assert_eq!(s.read_parameter::<f16>("w").unwrap()[0].to_f32(), 1.5);
    assert_eq!(said(s.read_parameter::<f32>("w")), "\"w\" holds f16 elements, but f32 came");
    assert_eq!(said(s.set_parameter("w", &[1.5f32, 2.0])), "\"w\" holds f16 elements, but f32 came");
}

#[test]
fn a_training_run_hands_back_the_loss_and_trains() {
    let g = Graph::new();
    let error = g.term(g.parameter("w", [1])) - g.input("x", DType::F32, [1]);
    g.set_loss(g.mean_all(error * error));
    let mut s = Compiler::new(&Device::cpu(1)).compile_training(&g).unwrap().init_zeros().unwrap();
    s.set_optimizer(Optimizer::sgd(0.25)).unwrap();
    let losses: Vec<f32> = (0..3)
        .map(|_| {
            let outputs = s.run(&[("x", &[2.0f32])]).unwrap();
            let (name, loss) = outputs.iter().last().unwrap();
            assert_eq!(name, "loss");
            assert_eq!(loss.to_vec::<f32>().unwrap(), [s.loss().unwrap()]);
            s.loss().unwrap()
        })
        .collect();
    // w goes half of what is left each time
    assert_eq!(losses, [4.0, 1.0, 0.25]);
}

#[test]
fn options_are_what_the_text_form_says() {
    let g = Graph::new();
    let (x, w) = (g.input("x", DType::F32, [1, 2, 8, 8]), g.input("w", DType::F32, [4, 1, 3, 3]));
    let usual = g.conv2d(x, g.input("v", DType::F32, [4, 2, 3, 3]), None, Default::default());
    let other =
        g.conv2d(x, w, None, Conv2dOptions::new().stride([2, 1]).padding([1, 0]).dilation([1, 2]).groups(2));
    g.output("a", g.max_pool2d(usual, MaxPool2dOptions::new([3, 2])));
    g.output("b", g.max_pool2d(other, MaxPool2dOptions::new([2, 2]).stride([1, 2]).padding([0, 1])));
    let text = g.data().unwrap().to_string();
    for line in [
        "= conv2d(x, v, stride=[1, 1], padding=[0, 0], dilation=[1, 1], groups=1)",
        "= conv2d(x, w, stride=[2, 1], padding=[1, 0], dilation=[1, 2], groups=2)",
        "kernel=[3, 2], stride=[3, 2], padding=[0, 0])",
        "kernel=[2, 2], stride=[1, 2], padding=[0, 1])",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn what_is_printed_for_debugging_says_what_it_is_and_not_more() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [2]);
    g.output("y", g.mul(x, g.parameter("w", [2])));
    let compiler = Compiler::new(&Device::cpu(1));
    let compiled = compiler.compile(&g).unwrap();
    let s = compiled.init_zeros().unwrap();
    let mut artifact = Artifact::new();
    artifact.add("main", &compiled).unwrap();
    let all = [
        format!("{compiler:?}"),
        format!("{compiled:?}"),
        format!("{s:?}"),
        format!("{artifact:?}"),
        format!("{:?}", s.parameters()),
        format!("{:?}", g.term(x)),
        format!("{:?}", Device::cpu(1)),
    ];
    for (i, shown) in all.iter().enumerate() {
        assert!(shown.len() > 10 && shown.len() < 3000, "{i}: {shown}");
    }
    assert!(all[2].contains("x: f32[2]") && all[2].contains("y: f32[2]"), "{}", all[2]);
    assert!(all[3].contains("\"main\""), "{}", all[3]);
    fn shows<T: std::fmt::Debug>() {}
    shows::<(Outputs, weft::models::Encoder, weft::text::Tokenizer, weft::session::WeightReport)>();
    shows::<(weft::session::Explanation, weft::session::Measure, weft::session::Batches<'_>)>();
}

#[test]
fn errors_lead_to_their_causes() {
    use std::error::Error as _;
    let dir = std::env::temp_dir().join(format!("weft-api-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.json"), "{\"model_type\": bert}").unwrap();
    std::fs::write(dir.join("tokenizer.json"), "{}").unwrap();

    let none = weft::load::safetensors(dir.join("none")).unwrap_err();
    let cause = none.source().and_then(|e| e.downcast_ref::<std::io::Error>()).expect("the system's error");
    assert_eq!(cause.raw_os_error(), Some(2));
    assert_eq!(none.clone(), none);

    let config = weft::models::config(&dir).unwrap_err();
    assert!(matches!(config, Error::Config { .. }), "{config}");
    assert!(config.source().unwrap().to_string().contains("line 1"), "{config:?}");

    let tokenizer = weft::text::Tokenizer::from_file(&dir).unwrap_err();
    assert!(matches!(tokenizer, Error::Tokenizer { .. }), "{tokenizer}");
    assert!(tokenizer.source().is_some(), "{tokenizer:?}");

    let own = Error::argument("n", "1", "2");
    assert!(own.source().is_none());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn arrays_go_in_and_come_out_in_any_order_of_their_own() {
    use ndarray::{Array2, ArrayD, array};
    let g = Graph::new();
    g.output("y", g.add(g.input("x", DType::F32, [2, 3]), g.scalar(1.0, DType::F32)));
    let mut s = session(&g);
    let rows: Array2<f32> = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let columns = array![[1.0f32, 4.0], [2.0, 5.0], [3.0, 6.0]].reversed_axes();
    for x in [rows.view(), columns.view()] {
        let y: ArrayD<f32> = s.run(&[("x", &x)]).unwrap().array("y").unwrap();
        assert_eq!(y, (&rows + 1.0).into_dyn());
    }
    assert_eq!(said(s.run(&[("x", &rows.t())])), "\"x\" is f32[2, 3], but f32[3, 2] came");
    let tensor = Tensor::from_array(&columns).unwrap();
    assert_eq!(tensor.to_array::<f32>().unwrap(), rows.into_dyn());
    assert!(tensor.to_array::<i32>().is_err());
}
