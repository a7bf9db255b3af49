//! The device program that goes into the tree, and the public keys it trusts.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use keys::keyfile::PrivateKey;

use crate::project::{Merged, Project};
use crate::tree::AgentFiles;

/// Name of the program.
const PROGRAM: &str = "device-agent";

/// What the tree needs of the agent.
pub fn files(project: &Project, merged: &Merged, signer: &PrivateKey) -> Result<AgentFiles> {
    let binary = find()?;
    check_machine(&binary, &merged.board.arch)?;
    let root = project.keys_dir().join("root.json");
    let root_json = fs::read(&root).with_context(|| {
        format!(
            "reading {}, which says whose releases devices trust; `builder keys init` makes it",
            root.display()
        )
    })?;
    let ca_pem = merged
        .product
        .update
        .ca
        .as_ref()
        .map(|ca| read_ca(&project.dir.join(ca)));
    Ok(AgentFiles {
        binary,
        root_json,
        commit_keys: vec![signer.public_base64()],
        ca_pem: ca_pem.transpose()?,
    })
}

/// Reads the product's commit-signing key.
pub fn signer(project: &Project) -> Result<PrivateKey> {
    let path = project.keys_dir().join("commit.pem");
    if !path.exists() {
        bail!(
            "reading {}, which signs what is built: it is missing; `builder keys init` makes the \
             keys of a new product, and a copy restores those of an old one",
            path.display()
        );
    }
    Ok(PrivateKey::load(&path)?)
}

fn read_ca(path: &Path) -> Result<Vec<u8>> {
    let text = fs::read(path).with_context(|| {
        format!(
            "reading {}, the certificate that devices trust for updates (`update.ca`); \
             `builder keys init` makes one for `builder serve`",
            path.display()
        )
    })?;
    if !text
        .windows(27)
        .any(|window| window == b"-----BEGIN CERTIFICATE-----")
    {
        bail!(
            "reading {} (`update.ca`): it holds no certificate in PEM form",
            path.display()
        );
    }
    Ok(text)
}

/// Finds the program: `TREELINE_AGENT`, else beside the running one, else where `make agent` puts it.
pub fn find() -> Result<PathBuf> {
    let wanted = std::env::var_os("TREELINE_AGENT").map(PathBuf::from);
    let exe = std::env::current_exe().context("finding the running program")?;
    choose(wanted, &exe)
}

fn choose(wanted: Option<PathBuf>, exe: &Path) -> Result<PathBuf> {
    if let Some(path) = wanted {
        if !path.is_file() {
            bail!(
                "finding {PROGRAM}: TREELINE_AGENT names {}, and there is no such file",
                path.display()
            );
        }
        return Ok(path);
    }
    let beside = exe.parent().map(|dir| dir.join(PROGRAM));
    let built = exe
        .ancestors()
        .nth(2)
        .map(|target| target.join("device").join(PROGRAM));
    // In a build directory, what stands beside a debug or release builder is not the small program.
    let looked: Vec<PathBuf> = match &built {
        Some(path) if path.is_file() => vec![path.clone()],
        _ => beside.into_iter().chain(built).collect(),
    };
    match looked.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => {
            let looked: Vec<String> = looked.iter().map(|p| p.display().to_string()).collect();
            bail!(
                "finding {PROGRAM}, the program that updates devices: neither {} is there; \
                 build it with `make agent`, or name it in TREELINE_AGENT",
                looked.join(" nor ")
            )
        }
    }
}

/// Refuses a program for another machine. ELF: class and byte order in bytes 4 and 5, machine in bytes
/// 18 and 19 (System V gABI).
fn check_machine(binary: &Path, arch: &str) -> Result<()> {
    let reading = || format!("reading {}", binary.display());
    let mut head = [0; 20];
    fs::File::open(binary)
        .and_then(|mut file| file.read_exact(&mut head))
        .with_context(reading)?;
    if head[..4] != *b"\x7fELF" {
        bail!("{}: it is no program (not ELF)", reading());
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let expected = match arch {
        "amd64" => 62,
        "arm64" => 183,
        "armhf" => 40,
        "ppc64el" => 21,
        _ => return Ok(()),
    };
    if machine != expected {
        bail!(
            "{}: it is built for another architecture than the board's, {arch} \
             (ELF machine {machine}, wanted {expected}); name the right one in TREELINE_AGENT",
            reading()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path();
        for profile in ["release", "device"] {
            fs::create_dir(target.join(profile)).unwrap();
        }
        let exe = target.join("release/builder");
        let error = choose(None, &exe).unwrap_err().to_string();
        assert!(error.contains("`make agent`"), "{error}");
        fs::write(target.join("release/device-agent"), "").unwrap();
        assert_eq!(
            choose(None, &exe).unwrap(),
            target.join("release/device-agent")
        );
        fs::write(target.join("device/device-agent"), "").unwrap();
        assert_eq!(
            choose(None, &exe).unwrap(),
            target.join("device/device-agent")
        );
        let other = target.join("other");
        let error = choose(Some(other.clone()), &exe).unwrap_err().to_string();
        assert!(error.contains("TREELINE_AGENT names"), "{error}");
        fs::write(&other, "").unwrap();
        assert_eq!(choose(Some(other.clone()), &exe).unwrap(), other);
    }

    #[test]
    fn another_architectures_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let mut elf = [0u8; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        elf[18] = 183;
        fs::write(&file, elf).unwrap();
        check_machine(&file, "arm64").unwrap();
        let error = check_machine(&file, "amd64").unwrap_err().to_string();
        assert!(error.contains("another architecture"), "{error}");
        fs::write(&file, "#!/bin/sh\necho hello world\n").unwrap();
        assert!(check_machine(&file, "amd64").is_err());
    }
}
