//! Small graphs with expected values (`tests/golden/cases`, whose README documents the format of a folder), on every device.

mod devices;

use devices::Tested;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use weft::autodiff::differentiate;
use weft::error::{Error, Result};
use weft::graph::Graph;
use weft::load;
use weft::session::OutputIndex;
use weft::tensor::{DType, Tensor, Weights};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/cases")
}

/// What a case's step gives, by name of the output.
fn run(case: &Path, backward: bool, tested: &Tested) -> Result<Vec<(String, Tensor<'static>)>> {
    let read = |name: &str| {
        let path = case.join(name);
        if path.exists() { load::weights(path) } else { Ok(Weights::new()) }
    };
    let graph = Graph::parse(&std::fs::read_to_string(case.join("g.weft")).unwrap())?;
    let graph = if backward { differentiate(&graph, true)? } else { graph };
    let mut session = tested.compiler().compile(&graph)?.init(&read("weights.safetensors")?)?;
    for (name, tensor) in read("inputs.safetensors")?.iter() {
        session.set_input_tensor(name, tensor)?;
    }
    session.step()?;
    session.wait()?;
    let outputs: Vec<String> = session.outputs().iter().map(|p| p.name.clone()).collect();
    outputs
        .into_iter()
        .enumerate()
        .map(|(i, name)| Ok((name, session.output_tensor(OutputIndex(i))?)))
        .collect()
}

/// The numbers of nested lists, in their order.
fn flatten(values: &Json, into: &mut Vec<Json>) {
    match values {
        Json::Array(items) => items.iter().for_each(|v| flatten(v, into)),
        value => into.push(value.clone()),
    }
}

fn number(value: &Json) -> f64 {
    match value {
        Json::String(s) => s.parse().unwrap_or_else(|_| panic!("no number: {s}")),
        value => value.as_f64().unwrap_or_else(|| panic!("no number: {value}")),
    }
}

/// What is wrong with an output, if anything is.
fn compare(name: &str, came: &Tensor, wanted: &Json, rtol: f64, atol: f64) -> Option<String> {
    let mut values = vec![];
    flatten(wanted, &mut values);
    let count = came.shape().iter().product::<usize>();
    if values.len() == 1 {
        values = vec![values[0].clone(); count];
    }
    if values.len() != count {
        return Some(format!("{name}: {} values wanted, {count} came", values.len()));
    }
    if came.dtype() == DType::I64 {
        let came: Vec<i64> =
            came.bytes().chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
        let wanted: Vec<i64> =
            values.iter().map(|v| v.as_i64().unwrap_or_else(|| panic!("no i64: {v}"))).collect();
        return (came != wanted).then(|| format!("{name}: wanted {wanted:?}, came {came:?}"));
    }
    let rtol = if came.dtype().is_float() { rtol } else { 0.0 };
    let agrees = |came: f64, wanted: f64| {
        came == wanted
            || came.is_nan() && wanted.is_nan()
            || (came - wanted).abs() <= atol + rtol * wanted.abs()
    };
    let (came, wanted): (Vec<f64>, Vec<f64>) = (came.to_f64(), values.iter().map(number).collect());
    let all = came.iter().zip(&wanted).all(|(&c, &w)| agrees(c, w));
    (!all).then(|| format!("{name}: wanted {wanted:?}, came {came:?}"))
}

/// What is wrong with a case on a device, if anything is.
fn check(case: &Path, tested: &Tested) -> Option<String> {
    let expect: Json =
        serde_json::from_str(&std::fs::read_to_string(case.join("expect.json")).unwrap()).unwrap();
    let came = run(case, expect["backward"] == true, tested);
    if expect["refuse"] == true {
        return match came {
            Ok(_) => Some("it was not refused".into()),
            Err(e @ Error::Internal { .. }) => Some(format!("refused by an internal error: {e}")),
            Err(_) => None,
        };
    }
    let came = match came {
        Ok(came) => came,
        Err(e) => return Some(format!("refused: {e}")),
    };
    let (rtol, atol) = (expect["rtol"].as_f64().unwrap_or(1e-5), expect["atol"].as_f64().unwrap_or(0.0));
    let wanted = expect["outputs"].as_object().unwrap();
    assert!(!wanted.is_empty(), "{}: a case without outputs tests nothing", case.display());
    let wrong: Vec<String> = wanted
        .iter()
        .filter_map(|(name, values)| match came.iter().find(|(n, _)| n == name) {
            Some((_, tensor)) => compare(name, tensor, values, rtol, atol),
            None => Some(format!("{name}: no such output")),
        })
        .collect();
    (!wrong.is_empty()).then(|| wrong.join("\n    "))
}

/// Cases with operands of products beyond f16's range, which fast precision rounds them to: they are infinite there, as said.
const BEYOND_F16: &[&str] = &["optimiser_scaled_operands"];

#[test]
fn every_case_has_its_right_values_on_every_device() {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path()).collect();
    cases.retain(|p| p.is_dir());
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", folder().display());
    let (mut wrong, tested) = (vec![], devices::all());
    for case in &cases {
        for t in &tested {
            let name = case.file_name().unwrap().to_string_lossy();
            if t.is_fast() && BEYOND_F16.contains(&&*name) {
                continue;
            }
            if let Some(what) = check(case, t) {
                wrong.push(format!("{name} on {}:\n    {what}", t.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases are wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
