//! `weft run`: outputs and gradients against values computed by hand.

use crate::{Folder, Ran, repository, weft};
use weft::tensor::{Tensor, Weights};

/// y = x·w + b, loss = (y − target)², one element.
const SCALAR: &str = "weft 1
input x: f32[1, 2]
input target: f32[1, 1]
param w: f32[2, 1]
frozen b: f32[1]
product = matmul(x, w, transpose_a=false, transpose_b=false)
y = add(product, b)
output y = y
l = mse_loss(y, target)
loss l
";

fn row(shape: &[usize], values: &[f32]) -> Tensor<'static> {
    Tensor::from_vec(shape, values.to_vec()).unwrap()
}

fn outputs(path: &str) -> Weights {
    weft::load::weights(path).unwrap()
}

fn values(all: &Weights, name: &str) -> Vec<f64> {
    all.get(name).unwrap_or_else(|| panic!("no {name} among {all:?}")).to_f64()
}

fn scalar(folder: &Folder, more: &[&str]) -> (Ran, String) {
    let graph = folder.file("g.weft", SCALAR);
    let weights = folder.tensors(
        "w.safetensors",
        [("w", row(&[2, 1], &[3.0, -1.0])), ("b", row(&[1], &[0.5])), ("spare", row(&[3], &[1.0, 2.0, 3.0]))],
    );
    let inputs = folder.tensors(
        "i.safetensors",
        [("x", row(&[1, 2], &[1.0, 2.0])), ("target", row(&[1, 1], &[4.5])), ("odd", row(&[1], &[1.0]))],
    );
    let out = folder.at("o.safetensors");
    let mut args = vec!["run", &graph, "--weights", &weights, "--inputs", &inputs, "--outputs", &out];
    args.extend(more);
    (weft(&args), out)
}

#[test]
fn outputs_and_loss_are_those_worked_out_by_hand() {
    let folder = Folder::new();
    let (ran, out) = scalar(&folder, &[]);
    // 1·3 + 2·(−1) + 0.5 = 1.5; (1.5 − 4.5)² = 9
    ran.says(0, &["warning: weight \"spare\"", "warning: tensor \"odd\""]);
    assert!(ran.out.contains("y") && ran.out.contains("f32[1, 1]"), "{}", ran.out);
    let found = outputs(&out);
    assert_eq!((values(&found, "y"), values(&found, "loss")), (vec![1.5], vec![9.0]));
    assert_eq!(found.len(), 2);
}

#[test]
fn gradients_are_those_worked_out_by_hand() {
    let folder = Folder::new();
    let (ran, out) = scalar(&folder, &["--backward", "--json"]);
    assert_eq!(ran.json()["outputs"].as_array().unwrap().len(), 5);
    let found = outputs(&out);
    // dl/dy = 2·(1.5 − 4.5) = −6
    assert_eq!(values(&found, "grad.w"), [-6.0, -12.0]);
    assert_eq!(values(&found, "grad.x"), [-18.0, 6.0]);
    assert_eq!(values(&found, "grad.target"), [6.0]);
    assert!(found.get("grad.b").is_none(), "a frozen weight has a gradient");
}

#[test]
fn a_graph_without_parameters_needs_no_weights_and_ids_come_in_any_integer_dtype() {
    let folder = Folder::new();
    let graph = folder.file(
        "g.weft",
        "weft 1\nconst table: f32[3, 2] = [1, 2, 3, 4, 5, 6]\ninput ids: u32[2]\n\
         rows = embedding(table, ids)\noutput rows = rows\n",
    );
    let out = folder.at("o.safetensors");
    let ids = [
        Tensor::from_vec([2], vec![2i64, 0]).unwrap(),
        Tensor::from_vec([2], vec![2i32, 0]).unwrap(),
        Tensor::from_vec([2], vec![2u8, 0]).unwrap(),
    ];
    for ids in ids {
        let inputs = folder.tensors("i.safetensors", [("ids", ids)]);
        weft(&["run", &graph, "--inputs", &inputs, "--outputs", &out]).says(0, &[]);
        assert_eq!(values(&outputs(&out), "rows"), [5.0, 6.0, 1.0, 2.0]);
    }
    let inputs = folder.tensors("i.safetensors", [("ids", Tensor::from_vec([2], vec![0i64, -1]).unwrap())]);
    weft(&["run", &graph, "--inputs", &inputs, "--outputs", &out])
        .says(1, &["input \"ids\": wanted numbers that fit u32, got -1 at position 1"]);
    let inputs = folder.tensors("i.safetensors", [("ids", Tensor::from_vec([2], vec![0i64, 3]).unwrap())]);
    weft(&["run", &graph, "--inputs", &inputs, "--outputs", &out])
        .says(1, &["index 3 at position 1 is outside 0..3"]);
    // the file of the last good run is still there, whole
    assert_eq!(values(&outputs(&out), "rows"), [5.0, 6.0, 1.0, 2.0]);
}

#[test]
fn integers_of_64_bits_keep_every_digit_from_the_graphs_text_to_the_file() {
    let folder = Folder::new();
    let graph = folder.file(
        "g.weft",
        "weft 1\nconst c: i64[4] = [9223372036854775807, -9223372036854775808, 9007199254740993, 1]\n\
         input x: i64[4]\nsame = eq(x, c)\noutput c = c\noutput same = same\n",
    );
    let wanted = [i64::MAX, i64::MIN, (1 << 53) + 1, 1];
    let x = Tensor::from_vec([4], vec![i64::MAX, i64::MIN, 1 << 53, 1]).unwrap();
    let inputs = folder.tensors("i.safetensors", [("x", x)]);
    let out = folder.at("o.safetensors");
    for device in ["cpu", "gpu"] {
        let args = ["run", &graph, "--device", device, "--inputs", &inputs, "--outputs", &out];
        weft(&args).says(0, &[]);
        let found = outputs(&out);
        assert_eq!(found.get("c").unwrap().as_slice::<i64>().unwrap(), wanted, "{device}");
        assert_eq!(found.get("same").unwrap().bytes(), [1, 1, 0, 1], "{device}");
    }
    let beyond = folder.file("b.weft", "weft 1\nconst c: i64[1] = [9223372036854775808]\noutput c = c\n");
    weft(&["run", &beyond, "--outputs", &out]).says(1, &["9223372036854775808", "i64"]);
}

