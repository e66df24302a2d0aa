//! A library like an app's: it loads an artifact and weights and runs them. With the feature `full` it also compiles,
//! trains and embeds text. What is not reached from here is not linked.

use std::ffi::{CStr, c_char};
use weft::device::Device;
use weft::error::{Error, Result};
use weft::load;
use weft::session::{Artifact, OutputIndex, Session};

fn text<'a>(from: *const c_char) -> Result<&'a str> {
    if from.is_null() {
        return Err(Error::argument("path", "a text", "null"));
    }
    // SAFETY: the callers below are given texts that end with 0.
    unsafe { CStr::from_ptr(from) }.to_str().map_err(|e| Error::argument("path", "UTF-8", e))
}

fn step(session: &mut Session) -> Result<f32> {
    for port in session.inputs().to_vec() {
        let bytes = weft::tensor::TensorType::new(port.dtype, port.shape.clone()).bytes().unwrap_or(0);
        let zeros = weft::tensor::Bytes::from_vec(vec![0u8; bytes]);
        let tensor = weft::tensor::Tensor::from_bytes(port.dtype, port.shape.clone(), zeros)?;
        session.set_input_tensor(&port.name, &tensor)?;
    }
    session.step()?;
    session.wait()?;
    Ok(session.read_output::<f32>(OutputIndex(0))?.iter().sum())
}

fn run(artifact: *const c_char, weights: *const c_char) -> Result<f32> {
    let artifact = Artifact::load(&Device::best()?, text(artifact)?)?;
    let mut sessions = artifact.init_all(&load::weights(text(weights)?)?)?;
    sessions.iter_mut().map(|(_, s)| step(s)).sum()
}

/// Runs the graphs of an artifact; NaN if that fails.
///
/// # Safety
/// Both texts end with 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_size_run(artifact: *const c_char, weights: *const c_char) -> f32 {
    run(artifact, weights).unwrap_or(f32::NAN)
}

#[cfg(feature = "full")]
fn train(graph: *const c_char, folder: *const c_char) -> Result<f32> {
    use weft::models::{Encoder, Llama, LlamaConfig, Logits};
    use weft::session::{Compiler, Optimizer};
    let device = Device::best()?;
    let compiler = Compiler::new(&device).with_cache("cache", 1 << 26);
    let mut session = compiler.compile_training(&weft::graph::Graph::parse(text(graph)?)?)?.init_zeros()?;
    session.set_optimizer(Optimizer::adam(0.001))?;
    let loss = step(&mut session)?;
    load::save("trained.safetensors", &session.parameters().to_weights()?)?;
    let embedded = Encoder::open(text(folder)?, &device)?.embed(&["a text"])?;
    let g = weft::graph::Graph::new();
    let ids = g.input("ids", weft::tensor::DType::U32, [1, 8]);
    g.output("logits", Llama::new(&LlamaConfig::smollm2_135m()).forward(&g, ids, Logits::Last));
    compiler.compile(&g)?.save("llama.weftc")?;
    Ok(loss + embedded[0].embedding[0])
}

/// Trains a graph, embeds a text and compiles a model; NaN if that fails.
///
/// # Safety
/// Both texts end with 0.
#[cfg(feature = "full")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_size_train(graph: *const c_char, folder: *const c_char) -> f32 {
    train(graph, folder).unwrap_or(f32::NAN)
}
