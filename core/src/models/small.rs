//! Small networks built from sizes: starting points for samples and on-device training.

use crate::graph::{Graph, Value};
use crate::ops::{Conv2dOptions, MaxPool2dOptions};

/// A multilayer perceptron: `x` `[batch, sizes[0]]` through linear layers with ReLU between them.
/// Parameters are `layers.N.weight` `[out, in]` and `layers.N.bias` `[out]`.
pub fn mlp(g: &Graph, x: Value, sizes: &[usize]) -> Value {
    let mut x = x;
    for (i, pair) in sizes.windows(2).enumerate() {
        let w = g.parameter(&format!("layers.{i}.weight"), [pair[1], pair[0]]);
        let b = g.parameter(&format!("layers.{i}.bias"), [pair[1]]);
        x = g.linear(x, w, Some(b));
        if i + 2 < sizes.len() {
            x = g.relu(x);
        }
    }
    x
}

/// A small convolutional network over `x` `[batch, channels, h, w]`: a 3×3 convolution with ReLU for each
/// entry of `widths` (2×2 max pooling after each but the last), the mean over the plane, and a linear layer.
/// Parameters are `conv.N.weight` `[out, in, 3, 3]`, `conv.N.bias`, `head.weight` `[classes, in]`, `head.bias`.
pub fn cnn(g: &Graph, x: Value, widths: &[usize], classes: usize) -> Value {
    let mut x = x;
    let mut from = g.shape(x).get(1).copied().unwrap_or(1);
    for (i, &to) in widths.iter().enumerate() {
        let w = g.parameter(&format!("conv.{i}.weight"), [to, from, 3, 3]);
        let b = g.parameter(&format!("conv.{i}.bias"), [to]);
        x = g.relu(g.conv2d(x, w, Some(b), Conv2dOptions::new().padding([1, 1])));
        if i + 1 < widths.len() {
            x = g.max_pool2d(x, MaxPool2dOptions::new([2, 2]));
        }
        from = to;
    }
    let x = g.mean(x, &[2, 3], false);
    let w = g.parameter("head.weight", [classes, from]);
    let b = g.parameter("head.bias", [classes]);
    g.linear(x, w, Some(b))
}
