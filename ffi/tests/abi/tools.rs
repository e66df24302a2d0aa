//! Compilers, programs, and their output folders.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A folder of a test's own, empty.
pub fn folder(name: &str) -> PathBuf {
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi").join(name);
    let _ = std::fs::remove_dir_all(&at);
    std::fs::create_dir_all(&at).unwrap();
    at
}

/// The folder in which cargo puts the libraries, built anew where need be: for tests cargo builds only libraries that Rust
/// links to, which these are not.
pub fn built() -> &'static Path {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    AT.get_or_init(|| {
        let at = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "-p", "weft-ffi", "--locked", "--manifest-path"]).arg(root().join("Cargo.toml"));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        run(cargo.arg("--target-dir").arg(at.parent().unwrap()));
        at
    })
}

/// A folder with the shared library under the names that programs are linked and loaded by.
pub fn library() -> &'static Path {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    AT.get_or_init(|| {
        let (at, shared) = (folder("lib"), built().join("libweft.so"));
        for name in ["libweft.so", "libweft.so.0"] {
            std::os::unix::fs::symlink(&shared, at.join(name)).unwrap();
        }
        at
    })
}

/// Whether a program is installed. If not, the test that wants it says so, or fails where everything must be there.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        assert!(std::env::var_os("WEFT_ABI_STRICT").is_none(), "{program} is not installed");
        eprintln!("NOT CHECKED: {program} is not installed");
    }
    found
}

/// Runs a command; fails the test with what it said if it fails.
pub fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command.output().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let (out, err) = said(&output);
    assert!(output.status.success(), "{shown}: {}\n{out}\n{err}", output.status);
    out
}

/// What a command wrote.
pub fn said(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into())
}

/// Compiles a C or C++ program against the header and links it to the shared library.
pub fn program(source: &Path, out: &Path, more: &[&str]) -> PathBuf {
    let cpp = source.extension().is_some_and(|e| e == "cpp");
    let lib = library();
    let mut command = Command::new(if cpp { "c++" } else { "cc" });
    command.arg(if cpp { "-std=c++17" } else { "-std=gnu11" });
    command.args(["-Wall", "-Wextra", "-Werror", "-g", "-O1"]).args(more).arg(source).arg("-o").arg(out);
    command.arg("-I").arg(root().join("bindings/c/include")).arg("-L").arg(lib).arg("-lweft");
    command.arg(format!("-Wl,-rpath,{}", lib.display())).args(["-lpthread", "-lm"]);
    run(&mut command);
    out.to_path_buf()
}

/// The digits of the samples, unpacked: 64 pixels and a class, a line each.
pub fn digits() -> &'static Path {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    AT.get_or_init(|| {
        let at = folder("digits").join("digits.csv");
        let packed = root().join("samples/data/digits.csv.gz");
        let unpacked = Command::new("gzip").arg("-dc").arg(packed).output().expect("gzip");
        assert!(unpacked.status.success());
        std::fs::write(&at, unpacked.stdout).unwrap();
        at
    })
}

/// Those digits: pixels from 0 to 1, and the class.
pub fn read_digits(count: usize) -> Vec<(Vec<f32>, u32)> {
    let text = std::fs::read_to_string(digits()).unwrap();
    let line = |line: &str| {
        let numbers: Vec<u32> = line.split(',').map(|n| n.trim().parse().unwrap()).collect();
        (numbers[..64].iter().map(|n| *n as f32 / 16.0).collect(), numbers[64])
    };
    text.lines().take(count).map(line).collect()
}

/// The classifier of the samples.
pub fn classifier() -> PathBuf {
    root().join("samples/models/digits/model.safetensors")
}

/// The sentence encoder, if it was fetched.
pub fn minilm() -> Option<PathBuf> {
    let at =
        std::env::var_os("WEFT_MINILM").map_or_else(|| root().join("samples/models/minilm"), PathBuf::from);
    if at.join("config.json").exists() {
        return Some(at);
    }
    assert!(std::env::var_os("WEFT_ABI_STRICT").is_none(), "no model: samples/models/fetch minilm");
    eprintln!("NOT CHECKED: no model in {}: samples/models/fetch minilm", at.display());
    None
}

/// Hides the Vulkan drivers of this machine, which leak as they are unloaded.
pub fn without_drivers(command: &mut Command) -> &mut Command {
    command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent")
}

/// Valgrind as a careful user runs it: what may be lost is an error, too, but for what the package's file says.
pub fn valgrind(suppressions: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=definite,possible"]);
    command.arg("--errors-for-leak-kinds=definite,possible");
    command.arg(format!("--suppressions={}", suppressions.display()));
    command
}
