//! Compile once, load in milliseconds afterwards: graphs over one set of weights in a file.

use std::time::Instant;
use weft::prelude::*;

/// Probabilities of `batch` digits at once.
fn graph(batch: usize) -> Graph {
    let g = Graph::new();
    let logits = weft::models::mlp(&g, g.input("pixels", DType::F32, [batch, 64]), &[64, 64, 10]);
    g.output("probabilities", g.softmax(logits, -1));
    g
}

fn main() -> Result<(), weft::error::Error> {
    let here = env!("CARGO_MANIFEST_DIR");
    let weights = load::safetensors(format!("{here}/../models/digits/model.safetensors"))?;
    let folder = std::env::temp_dir().join(format!("weft-samples-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| weft::error::Error::io(&folder, "make", &e))?;
    let file = folder.join("digits.weftc");

    // for a device that is here; Compiler::for_profile does the same for one that is not
    let device = Device::cpu(0);
    let compiler = Compiler::new(&device);
    let began = Instant::now();
    let mut artifact = Artifact::new();
    artifact.add("one", &compiler.compile(&graph(1))?)?;
    artifact.add("many", &compiler.compile(&graph(32))?)?;
    artifact.save(&file)?;
    println!("compiled and saved in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);

    // what an app does at its start: no graph, no optimiser
    let began = Instant::now();
    let mut sessions = Artifact::load(&device, &file)?.init_all(&weights)?;
    println!("loaded in {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    for (name, session) in &mut sessions {
        let rows = session.inputs()[0].shape[0];
        let outputs = session.run(&[("pixels", &vec![0.25f32; rows * 64])])?;
        let first = &outputs.read::<f32>("probabilities")?[..10];
        println!("{name}: {rows} rows, the first adds up to {:.4}", first.iter().sum::<f32>());
    }

    // an artifact is untrusted input: what does not fit is refused with a reason, and is compiled anew
    let other = Device::cpu(0);
    std::fs::write(&file, b"WEFTC of another day").map_err(|e| weft::error::Error::io(&file, "write", &e))?;
    match Artifact::load(&other, &file) {
        Err(refused) => println!("a damaged one: {refused}"),
        Ok(_) => unreachable!("it is none"),
    }
    std::fs::remove_dir_all(&folder).map_err(|e| weft::error::Error::io(&folder, "remove", &e))
}
