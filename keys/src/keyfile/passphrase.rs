//! Where a passphrase comes from: a file named in the environment, else whoever sits at the terminal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{read_private, KeyFileError};

/// Names the file (mode 0600) that holds the passphrase, for machines without a terminal.
pub const FILE_VARIABLE: &str = "TREELINE_PASSPHRASE_FILE";

/// What was typed for the keys of a directory: they share a passphrase, and nobody types it for every
/// role of a release.
static TYPED: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

/// The passphrase for a key file.
pub fn get(path: &Path) -> Result<String, KeyFileError> {
    if let Some(file) = std::env::var_os(FILE_VARIABLE) {
        return read_private(Path::new(&file)).map(|text| line(&text));
    }
    if let Some(passphrase) = typed().get(directory(path)) {
        return Ok(passphrase.clone());
    }
    let passphrase = ask(path, &format!("Passphrase of {}: ", path.display()))?;
    remember(path, &passphrase);
    Ok(passphrase)
}

/// Has [`get`] answer with this for the keys beside `path`, as if it had been typed.
pub fn remember(path: &Path, passphrase: &str) {
    typed().insert(directory(path).to_owned(), passphrase.to_owned());
}

fn typed() -> MutexGuard<'static, BTreeMap<PathBuf, String>> {
    TYPED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// A passphrase for new key files: from the same file, or typed twice.
pub fn new(path: &Path) -> Result<String, KeyFileError> {
    let wrong = |reason: &str| KeyFileError::Passphrase {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let passphrase = match std::env::var_os(FILE_VARIABLE) {
        Some(file) => read_private(Path::new(&file)).map(|text| line(&text))?,
        None => {
            let first = ask(path, &format!("New passphrase for {}: ", path.display()))?;
            if ask(path, "The same again: ")? != first {
                return Err(wrong("the two are not the same"));
            }
            first
        }
    };
    if passphrase.is_empty() {
        return Err(wrong("an empty passphrase protects nothing"));
    }
    Ok(passphrase)
}

fn ask(path: &Path, prompt: &str) -> Result<String, KeyFileError> {
    rpassword::prompt_password(prompt).map_err(|e| KeyFileError::Passphrase {
        path: path.to_owned(),
        reason: format!(
            "asking for the passphrase: {e}; without a terminal, name a file with it in {FILE_VARIABLE}"
        ),
    })
}

fn line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
