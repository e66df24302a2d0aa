//! Copies the permissions of a replaced file to its replacement: mode, owner, group, attributes.

#[cfg(unix)]
pub(super) use unix::{carry_over, may_write};

#[cfg(unix)]
mod unix {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    use std::fs::{File, Metadata, Permissions};
    use std::io::Result;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    use std::path::Path;

    // An Android app has its own user: real and effective ids are equal, and the flag does not exist.
    #[cfg(not(target_os = "android"))]
    const EFFECTIVE: AtFlags = AtFlags::EACCESS;
    #[cfg(target_os = "android")]
    const EFFECTIVE: AtFlags = AtFlags::empty();

    /// Checks that this process may write the file: replacing it would only check the folder's permissions.
    pub fn may_write(path: &Path) -> Result<()> {
        match accessat(CWD, path, Access::WRITE_OK, EFFECTIVE) {
            Ok(()) | Err(rustix::io::Errno::NOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives `to` the permissions of the file at `from`, in an order in which it is never readable by more users than that.
    pub fn carry_over(old: &Metadata, from: &Path, to: &File) -> Result<()> {
        let kept = give(old, to)?;
        let listed = attributes::copy(from, to);
        let mut mode = old.mode() & 0o7777;
        if !kept.owner || !kept.group {
            mode &= 0o777; // set-user-id and similar bits applied to the other owner
        }
        if !kept.group || !listed {
            // The group bits belong to another group, or are the mask of an ACL: those of "others" are safe.
            mode &= 0o7707 | (mode & 0o007) << 3;
        }
        if to.metadata()?.mode() & 0o7777 != mode {
            to.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    struct Kept {
        owner: bool,
        group: bool,
    }

    /// Sets the file's owner and group to the old ones, as far as the system permits.
    fn give(old: &Metadata, to: &File) -> Result<Kept> {
        let has = |m: &Metadata| Kept { owner: m.uid() == old.uid(), group: m.gid() == old.gid() };
        let own = has(&to.metadata()?);
        if own.owner && own.group {
            return Ok(own);
        }
        if fchown(to, Some(old.uid()), Some(old.gid())).is_err() {
            let _ = fchown(to, None, Some(old.gid()));
        }
        Ok(has(&to.metadata()?))
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    mod attributes {
        use rustix::fs::{XattrFlags, fremovexattr, fsetxattr, lgetxattr, lgetxattr_query, llistxattr};
        use std::fs::File;
        use std::path::Path;

        /// The access control list (acl(5)).
        const LIST: &str = "system.posix_acl_access";
        /// Other attributes to keep. Not: hashes of the contents (`security.ima`), capabilities, which a write removes, and
        /// private data of file systems (`trusted.…`).
        const KEPT: [&str; 3] = ["security.selinux", "system.nfs4_acl", "user."];
        /// Maximum total length of a file's attribute names (linux/limits.h, XATTR_LIST_MAX).
        const NAMES: usize = 64 << 10;

        /// Copies attributes as far as possible. False if there is an access control list that could not be copied.
        pub fn copy(from: &Path, to: &File) -> bool {
            let mut names = vec![0; NAMES];
            let length = llistxattr(from, &mut names).unwrap_or(0);
            let names = names[..length].split(|b| *b == 0).filter_map(|n| std::str::from_utf8(n).ok());
            for name in names.filter(|n| KEPT.iter().any(|k| n.starts_with(k))) {
                if let Some(value) = value(from, name) {
                    let _ = fsetxattr(to, name, &value, XattrFlags::empty()); // best effort
                }
            }
            match value(from, LIST) {
                Some(list) => fsetxattr(to, LIST, &list, XattrFlags::empty()).is_ok(),
                None => {
                    // removes the folder's default for new files, which the old one did not have
                    let _ = fremovexattr(to, LIST);
                    true
                }
            }
        }

        fn value(of: &Path, name: &str) -> Option<Vec<u8>> {
            let mut value = vec![0; lgetxattr_query(of, name).ok()?];
            let length = lgetxattr(of, name, &mut value).ok()?;
            value.truncate(length);
            Some(value)
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    mod attributes {
        pub fn copy(_: &std::path::Path, _: &std::fs::File) -> bool {
            true
        }
    }
}

#[cfg(not(unix))]
pub(super) use elsewhere::{carry_over, may_write};

/// Windows: a file's permissions come from its folder, and a read-only file is not replaced.
#[cfg(not(unix))]
mod elsewhere {
    use std::fs::{File, Metadata, OpenOptions};
    use std::io::Result;
    use std::path::Path;

    pub fn may_write(path: &Path) -> Result<()> {
        OpenOptions::new().write(true).open(path).map(drop)
    }

    pub fn carry_over(_: &Metadata, _: &Path, _: &File) -> Result<()> {
        Ok(())
    }
}
