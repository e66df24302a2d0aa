//! Files that are not regular are written in place: devices, pipes, sockets, and already open files.

use super::*;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::symlink;

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn a_named_pipe_is_written_to_and_stays_one() {
    let folder = Folder::new();
    let pipe = folder.at("pipe");
    make_pipe(&pipe);
    symlink("pipe", folder.at("link")).unwrap();
    // longer than a pipe holds, and than what is gathered before it is written
    let text = "0123456789".repeat(300_000);
    for path in [&pipe, &folder.at("link")] {
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || read(pipe))
        };
        write(path, &text).unwrap();
        assert!(reader.join().unwrap() == text);
        assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }
    assert_eq!(folder.names(), ["link", "pipe"]);
}

#[test]
fn weights_go_through_a_pipe_whole() {
    let folder = Folder::new();
    let pipe = folder.at("pipe");
    make_pipe(&pipe);
    let values: Vec<f32> = (0..400_000).map(|v| v as f32).collect();
    let weights: weft::tensor::Weights =
        [("w".to_string(), weft::tensor::Tensor::from_vec([values.len()], values).unwrap())]
            .into_iter()
            .collect();
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::read(pipe).unwrap())
    };
    weft::load::save(&pipe, &weights).unwrap();
    assert!(reader.join().unwrap() == weft::load::to_bytes(&weights).unwrap());
}

#[test]
fn a_reader_that_leaves_is_an_error() {
    let folder = Folder::new();
    let pipe = folder.at("pipe");
    make_pipe(&pipe);
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::File::open(pipe).unwrap().read_exact(&mut [0; 10]).unwrap())
    };
    // Rust's runtime ignores the signal that would end the process
    refuses(write(&pipe, &"x".repeat(3 << 20)), &pipe, "Broken pipe");
    reader.join().unwrap();
    assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn devices_are_written_to_and_stay_devices() {
    let folder = Folder::new();
    symlink("/dev/null", folder.at("null")).unwrap();
    for path in [Path::new("/dev/null"), &folder.at("null")] {
        write(path, "new").unwrap();
    }
    assert!(std::fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(std::fs::symlink_metadata(folder.at("null")).unwrap().is_symlink());
    refuses(write("/dev/full", "new"), Path::new("/dev/full"), "No space left");
    assert!(std::fs::symlink_metadata("/dev/full").unwrap().file_type().is_char_device());
}

#[test]
fn root_can_make_a_node_anywhere_and_it_stays_one() {
    if !only_as_root("device nodes") {
        return;
    }
    let folder = Folder::new();
    let node = folder.at("node");
    // the numbers of /dev/null: Documentation/admin-guide/devices.txt
    match Command::new("mknod").arg(&node).args(["c", "1", "3"]).status() {
        Ok(made) if made.success() => {}
        other => return eprintln!("not checked: no device node can be made here: {other:?}"),
    }
    match write(&node, "new") {
        Ok(()) => {}
        // a file system mounted without devices
        Err(Error::Io { why, .. }) if why.contains("denied") => {
            eprintln!("not checked: devices are off here")
        }
        Err(e) => panic!("{e}"),
    }
    assert!(std::fs::symlink_metadata(&node).unwrap().file_type().is_char_device());
    assert_eq!(folder.names(), ["node"]);
}

#[test]
fn a_socket_is_connected_to() {
    let folder = Folder::new();
    let path = folder.at("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    write(&path, "new").unwrap();
    assert_eq!(reader.join().unwrap(), "new");
    assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    // nobody listens any more
    refuses(write(&path, "new"), &path, "refused");
}

/// What is open is not replaced, and written from where it is: before and after it, others write too.
#[test]
fn what_is_open_is_written_from_where_it_stands() {
    let folder = Folder::new();
    // the writer's test harness speaks on standard output too, but only after the writer has ended
    let cases = [
        (r#"{ printf before; "$0" "$@"; printf after; } > FILE"#, "/dev/stdout", "beforenewafter"),
        (r#"printf old > FILE; "$0" "$@" >> FILE"#, "/dev/stdout", "oldnew"),
        (r#"printf old > FILE; "$0" "$@" >> FILE"#, "/dev/fd/1", "oldnew"),
        (
            r#"{ printf before; "$0" "$@"; printf after; } 2> /dev/null > FILE"#,
            "/proc/self/fd/1",
            "beforenewafter",
        ),
        (r#"exec 3> FILE; printf before >&3; "$0" "$@"; printf after >&3"#, "/dev/fd/3", "beforenewafter"),
        (r#"exec 3> FILE; rm FILE; "$0" "$@"; cat /dev/fd/3 > FILE"#, "/dev/fd/3", "new"),
        (r#""$0" "$@" | cat > FILE"#, "/dev/stdout", "new"),
        (r#"{ "$0" "$@"; } 2> FILE"#, "/dev/stderr", "new"),
    ];
    for (n, (script, path, wanted)) in cases.iter().enumerate() {
        let file = folder.at(&n.to_string());
        let script = script.replace("FILE", &format!("'{}'", file.display()));
        let ran = child(&script, Path::new(path), "new").output().unwrap();
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
        let found = read(&file);
        // the harness's own lines ("running 1 test") are not the writer's
        let found: String = found.lines().filter(|l| !l.starts_with("running") && !l.is_empty()).collect();
        assert_eq!(&found, wanted, "{script}");
    }
    assert!(folder.temporaries().is_empty());
    // a number under which nothing is open
    let ran = child("exec \"$0\" \"$@\"", Path::new("/dev/fd/77"), "new").output().unwrap();
    assert_eq!(ran.status.code(), Some(40), "{}", String::from_utf8_lossy(&ran.stderr));
    // what is open for reading alone
    let file = folder.file("read", "old", 0o644);
    let script = format!("exec 3< '{}'; exec \"$0\" \"$@\"", file.display());
    let ran = child(&script, Path::new("/dev/fd/3"), "new").output().unwrap();
    assert_eq!(ran.status.code(), Some(40), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(read(&file), "old");
}
