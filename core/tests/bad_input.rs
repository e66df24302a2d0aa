//! Bad input of every kind ends in a typed error that says what was wanted and what came. (Malformed
//! safetensors files are the `load` room's own tests.)

use weft::device::Device;
use weft::error::Error;
use weft::graph::Graph;
use weft::session::{Compiler, Optimizer, OutputIndex, Session, build_inference_session, build_session};
use weft::tensor::{DType, Tensor, Weights};

fn linear() -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3]);
    let w = g.parameter("w", [3, 4]);
    g.output("y", g.matmul(x, w));
    g
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("an error").to_string()
}

fn f32s(shape: &[usize]) -> Tensor<'static> {
    let n = shape.iter().product::<usize>();
    Tensor::from_vec(shape, (0..n).map(|i| i as f32 * 0.5 - 1.0).collect()).unwrap()
}

#[test]
fn a_wrong_call_poisons_and_compile_returns_the_first_error() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 784]);
    let w = g.parameter("w", [512, 10]);
    let bad = g.matmul(x, w);
    g.output("y", g.relu(g.add(bad, g.softmax(bad, 7))));
    let e = Compiler::new(&Device::cpu(1)).compile(&g).err().unwrap();
    assert_eq!(e.code(), 100);
    assert_eq!(
        e.to_string(),
        "matmul: inner dimensions must agree: [4, 784] × [512, 10] (node \"%2 = matmul(x, w)\")"
    );
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let compiled = Compiler::new(&Device::cpu(1)).compile(&linear()).unwrap();
    let mut weights = Weights::new();
    assert_eq!(
        message(compiled.init(&weights)),
        "weight \"w\" (f32[3, 4]) is missing: the weights have 0 tensors, none of a like name"
    );
    weights.insert("w", f32s(&[4, 3]));
    assert_eq!(
        message(compiled.init(&weights)),
        "weight \"w\": the graph wants f32[3, 4], the weights have f32[4, 3]"
    );
    weights.insert("w", Tensor::from_vec([3, 4], vec![1i32; 12]).unwrap());
    assert_eq!(
        message(compiled.init(&weights)),
        "weight \"w\": the graph wants f32[3, 4], the weights have i32[3, 4]"
    );
    weights.insert("w", f32s(&[3, 4]));
    weights.insert("other", f32s(&[1]));
    let session = compiled.init(&weights).unwrap();
    assert_eq!(session.warnings(), ["weight \"other\" (f32[1]) is not used by the graph"]);
}

fn session() -> Session {
    build_inference_session(&linear()).unwrap()
}

#[test]
fn inputs_and_outputs_are_checked() {
    let mut s = session();
    assert_eq!(message(s.step()), "set these inputs before the step: \"x\"");
    assert_eq!(message(s.set_input("z", &[0.0; 6])), "no input named \"z\"; there are: x");
    assert_eq!(message(s.set_input("x", &[0.0; 5])), "\"x\" is f32[2, 3] (6 elements), but 5 elements came");
    assert_eq!(message(s.set_input::<u32>("x", &[0; 6])), "\"x\" holds f32 elements, but u32 came");
    assert_eq!(message(s.set_parameter("v", &[0.0])), "no parameter named \"v\"; there are: w");
    assert_eq!(
        message(s.set_parameter("w", &[0.0])),
        "\"w\" is f32[3, 4] (12 elements), but 1 elements came"
    );
    assert_eq!(
        message(s.read_output::<f32>(OutputIndex(0))),
        "the output is not there yet: run a step first"
    );
    assert_eq!(
        message(s.read_output::<f32>(OutputIndex(1))),
        "output 1 asked for, but the session has 1 (from 0)"
    );
    assert_eq!(
        message(s.read_output::<f32>(OutputIndex(9))),
        "output 9 asked for, but the session has 1 (from 0)"
    );
    assert_eq!(message(s.read_output::<f32>("z")), "no output named \"z\"; there are: y");
    assert_eq!(
        message(s.set_optimizer(Optimizer::sgd(0.1))),
        "graph: this session has no backward pass: compile its graph for training"
    );
    assert_eq!(message(s.loss()), "graph: it has no loss");
}

