//! A failed write is a typed error: the old file is unchanged, and no other file is left.

use super::*;

#[test]
fn names_of_any_length_that_the_system_takes() {
    let folder = Folder::new();
    for length in [1, 200, 235, 244, 245, 250, 255] {
        let name = "n".repeat(length);
        write(folder.at(&name), "old").unwrap();
        write(folder.at(&name), "new").unwrap();
        assert_eq!(read(folder.at(&name)), "new");
    }
    // 85 characters of three bytes each
    write(folder.at(&"号".repeat(85)), "new").unwrap();
    assert_eq!(folder.names().len(), 8);
    let long = folder.at(&"n".repeat(256));
    refuses(write(&long, "new"), &long, "too long");
    assert_eq!(folder.names().len(), 8);
}

#[test]
fn folders_and_paths_without_a_file() {
    let folder = Folder::new();
    let file = folder.file("file", "old", 0o644);
    std::fs::create_dir(folder.at("d")).unwrap();
    refuses(write(folder.at("d"), "new"), &folder.at("d"), "it is a folder, not a file");
    refuses(write(folder.at("none/w"), "new"), &folder.at("none/w"), "No such file");
    refuses(write(file.join("w"), "new"), &file.join("w"), "Not a directory");
    for path in ["", ".", "..", "/", "d/", "new/", "d/.", "d/.."] {
        let path = if path.len() > 1 { folder.0.join(path) } else { path.into() };
        let e = write(&path, "new").unwrap_err();
        assert_eq!(e.code(), 307, "{}: {e}", path.display());
    }
    assert_eq!(folder.names(), ["d", "file"]);
    assert_eq!(read(&file), "old");
}

#[test]
fn a_writer_that_fails_or_panics_leaves_the_old_file_alone() {
    let folder = Folder::new();
    let path = folder.file("w", "old", 0o600);
    for path in [&path, &folder.at("new")] {
        let failed = write_atomically(path, |out| {
            out.write_all(&vec![b'x'; 3 << 20])?;
            Err(std::io::Error::other("no more"))
        });
        refuses(failed, path, "no more");
        let panicked = std::panic::catch_unwind(|| {
            let _ = write_atomically(path, |_| panic!("a test's panic"));
        });
        assert!(panicked.is_err());
    }
    assert_eq!((read(&path).as_str(), mode(&path)), ("old", 0o600));
    assert_eq!(folder.names(), ["w"]);
}

#[test]
fn a_file_that_may_only_be_read_stays() {
    let folder = Folder::new();
    for mode_of_it in [0o444, 0o400, 0o555] {
        let path = folder.file("w", "old", mode_of_it);
        if only_as_user("a file that may only be read") {
            refuses(write(&path, "new"), &path, "Permission denied");
            assert_eq!(read(&path), "old");
        } else {
            // root may write it, and its mode stays
            write(&path, "new").unwrap();
            assert_eq!(read(&path), "new");
        }
        assert_eq!(mode(&path), mode_of_it);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(folder.names(), ["w"]);
}

#[test]
fn a_folder_that_may_only_be_read_keeps_its_files() {
    if !only_as_user("a folder that may only be read") {
        return;
    }
    let folder = Folder::new();
    let path = folder.file("w", "old", 0o644);
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o555)).unwrap();
    refuses(write(&path, "new"), &path, "no file can be made in");
    refuses(write(folder.at("new"), "new"), &folder.at("new"), "Permission denied");
    assert_eq!((read(&path).as_str(), folder.names()), ("old", vec!["w".to_string()]));
    // one that may not even be entered
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o000)).unwrap();
    refuses(write(&path, "new"), &path, "Permission denied");
    // one that may be written but not listed: the file is written, only the sync of the folder cannot be
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o300)).unwrap();
    write(&path, "new").unwrap();
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!((read(&path).as_str(), folder.names()), ("new", vec!["w".to_string()]));
}

#[test]
fn a_file_of_somebody_else_in_a_folder_of_ours_is_not_replaced() {
    if !only_as_user("files of root") {
        return;
    }
    // /etc/hostname and its kind: root's, and not ours to write
    let folder = Folder::new();
    let link = folder.at("link");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    refuses(write(&link, "new"), &link, "Permission denied");
    refuses(write("/etc/weft-test", "new"), Path::new("/etc/weft-test"), "no file can be made in /etc");
}

#[test]
fn a_limit_on_files_sizes_is_an_error_and_nothing_is_left() {
    let folder = Folder::new();
    let path = folder.file("w", "old", 0o600);
    let text = "x".repeat(100_000); // ulimit counts blocks of 512 or 1024 bytes
    let script = "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\"";
    for path in [&path, &folder.at("new")] {
        let ran = child(script, path, &text).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(40), "{said}");
        assert!(said.contains("File too large"), "{said}");
    }
    assert_eq!((read(&path).as_str(), mode(&path)), ("old", 0o600));
    assert_eq!(folder.names(), ["w"]);
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_left() {
    if !only_as_root("a disk of its own, to fill") {
        return;
    }
    let folder = Folder::new();
    let disk = folder.at("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&disk).output();
    if !mounted.as_ref().is_ok_and(|m| m.status.success()) {
        return eprintln!("not checked: no disk can be mounted here: {mounted:?}");
    }
    let checked = std::panic::catch_unwind(|| {
        let path = disk.join("w");
        write(&path, "old").unwrap();
        let e = [&path, &disk.join("new")].map(|p| write(p, &"x".repeat(1 << 20)));
        let left: Vec<_> = std::fs::read_dir(&disk).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!((read(&path).as_str(), left), ("old", vec!["w".into()]));
        let paths = [path.clone(), disk.join("new")];
        for (e, path) in e.into_iter().zip(&paths) {
            refuses(e, path, "No space left");
        }
        // what fits is written; the old and the new file are there at once for a moment
        write(&path, &"y".repeat(100 << 10)).unwrap();
        write(&path, &"z".repeat(100 << 10)).unwrap();
        assert_eq!(read(&path), "z".repeat(100 << 10));
    });
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    checked.unwrap();
}
