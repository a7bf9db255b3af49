//! Replacing the commit key. Devices know it from their tree and not from root metadata, so another one comes in two
//! steps: what is built is signed by the former and by the new one, until no device knows the former alone.
//!
//! ```text
//! keys/commit.pem      signs; or commit.toml, which names a signer
//! keys/commit-old.pem  the former one, which signs beside it
//! keys/commit-new.pem  on its way to become the present one
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use super::incoming::Incoming;

/// Another commit key: devices in the field know the present one, so it goes on signing beside the new one until
/// [`drop_former`].
pub fn rotate(dir: &Path, new: &Incoming<'_>) -> Result<()> {
    if let (None, Some(former)) = (file(dir, "commit"), file(dir, "commit-old")) {
        // Cut off between the two steps: the former one goes back, and the rotation is done again.
        rename(&former, "commit")?;
    }
    if let Some(former) = file(dir, "commit-old") {
        bail!(
            "{} is there: the last rotation has not ended; when every device has a release with both keys, \
             end it with `builder keys revoke commit-old`",
            former.display()
        );
    }
    let Some(present) = file(dir, "commit") else {
        bail!(
            "replacing the commit key: there is none in {}; restore it from a copy",
            dir.display()
        );
    };
    // The new one is whole before the present one moves; what a failure has left was never used.
    while let Some(left) = file(dir, "commit-new") {
        fs::remove_file(&left).with_context(|| format!("removing {}", left.display()))?;
    }
    new.put(dir, "commit", &dir.join("commit-new.pem"))?;
    let Some(next) = file(dir, "commit-new") else {
        bail!("replacing the commit key: a public key alone cannot sign what is built here; name a key file, a signer's description or a pkcs11: URI");
    };
    rename(&present, "commit-old")?;
    rename(&next, "commit")
}

/// Ends the rotation of the commit key.
pub fn drop_former(dir: &Path) -> Result<()> {
    let former = file(dir, "commit-old").unwrap_or_else(|| dir.join("commit-old.pem"));
    if file(dir, "commit").is_none() {
        bail!(
            "removing {}: there is no commit.pem, so it is the only commit key; `builder keys rotate commit` \
             puts that right",
            former.display()
        );
    }
    fs::remove_file(&former).with_context(|| format!("removing {}", former.display()))
}

/// The file of a key that is here.
fn file(dir: &Path, name: &str) -> Option<PathBuf> {
    let kinds = ["pem", "toml"].into_iter();
    kinds
        .map(|kind| dir.join(format!("{name}.{kind}")))
        .find(|file| file.exists())
}

fn rename(from: &Path, name: &str) -> Result<()> {
    let kind = from.extension().unwrap_or_default().to_string_lossy();
    let to = from.with_file_name(format!("{name}.{kind}"));
    fs::rename(from, &to).with_context(|| format!("writing {}", to.display()))
}
