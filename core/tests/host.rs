//! Features for host applications in other languages: lent and borrowed memory, waits with a timeout, training over data in
//! memory, suspending a device, a log. On the CPU device and on this machine's GPU, if it has one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weft::device::Device;
use weft::error::{Error, Result};
use weft::graph::Graph;
use weft::session::{Batches, Compiler, Optimizer, Progress, Session};
use weft::tensor::{Bytes, DType, Tensor, Weights};

/// The devices to try: the GPU is software where there is no other.
fn devices() -> Vec<Device> {
    let gpu = Device::gpu();
    assert!(gpu.is_ok() || std::env::var_os("CI").is_none(), "{gpu:?}");
    std::iter::once(Device::cpu(2)).chain(gpu).collect()
}

/// y = 2·x + 1, of [n].
fn affine(device: &Device, n: usize) -> Session {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [n]);
    let y = g.add(g.mul(x, g.scalar(2.0, DType::F32)), g.scalar(1.0, DType::F32));
    g.output("y", y);
    Compiler::new(device).compile(&g).unwrap().init_zeros().unwrap()
}

/// Memory of a host's: read through a raw address, written by the host between steps.
struct Lent(Arc<Mutex<Vec<f32>>>);

impl Lent {
    fn new(elements: Vec<f32>) -> (Lent, Bytes<'static>) {
        let owner = Arc::new(Mutex::new(elements));
        let (start, len) = {
            let v = owner.lock().unwrap();
            (v.as_ptr().cast::<u8>(), v.len() * 4)
        };
        // SAFETY: the vector is never resized, and written between steps only.
        let bytes = unsafe { Bytes::from_raw(start, len, owner.clone()) };
        (Lent(owner), bytes)
    }

    fn write(&self, f: impl Fn(usize) -> f32) {
        self.0.lock().unwrap().iter_mut().enumerate().for_each(|(i, v)| *v = f(i));
    }
}

#[test]
fn a_borrowed_input_is_read_at_each_step_until_another_takes_its_place() -> Result<()> {
    // small inputs travel otherwise on a GPU than large ones
    for (device, n) in devices().into_iter().flat_map(|d| [(d.clone(), 7), (d, 100_000)]) {
        let mut s = affine(&device, n);
        let (host, bytes) = Lent::new(vec![0.0; n]);
        s.borrow_input("x", DType::F32, &bytes)?;
        drop(bytes);
        for round in 1..4 {
            host.write(|i| (i % 13) as f32 * round as f32);
            s.step()?;
            let y = s.read_output::<f32>("y")?;
            assert!(
                y.iter().enumerate().all(|(i, y)| *y == 2.0 * ((i % 13) as f32 * round as f32) + 1.0),
                "{device:?}"
            );
        }
        assert_eq!(Arc::strong_count(&host.0), 2, "the session holds it");
        s.set_input("x", &vec![3.0; n])?;
        assert_eq!(Arc::strong_count(&host.0), 1, "the session has let go of it");
        s.step()?;
        assert!(s.read_output::<f32>("y")?.iter().all(|y| *y == 7.0));
        assert!(host.0.lock().unwrap().iter().any(|v| *v != 3.0), "the host's memory was written to");
    }
    Ok(())
}

#[test]
fn what_cannot_be_borrowed_is_refused() {
    for device in devices() {
        let mut s = affine(&device, 4);
        let bytes = Bytes::from_vec(vec![0.0f32; 5]);
        let refused = |e: Result<()>| e.unwrap_err().code();
        assert_eq!(refused(s.borrow_input("z", DType::F32, &bytes)), 300);
        assert_eq!(refused(s.borrow_input("x", DType::F32, &bytes)), 301);
        assert_eq!(refused(s.borrow_input("x", DType::I32, &bytes.part(0, 16).unwrap())), 302);
        assert_eq!(refused(s.borrow_input("x", DType::F32, &bytes.part(1, 17).unwrap())), 307);
        assert_eq!(refused(s.set_input_bytes("x", DType::F32, &[0; 15])), 301);
    }
}

#[test]
fn a_lent_output_is_what_reading_gives_and_lies_still_on_the_cpu() -> Result<()> {
    for device in devices() {
        let mut s = affine(&device, 1000);
        assert!(matches!(s.lend_output("y"), Err(Error::NotRun { .. })));
        for round in 0..3 {
            s.set_input("x", &(0..1000).map(|i| (i * round) as f32).collect::<Vec<_>>())?;
            s.step()?;
            let read = s.read_output::<f32>("y")?;
            let lent = s.lend_output("y")?.to_vec();
            assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&lent), read);
            let mut copied = vec![0; 4000];
            s.read_output_bytes("y", DType::F32, &mut copied)?;
            assert_eq!(copied, lent);
        }
        let first = s.lend_output("y")?.as_ptr();
        assert_eq!(s.lend_output("y")?.as_ptr(), first, "lent twice, fetched once");
    }
    Ok(())
}

