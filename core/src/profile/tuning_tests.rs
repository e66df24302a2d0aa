//! The text form of tunings round-trips, and malformed lines are refused by number.

use super::*;
use crate::profile::{Costs, DeviceKind};

fn profile(name: &str, limits: Limits) -> DeviceProfile {
    let costs = Costs::gpu(limits.units, limits.coop > 0);
    let (kind, gpu) = (DeviceKind::Discrete, Some(limits));
    DeviceProfile { name: name.into(), kind, threads: 0, memory: 0, gpu, costs }
}

fn class(m: u32, form: usize) -> ProductClass {
    let shape = Shape {
        batch: 1 + form as u32,
        m,
        n: 384,
        k: 1536,
        a_vec: Along::K,
        b_vec: Along::ALL[form % 3].1,
        c_vec: form & 1 > 0,
        norm: form & 2 > 0,
        gated_columns: form & 4 > 0,
        concurrent: form % 3 == 1,
    };
    let precision = if form & 1 > 0 { Precision::Fast } else { Precision::Full };
    ProductClass { shape, a: DType::F32, b: DType::ALL[form % 10], windows: form & 8 > 0, precision }
}

fn cuts() -> [Option<Cut>; 4] {
    [
        None,
        Some(Cut::Tiled { tile: [64, 96, 16], block: [8, 4], slices: 2, split: 3, depth: 0 }),
        Some(Cut::Matrices { tile: [128, 64, 32], subgroups: [4, 2, 1], split: 1, depth: 2 }),
        Some(Cut::Vector { rows: 2, columns: 3, lanes: 32, threads: 128, unroll: 4, split: 8, swap: 1 }),
    ]
}

fn filled() -> Tuning {
    let mut t = Tuning::default();
    for device in [profile("NVIDIA H200 # a", Limits::large()), profile("Phone", Limits::least())] {
        for form in 0..16 {
            let (cut, transpose_weight) = (cuts()[form % 4], form % 5 == 0);
            let class = class(1 + form as u32, form);
            t.insert(
                &device,
                TunedProduct { class, transpose_weight, cut, rule_us: 31.25, us: 24.1 / (form + 1) as f64 },
            );
        }
    }
    t
}

#[test]
fn words_of_earlier_versions_are_still_read() {
    let now = filled().to_string();
    let former = FORMER.iter().fold(now.clone(), |text, (former, now)| text.replace(now, former));
    assert!(FORMER.iter().all(|(word, _)| former.contains(&format!(" {word} "))), "{former}");
    assert_eq!(former.parse::<Tuning>().unwrap(), filled());
}

#[test]
fn tunings_print_and_parse_back() {
    let t = filled();
    assert_eq!(t.devices().len(), 2);
    assert_eq!(t.devices().iter().map(|d| d.products.len()).sum::<usize>(), 32);
    assert_eq!(t.to_string().parse::<Tuning>().unwrap(), t);
    assert_eq!(Tuning::default().to_string().parse::<Tuning>().unwrap(), Tuning::default());
    let file = std::env::temp_dir().join(format!("weft-tuning-{}", std::process::id()));
    t.save(&file).unwrap();
    assert_eq!(Tuning::load(&file).unwrap(), t);
    // with a byte order mark, as some editors save it
    std::fs::write(&file, format!("\u{feff}{t}")).unwrap();
    assert_eq!(Tuning::load(&file).unwrap(), t);
    std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    assert!(Tuning::load(&file).unwrap_err().to_string().contains("UTF-8"));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(Tuning::load(&file), Err(Error::Io { .. })));
}

#[test]
fn a_tuning_is_of_the_device_that_was_measured_and_of_no_other() {
    let t = filled();
    assert_eq!(t.of(&profile("Phone", Limits::least())).unwrap().products.len(), 16);
    assert!(t.check(&profile("Phone", Limits::least())).is_ok());
    // of another name, and of other limits (a driver with fewer features)
    let other = t.check(&profile("Tablet", Limits::least())).unwrap_err().to_string();
    assert!(other.contains("Tablet") && other.contains("NVIDIA H200 # a, Phone"), "{other}");
    let less =
        t.check(&profile("Phone", Limits { threads: 128, ..Limits::least() })).unwrap_err().to_string();
    assert!(less.contains("a Phone with other limits"), "{less}");
    let cpu = DeviceProfile { gpu: None, kind: DeviceKind::Cpu, ..profile("Phone", Limits::least()) };
    assert!(t.of(&cpu).is_none() && t.check(&cpu).is_err());
}

