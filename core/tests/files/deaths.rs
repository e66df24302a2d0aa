//! Killed writers leave the old file, and a temporary one that the next writer removes; files of living writers are not
//! removed.

use super::*;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

/// Waits until a writer has written half of its file.
fn half_written(folder: &Folder, count: usize) -> Vec<PathBuf> {
    let began = Instant::now();
    loop {
        let all = folder.temporaries();
        let full = all.iter().filter(|p| p.metadata().is_ok_and(|m| m.len() >= 2 << 20)).count();
        if full == count {
            return all;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{full} of {count} writers write");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn waiting(path: &Path) -> Child {
    let mut command = child("exec \"$0\" \"$@\"", path, "wait");
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill(mut victim: Child) {
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[test]
fn what_a_killed_writer_leaves_goes_with_the_next_write_in_the_folder() {
    let folder = Folder::new();
    let path = folder.file("w", "old", 0o600);
    for next in ["w", "something else"] {
        let victim = waiting(&path);
        let left = half_written(&folder, 1);
        assert_eq!(mode(&left[0]), 0o600);
        kill(victim);
        assert_eq!(read(&path), "old");
        assert_eq!(folder.temporaries(), left); // nobody has written since
        write(folder.at(next), "old").unwrap();
        assert!(folder.temporaries().is_empty());
    }
    assert_eq!(folder.names(), ["something else", "w"]);
}

#[test]
fn a_signal_for_too_large_a_file_is_a_death_too() {
    let folder = Folder::new();
    let path = folder.file("w", "old", 0o644);
    let ran =
        child("ulimit -c 0; ulimit -f 4; exec \"$0\" \"$@\"", &path, &"x".repeat(100_000)).output().unwrap();
    assert!(ran.status.signal().is_some(), "{:?}", ran.status);
    assert_eq!((read(&path).as_str(), folder.temporaries().len()), ("old", 1));
    write(&path, "new").unwrap();
    assert_eq!(folder.names(), ["w"]);
}

#[test]
fn a_living_writers_file_is_left_alone() {
    let folder = Folder::new();
    let (a, b) = (waiting(&folder.at("a")), waiting(&folder.at("b")));
    let living = half_written(&folder, 2);
    // however old it is
    let old = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    std::fs::File::options().write(true).open(&living[0]).unwrap().set_modified(old).unwrap();
    // our own process's writers as well
    let done = write_atomically(folder.at("outer"), |out| {
        out.write_all(b"outer")?;
        (0..5).for_each(|n| write(folder.at(&format!("inner {n}")), "inner").unwrap());
        Ok(())
    });
    done.unwrap();
    assert_eq!(read(folder.at("outer")), "outer");
    assert_eq!(folder.temporaries(), living);
    kill(a);
    write(folder.at("w"), "new").unwrap();
    assert_eq!(folder.temporaries().len(), 1);
    kill(b);
    write(folder.at("w"), "new").unwrap();
    assert!(folder.temporaries().is_empty());
}

/// Another machine's locks may not be seen here: its files must be old as well.
#[test]
fn another_machines_file_goes_after_a_day_without_a_write() {
    let folder = Folder::new();
    let mine = waiting(&folder.at("w"));
    let name = half_written(&folder, 1)[0].file_name().unwrap().to_str().unwrap().to_string();
    kill(mine);
    let machine = &name[6..14];
    let other = if machine == "12345678" { "87654321" } else { "12345678" };
    let theirs = folder.file(&format!(".weft-{other}-0123456789abcdef.tmp"), "half", 0o600);
    let age = |path: &Path, hours: u64| {
        let then = SystemTime::now() - Duration::from_secs(hours * 60 * 60);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    };
    write(folder.at("w"), "new").unwrap();
    assert_eq!(folder.temporaries(), std::slice::from_ref(&theirs));
    age(&theirs, 23);
    write(folder.at("w"), "new").unwrap();
    assert_eq!(folder.temporaries(), std::slice::from_ref(&theirs));
    age(&theirs, 25);
    write(folder.at("w"), "new").unwrap();
    assert!(folder.temporaries().is_empty());
}

#[test]
fn what_only_looks_like_ours_stays() {
    let folder = Folder::new();
    let names = [
        ".weft-12345678-0123456789abcde.tmp",
        ".weft-1234567g-0123456789abcdef.tmp",
        ".weft-notes.tmp",
        "weft-12345678-0123456789abcdef.tmp",
    ];
    let old = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    for name in names {
        let path = folder.file(name, "mine", 0o644);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    // our name, but a folder, a link and a pipe
    let ours = |n: u8| format!(".weft-12345678-000000000000000{n}.tmp");
    std::fs::create_dir(folder.at(&ours(1))).unwrap();
    std::os::unix::fs::symlink(folder.at(names[2]), folder.at(&ours(2))).unwrap();
    assert!(Command::new("mkfifo").arg(folder.at(&ours(3))).status().unwrap().success());
    let before = folder.names();
    write(folder.at("w"), "new").unwrap();
    let after: Vec<String> = folder.names().into_iter().filter(|n| n != "w").collect();
    assert_eq!(after, before);
    assert_eq!(read(folder.at(names[2])), "mine");
}

#[test]
fn of_writers_at_once_each_writes_a_whole_file() {
    let folder = Folder::new();
    let path = folder.at("w");
    let text = |n: usize| format!("{n}").repeat(200_000);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (path, text) = (&path, text(n));
            scope.spawn(move || (0..20).for_each(|_| write(path, &text).unwrap()));
        }
        // the processes are another matter: they share no memory
        for n in 4..7 {
            let (path, text) = (&path, "9".repeat(10_000 + n));
            scope.spawn(move || {
                for _ in 0..4 {
                    let ran = child("exec \"$0\" \"$@\"", path, &text).output().unwrap();
                    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
                }
            });
        }
    });
    let found = read(&path);
    let whole = (0..4).any(|n| found == text(n)) || (4..7).any(|n| found == "9".repeat(10_000 + n));
    assert!(whole, "{} bytes", found.len());
    assert_eq!(folder.names(), ["w"]);
}

/// Processes that write one file and die at any moment: what is there is always whole.
#[test]
fn however_writers_die_the_file_is_whole() {
    let folder = Folder::new();
    let path = folder.at("w");
    write(&path, "first").unwrap();
    let text = "second".repeat(5000);
    for n in 0..30 {
        let mut victim = child("exec \"$0\" \"$@\"", &path, &text);
        let mut victim = victim.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(2 * n));
        let _ = victim.kill();
        victim.wait().unwrap();
        let found = read(&path);
        assert!(found == "first" || found == text, "after {} ms: {} bytes", 2 * n, found.len());
    }
    write(&path, "last").unwrap();
    assert_eq!((read(&path).as_str(), folder.names()), ("last", vec!["w".to_string()]));
}