#[test]
fn a_wait_with_an_end_says_whether_the_steps_are_done() -> Result<()> {
    for device in devices() {
        let g = Graph::new();
        let mut x = g.input("x", DType::F32, [512, 512]);
        for _ in 0..6 {
            x = g.tanh(g.matmul(x, x));
        }
        g.output("y", x);
        let mut s = Compiler::new(&device).compile(&g)?.init_zeros()?;
        s.set_input("x", &vec![0.01; 512 * 512])?;
        s.step()?;
        let mut polls = 0;
        while !s.wait_for(Duration::ZERO)? {
            polls += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        // a GPU has only begun when the step returns
        assert!(polls > 0 || device.as_gpu().is_none(), "{device:?} was done at once");
        s.step()?;
        assert!(s.wait_for(Duration::from_secs(100))?);
        assert!(s.wait_for(Duration::ZERO)?, "done stays done");
    }
    Ok(())
}

#[test]
fn a_wait_with_an_end_tells_of_a_bad_index() -> Result<()> {
    for device in devices() {
        let g = Graph::new();
        let table = g.constant_f32(&[3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        g.output("y", g.embedding(table, g.input("ids", DType::U32, [2])));
        let mut s = Compiler::new(&device).compile(&g)?.init_zeros()?;
        s.set_input::<u32>("ids", &[1, 9])?;
        let told = s.step().and_then(|()| s.wait_for(Duration::from_secs(100)).map(|_| ()));
        assert!(matches!(told, Err(Error::IndexOutOfRange { index: 9, .. })), "{told:?}");
        assert!(matches!(s.read_output::<f32>("y"), Err(Error::NotRun { .. })));
    }
    Ok(())
}

/// A linear model with a loss, over 4 samples at once.
fn learner(device: &Device) -> Result<Session> {
    let g = Graph::new();
    let (x, t) = (g.input("x", DType::F32, [4, 3]), g.input("t", DType::F32, [4, 1]));
    let y = g.linear(x, g.parameter("w", [1, 3]), Some(g.parameter("b", [1])));
    let d = g.sub(y, t);
    g.set_loss(g.mean(g.mul(d, d), &[0, 1], false));
    let mut weights = Weights::new();
    weights.insert("w", Tensor::from_vec([1, 3], vec![0.3f32, -0.2, 0.1])?);
    weights.insert("b", Tensor::from_vec([1], vec![0.05f32])?);
    let mut s = Compiler::new(device).compile_training(&g)?.init(&weights)?;
    s.set_optimizer(Optimizer::adam(0.05))?;
    Ok(s)
}

fn data() -> (Vec<f32>, Vec<f32>) {
    let x: Vec<f32> = (0..36).map(|i| ((i * 7 % 11) as f32 - 5.0) / 5.0).collect();
    let t = x.chunks(3).map(|r| r[0] - 2.0 * r[1] + 0.5 * r[2] + 1.0).collect();
    (x, t)
}

#[test]
fn training_over_batches_is_what_its_steps_by_hand_are() -> Result<()> {
    let (x, t) = data();
    let batches = [
        Batches { name: "x", dtype: DType::F32, bytes: bytemuck::cast_slice(&x) },
        Batches { name: "t", dtype: DType::F32, bytes: bytemuck::cast_slice(&t) },
    ];
    for device in devices() {
        let (mut s, mut by_hand) = (learner(&device)?, learner(&device)?);
        let mut seen = vec![];
        s.train(&batches, 4, &Progress::default(), &mut |done, all, loss| seen.push((done, all, loss)))?;
        let mut losses = vec![];
        for step in 0..12 {
            by_hand.set_input("x", &x[step % 3 * 12..][..12])?;
            by_hand.set_input("t", &t[step % 3 * 4..][..4])?;
            by_hand.step()?;
            losses.push((step + 1, 12, by_hand.loss()?));
        }
        assert_eq!(seen, losses);
        assert!(losses[11].2 < losses[2].2, "it learns");
        assert_eq!(s.read_parameter::<f32>("w")?, by_hand.read_parameter::<f32>("w")?);

        let wish = Progress::default();
        let mut steps = 0;
        let ended = s.train(&batches, 4, &wish, &mut |done, _, _| {
            steps = done;
            if done == 5 {
                wish.cancel();
            }
        });
        assert!(matches!(ended, Err(Error::Cancelled { .. })) && steps == 5, "{ended:?} after {steps}");
        let uneven = [batches[0], Batches { bytes: &batches[1].bytes[..32], ..batches[1] }];
        assert!(matches!(
            s.train(&uneven, 1, &Progress::default(), &mut |_, _, _| ()),
            Err(Error::Argument { .. })
        ));
        assert!(matches!(
            s.train(&[], 1, &Progress::default(), &mut |_, _, _| ()),
            Err(Error::Argument { .. })
        ));
    }
    Ok(())
}

#[test]
fn a_cancelled_compilation_ends_on_every_device() {
    for device in devices() {
        let g = Graph::new();
        g.output("y", g.exp(g.input("x", DType::F32, [9])));
        let told = Arc::new(AtomicUsize::new(0));
        let seen = told.clone();
        let wish = Progress::default();
        let progress = wish.reporting(move |done, all| {
            assert!(done <= all);
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let compiler = Compiler::new(&device).with_progress(progress);
        assert!(compiler.compile(&g).is_ok());
        assert!(told.load(Ordering::Relaxed) > 0, "{device:?} reported nothing");
        wish.cancel();
        assert!(matches!(compiler.compile(&g), Err(Error::Cancelled { .. })));
    }
}

// Tests that suspend are one: the GPU is shared by all of a process. The others' devices are other contexts' only where the
// process has none open, so this one runs in a process of its own (see `suspended`).
#[test]
fn a_suspended_gpu_refuses_work_and_goes_on_where_it_was() {
    let test = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(test);
    child.args(["suspended", "--exact", "--ignored", "--nocapture"]);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "run by a_suspended_gpu_refuses_work_and_goes_on_where_it_was"]
fn suspended() -> Result<()> {
    let Ok(device) = Device::gpu() else { return Ok(()) };
    let (x, t) = data();
    let mut s = learner(&device)?;
    let mut other = learner(&device)?;
    let step = |s: &mut Session, i: usize| {
        s.set_input("x", &x[i % 3 * 12..][..12])?;
        s.set_input("t", &t[i % 3 * 4..][..4])?;
        s.step()
    };
    for i in 0..6 {
        step(&mut other, i)?;
    }
    for i in 0..3 {
        step(&mut s, i)?;
    }
    let before = device.memory().0;
    device.suspend()?;
    assert!(device.is_suspended());
    assert!(device.memory().0 < before, "{} bytes are still in use of {before}", device.memory().0);
    let suspended = |e: Result<()>| matches!(e, Err(Error::Suspended { .. }));
    for _ in 0..2 {
        assert!(suspended(s.step()));
    }
    assert!(
        suspended(s.wait()) && suspended(s.wait_for(Duration::ZERO).map(|_| ())),
        "the steps were not waited for"
    );
    assert!(suspended(s.read_parameter::<f32>("w").map(|_| ())));
    let g = Graph::new();
    g.output("y", g.exp(g.input("x", DType::F32, [9])));
    let made = Compiler::new(&device).compile(&g).and_then(|c| c.init_zeros()).map(|_| ());
    assert!(suspended(made));
    device.trim()?;
    device.resume();
    assert!(!device.is_suspended());
    // a thread that steps meanwhile is refused at the boundary of a step
    let stepped = std::thread::spawn({
        let mut third = learner(&device)?;
        let (x, t) = (x[..12].to_vec(), t[..4].to_vec());
        move || {
            third.set_input("x", &x)?;
            third.set_input("t", &t)?;
            loop {
                third.step()?;
            }
        }
    });
    std::thread::sleep(Duration::from_millis(100));
    device.suspend()?;
    let ended: Result<()> = stepped.join().unwrap();
    assert!(suspended(ended));
    device.resume();
    for i in 3..6 {
        step(&mut s, i)?;
    }
    // Adam counted no step that was refused
    assert_eq!(s.read_parameter::<f32>("w")?, other.read_parameter::<f32>("w")?);
    Ok(())
}

#[test]
fn the_cpu_device_is_never_suspended() -> Result<()> {
    let device = Device::cpu(1);
    let mut s = affine(&device, 3);
    s.set_input("x", &[1.0, 2.0, 3.0])?;
    device.suspend()?;
    device.trim()?;
    assert!(!device.is_suspended() && !device.set_memory_budget(1) && device.memory() == (0, 0));
    s.step()
}

#[test]
fn the_log_tells_what_its_level_asks_for() -> Result<()> {
    use weft::log::{Level, set};
    let lines: Arc<Mutex<Vec<(Level, String)>>> = Arc::default();
    let seen = lines.clone();
    set(Some((
        Level::Warn,
        Arc::new(move |level, line: &str| seen.lock().unwrap().push((level, line.to_string()))),
    )));
    let g = Graph::new();
    g.output("y", g.linear(g.input("x", DType::F32, [1, 2]), g.parameter("w", [2, 2]), None));
    let mut weights = Weights::new();
    weights.insert("w", Tensor::from_vec([2, 2], vec![1.0f32; 4])?);
    weights.insert("unused.by.this.test", Tensor::from_vec([1], vec![1.0f32])?);
    Compiler::new(&Device::cpu(1)).compile(&g)?.init(&weights)?;
    set(None);
    Compiler::new(&Device::cpu(1)).compile(&g)?.init(&weights)?;
    let lines = lines.lock().unwrap();
    let ours: Vec<_> = lines.iter().filter(|(_, l)| l.contains("unused.by.this.test")).collect();
    assert!(ours.len() == 1 && ours[0].0 == Level::Warn, "{lines:?}");
    assert!(lines.iter().all(|(level, _)| *level <= Level::Warn), "{lines:?}");
    Ok(())
}
