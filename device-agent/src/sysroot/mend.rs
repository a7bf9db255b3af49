//! Boot links that lead nowhere.
//!
//! A boot entry names its deployment by a link below `/ostree/boot.N/`. If the link or the directory behind
//! it is gone (a broken deployment that the boot loader has just fallen back from), libostree cannot even
//! list the deployments, and so nobody could take the broken one out of the menu. An empty directory behind
//! the link is enough for libostree; the deployment is then removed in the ordinary way.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

/// Makes every boot link that an entry names lead to a directory. Touches nothing that is whole.
pub fn boot_links(sysroot: &Path) -> Result<()> {
    let loader = sysroot.join("boot/loader");
    if !loader.join("entries").exists() {
        return Ok(());
    }
    for entry in bsp::boot::entry::load_dir(&loader)? {
        let Some(link) = link_in(&entry.options) else {
            continue;
        };
        let link = sysroot.join(link);
        if !link.is_dir() {
            mend(sysroot, &link, entry.id())
                .with_context(|| format!("mending the boot link {}", link.display()))?;
        }
    }
    Ok(())
}

/// The path in `ostree=/ostree/boot.N/<stateroot>/<checksum>/<serial>`, relative to the sysroot.
fn link_in(options: &str) -> Option<PathBuf> {
    let path = options
        .split_ascii_whitespace()
        .find_map(|arg| arg.strip_prefix("ostree=/"))?;
    let path = Path::new(path);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    (plain && path.starts_with("ostree")).then(|| path.to_owned())
}

fn mend(sysroot: &Path, link: &Path, id: Option<&str>) -> Result<()> {
    let parent = link.parent().context("it has no directory")?;
    if fs::symlink_metadata(link).is_err() {
        let stateroot = parent
            .parent()
            .and_then(Path::file_name)
            .context("it names no stateroot")?;
        let commit = id
            .map(crate::failed::commit_of)
            .filter(|c| c.len() == 64 && c.bytes().all(|b| b.is_ascii_hexdigit()))
            .context("the boot entry names no commit")?;
        let deployments = Path::new("deploy").join(stateroot).join("deploy");
        let name = existing(&sysroot.join("ostree").join(&deployments), commit)
            .unwrap_or_else(|| format!("{commit}.{FREE_SERIAL}"));
        fs::create_dir_all(parent)?;
        // Three levels up from `ostree/boot.N.M/<stateroot>/<checksum>` is `ostree`.
        std::os::unix::fs::symlink(Path::new("../../..").join(deployments).join(name), link)?;
    }
    // Relative to the directory that holds the link, as the kernel does it.
    let target = parent.join(fs::read_link(link)?);
    fs::create_dir_all(&target)?;
    eprintln!(
        "device-agent: boot link {} led nowhere; mended so that the deployment can be removed",
        link.display()
    );
    Ok(())
}

/// A serial number no real deployment has.
const FREE_SERIAL: u32 = 9999;

fn existing(deployments: &Path, commit: &str) -> Option<String> {
    fs::read_dir(deployments).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let serial = name.strip_prefix(commit)?.strip_prefix('.')?;
        serial.bytes().all(|b| b.is_ascii_digit()).then_some(name)
    })
}
