//! Where a SQLite file may lie.
//!
//! SQLite's WAL needs memory that all its processes share, and locks that hold. Network file systems offer neither:
//! two machines, or one after a hiccup, each believe that they are alone, and the file is damaged weeks before
//! anybody reads it. So a database there is refused, not warned about.

use crate::{Result, StorageError};
use std::path::Path;

/// Magic numbers of `statfs(2)` of file systems that are shared between machines.
#[cfg(target_os = "linux")]
const NETWORK: [(u32, &str); 17] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x2003_0528, "OrangeFS"),
    (0x786f_4256, "VirtualBox shared folder"),
];

/// Those that are known to be of this machine alone.
#[cfg(target_os = "linux")]
const LOCAL: [u32; 18] = [
    0xef53,      // ext2, 3, 4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlay
    0x2fc1_2fc1, // ZFS
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
    0x3153_464a, // JFS
    0x5265_4973, // ReiserFS
    0x2011_bab0, // exFAT
    0x4d44,      // FAT
    0x5346_544e, // NTFS
    0x7366_746e, // NTFS3
    0x482b,      // HFS+
    0xf15f,      // eCryptfs
    0x3434,      // NILFS
];

/// What is said where nobody knows.
const UNKNOWN: &str =
    "it is not known whether this file system is local; SQLite must not be used on a network file system";

/// Refuses network file systems. What comes back is a warning.
pub(crate) fn check(path: &Path) -> Result<Option<&'static str>> {
    #[cfg(target_os = "linux")]
    {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // The file itself may be a link, or a mount of its own.
        let status = rustix::fs::statfs(path).or_else(|_| rustix::fs::statfs(folder));
        // The type is a signed or an unsigned number, of 32 or 64 bits, depending on the architecture.
        match status {
            Ok(status) => judge(status.f_type as u32)
                .map_err(|kind| StorageError::NetworkFileSystem { path: path.to_path_buf(), kind }),
            // Opening will say what is wrong.
            Err(_) => Ok(None),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        Ok(None)
    }
}

/// A warning, or the name of a network file system.
#[cfg(target_os = "linux")]
fn judge(magic: u32) -> std::result::Result<Option<&'static str>, &'static str> {
    match NETWORK.iter().find(|(number, _)| *number == magic) {
        Some((_, kind)) => Err(kind),
        None if LOCAL.contains(&magic) => Ok(None),
        None => Ok(Some(UNKNOWN)),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_and_unknown_ones_are_told() {
        assert_eq!(judge(0x6969), Err("NFS"));
        assert_eq!(judge(0xff53_4d42), Err("CIFS"));
        assert_eq!(judge(0xef53), Ok(None));
        // FUSE can be anything, sshfs among them.
        assert_eq!(judge(0x6573_5546), Ok(Some(UNKNOWN)));
        let folder = tempfile::tempdir().unwrap();
        assert!(check(&folder.path().join("study.db")).is_ok());
    }
}
