//! Permissions of written files: mode, owner, group and attributes of old files; the umask for new ones.

use super::*;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;

#[test]
fn a_file_keeps_its_mode_and_is_private_in_between() {
    let folder = Folder::new();
    for wanted in [0o600, 0o640, 0o644, 0o660, 0o666, 0o700, 0o755, 0o200] {
        let path = folder.file(&format!("{wanted:o}"), "old", wanted);
        let done = write_atomically(&path, |out| {
            out.write_all(b"new")?;
            let beside = folder.temporaries();
            assert_eq!(beside.len(), 1);
            assert_eq!(mode(&beside[0]), 0o600, "while {wanted:o} is written");
            Ok(())
        });
        done.unwrap();
        assert_eq!(mode(&path), wanted);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3);
    }
    // set-group-id as well, as long as the file stays the group's
    let path = folder.file("2750", "old", 0o750);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o2750)).unwrap();
    let before = mode(&path);
    write(&path, "new").unwrap();
    assert_eq!(mode(&path), before);
    assert!(folder.temporaries().is_empty());
}

#[test]
fn weights_that_are_private_stay_so() {
    let folder = Folder::new();
    let path = folder.file("w.safetensors", "old", 0o600);
    let weights: weft::tensor::Weights =
        [("w".to_string(), weft::tensor::Tensor::scalar(1f32))].into_iter().collect();
    weft::load::save(&path, &weights).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(weft::load::safetensors(&path).unwrap().len(), 1);
}

#[test]
fn a_new_file_has_what_the_umask_leaves() {
    let folder = Folder::new();
    for (mask, wanted) in [("022", 0o644), ("077", 0o600), ("027", 0o640), ("000", 0o666), ("002", 0o664)] {
        let path = folder.at(mask);
        let ran = child(&format!("umask {mask}; exec \"$0\" \"$@\""), &path, "new").output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!((mode(&path), read(&path).as_str()), (wanted, "new"), "umask {mask}");
        // it is no matter for a file that is there
        let old = folder.file(&format!("{mask}-old"), "old", 0o604);
        let ran = child(&format!("umask {mask}; exec \"$0\" \"$@\""), &old, "new").output().unwrap();
        assert!(ran.status.success());
        assert_eq!((mode(&old), read(&old).as_str()), (0o604, "new"), "umask {mask}");
    }
}

#[test]
fn root_leaves_a_file_its_owner_and_group() {
    if !only_as_root("files of other owners") {
        return;
    }
    let folder = Folder::new();
    for (uid, gid, wanted) in
        [(12345, 23456, 0o640), (0, 23456, 0o2660), (12345, 0, 0o4711), (12345, 23456, 0o600)]
    {
        let path = folder.file("w", "old", 0o600);
        chown(&path, Some(uid), Some(gid)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(wanted)).unwrap();
        write(&path, "new").unwrap();
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!((about.uid(), about.gid(), mode(&path)), (uid, gid, wanted));
        assert_eq!(read(&path), "new");
        std::fs::remove_file(&path).unwrap();
    }
}

/// A group's rights are not handed to another group: what everybody may do is what the new group may.
#[test]
fn who_cannot_keep_the_group_does_not_widen_its_rights() {
    if !only_as_root("replacing others' files, which root prepares") {
        return;
    }
    let folder = Folder::new();
    // a copy that others can reach: the tests' own folder may be root's
    let program = folder.at("writer");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o777)).unwrap();
    for (before, after) in [(0o662, 0o622), (0o666, 0o666), (0o4676, 0o666), (0o2666, 0o666)] {
        let path = folder.file("w", "old", 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(before)).unwrap();
        let mut writer = Command::new(&program);
        writer.args([
            "a_writer_that_other_tests_begin",
            "--exact",
            "--nocapture",
            "--test-threads=1",
            "--quiet",
        ]);
        writer.env(WRITER, &path).env("WEFT_TEST_TEXT", "new").uid(65534).gid(65534);
        let ran = writer.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!((about.uid(), about.gid()), (65534, 65534));
        assert_eq!(format!("{:o}", mode(&path)), format!("{after:o}"), "of {before:o}");
        assert_eq!(read(&path), "new");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn an_access_control_list_and_attributes_stay() {
    const LIST: &str = "system.posix_acl_access";
    // acl(5), linux/posix_acl_xattr.h: version 2; tag, permissions, id: owner rw, user 54321 r, group none, mask r, others none
    let entry = |tag: u16, may: u16, id: u32| {
        [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries = [(1, 6, none), (2, 4, 54321), (4, 0, none), (16, 4, none), (32, 0, none)];
    let list = [2u32.to_le_bytes().to_vec(), entries.map(|(t, m, i)| entry(t, m, i)).concat()].concat();

    let folder = Folder::new();
    let path = folder.file("w", "old", 0o600);
    let value = |name: &str| {
        let mut value = [0; 256];
        getxattr(&path, name, &mut value).map(|n| value[..n].to_vec())
    };
    if let Err(e) = setxattr(&path, "user.weft.test", b"kept", XattrFlags::empty()) {
        eprintln!("not checked: {} has no attributes: {e}", folder.0.display());
    } else {
        write(&path, "new").unwrap();
        assert_eq!(value("user.weft.test").unwrap(), b"kept");
    }
    if let Err(e) = setxattr(&path, LIST, &list, XattrFlags::empty()) {
        eprintln!("not checked: {} has no access control lists: {e}", folder.0.display());
        return;
    }
    assert_eq!(mode(&path), 0o640); // the group's bits show the mask
    write(&path, "newer").unwrap();
    assert_eq!((mode(&path), read(&path).as_str()), (0o640, "newer"));
    assert_eq!(value(LIST).unwrap(), list);

    // A folder's default for new files is not for a file that was there without it.
    let default = [
        2u32.to_le_bytes().to_vec(),
        [(1, 6, none), (2, 6, 54321), (4, 0, none), (16, 6, none), (32, 0, none)]
            .map(|(t, m, i)| entry(t, m, i))
            .concat(),
    ]
    .concat();
    let plain = folder.file("plain", "old", 0o660);
    setxattr(&folder.0, "system.posix_acl_default", &default, XattrFlags::empty()).unwrap();
    write(&plain, "new").unwrap();
    assert_eq!((mode(&plain), read(&plain).as_str()), (0o660, "new"));
    assert!(getxattr(&plain, LIST, &mut [0u8; 256]).is_err());
}

#[test]
fn another_name_of_the_file_keeps_the_old_one() {
    let folder = Folder::new();
    let path = folder.file("w", "old", 0o640);
    std::fs::hard_link(&path, folder.at("other")).unwrap();
    write(&path, "new").unwrap();
    assert_eq!((read(&path).as_str(), read(folder.at("other")).as_str()), ("new", "old"));
    assert_eq!((mode(&path), mode(folder.at("other"))), (0o640, 0o640));
}
