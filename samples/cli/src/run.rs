//! `weft run`: runs a graph in its text form or of an artifact, with safetensors as inputs and outputs.

use crate::args::{Options, Place, Run};
use crate::failure::{Failure, Result};
use crate::output::{table, time, warn};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::Instant;
use weft::autodiff::differentiate;
use weft::device::Device;
use weft::error::Error;
use weft::graph::Graph;
use weft::load;
use weft::session::{Artifact, Compiled, OutputIndex, Session, TapFormat};
use weft::tensor::{DType, Tensor, TensorType, Weights};

pub fn run(args: &Run, options: &Options, out: &mut dyn Write) -> Result<()> {
    if args.tap.as_deref() == Some("safetensors") && args.outputs.exists() && !args.outputs.is_file() {
        let what =
            "--tap safetensors writes a file beside the outputs: give --outputs a file, no pipe or device";
        return Err(Failure::Usage(what.into()));
    }
    let place = options.open()?;
    let start = Instant::now();
    let compiled = match is_artifact(&args.graph) {
        true => ready_made(args, &place.device)?,
        false => compiled(args, &place)?,
    };
    let weights = match (&args.weights, args.weights_dtype) {
        (Some(path), Some(dtype)) => load::weights_as(path, dtype)?,
        (Some(path), None) => load::weights(path)?,
        (None, _) => Weights::new(),
    };
    let mut session = compiled.init(&weights).map_err(|e| match (&e, &args.weights) {
        (Error::MissingWeight { .. }, None) => {
            Failure::from(e).advise("Give the file that holds it with --weights.")
        }
        (Error::WeightType { name, wanted, .. }, Some(_)) if is_float(&weights, name) => {
            let dtype = wanted.split('[').next().unwrap_or(wanted);
            match DType::from_name(dtype).filter(|d| d.is_float() && args.weights_dtype != Some(*d)) {
                Some(dtype) => Failure::from(e)
                    .advise(format!("--weights-dtype {dtype} converts the weights as they are read.")),
                None => e.into(),
            }
        }
        _ => e.into(),
    })?;
    session.warnings().iter().for_each(warn);
    let compile = start.elapsed();
    give_inputs(&mut session, args.inputs.as_deref())?;
    let start = Instant::now();
    let mut taps = Weights::new();
    let step = match args.tap.is_some() || args.check_finite {
        true => observe(&mut session, args, &mut taps, out),
        false => session.step(),
    };
    step.map_err(|e| match &e {
        Error::InputNotSet { .. } if args.inputs.is_none() => {
            Failure::from(e).advise("Give the file that holds them with --inputs.")
        }
        Error::InputNotSet { .. } => {
            Failure::from(e).advise("The --inputs file must hold a tensor of each name.")
        }
        _ => e.into(),
    })?;
    session.wait()?;
    let ran = start.elapsed();

    let mut outputs = Weights::new();
    for index in 0..session.num_outputs() {
        outputs.insert(session.outputs()[index].name.clone(), session.output_tensor(OutputIndex(index))?);
    }
    load::save(&args.outputs, &outputs)?;
    if args.tap.as_deref() == Some("safetensors") {
        load::save(args.outputs.with_extension("taps.safetensors"), &taps)?;
    }
    if options.json {
        let described =
            |(name, t): (&str, &Tensor)| json!({"name": name, "dtype": t.dtype().name(), "shape": t.shape()});
        let all: Vec<_> = outputs.iter().map(described).collect();
        let (compile, run) = (crate::output::ms(compile), crate::output::ms(ran));
        writeln!(
            out,
            "{}",
            json!({
                "outputs": all, "compile_ms": compile, "run_ms": run, "warnings": session.warnings(),
                "device": place.device.info().name, "precision": place.precision.to_string(),
            })
        )?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> =
        outputs.iter().map(|(n, t)| vec![n.into(), t.ty().to_string(), glimpse(t)]).collect();
    table(out, &rows, &[])?;
    writeln!(
        out,
        "\ncompiled in {}, run in {} on {}, wrote {}",
        time(compile),
        time(ran),
        place.in_words(),
        args.outputs.display()
    )?;
    Ok(())
}

/// Whether a file starts like an artifact; no text does.
pub fn is_artifact(path: &Path) -> bool {
    let mut begin = [0; 5];
    let read = std::fs::File::open(path).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut begin));
    read.is_ok() && begin == *b"\x93WEFT"
}

/// The requested graph of an artifact.
fn ready_made(args: &Run, device: &Device) -> Result<Compiled> {
    if args.backward || args.check_finite || !args.allow.is_empty() {
        let what = "--backward, --check-finite and --allow compile the graph anew: give its text form, not an artifact";
        return Err(Failure::Usage(what.into()));
    }
    let artifact = Artifact::load(device, &args.graph)?;
    let mut names = artifact.names();
    let name = match (&args.name, names.next(), names.next()) {
        (Some(name), ..) => name.as_str(),
        (None, Some(only), None) => only,
        _ => {
            let all = artifact.names().collect::<Vec<_>>().join(", ");
            return Err(Failure::Usage(format!("choose a graph of the artifact with --name: {all}")));
        }
    };
    Ok(artifact.get(name)?.clone())
}

