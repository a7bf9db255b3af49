//! GRUB for Secure Boot with one's own keys: assembled from the modules of the product's suite by that suite's own
//! `grub-mkimage`, with the static configuration and the key in it, and signed.

use std::fs;
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};
use bsp::board::{Board, OwnGrub};
use bsp::boot::grub::sealed::{modules, CONFIG, EARLY, PREFIX, SIGNATURE_ENDING};

use super::programs::Programs;
use crate::secure_boot::{openpgp, pe, Pair};

/// What assembles images.
const PROGRAM: &str = "usr/bin/grub-mkimage";

/// Its path on the firmware partition and content; nothing where the suite's GRUB starts. `config` is the static
/// configuration; `pair` the db key.
pub fn file(
    board: &Board,
    config: &str,
    unpacked: &[(String, PathBuf)],
    programs: &Programs,
    pair: Option<&Pair>,
) -> Result<Option<(String, Vec<u8>)>> {
    let Some(grub) = board.own_grub() else {
        return Ok(None);
    };
    let pair = pair.context("making GRUB for Secure Boot: there is no db key")?;
    let image = assemble(grub, config, unpacked, programs, pair)
        .and_then(|image| pe::sign(&image, pair))
        .with_context(|| format!("making {} of the firmware partition", grub.path))?;
    Ok(Some((grub.path.to_string(), image)))
}

fn assemble(
    grub: &OwnGrub,
    config: &str,
    unpacked: &[(String, PathBuf)],
    programs: &Programs,
    pair: &Pair,
) -> Result<Vec<u8>> {
    let mut packages = unpacked.iter();
    let found = packages.find(|(name, _)| name == grub.package);
    let (_, dir) = found.with_context(|| {
        format!(
            "package {} is not locked; run `builder update-lock`",
            grub.package
        )
    })?;
    let directory = dir.join(grub.directory());
    ensure!(
        directory.is_dir(),
        "package {} has no /{}, where GRUB's modules would be",
        grub.package,
        grub.directory()
    );
    let scratch = tempfile::tempdir().context("creating a scratch directory")?;
    let write = |name: &str, content: &[u8]| -> Result<PathBuf> {
        let path = scratch.path().join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    };
    let out = scratch.path().join("grub.efi");
    programs
        .command(&programs.find(&[PROGRAM])?)
        .args(["-O", grub.target, "-p", PREFIX, "--disable-shim-lock"])
        .arg("-d")
        .arg(&directory)
        .arg("-k")
        .arg(write("db.pgp", &openpgp::public_key(pair)?)?)
        .arg("-c")
        .arg(write("early.cfg", EARLY.as_bytes())?)
        .arg("-m")
        .arg(write("memdisk.tar", &memdisk(config, pair)?)?)
        .arg("-o")
        .arg(&out)
        .args(modules(grub))
        .run()?;
    fs::read(&out).with_context(|| format!("reading {}", out.display()))
}

/// A tar with the configuration and its signature: GRUB wants one here as well.
fn memdisk(config: &str, pair: &Pair) -> Result<Vec<u8>> {
    let signature = openpgp::signature(pair, config.as_bytes())?;
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in [
        (CONFIG.to_string(), config.as_bytes()),
        (format!("{CONFIG}{SIGNATURE_ENDING}"), &signature),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, &name, content)
            .with_context(|| format!("writing {name}"))?;
    }
    tar.into_inner().context("ending the archive")
}