#[test]
fn the_example_graph_runs_with_the_shipped_weights_and_gives_gradients() {
    let folder = Folder::new();
    let path = |p: &str| repository(p).display().to_string();
    let out = folder.at("o.safetensors");
    let (graph, weights) =
        (path("samples/graphs/classifier.weft"), path("samples/models/digits/model.safetensors"));
    let inputs = path("samples/graphs/digits.safetensors");
    let args = ["run", &graph, "--weights", &weights, "--inputs", &inputs, "--outputs", &out, "--backward"];
    weft(&args).says(0, &[]);
    let found = outputs(&out);
    let probabilities = values(&found, "probabilities");
    for (row, class) in probabilities.chunks(10).zip([4, 0, 5, 3]) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
        assert!(row[class] > 0.5, "{class} is {row:?}");
    }
    // the loss is the mean of −log of the probabilities of the labels
    let mean =
        [4, 0, 5, 3].iter().enumerate().map(|(i, c)| -probabilities[i * 10 + c].ln()).sum::<f64>() / 4.0;
    assert!((values(&found, "loss")[0] - mean).abs() < 1e-5, "{mean}");
    assert_eq!(found.get("grad.layers.0.weight").unwrap().shape(), [64, 64]);
    assert_eq!(found.get("grad.pixels").unwrap().shape(), [4, 64]);
    assert!(found.get("grad.labels").is_none());
}

#[test]
fn values_on_the_way_are_shown_and_the_first_nan_is_named() {
    let folder = Folder::new();
    let graph = folder.file(
        "g.weft",
        "weft 1\ninput x: f32[4]\nroot = log(x)\ntwice = add(root, root)\noutput y = twice\n",
    );
    let out = folder.at("o.safetensors");
    let good =
        folder.tensors("i.safetensors", [("x", Tensor::from_vec([4], vec![1f32, 2.0, 4.0, 8.0]).unwrap())]);
    let bad =
        folder.tensors("b.safetensors", [("x", Tensor::from_vec([4], vec![1f32, -2.0, 4.0, 8.0]).unwrap())]);
    for device in ["cpu", "gpu"] {
        let run = |inputs: &str, more: &[&str]| {
            let args = ["run", &graph, "--inputs", inputs, "--outputs", &out, "--device", device];
            weft(&[&args[..], more].concat())
        };
        let shows = |inputs: &str, more: &[&str], wanted: &str| {
            let ran = run(inputs, more);
            assert!(
                ran.status == 0 && ran.out.contains(wanted),
                "{wanted} on {device}: {}{}",
                ran.out,
                ran.err
            );
        };
        shows(&good, &["--check-finite"], "every value is finite");
        shows(&bad, &["--check-finite"], "the first NaN or infinity is in \"root\": 1 of f32[4]");
        shows(&good, &["--tap", "compact"], "f32[4] from 0.0000 to 4.1589");
        shows(&good, &["--tap", "full"], "1.386294");
        run(&good, &["--tap", "safetensors", "--check-finite"]).says(0, &[]);
        let taps = weft::load::safetensors(folder.at("o.taps.safetensors")).unwrap();
        assert!((values(&taps, "root")[1] - 2f64.ln()).abs() < 1e-6);
    }
}

/// A broken model shows: what activations, bounds and extremes make of a NaN is NaN.
#[test]
fn a_nan_does_not_hide_behind_an_activation() {
    let folder = Folder::new();
    let nan = folder.tensors(
        "i.safetensors",
        [("x", Tensor::from_vec([1, 4], vec![1f32, f32::NAN, -4.0, 8.0]).unwrap())],
    );
    let out = folder.at("o.safetensors");
    let one = "const w: f32[4, 2] = [1, 1, 1, 1, 1, 1, 1, 1]\nh = matmul(x, w, transpose_a=false, transpose_b=false)\n";
    for (text, named) in [
        (format!("{one}hidden = relu(h)\noutput y = hidden\n"), "h"),
        ("hidden = relu(x)\noutput y = hidden\n".into(), "hidden"),
        ("hidden = clamp(x, min=-1, max=1)\noutput y = hidden\n".into(), "hidden"),
        ("hidden = reduce_max(x, axes=[1], keepdim=false)\noutput y = hidden\n".into(), "hidden"),
    ] {
        let graph = folder.file("g.weft", &format!("weft 1\ninput x: f32[1, 4]\n{text}"));
        for device in ["cpu", "gpu"] {
            let args =
                ["run", &graph, "--inputs", &nan, "--outputs", &out, "--device", device, "--check-finite"];
            let ran = weft(&args);
            let wanted = format!("the first NaN or infinity is in \"{named}\"");
            assert!(
                ran.status == 0 && ran.out.contains(&wanted),
                "{wanted} on {device}: {}{}",
                ran.out,
                ran.err
            );
            let found = weft::load::safetensors(&out).unwrap();
            assert!(values(&found, "y").iter().any(|v| v.is_nan()), "{text} on {device}");
        }
    }
}
