//! A custom loss: the focal loss (Lin et al. 2017, arXiv:1708.02002), which emphasises misclassified examples. Its gradient is
//! derived from its operations.

use weft::prelude::*;

/// The mean of −(1 − p)^γ·ln p, p being the probability that logits `[n, classes]` give to the labels `[n]`.
fn focal_loss(g: &Graph, logits: Value, labels: Value, gamma: f64) -> Value {
    let classes = g.shape(logits)[1] as i64;
    let wanted = g.term(g.one_hot(labels, classes));
    let log_p = g.term(g.sum(wanted * g.log_softmax(logits, -1), &[-1], false));
    let missing = g.term(1.0 - g.term(g.exp(log_p)));
    g.mean_all(-log_p * g.pow(missing, g.scalar(gamma, DType::F32)))
}

fn main() -> Result<(), weft::error::Error> {
    let g = Graph::new();
    let (x, labels) = (g.input("x", DType::F32, [4, 2]), g.input("labels", DType::U32, [4]));
    let logits = g.linear(x, g.parameter("w", [2, 2]), Some(g.parameter("b", [2])));
    g.set_loss(focal_loss(&g, logits, labels, 2.0));

    let mut session = Compiler::new(&Device::cpu(0)).compile_training(&g)?.init_zeros()?;
    session.set_optimizer(Optimizer::sgd(1.0))?;
    session.set_input("x", &[0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])?;
    session.set_input("labels", &[0u32, 1, 1, 1])?;
    let mut losses = vec![];
    for _ in 0..200 {
        session.step()?;
        losses.push(session.loss()?);
    }
    println!("focal loss: {:.4} at first, {:.4} after 200 steps", losses[0], losses[199]);
    assert!((losses[0] - 0.25 * std::f32::consts::LN_2).abs() < 1e-6, "half each: (1 − ½)²·ln 2");
    assert!(losses[199] < 0.2 * losses[0]);
    Ok(())
}
