//! The desktop package: installed, moved, and used from outside the source tree by CMake and by pkg-config. The samples'
//! results are compared with the engine's own interface, bit for bit.

use crate::tools::*;
use engine::device::Device;
use engine::graph::Graph;
use engine::load;
use engine::models::{Encoder, mlp};
use engine::session::{Batches, Compiler, Optimizer, Progress};
use engine::tensor::DType;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SAMPLES: [&str; 5] = ["quickstart", "search", "finetune", "artifact", "wrapper"];

/// The installation, moved after it was made.
fn installed() -> &'static Path {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    AT.get_or_init(|| {
        let (first, moved) = (folder("installed-first"), folder("installed").join("here"));
        let mut install = Command::new(root().join("platforms/desktop/install"));
        print!("{}", run(install.arg("--prefix").arg(&first).arg("--library").arg(built())));
        std::fs::rename(&first, &moved).unwrap();
        moved
    })
}

/// A copy of the samples, outside the source tree.
fn copied(name: &str) -> PathBuf {
    let at = std::env::temp_dir().join(format!("weft-abi-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&at);
    run(Command::new("cp").arg("-r").arg(root().join("samples/c")).arg(&at));
    at
}

/// The samples' programs, by whoever builds them.
fn by_cmake() -> Option<PathBuf> {
    if !has("cmake") {
        return None;
    }
    let at = copied("cmake");
    for sample in SAMPLES {
        let build = at.join(sample).join("build");
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(at.join(sample)).arg("-B").arg(&build);
        run(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", installed().display())));
        run(Command::new("cmake").arg("--build").arg(&build));
        std::fs::rename(build.join(sample), at.join(format!("{sample}.program"))).unwrap();
    }
    Some(at)
}

fn by_pkg_config() -> Option<PathBuf> {
    if !has("pkg-config") || !has("make") {
        return None;
    }
    let at = copied("pkg-config");
    let mut make = Command::new("make");
    make.arg("-C").arg(&at).arg(format!("OUT={}", at.join("out").display()));
    std::fs::create_dir(at.join("out")).unwrap();
    run(make.env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig")));
    for sample in SAMPLES {
        std::fs::rename(at.join("out").join(sample), at.join(format!("{sample}.program"))).unwrap();
    }
    Some(at)
}

/// Runs every sample and compares what it says with what the engine says.
fn check(at: &Path) {
    let sample = |name: &str| Command::new(at.join(format!("{name}.program")));
    let likely = probabilities();
    for name in ["quickstart", "wrapper"] {
        let said = run(sample(name).arg(classifier()).arg(digits()));
        assert_eq!(numbers(&said, 1), likely, "{name}");
    }
    let saved = at.join("adapted.safetensors");
    let said = run(sample("finetune").arg(classifier()).arg(digits()).arg(&saved));
    let (first, last, right) = fine_tuned(&saved);
    let count = format!("{right} of 128 digits right");
    assert!(right > 100 && said.ends_with(&format!("{count}\n")), "{said}");
    let losses = said.lines().take(2).map(|l| l.rsplit(' ').next().unwrap().parse::<f32>().unwrap());
    assert_eq!(losses.collect::<Vec<_>>(), [first, last]);

    let file = at.join("classifier.weftc");
    let mut runs = vec![];
    for wanted in ["compiled", "loaded"] {
        let mut artifact = sample("artifact");
        artifact.arg(root().join("samples/graphs/classifier.weft")).arg(classifier()).arg(&file);
        let said = run(&mut artifact);
        assert!(said.starts_with(wanted), "{said}");
        runs.push(numbers(&said, 1).pop().unwrap());
    }
    assert_eq!(runs, [loss(), loss()]);

    let Some(model) = minilm() else { return };
    let passages = at.join("passages.txt");
    std::fs::write(&passages, PASSAGES.join("\n")).unwrap();
    let said = run(sample("search").arg(&model).arg(&passages).arg(QUESTION));
    let best: Vec<(f32, String)> = said
        .lines()
        .map(|l| l.split_once(' ').unwrap())
        .map(|(n, t)| (n.parse().unwrap(), t.into()))
        .collect();
    assert_eq!(best, found(&model));
}

/// The numbers in a column.
fn numbers(text: &str, column: usize) -> Vec<f32> {
    text.lines().filter_map(|l| l.split(' ').nth(column)?.parse().ok()).collect()
}

/// What the classifier says of the first digit.
fn probabilities() -> Vec<f32> {
    let g = Graph::new();
    g.output("p", g.softmax(mlp(&g, g.input("pixels", DType::F32, [1, 64]), &[64, 64, 10]), -1));
    let weights = load::weights(classifier()).unwrap();
    let mut session = Compiler::new(&Device::cpu(0)).compile(&g).unwrap().init(&weights).unwrap();
    session.set_input("pixels", &read_digits(1)[0].0).unwrap();
    session.step().unwrap();
    session.read_output::<f32>("p").unwrap()
}

/// First and last loss of the sample's fine-tuning and the digits that are right after it; the weights must be those saved.
fn fine_tuned(saved: &Path) -> (f32, f32, usize) {
    let digits = read_digits(128);
    let device = Device::cpu(0);
    let logits = |g: &Graph, batch| mlp(g, g.input("pixels", DType::F32, [batch, 64]), &[64, 64, 10]);
    let g = Graph::new();
    let y = logits(&g, 16);
    g.set_loss(g.cross_entropy(y, g.input("labels", DType::U32, [16]), Default::default()));
    let weights = load::weights(classifier()).unwrap();
    let mut learner = Compiler::new(&device).compile_training(&g).unwrap().init(&weights).unwrap();
    learner.set_optimizer(Optimizer::adam(1e-3)).unwrap();
    let pixels: Vec<u8> = digits.iter().flat_map(|d| &d.0).flat_map(|p| p.to_ne_bytes()).collect();
    let labels: Vec<u8> = digits.iter().flat_map(|d| d.1.to_ne_bytes()).collect();
    let data = [
        Batches { name: "pixels", dtype: DType::F32, bytes: &pixels },
        Batches { name: "labels", dtype: DType::U32, bytes: &labels },
    ];
    let mut losses = vec![];
    learner.train(&data, 5, &Progress::default(), &mut |_, _, loss| losses.push(loss)).unwrap();
    let g = Graph::new();
    g.output("p", g.softmax(logits(&g, 1), -1));
    let mut answers = Compiler::new(&device).compile(&g).unwrap().init_shared(&learner.parameters()).unwrap();
    let mut right = 0;
    for (pixels, label) in &digits {
        answers.set_input("pixels", pixels).unwrap();
        answers.step().unwrap();
        let p = answers.read_output::<f32>("p").unwrap();
        // the first of the largest, as in the sample
        let best = (0..p.len()).rev().max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
        right += usize::from(best as u32 == *label);
    }
    let (ours, theirs) = (learner.parameters().to_weights().unwrap(), load::weights(saved).unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (name, tensor) in ours.iter() {
        assert_eq!(tensor.bytes(), theirs.get(name).unwrap().bytes(), "{name}");
    }
    (losses[0], losses[losses.len() - 1], right)
}

/// The loss that the artifact's sample computes.
fn loss() -> f32 {
    let text = std::fs::read_to_string(root().join("samples/graphs/classifier.weft")).unwrap();
    let weights = load::weights(classifier()).unwrap();
    let compiled = Compiler::new(&Device::cpu(0)).compile(&Graph::parse(&text).unwrap()).unwrap();
    let mut session = compiled.init(&weights).unwrap();
    let pixels: Vec<f32> = (0..4 * 64).map(|i| (i * 7 % 17) as f32 / 16.0).collect();
    session.set_input("pixels", &pixels).unwrap();
    session.set_input::<i32>("labels", &[0, 1, 2, 3]).unwrap();
    session.step().unwrap();
    session.loss().unwrap()
}

const PASSAGES: [&str; 5] = [
    "Intermediate values share one arena by lifetime.",
    "The cat sits outside.",
    "Adam keeps two moments for each parameter.",
    "Buffers that are no longer needed are given to later values.",
    "Digits are handwritten.",
];
const QUESTION: &str = "how is memory reused?";

/// The three best passages and their scores.
fn found(model: &Path) -> Vec<(f32, String)> {
    let encoder = Encoder::open(model, &Device::cpu(0)).unwrap();
    let texts: Vec<&str> = PASSAGES.iter().copied().chain([QUESTION]).collect();
    let all = encoder.embed(&texts).unwrap();
    let question = &all[PASSAGES.len()].embedding;
    let score = |i: usize| all[i].embedding.iter().zip(question).fold(0.0, |sum, (a, b)| sum + a * b);
    let mut best: Vec<(f32, String)> = (0..PASSAGES.len()).map(|i| (score(i), PASSAGES[i].into())).collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0));
    best.truncate(3);
    best
}

#[test]
fn the_samples_build_with_cmake_against_the_package_and_say_what_the_engine_says() {
    if let Some(at) = by_cmake() {
        check(&at);
        std::fs::remove_dir_all(at).unwrap();
    }
}

#[test]
fn the_samples_build_with_pkg_config_against_the_package_and_say_what_the_engine_says() {
    if let Some(at) = by_pkg_config() {
        check(&at);
        std::fs::remove_dir_all(at).unwrap();
    }
}

#[test]
fn the_static_library_links_with_what_the_package_says() {
    if !has("pkg-config") {
        return;
    }
    let at = folder("static");
    let pc = |option: &str| {
        let mut command = Command::new("pkg-config");
        command.args(["--static", option, "weft"]).env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig"));
        run(&mut command).split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    let libs: Vec<String> =
        pc("--libs").into_iter().filter(|l| l != "-lweft" && !l.contains("rpath")).collect();
    let program = at.join("quickstart");
    let mut command = Command::new("cc");
    command.args(pc("--cflags")).arg(root().join("samples/c/quickstart/quickstart.c"));
    run(command.arg(installed().join("lib/libweft.a")).args(libs).arg("-o").arg(&program));
    let said = run(Command::new(&program).arg(classifier()).arg(digits()));
    assert_eq!(numbers(&said, 1), probabilities());
}

#[test]
fn under_valgrind_a_clean_program_over_the_stripped_library_loses_nothing_but_what_the_package_says() {
    if !has("valgrind") || !has("strip") {
        return;
    }
    let at = folder("stripped");
    run(Command::new("strip").arg("-o").arg(at.join("libweft.so.0")).arg(built().join("libweft.so")));
    let quickstart = program(&root().join("samples/c/quickstart/quickstart.c"), &at.join("quickstart"), &[]);
    let mut command = valgrind(&installed().join("share/weft/weft.supp"));
    command.arg(quickstart).arg(classifier()).arg(digits()).env("LD_LIBRARY_PATH", &at);
    let said = run(without_drivers(&mut command));
    assert_eq!(numbers(&said, 1), probabilities());
}