#[test]
fn a_buffer_too_short_to_read_into_is_called_that() {
    let mut s = session();
    s.set_input("x", &[0.0; 6]).unwrap();
    s.step().unwrap();
    assert_eq!(
        message(s.read_output_into(OutputIndex(0), &mut [0.0; 2])),
        "\"y\" is f32[2, 4] (8 elements), but a buffer of 2 elements to copy it into came"
    );
    assert_eq!(
        message(s.read_output_bytes(OutputIndex(0), DType::F32, &mut [0; 8])),
        "\"y\" is f32[2, 4] (32 bytes), but a buffer of 8 bytes to copy it into came"
    );
}

#[test]
fn a_folder_with_pytorchs_own_weights_alone_is_told_how_to_convert_them() {
    let folder = std::env::temp_dir().join(format!("weft it's {}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let said = |file: &str| {
        std::fs::write(folder.join(file), b"PK").unwrap();
        let said = message(weft::load::weights(&folder));
        std::fs::remove_file(folder.join(file)).unwrap();
        said
    };
    // quoted for a shell
    let quoted = format!("'{}'", folder.display().to_string().replace('\'', "'\\''"));
    for file in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let said = said(file);
        assert!(
            said.contains(&format!("but {file}, which only Python reads; convert it once: python3 -c \"")),
            "{said}"
        );
        assert!(said.ends_with(&quoted), "{said}");
    }
    assert!(
        message(weft::load::weights(&folder))
            .ends_with("neither model.safetensors nor model.safetensors.index.json")
    );
    std::fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_configuration_without_a_model_type_says_which_there_may_be() {
    let said = |json: &str| message(weft::models::architecture(&serde_json::from_str(json).unwrap()));
    let wanted = "config.json: wanted a model_type, one of ";
    let came = said(r#"{"hidden_size": 8}"#);
    assert!(came.starts_with(wanted) && came.contains("bert"), "{came}");
    assert!(came.ends_with(", found no model_type"), "{came}");
    let came = said(r#"{"model_type": "t5"}"#);
    assert!(came.starts_with("architecture \"t5\" is not supported; supported: "), "{came}");
}

#[test]
fn a_byte_order_mark_is_read_over() {
    let g = Graph::parse("\u{feff}weft 1\ninput x: f32[2]\noutput y = x\n").unwrap();
    assert_eq!(g.data().unwrap().outputs.len(), 1);
    let profile = Device::cpu(1).profile();
    assert_eq!(format!("\u{feff}{profile}").parse(), Ok(profile));
    let folder = std::env::temp_dir().join(format!("weft-mark-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut weights = Weights::new();
    weights.insert("w", f32s(&[3]));
    weft::load::save(folder.join("a.safetensors"), &weights).unwrap();
    let index = "\u{feff}{\"weight_map\": {\"w\": \"a.safetensors\"}}";
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(weft::load::weights(&folder).unwrap().len(), 1);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn nan_in_an_input_is_computed_with() {
    let mut s = session();
    s.set_parameter("w", &[1.0; 12]).unwrap();
    s.set_input("x", &[f32::NAN, 0.0, 0.0, 1.0, 2.0, 3.0]).unwrap();
    s.step().unwrap();
    let y = s.read_output::<f32>(OutputIndex(0)).unwrap();
    assert!(y[..4].iter().all(|v| v.is_nan()));
    assert_eq!(&y[4..], &[6.0; 4]);
}

#[test]
fn a_token_id_outside_the_table_is_an_error_and_the_session_goes_on() {
    let g = Graph::new();
    let ids = g.input("ids", DType::U32, [3]);
    let table = g.parameter("table", [5, 2]);
    g.output("rows", g.name(g.embedding(table, ids), "words"));
    let mut s = build_inference_session(&g).unwrap();
    s.set_parameter("table", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]).unwrap();
    s.set_input::<u32>("ids", &[1, 5, 0]).unwrap();
    let e = s.step().unwrap_err();
    assert_eq!(e.to_string(), "index 5 at position 1 is outside 0..5 (node \"words\", step 1)");
    assert_eq!(
        message(s.read_output::<f32>(OutputIndex(0))),
        "the output (step 1 was refused: index 5 at position 1 is outside 0..5 (node \"words\", step 1)) \
         is not there yet: run a step first"
    );
    s.set_input::<u32>("ids", &[4, 0, 1]).unwrap();
    s.step().unwrap();
    assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), [8.0, 9.0, 0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn a_look_up_without_a_name_is_called_what_was_written() {
    for device in [Device::cpu(1), Device::open("gpu", 0).unwrap()] {
        let g = Graph::new();
        let ids = g.input("ids", DType::U32, [3]);
        g.output("rows", g.embedding(g.parameter("table", [5, 2]), ids));
        let mut s = Compiler::new(&device).compile(&g).unwrap().init_zeros().unwrap();
        s.set_input::<u32>("ids", &[1, 5, 0]).unwrap();
        let said = message(s.step().and_then(|()| s.wait()));
        assert_eq!(said, "index 5 at position 1 is outside 0..5 (node \"embedding\", step 1)");
    }
}

#[test]
fn empty_sizes_and_doubled_names_are_refused() {
    let g = Graph::new();
    g.input("x", DType::F32, [0, 3]);
    assert_eq!(message(g.data().map(|_| ())), "input: sizes of at least 1: f32[0, 3] (node \"x\")");
    let g = Graph::new();
    g.input("x", DType::F32, [1]);
    g.parameter("x", [1]);
    assert_eq!(message(g.data().map(|_| ())), "parameter: a name not used before: \"x\" twice (node \"x\")");
    let g = Graph::new();
    g.input("x", DType::F32, [1 << 40, 1 << 30]);
    assert!(
        message(g.data().map(|_| ()))
            .contains("at most 1099511627776 elements: f32[1099511627776, 1073741824] (node \"x\")")
    );
}

/// What is wrong with a graph of one operation.
fn refused(build: impl Fn(&Graph) -> weft::graph::Value) -> String {
    let g = Graph::new();
    g.output("y", build(&g));
    let e = Compiler::new(&Device::cpu(1)).compile(&g).expect_err("an error");
    assert_eq!(e.code(), 100, "{e}");
    let parsed = g.error().is_some() || g.data().is_ok_and(|d| Graph::parse(&d.to_string()).is_ok());
    assert!(parsed, "the text form differs");
    e.to_string()
}

#[test]
fn what_is_too_large_to_index_is_refused_by_name_and_size() {
    const MOST: &str = "at most 1099511627776 elements: ";
    let x = |g: &Graph, shape: &[usize]| g.input("x", DType::F32, shape);
    let cases = [
        (
            refused(|g| g.iota(&[1_000_000_000_000], 0)),
            "iota: at most 2³² positions, which u32 counts: 1000000000000 (node \"%0 = iota()\")".to_string(),
        ),
        (
            refused(|g| g.one_hot(g.input("x", DType::I32, [1 << 20]), 1 << 30)),
            format!("one_hot: {MOST}f32[1048576, 1073741824] (node \"%1 = one_hot(x)\")"),
        ),
        (
            refused(|g| g.broadcast(x(g, &[1]), &[1 << 21, 1 << 21])),
            format!("broadcast: {MOST}f32[2097152, 2097152] (node \"%1 = broadcast(x)\")"),
        ),
        (
            refused(|g| g.mul(x(g, &[1 << 21]), g.input("y", DType::F32, [1 << 21, 1]))),
            format!("mul: {MOST}f32[2097152, 2097152] (node \"%2 = mul(x, y)\")"),
        ),
        (
            refused(|g| g.matmul(x(g, &[1 << 21, 1]), g.input("y", DType::F32, [1, 1 << 21]))),
            format!("matmul: {MOST}f32[2097152, 2097152] (node \"%2 = matmul(x, y)\")"),
        ),
        (
            refused(|g| g.pad(x(g, &[2, 2]), &[1 << 30, 0], &[0, 1 << 30], 0.0)),
            format!("pad: {MOST}f32[1073741826, 1073741826] (node \"%1 = pad(x)\")"),
        ),
        (
            refused(|g| {
                let x = x(g, &[1 << 39]);
                g.concat(&[x, x, x], 0)
            }),
            format!("concat: {MOST}f32[1649267441664] (node \"%1 = concat(x, x, x)\")"),
        ),
        (
            refused(|g| {
                let (x, w) = (x(g, &[1 << 10, 1, 1 << 15, 1 << 15]), g.input("w", DType::F32, [1 << 5, 1, 1, 1]));
                g.conv2d(x, w, None, Default::default())
            }),
            format!("conv2d: {MOST}f32[1024, 32, 32768, 32768] (node \"%2 = conv2d(x, w)\")"),
        ),
        (
            refused(|g| g.resize_nearest(x(g, &[1, 1, 1, 1]), &[1 << 24, 1 << 24])),
            format!("resize_nearest: {MOST}f32[1, 1, 16777216, 16777216] (node \"%1 = resize_nearest(x)\")"),
        ),
        (
            refused(|g| g.index_select(x(g, &[1 << 20, 1 << 20]), g.input("i", DType::I32, [1 << 21]), 0)),
            format!("index_select: {MOST}f32[2097152, 1048576] (node \"%2 = index_select(x, i)\")"),
        ),
        (
            refused(|g| g.random_uniform(g.input("x", DType::U32, []), &[1 << 33], 1)),
            "random_uniform: at most 2³² elements: f32[8589934592] (node \"%1 = random_uniform(x)\")".into(),
        ),
        (
            // each value can be indexed, what the step does cannot be counted
            refused(|g| g.matmul(x(g, &[1 << 20, 1 << 20]), g.input("y", DType::F32, [1 << 20, 1 << 20]))),
            "compile: a step of at most 2^60 operations: [1, 1048576, 1048576, 1048576, 16] (node \"step 0 (matmul)\")".into(),
        ),
    ];
    for (came, wanted) in cases {
        assert_eq!(came, wanted);
    }
}

#[test]
fn what_no_memory_has_room_for_is_out_of_memory_and_no_abort() {
    let g = Graph::new();
    g.output("y", g.broadcast(g.input("x", DType::F32, [1]), &[1 << 39]));
    // 2 TiB: nothing is allocated before the session is made
    let compiled = Compiler::new(&Device::cpu(1)).compile(&g).unwrap();
    let e = compiled.init_zeros().err().unwrap();
    assert!(matches!(e, Error::OutOfMemory { wanted, .. } if wanted >= 4 << 39), "{e}");
    // a system that promises whatever is asked for would not tell
    let promises = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|t| t.trim() == "1");
    if !promises {
        let x = weft::graph::Array::full(weft::tensor::TensorType::f32([1]), 1.0);
        let e = weft::reference::run(&g, &[("x".to_string(), x)].into()).unwrap_err();
        assert!(matches!(&e, Error::OutOfMemory { what, .. } if what.contains("f32[549755813888]")), "{e}");
    }
}

#[test]
fn a_graph_without_results_or_loss_is_refused() {
    let g = Graph::new();
    g.input("x", DType::F32, [1]);
    let said = message(build_inference_session(&g).map(|_| ()));
    assert_eq!(said, "graph: it has no outputs and no loss: name an output, or set a loss");
    let g = linear();
    assert_eq!(message(build_session(&g).map(|_| ())), "graph: no loss is set");
}

#[test]
fn broken_graph_texts_are_located() {
    let parse = |text: &str| message(Graph::parse(text).map(|_| ()));
    assert_eq!(parse(""), "graph text, line 1, column 1: wanted \"weft 1\", found an empty text");
    assert_eq!(parse("weft 2"), "graph text, line 1, column 5: wanted \"1\", found \" 2\"");
    assert_eq!(
        parse("weft 1\na = relu(b)\nb = neg(a)\noutput y = b"),
        "graph: values depend on each other in a circle: a → b → a"
    );
    assert_eq!(
        parse("weft 1\ninput x: f32[2]\ny = rely(x)"),
        "graph text, line 3, column 5: wanted the name of an operation, found \"rely(x)\""
    );
    assert_eq!(
        parse("weft 1\ny = relu(x)"),
        "graph text, line 2, column 1: wanted the name of a value, found \"x\", which is not defined"
    );
    assert_eq!(
        parse("weft 1\ninput x: f31[2]"),
        "graph text, line 2, column 10: wanted a dtype (f32, f16, bf16, i32, u32, i64, u8, bool, q8, q4), found \"f31[2]\""
    );
    assert_eq!(
        parse("weft 1\ninput x: f32[2]\ninput x: f32[2]"),
        "graph text, line 3, column 1: wanted a name not defined before, found \"x\""
    );
    assert_eq!(
        parse("weft 1\ninput x: f32[2, 3]\ny = matmul(x, x, transpose_a=false, transpose_b=false)"),
        "matmul: inner dimensions must agree: [2, 3] × [2, 3] (node \"%1 = matmul(x, x), line 3\")"
    );
    assert!(parse("weft 1\ninput x: f32[2]\ny = softmax(x)").contains("attributes [axis: Int]"));
    assert!(parse("weft 1\nconst c: f32[3] = [1, 2]").contains("wanted the elements of f32[3], not 2"));
}

#[test]
fn an_unknown_device_is_named() {
    let said = message(Device::open("gpu7", 0).map(|_| ()));
    assert!(
        said.starts_with("device gpu7: there is none of that name; there are: best, gpu, cpu (0)"),
        "{said}"
    );
    // every device there is, each with its number
    assert!(Device::all().iter().all(|d| said.contains(&format!("{} ({})", d.name, d.index))), "{said}");
}

#[test]
fn a_gradient_that_does_not_exist_is_named() {
    let g = Graph::new();
    let x = g.parameter("x", [4]);
    let i = g.argmax(x, 0, false);
    g.set_loss(g.sum_all(g.mul(x, g.cast(i, DType::F32))));
    assert!(build_session(&g).is_ok(), "integers carry no gradient, the other path does");
    let g = Graph::new();
    let q = g.input("q", DType::Q8, [2, 32]);
    g.set_loss(g.sum_all(g.dequantise(q)));
    assert_eq!(message(build_session(&g).map(|_| ())), "graph: there is no trainable parameter");
}

#[test]
fn values_of_another_graph_and_foreign_contents_are_refused() {
    let (small, large) = (Graph::new(), linear());
    let far = weft::graph::Value::at(7);
    small.input("x", DType::F32, [1]);
    assert_eq!((small.shape(far), small.inputs_of(far)), (vec![], vec![]));
    small.output("y", far);
    small.set_loss(far);
    assert_eq!(
        message(small.data().map(|_| ())),
        "output: a value of this graph: a value of another graph (node \"%7\")"
    );
    let g = Graph::new();
    let before = g.data().unwrap();
    g.relu(far); // building goes on while the contents are read
    assert!(message(g.data().map(|_| ())).contains("another graph"));
    assert!(before.nodes.is_empty());
    let mut data = (*large.data().unwrap()).clone();
    assert!(Graph::from_data(data.clone()).is_ok());
    data.nodes[2].ty.shape = vec![2, 5];
    assert_eq!(
        message(Graph::from_data(data.clone()).map(|_| ())),
        "matmul: a result of type f32[2, 4]: f32[2, 5] (node \"%2\")"
    );
    data.nodes[2].inputs[0] = weft::graph::Value::at(2);
    assert_eq!(
        message(Graph::from_data(data).map(|_| ())),
        "graph: \"%2\" uses a value that does not come before it"
    );
}

#[test]
fn the_fuzzers_seeds_are_graphs_and_run() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/graph_text");
    let mut count = 0;
    for entry in std::fs::read_dir(seeds).unwrap() {
        let path = entry.unwrap().path();
        let g = Graph::parse(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut s = Compiler::new(&Device::cpu(1)).compile(&g).unwrap().init_zeros().unwrap();
        for port in s.inputs().to_vec() {
            let elements: usize = port.shape.iter().product();
            match port.dtype {
                DType::I32 => s.set_input::<i32>(&port.name, &vec![1; elements]).unwrap(),
                _ => s.set_input(&port.name, &vec![0.5; elements]).unwrap(),
            }
        }
        s.step().unwrap();
        count += 1;
    }
    assert!(count >= 2);
}

/// An operation of the host's that keeps nothing of what it promises.
struct Careless;

impl weft::graph::Op for Careless {
    fn name(&self) -> &'static str {
        "careless"
    }
    fn version(&self) -> u32 {
        1
    }
    fn about(&self) -> &'static str {
        "Says that it gives what it takes."
    }
    fn inputs(&self) -> weft::graph::Inputs {
        weft::graph::Inputs::Fixed(&["x"])
    }
    fn attributes(&self) -> &'static [weft::graph::AttrSpec] {
        &[]
    }
    fn infer(&self, call: &weft::graph::Call<'_>) -> Result<weft::tensor::TensorType, weft::graph::Refusal> {
        Ok(call.inputs[0].clone())
    }
    fn evaluate(
        &self,
        call: &weft::graph::Call<'_>,
        _: &[&weft::graph::Array],
    ) -> Result<weft::graph::Array, Error> {
        Ok(weft::graph::Array::new(call.inputs[0].clone(), vec![]))
    }
    fn grad(&self, g: &Graph, _: weft::graph::Value, _: weft::graph::Value) -> weft::graph::Grad {
        weft::graph::Grad::of([g.scalar(1.0, DType::F16)])
    }
    fn lower(&self, _: &weft::graph::Call<'_>) -> weft::graph::Lowering {
        weft::graph::Lowering::Decompose
    }
    fn decompose(
        &self,
        g: &Graph,
        inputs: &[weft::graph::Value],
        _: &weft::graph::Attrs,
    ) -> Option<weft::graph::Value> {
        (g.shape(inputs[0]).len() > 1).then(|| g.sum_all(inputs[0]))
    }
    fn samples(&self) -> Vec<weft::graph::Sample> {
        vec![]
    }
}

#[test]
fn an_operation_of_the_hosts_that_is_wrong_is_named_and_no_internal_error() {
    let of = |shape: &[usize]| {
        let g = Graph::new();
        let x = g.input("x", DType::F32, shape);
        let y = g.apply(&Careless, &[x], weft::graph::Attrs::none());
        g.output("y", y);
        (g, x, y)
    };
    // planned as it came: the optimiser takes operations of the table only
    let compiler = || Compiler::new(&Device::cpu(1)).with_rules(&[]);
    let compile = |shape: &[usize]| message(compiler().compile(&of(shape).0).map(|_| ()));
    assert_eq!(
        compile(&[2]),
        "careless: one, of an operation without work of its own: none (node \"its decomposition\")"
    );
    assert_eq!(compile(&[2, 2]), "careless: a value of f32[2, 2]: f32[] (node \"its decomposition\")");
    let (g, x, y) = of(&[2]);
    let ones = weft::graph::Array::full(weft::tensor::TensorType::f32([2]), 1.0);
    assert_eq!(
        message(weft::reference::run(&g, &[("x".to_string(), ones)].into()).map(|_| ())),
        "careless: a value of f32[2] (2 elements): f32[2] (0 elements) (node \"%1\")"
    );
    assert_eq!(
        message(weft::autodiff::gradients(&g, y, None, &[x]).map(|_| ())),
        "careless: a gradient of f32[2] for input 0: f16[] (node \"%1\")"
    );
}
