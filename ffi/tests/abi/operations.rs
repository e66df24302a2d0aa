//! Every operation, called from C with the samples of the engine's table: the same bits as through the engine's own builder.

use crate::tools::{folder, program, root, run};
use engine::device::Device;
use engine::graph::{Attr, Graph, Inputs, Op, Sample, Value};
use engine::session::Compiler;
use engine::tensor::{DType, Tensor};
use std::fmt::Write;
use std::process::Command;

/// Samples of each operation that are tried.
const EACH: usize = 3;

fn tensors(sample: &Sample) -> Vec<Tensor<'static>> {
    sample.inputs.iter().map(|a| a.to_tensor().unwrap()).collect()
}

/// The result through the engine's own interface.
fn through_rust(device: &Device, op: &'static dyn Op, sample: &Sample) -> Vec<u8> {
    let g = Graph::new();
    let inputs: Vec<Value> = tensors(sample).into_iter().map(|t| g.constant(t)).collect();
    g.output("y", g.apply(op, &inputs, sample.attrs.clone()));
    let mut session = Compiler::new(device).compile(&g).unwrap().init_zeros().unwrap();
    session.step().unwrap();
    session.output_tensor("y").unwrap().bytes().to_vec()
}

fn number(dtype: DType) -> String {
    format!("WEFT_DTYPE_{}", dtype.name().to_uppercase())
}

fn list<T: ToString>(kind: &str, items: &[T]) -> String {
    match items.is_empty() {
        true => format!("({kind}[]){{0}}"),
        false => {
            let items: Vec<String> = items.iter().map(T::to_string).collect();
            format!("({kind}[]){{{}}}", items.join(", "))
        }
    }
}

/// A real number as C reads it back, all bits.
fn real(v: f64) -> String {
    match v {
        v if v.is_infinite() && v > 0.0 => "INFINITY".into(),
        v if v.is_infinite() => "-INFINITY".into(),
        v if v.is_nan() => "NAN".into(),
        v => format!("{v:?}"),
    }
}

/// The C text of a sample: constants, the operation, a run. The inputs' bytes are appended to `data`.
fn in_c(text: &mut String, data: &mut Vec<u8>, op: &'static dyn Op, sample: &Sample) {
    let name = op.name();
    text.push_str("  {\n    weft_graph *g = begin();\n    weft_value y = WEFT_VALUE_NONE;\n");
    let mut values = vec![];
    for (i, t) in tensors(sample).iter().enumerate() {
        let (shape, rank) = (list("size_t", t.shape()), t.shape().len());
        let (dtype, at, bytes) = (number(t.dtype()), data.len(), t.bytes().len());
        let _ = writeln!(text, "    weft_value v{i} = constant(g, {dtype}, {shape}, {rank}, {at}, {bytes});");
        data.extend_from_slice(t.bytes());
        values.push(format!("v{i}"));
    }
    let mut arguments = vec!["g".to_string()];
    match op.inputs() {
        Inputs::Variadic(_) => {
            arguments.extend([list("weft_value", &values), values.len().to_string()]);
        }
        Inputs::Fixed(_) => arguments.append(&mut values),
        Inputs::Optional(must, may) => {
            values.resize(must.len() + may.len(), "WEFT_VALUE_NONE".into());
            arguments.append(&mut values);
        }
    }
    for (_, attr) in &sample.attrs.0 {
        match attr {
            // the lowest number has no literal of its own
            Attr::Int(v) => arguments.push(format!("INT64_C({v})")),
            Attr::Ints(v) => arguments.extend([list("int64_t", v), v.len().to_string()]),
            Attr::Float(v) => arguments.push(real(*v)),
            Attr::Bool(v) => arguments.push(v.to_string()),
            Attr::DType(v) => arguments.push(number(*v)),
        }
    }
    let _ = writeln!(
        text,
        "    OK(weft_op_{name}({}, &y, &err));\n    finish(g, y);\n  }}",
        arguments.join(", ")
    );
}

