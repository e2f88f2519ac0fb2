//! Whether a file is on another machine: SQLite's locks and shared memory do not reach across.

use std::path::Path;

/// File systems whose files may be open on several machines, as Linux calls them.
const NETWORK: [&str; 14] = [
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "gfs2",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "ocfs2",
    "smb3",
    "smbfs",
];

/// The network file system that `path` is on, where the operating system tells.
pub(super) fn file_system(path: &Path) -> Option<&'static str> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    find(&mounts, &folder)
}

/// `mounts` has a line for each: device, folder, type, and more. The innermost counts, of two at one folder the later.
fn find(mounts: &str, folder: &Path) -> Option<&'static str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (unescaped(fields.next()?), fields.next()?);
        folder.starts_with(&at).then_some((at.len(), kind))
    });
    let (_, kind) = mounts.max_by_key(|(depth, _)| *depth)?;
    NETWORK.into_iter().find(|network| *network == kind)
}

/// Linux writes what would part two fields as three octal digits.
fn unescaped(field: &str) -> String {
    let parts = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let replace = |text: String, (code, plain): (&str, &str)| text.replace(code, plain);
    parts.into_iter().fold(field.to_owned(), replace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
/dev/vda / ext4 rw 0 0
server:/export /data nfs4 rw 0 0
/dev/vdb /data/local xfs rw 0 0
//server/share /my\\040share cifs rw 0 0
overlay /twice overlay rw 0 0
server:/x /twice nfs rw 0 0
";

    #[test]
    fn the_innermost_mount_says_whether_a_folder_is_on_a_network() {
        let cases = [
            ("/", None),
            ("/home", None),
            ("/data", Some("nfs4")),
            ("/data/app", Some("nfs4")),
            ("/database", None),
            ("/data/local/app", None),
            ("/my share/app", Some("cifs")),
            ("/twice", Some("nfs")),
        ];
        for (folder, expected) in cases {
            assert_eq!(find(MOUNTS, Path::new(folder)), expected, "{folder}");
        }
    }

    #[test]
    fn the_folder_of_temporary_files_is_a_local_one() {
        assert_eq!(file_system(&std::env::temp_dir().join("app.db")), None);
        assert_eq!(file_system(Path::new("app.db")), None);
    }
}
