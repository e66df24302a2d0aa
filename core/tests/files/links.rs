//! Symbolic links are followed and kept.

use super::*;
use std::os::unix::fs::symlink;

fn target_of(link: &Path) -> PathBuf {
    assert!(std::fs::symlink_metadata(link).unwrap().is_symlink(), "{}", link.display());
    std::fs::read_link(link).unwrap()
}

#[test]
fn what_a_link_leads_to_is_replaced_and_the_link_stays() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.at("models/v1")).unwrap();
    let real = folder.file("models/v1/w", "old", 0o600);
    symlink("v1/w", folder.at("models/one")).unwrap(); // relative to its own folder
    symlink(folder.at("models/one"), folder.at("two")).unwrap(); // absolute
    symlink("./two", folder.at("three")).unwrap();
    symlink("models/../models/v1", folder.at("current")).unwrap();
    for (n, link) in ["models/one", "two", "three", "current/w"].iter().enumerate() {
        write(folder.at(link), &format!("new {n}")).unwrap();
        assert_eq!(read(&real), format!("new {n}"), "{link}");
        assert_eq!(mode(&real), 0o600);
    }
    assert_eq!(target_of(&folder.at("models/one")), Path::new("v1/w"));
    assert_eq!(target_of(&folder.at("two")), folder.at("models/one"));
    assert_eq!(target_of(&folder.at("three")), Path::new("./two"));
    assert_eq!(target_of(&folder.at("current")), Path::new("models/../models/v1"));
    // nothing is left beside links or target
    assert_eq!(folder.names(), ["current", "models", "three", "two"]);
    assert_eq!(std::fs::read_dir(folder.at("models/v1")).unwrap().count(), 1);
}

/// A link through a folder that is itself a link elsewhere: `..` is the real folder's, not the path's.
#[test]
fn a_links_folder_is_the_real_one() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.at("far/away/deep")).unwrap();
    symlink("far/away/deep", folder.at("near")).unwrap();
    symlink("../w", folder.at("far/away/deep/link")).unwrap();
    write(folder.at("near/link"), "new").unwrap();
    assert_eq!(read(folder.at("far/away/w")), "new");
    assert!(!folder.at("w").exists());
}

#[test]
fn where_a_link_leads_to_nothing_a_file_is_made() {
    let folder = Folder::new();
    std::fs::create_dir(folder.at("d")).unwrap();
    symlink("d/w", folder.at("one")).unwrap();
    symlink("one", folder.at("two")).unwrap();
    write(folder.at("two"), "new").unwrap();
    assert_eq!(read(folder.at("d/w")), "new");
    assert_eq!(target_of(&folder.at("two")), Path::new("one"));
    assert_eq!(target_of(&folder.at("one")), Path::new("d/w"));
    // into a folder that is not there, nothing can be made
    symlink("none/w", folder.at("lost")).unwrap();
    refuses(write(folder.at("lost"), "new"), &folder.at("lost"), "No such file");
    assert_eq!(target_of(&folder.at("lost")), Path::new("none/w"));
    // nor what must be a folder
    symlink("new/", folder.at("slash")).unwrap();
    refuses(write(folder.at("slash"), "new"), &folder.at("slash"), "");
    assert!(!folder.at("new").exists());
}

#[test]
fn links_in_a_circle_and_to_folders_are_refused() {
    let folder = Folder::new();
    symlink("b", folder.at("a")).unwrap();
    symlink("a", folder.at("b")).unwrap();
    symlink("self", folder.at("self")).unwrap();
    symlink(".", folder.at("here")).unwrap();
    for name in ["a", "b", "self"] {
        refuses(write(folder.at(name), "new"), &folder.at(name), "symbolic links");
    }
    refuses(write(folder.at("here"), "new"), &folder.at("here"), "it is a folder, not a file");
    assert_eq!(folder.names(), ["a", "b", "here", "self"]);
    // forty links are followed, as the system does; more are taken for a circle
    let long = Folder::new();
    symlink("w", long.at("1")).unwrap();
    for n in 2..=41 {
        symlink((n - 1).to_string(), long.at(&n.to_string())).unwrap();
    }
    write(long.at("40"), "new").unwrap();
    assert_eq!(read(long.at("w")), "new");
    refuses(write(long.at("41"), "newer"), &long.at("41"), "symbolic links");
    assert_eq!(read(long.at("w")), "new");
}
