//! Files that hold secrets: nobody but their owner may have any right to them.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Permissions of anybody but the owner.
const OTHERS: u32 = 0o077;

/// Where the service manager puts credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// What to do about [`open_to_others`].
pub(crate) const FIX: &str = "chmod 600 it, and make a new one if others may have read it";

/// What is wrong with the permissions of a file that was opened at `path`; nothing, where nobody but its owner
/// has any right to it.
///
/// The service manager guards credentials in its own way: an access list shows as rights of the group.
pub(crate) fn open_to_others(file: &File, path: &Path) -> io::Result<Option<String>> {
    let credentials = std::env::var_os(CREDENTIALS_DIRECTORY);
    if credentials.is_some_and(|directory| path.starts_with(directory)) {
        return Ok(None);
    }
    let mode = file.metadata()?.mode() & 0o7777;
    Ok((mode & OTHERS != 0).then(|| format!("mode {mode:04o} lets others than its owner at it")))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn any_right_of_anybody_else_is_one_too_many() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let file = File::create(&path).unwrap();
        for mode in [0o600, 0o400, 0o700] {
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_to_others(&file, &path).unwrap(), None, "{mode:o}");
        }
        for mode in [0o644, 0o640, 0o602, 0o610] {
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
            let problem = open_to_others(&file, &path).unwrap().unwrap();
            assert!(
                problem.starts_with(&format!("mode {mode:04o} lets")),
                "{problem}"
            );
        }
    }
}
