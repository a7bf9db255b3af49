//! Writing published files: whole or not at all, readable by a web server, on the disk before the
//! next one is begun.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::Serialize;
use tough::schema::Signed;

use super::AuthorError;

/// The bytes of a metadata file. Fields are sorted (by way of `Value`), so that the same metadata
/// is the same file.
pub(super) fn to_bytes<T: Serialize>(signed: &Signed<T>) -> Result<Vec<u8>, AuthorError> {
    let value = serde_json::to_value(signed).map_err(AuthorError::json)?;
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(AuthorError::json)?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) fn create_dir(dir: &Path) -> Result<(), AuthorError> {
    fs::create_dir_all(dir).map_err(AuthorError::io("creating the directory", dir))
}

/// Writes a file by rename; a reader sees the old content or the new one, also after a cut.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), AuthorError> {
    #[cfg(test)]
    cut::check(path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    replace_in(dir, path, bytes).map_err(AuthorError::io("writing", path))
}

fn replace_in(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    // A temporary file is private; a published one is for everybody.
    file.as_file()
        .set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(dir)?.sync_all()
}

/// Writes a file that must never change: leaves the same content, refuses another.
pub(super) fn once(path: &Path, bytes: &[u8]) -> Result<(), AuthorError> {
    match fs::read(path) {
        Ok(there) if there == bytes => Ok(()),
        Ok(_) => Err(AuthorError::existing(
            path,
            "it differs from the product's root metadata of the same version",
        )),
        Err(e) if e.kind() == io::ErrorKind::NotFound => replace(path, bytes),
        Err(e) => Err(AuthorError::io("reading", path)(e)),
    }
}

/// For tests: the power goes before a certain write.
#[cfg(test)]
pub(super) mod cut {
    use std::cell::Cell;
    use std::io;
    use std::path::Path;

    use super::AuthorError;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Lets so many more writes through; `None` lets all through.
    pub(crate) fn after(writes: Option<u32>) {
        LEFT.set(writes);
    }

    pub(super) fn check(path: &Path) -> Result<(), AuthorError> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(AuthorError::io("writing", path)(io::Error::other("cut"))),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}