/// The graph of a text form.
fn compiled(args: &Run, place: &Place) -> Result<Compiled> {
    if let Some(name) = &args.name {
        return Err(Failure::Usage(format!("--name {name} is for artifacts, and this is none")));
    }
    let text = std::fs::read_to_string(&args.graph).map_err(|e| Failure::reading(&args.graph, &e))?;
    let graph = read_graph(&text, args.backward).map_err(|e| e.within(&args.graph))?;
    let compiler = if args.check_finite { place.compiler().without_fusion() } else { place.compiler() };
    let compiler = crate::args::allowing(compiler, &args.allow);
    compiler.compile(&graph).map_err(|e| Failure::from(e).within(&args.graph))
}

/// Whether the tensor of that name has floats.
fn is_float(weights: &Weights, name: &str) -> bool {
    weights.get(name).is_some_and(|t| t.dtype().is_float())
}

/// Runs the step part by part, printing or saving stored values.
fn observe(
    session: &mut Session,
    args: &Run,
    taps: &mut Weights,
    out: &mut dyn Write,
) -> weft::error::Result<()> {
    let wanted = |name: &str| args.tap_names.as_deref().is_none_or(|part| name.contains(part));
    let mut found: Option<String> = None;
    let mut lines = vec![];
    session.observe(|tap| {
        let bad = if args.check_finite && tap.value.dtype().is_float() { tap.not_finite() } else { 0 };
        if bad > 0 && found.is_none() {
            found = Some(format!("\"{}\": {bad} of {} elements", tap.label, tap.value.ty()));
        }
        match args.tap.as_deref().filter(|_| wanted(&tap.label)) {
            Some("safetensors") => {
                // values with the same name are distinguished by a number
                let mut name = tap.label.clone();
                let mut n = 1;
                while taps.get(&name).is_some() {
                    n += 1;
                    name = format!("{} ({n})", tap.label);
                }
                taps.insert(name, tap.value.clone());
            }
            Some("full") => lines.push(tap.show(TapFormat::Full).to_string()),
            Some(_) => lines.push(tap.show(TapFormat::Compact).to_string()),
            None => {}
        }
        Ok(())
    })?;
    if args.check_finite {
        lines.push(match found {
            Some(node) => format!("the first NaN or infinity is in {node}"),
            None => "every value is finite".into(),
        });
    }
    lines.push(String::new());
    let _ = out.write_all(lines.join("\n").as_bytes());
    Ok(())
}

fn read_graph(text: &str, backward: bool) -> Result<Graph> {
    let graph = Graph::parse(text)?;
    if !backward {
        return Ok(graph);
    }
    differentiate(&graph, true).map_err(|e| match &e {
        Error::Graph { .. } => Failure::from(e).advise("--backward needs a line `loss NAME` in the graph."),
        _ => e.into(),
    })
}

/// Sets each input from the file's tensor of that name; tensors without an input are warnings.
fn give_inputs(session: &mut Session, file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let wanted: Vec<(String, TensorType)> = session
        .inputs()
        .iter()
        .map(|p| (p.name.clone(), TensorType::new(p.dtype, p.shape.clone())))
        .collect();
    let given = load::weights(file)?;
    // a file may contain unsupported dtypes: only tensors that are needed must be supported
    if let Some((name, why)) = wanted.iter().find_map(|(n, _)| Some((n, given.unusable(n)?))) {
        let (what, came) = (format!("input \"{name}\""), why);
        return Err(Error::argument(what, "a dtype that Weft computes with", came).into());
    }
    for (name, tensor) in given.iter() {
        let Some((_, ty)) = wanted.iter().find(|(n, _)| n == name) else {
            let known: Vec<&str> = wanted.iter().map(|(n, _)| n.as_str()).collect();
            warn(format!(
                "tensor \"{name}\" is not an input of the graph; its inputs are: {}",
                known.join(", ")
            ));
            continue;
        };
        session.set_input_tensor(name, &converted(name, tensor, ty.dtype)?)?;
    }
    Ok(())
}

/// The tensor converted to its input's dtype, if lossless: other integers for ids, packed floats for f32.
fn converted(name: &str, tensor: &Tensor<'static>, dtype: DType) -> weft::error::Result<Tensor<'static>> {
    let from = tensor.dtype();
    let widens = from.is_float() && dtype == DType::F32;
    if from == dtype || !(widens || from.is_integer() && dtype.is_integer()) {
        return Ok(tensor.clone()); // the session reports a mismatch, if any
    }
    let ty = TensorType::new(dtype, tensor.shape());
    match tensor.to_whole() {
        Some(whole) => Tensor::from_whole(&ty, &whole).map_err(|e| match e {
            Error::Argument { wanted, came, .. } => {
                Error::argument(format!("input \"{name}\""), wanted, came)
            }
            other => other,
        }),
        None => Tensor::from_f64(&ty, &tensor.to_f64()),
    }
}

/// The first few elements.
fn glimpse(tensor: &Tensor) -> String {
    const SHOWN: usize = 6;
    let values = tensor.to_f64();
    let mut shown: Vec<String> = values.iter().take(SHOWN).map(|v| format!("{v:.6}")).collect();
    if let Some(whole) = tensor.to_whole() {
        shown = whole.iter().take(SHOWN).map(ToString::to_string).collect();
    }
    let more = if values.len() > SHOWN { " …" } else { "" };
    format!("{}{more}", shown.join(" "))
}
