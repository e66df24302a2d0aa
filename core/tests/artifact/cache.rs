//! The compiler's cache: hits, eviction, damage, and processes that are killed while they write.

use super::models::{filled, run, weights};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use weft::device::Device;
use weft::graph::Graph;
use weft::profile::Precision;
use weft::session::{Artifact, Compiled, Compiler};
use weft::tensor::DType;

/// An empty folder of this test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("weft-cache-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }

    fn entries(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(&self.0).into_iter().flatten().map(|f| f.unwrap().path());
        all.filter(|p| p.extension().is_some_and(|e| e == "weftc")).collect()
    }

    fn bytes(&self) -> u64 {
        self.entries().iter().map(|p| p.metadata().unwrap().len()).sum()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Graphs that differ in a constant alone, some of them large.
fn graph(n: usize) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3, 40]);
    let table = filled(DType::F32, &[40, if n.is_multiple_of(5) { 2000 } else { 50 }], n as u64);
    g.output("y", g.relu(g.matmul(x, g.constant(table))));
    g
}

fn result(compiled: &Compiled) -> Vec<(String, Vec<u8>)> {
    run(&mut compiled.init(&weights([])).unwrap(), false).unwrap()
}

#[test]
fn the_second_compilation_is_a_load_with_the_same_result() {
    let (folder, cpu) = (Folder::new("hits"), Device::cpu(1));
    let compile = |c: Compiler, n: usize| c.compile(&graph(n)).unwrap();
    let cached = || Compiler::new(&cpu).with_cache(&folder.0, 1 << 20);
    let first = compile(cached(), 1);
    let again = compile(cached(), 1);
    assert!(!first.was_cached() && again.was_cached());
    assert_eq!(result(&first), result(&again));
    // another constant, option or device is another entry
    assert!(!compile(cached(), 2).was_cached());
    assert!(!compile(cached().without_fusion(), 1).was_cached());
    assert!(!compile(cached().with_precision(Precision::Fast), 1).was_cached());
    let other = Device::cpu(2);
    assert!(!compile(Compiler::new(&other).with_cache(&folder.0, 1 << 20), 1).was_cached());
    assert_eq!(folder.entries().len(), 5);
    assert!(compile(cached(), 1).was_cached());
    let training = super::models::small().pop().unwrap();
    assert!(!training.compile(&cached()).was_cached() && training.compile(&cached()).was_cached());
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let (folder, cpu) = (Folder::new("room"), Device::cpu(1));
    let compile = |n: usize, most: u64| {
        Compiler::new(&cpu).with_cache(&folder.0, most).compile(&graph(n)).unwrap().was_cached()
    };
    assert!(!compile(1, u64::MAX));
    let each = folder.bytes();
    let age = |seconds: u64| {
        for e in folder.entries() {
            let f = std::fs::File::options().append(true).open(&e).unwrap();
            let then = e.metadata().unwrap().modified().unwrap() - Duration::from_secs(seconds);
            f.set_modified(then).unwrap();
        }
    };
    for n in 2..5 {
        age(100);
        assert!(!compile(n, u64::MAX));
    }
    age(100);
    assert!(compile(1, u64::MAX)); // now the one used last
    assert!(!compile(6, 3 * each + 200));
    assert!(folder.bytes() <= 3 * each + 200 && folder.entries().len() == 3);
    assert!(compile(1, u64::MAX) && compile(4, u64::MAX) && compile(6, u64::MAX));
    assert!(!compile(2, u64::MAX) && !compile(3, u64::MAX));
    // one alone that is larger than all of the room is kept
    assert!(!compile(5, 10) && compile(5, 10));
    assert_eq!(folder.entries().len(), 1);
    // what a dead process left half-written goes with time, and what is not the cache's own stays
    let half = folder.0.join(".weft-00000000-0123456789abcdef.tmp");
    let notes = folder.0.join("notes.weftc");
    [&half, &notes].iter().for_each(|path| std::fs::write(path, b"half").unwrap());
    let old = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    std::fs::File::options().append(true).open(&half).unwrap().set_modified(old).unwrap();
    assert!(!compile(8, 10) && !half.exists() && notes.exists());
}

#[test]
fn a_damaged_entry_is_compiled_anew_and_replaced() {
    let (folder, cpu) = (Folder::new("damage"), Device::cpu(1));
    let compile = || Compiler::new(&cpu).with_cache(&folder.0, 1 << 20).compile(&graph(1)).unwrap();
    let wanted = result(&compile());
    let entry = folder.entries().remove(0);
    let good = std::fs::read(&entry).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for bad in [vec![], good[..good.len() / 2].to_vec(), flipped, b"something else".to_vec()] {
        std::fs::write(&entry, &bad).unwrap();
        let made = compile();
        assert!(!made.was_cached());
        assert_eq!(result(&made), wanted);
        assert_eq!(std::fs::read(&entry).unwrap(), good);
        assert!(compile().was_cached());
    }
    // a folder that cannot be one is no error either
    let file = folder.0.join("file");
    std::fs::write(&file, b"").unwrap();
    let made = Compiler::new(&cpu).with_cache(&file, 1 << 20).compile(&graph(1)).unwrap();
    assert_eq!(result(&made), wanted);
}

/// This test binary again, filling a cache without end.
fn filler(folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["cache::processes_that_die_leave_the_cache_sound", "--exact", "--test-threads=1"]);
    command.env("WEFT_TEST_FILLS", folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn fill(folder: &Path) {
    let cpu = Device::cpu(1);
    let started = Instant::now();
    let mut n = 0;
    // long enough for whoever kills it; not for ever, should nobody do so
    while started.elapsed() < Duration::from_secs(60) {
        let compiler = Compiler::new(&cpu).with_cache(folder, 1 << 20);
        let compiled = compiler.compile(&graph(n % 20)).unwrap();
        assert_eq!(compiled.outputs().len(), 1);
        n += 1;
    }
}

#[test]
fn processes_that_die_leave_the_cache_sound() {
    if let Some(folder) = std::env::var_os("WEFT_TEST_FILLS") {
        return fill(Path::new(&folder));
    }
    let (folder, cpu) = (Folder::new("deaths"), Device::cpu(1));
    let mut steady = filler(&folder.0);
    let started = Instant::now();
    while folder.entries().len() < 3 {
        assert!(started.elapsed() < Duration::from_secs(50), "nothing fills the cache");
        std::thread::sleep(Duration::from_millis(5));
    }
    for n in 0..50u64 {
        let mut victim = filler(&folder.0);
        // at different moments of its work
        std::thread::sleep(Duration::from_millis(20 + n * 7 % 60));
        victim.kill().unwrap();
        victim.wait().unwrap();
        for entry in folder.entries() {
            // gone meanwhile is fine, half there is not
            match Artifact::load(&cpu, &entry) {
                Ok(_) | Err(weft::error::Error::Io { .. }) => {}
                Err(e) => panic!("after {n} deaths: {e}"),
            }
        }
    }
    assert!(steady.try_wait().unwrap().is_none(), "the other process failed");
    steady.kill().unwrap();
    steady.wait().unwrap();
    for n in 0..20 {
        let compiled = Compiler::new(&cpu).with_cache(&folder.0, 8 << 20).compile(&graph(n)).unwrap();
        let fresh = Compiler::new(&cpu).compile(&graph(n)).unwrap();
        assert_eq!(result(&compiled), result(&fresh), "graph {n}");
    }
}
