//! Weights from a file, a graph built by hand, compile, run: classify digits.

use weft::prelude::*;

fn main() -> Result<(), weft::error::Error> {
    let here = env!("CARGO_MANIFEST_DIR");

    // four pictures of 8 × 8 pixels at once, through two linear layers
    let g = Graph::new();
    let pixels = g.input("pixels", DType::F32, [4, 64]);
    let (w0, b0) = (g.parameter("layers.0.weight", [64, 64]), g.parameter("layers.0.bias", [64]));
    let (w1, b1) = (g.parameter("layers.1.weight", [10, 64]), g.parameter("layers.1.bias", [10]));
    let hidden = g.relu(g.linear(pixels, w0, Some(b0)));
    let probabilities = g.softmax(g.linear(hidden, w1, Some(b1)), -1);
    g.output("probabilities", probabilities);
    g.output("digits", g.argmax(probabilities, -1, false));

    // a GPU if there is a real one, else the CPU; weights are bound by their names
    let device = Device::best()?;
    let compiled = Compiler::new(&device).compile(&g)?;
    let mut session = compiled.init(&load::safetensors(format!("{here}/../models/digits/model.safetensors"))?)?;

    let examples = load::safetensors(format!("{here}/../graphs/digits.safetensors"))?;
    let pixels = examples.get("pixels").expect("the file's pictures");
    let outputs = session.run(&[("pixels", pixels)])?;
    println!("on {}: {:?}", device.info().name, outputs.read::<i32>("digits")?);
    let p = outputs.read::<f32>("probabilities")?;
    for (row, probabilities) in p.chunks(10).enumerate() {
        println!("  {row}: {:.2}", probabilities.iter().copied().fold(0.0, f32::max));
    }
    println!("{}", session.memory_summary());
    Ok(())
}