#[test]
fn later_measurements_take_the_place_of_earlier_ones() {
    let (phone, large) = (profile("Phone", Limits::least()), profile("Large", Limits::large()));
    let product =
        |us| TunedProduct { class: class(7, 0), transpose_weight: false, cut: cuts()[1], rule_us: 9.0, us };
    let (mut old, mut new) = (Tuning::default(), Tuning::default());
    old.insert(&phone, product(5.0));
    old.insert(&phone, TunedProduct { class: class(8, 0), ..product(6.0) });
    new.insert(&phone, product(4.0));
    new.insert(&large, product(3.0));
    old.merge(&new);
    let us = |p: &DeviceProfile| old.of(p).unwrap().products.iter().map(|p| p.us).collect::<Vec<_>>();
    assert_eq!((us(&phone), us(&large)), (vec![6.0, 4.0], vec![3.0]));
    let mut twice = Tuning::default();
    twice.insert(&phone, product(5.0));
    twice.insert(&phone, product(2.0));
    assert_eq!(twice.of(&phone).unwrap().products, [product(2.0)]);
}

#[test]
fn texts_that_are_no_tunings_are_refused_by_line() {
    let good = "1 64 32 16 k:f32 k:f32 four full rule_us=2 us=1 tiled tile=64x96x16 block=8x4 slices=1 split=1 depth=1";
    let with = |line: &str| format!("weft-tuning 1\ndevice x\ngpu.threads 256\n{line}");
    assert!(with(&format!("product {good}")).parse::<Tuning>().is_ok());
    let swap = |from: &str, to: &str| {
        let line = format!("product {}", good.replacen(from, to, 1));
        assert_ne!(line, format!("product {good}"), "{from}");
        (with(&line), "product")
    };
    let cases = [
        (String::new(), "first line"),
        ("weft-tuning 2".into(), "weft-tuning 2"),
        (format!("weft-tuning 1\nproduct {good}"), "device"),
        (with("product"), "a name and a value"),
        (with("gpu.rays 1"), "gpu.rays"),
        (with("gpu.threads -1"), "gpu.threads"),
        (with("gpu.threads 99999999999999999999"), "gpu.threads"),
        (with("gpu.threads 1"), "gpu.threads"),
        (with(&format!("product {good}\ngpu.threads 64")), "gpu.threads 64"),
        (with(&format!("product {good}\nproduct {good}")), "once"),
        (with("device x\ngpu.threads 256"), "each device once"),
        swap("1 64", "0 64"),
        swap("1 64", "1 4294967296"),
        swap("k:f32", "k:f31"),
        swap("k:f32", "z:f32"),
        swap("k:f32", "k"),
        swap("four", "five"),
        swap("four", "norm four"),
        swap("full", "half"),
        swap("us=1", "us=NaN"),
        swap("us=1", "us=inf"),
        swap("us=1", "us=-1"),
        swap("us=1", "US=1"),
        swap("tiled", "tilted"),
        swap("64x96x16", "64x96"),
        swap("64x96x16", "64x96x16x8"),
        swap("64x96x16", "64x96x4294967295"),
        swap("64x96x16", "0x96x16"),
        swap("block=8x4", "slices=1"),
        swap("depth=1", "depth=5"),
        swap("depth=1", "depth=1 more=1"),
        swap(" depth=1", ""),
    ];
    for (text, message) in cases {
        let refused = text.parse::<Tuning>().expect_err(&text).to_string();
        assert!(refused.contains(message), "{refused}\n{text}");
    }
    // any truncation of a valid text, and any changed byte, is refused or read, without a panic
    let whole = filled().to_string();
    for at in (0..whole.len()).filter(|at| whole.is_char_boundary(*at)).step_by(3) {
        let _ = whole[..at].parse::<Tuning>();
        let changed = format!("{}\u{7f}{}", &whole[..at], &whole[at..]);
        let _ = changed.parse::<Tuning>();
    }
}
