//! Files that are replaced whole. Stands on `error`; knows nothing of what they hold.

mod atomic;

pub use atomic::write_atomically;

#[cfg(test)]
mod tests {
    use super::write_atomically;
    use crate::error::Error;

    #[test]
    fn what_a_killed_process_of_the_same_number_left_does_not_stand_in_the_way() {
        let folder = std::env::temp_dir().join(format!("weft-atomic-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("f");
        for n in 0..60 {
            std::fs::write(folder.join(format!(".f.{}-{n}.tmp", std::process::id())), b"half").unwrap();
        }
        write_atomically(&path, |out| out.write_all(b"whole")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        // a writer that fails leaves the old file and nothing else
        let before = std::fs::read_dir(&folder).unwrap().count();
        let failed = write_atomically(&path, |out| {
            out.write_all(b"wh")?;
            Err(std::io::Error::other("no more"))
        });
        assert!(matches!(failed, Err(Error::Io { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), before);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