const HEAD: &str = r#"#include "check.h"
static weft_device *device;
static const unsigned char *data;
static FILE *results;
static weft_graph *begin(void) {
  weft_graph *g = NULL;
  OK(weft_graph_new(&g, &err));
  return g;
}
static weft_value constant(weft_graph *g, weft_dtype dtype, const size_t *shape, size_t rank, size_t at, size_t bytes) {
  weft_value v = WEFT_VALUE_NONE;
  OK(weft_graph_constant(g, dtype, shape, rank, data + at, bytes, &v, &err));
  return v;
}
static void finish(weft_graph *g, weft_value y) {
  weft_compiled *compiled = NULL;
  weft_session *session = NULL;
  const void *result = NULL;
  size_t bytes = 0;
  OK(weft_graph_output(g, "y", NUL, y, &err));
  OK(weft_compile(device, g, NULL, &compiled, &err));
  OK(weft_compiled_init_zeros(compiled, &session, &err));
  OK(weft_session_step(session, &err));
  OK(weft_session_lend_output(session, "y", NUL, &result, &bytes, &err));
  fwrite(&bytes, sizeof bytes, 1, results);
  fwrite(result, 1, bytes, results);
  OK(weft_session_free(session));
  OK(weft_compiled_free(compiled));
  OK(weft_graph_free(g));
}
"#;

const MAIN: &str = r#"
int main(int argc, char **argv) {
  CHECK(argc == 3);
  static unsigned char all[1 << 24];
  FILE *inputs = fopen(argv[1], "rb");
  results = fopen(argv[2], "wb");
  CHECK(inputs != NULL && results != NULL);
  CHECK(fread(all, 1, sizeof all, inputs) < sizeof all);
  fclose(inputs);
  data = all;
  OK(weft_device_open("cpu", NUL, 2, &device, &err));
"#;

#[test]
fn every_operation_called_from_c_gives_the_engine_s_bits() {
    let at = folder("operations");
    let device = Device::cpu(2);
    let (mut parts, mut data, mut wanted) = (vec![], vec![], vec![]);
    for op in engine::ops::all() {
        let mut text = String::new();
        for sample in op.samples().iter().take(EACH) {
            in_c(&mut text, &mut data, op, sample);
            wanted.push((op.name(), through_rust(&device, op, sample)));
        }
        assert!(!text.is_empty(), "{} has no sample", op.name());
        parts.push((op.name(), text));
    }
    let mut source = String::from(HEAD);
    for (name, text) in &parts {
        let _ = write!(source, "static void try_{name}(void) {{\n{text}}}\n");
    }
    source.push_str(MAIN);
    for (name, _) in &parts {
        let _ = writeln!(source, "  try_{name}();");
    }
    source.push_str("  OK(weft_device_free(device));\n  fclose(results);\n  return 0;\n}\n");
    let (c, inputs, results) = (at.join("operations.c"), at.join("inputs"), at.join("results"));
    std::fs::write(&c, source).unwrap();
    std::fs::write(&inputs, &data).unwrap();
    let include = format!("-I{}", root().join("tests/abi").display());
    let built = program(&c, &at.join("operations"), &[&include]);
    run(Command::new(built).arg(&inputs).arg(&results));

    let came = std::fs::read(&results).unwrap();
    let mut rest = &came[..];
    for (name, bytes) in &wanted {
        let (size, tail) = rest.split_first_chunk::<8>().unwrap();
        let (result, tail) = tail.split_at(usize::from_ne_bytes(*size));
        assert!(result == bytes, "{name}: C got other bits than Rust");
        rest = tail;
    }
    assert!(rest.is_empty());
}

/// Constants, inputs and outputs of 64 bits: every digit, on each device; what a dtype does not hold is refused.
#[test]
fn integers_of_64_bits_are_exact_from_c() {
    let built = program(&root().join("tests/abi/integers.c"), &folder("integers").join("integers"), &[]);
    for device in ["cpu", "gpu"] {
        run(Command::new(&built).arg(device));
    }
}
