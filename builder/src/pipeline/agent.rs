//! The device program that goes into the tree, and the public keys it trusts.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use keys::signer::Signer;

use crate::project::{Merged, Project};
use crate::tree::AgentFiles;

/// Name of the program.
const PROGRAM: &str = "device-agent";

/// What the tree needs of the agent.
pub fn files(project: &Project, merged: &Merged, signer: &Signer) -> Result<AgentFiles> {
    let binary = find(&merged.board.arch)?;
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
        commit_keys: former(project)?
            .iter()
            .chain([signer])
            .map(Signer::public_base64)
            .collect(),
        ca_pem: ca_pem.transpose()?,
    })
}

/// Reads the product's commit-signing key.
pub fn signer(project: &Project) -> Result<Signer> {
    let path = project.keys_dir().join("commit.pem");
    if !is_there(&path) {
        bail!(
            "reading {}, which signs what is built: it is missing; `builder keys init` makes the \
             keys of a new product, and a copy restores those of an old one",
            path.display()
        );
    }
    Ok(Signer::open(&path)?)
}

/// The commit key before the present one, while `builder keys rotate commit` is under way: what is built is
/// signed by both and trusts both, so devices that know only the former one can follow.
pub fn former(project: &Project) -> Result<Option<Signer>> {
    let path = project.keys_dir().join("commit-old.pem");
    if !is_there(&path) {
        return Ok(None);
    }
    Ok(Some(Signer::open(&path)?))
}

/// A key file, or the description of a signer in its place.
fn is_there(path: &Path) -> bool {
    path.exists() || path.with_extension("toml").exists()
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

/// Architecture of the machines that `builder` itself runs on.
const NATIVE: &str = "amd64";

/// Debian's names of architectures with rustc's and the number in ELF (System V gABI, `e_machine`).
const ARCHITECTURES: [(&str, &str, u16); 4] = [
    ("amd64", "x86_64-unknown-linux-gnu", 62),
    ("arm64", "aarch64-unknown-linux-gnu", 183),
    ("armhf", "armv7-unknown-linux-gnueabihf", 40),
    ("ppc64el", "powerpc64le-unknown-linux-gnu", 21),
];

/// Finds the program for an architecture: the one that the environment names, else where `make agent` and
/// `make agents` put it, else beside the running program.
fn find(arch: &str) -> Result<PathBuf> {
    let own = format!("TREELINE_AGENT_{}", arch.to_uppercase());
    let wanted = [own.as_str(), "TREELINE_AGENT"]
        .into_iter()
        .find_map(|name| Some((name.to_string(), PathBuf::from(std::env::var_os(name)?))));
    let exe = std::env::current_exe().context("finding the running program")?;
    choose(arch, wanted, &exe)
}

/// `wanted` is the name of a variable and the path in it.
fn choose(arch: &str, wanted: Option<(String, PathBuf)>, exe: &Path) -> Result<PathBuf> {
    if let Some((variable, path)) = wanted {
        if !path.is_file() {
            bail!(
                "finding {PROGRAM}: {variable} names {}, and there is no such file",
                path.display()
            );
        }
        return Ok(path);
    }
    let places = places(arch, exe);
    match places.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => {
            let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            bail!(
                "finding {PROGRAM} for {arch}, the program that updates devices: neither {} is there; \
                 build it with `make {}`, or name it in TREELINE_AGENT_{}",
                places.join(" nor "),
                if arch == NATIVE { "agent" } else { "agents" },
                arch.to_uppercase()
            )
        }
    }
}

/// Where the program of an architecture may stand, best first.
fn places(arch: &str, exe: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let target = exe.ancestors().nth(2);
    let beside = exe.parent();
    if arch == NATIVE {
        // In a build directory, what stands beside a debug or release builder is not the small program.
        places.extend(target.map(|dir| dir.join("device").join(PROGRAM)));
        places.extend(beside.map(|dir| dir.join(PROGRAM)));
    }
    let triple = ARCHITECTURES.iter().find(|(name, _, _)| *name == arch);
    if let (Some((_, triple, _)), Some(target)) = (triple, target) {
        places.push(target.join(triple).join("device").join(PROGRAM));
    }
    places.extend(beside.map(|dir| dir.join(format!("{PROGRAM}_{arch}"))));
    places
}

/// Refuses a program for another machine, which ELF names in bytes 18 and 19. All of ours are little-endian.
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
    let Some((_, _, expected)) = ARCHITECTURES.iter().find(|(name, _, _)| *name == arch) else {
        return Ok(());
    };
    if machine != *expected {
        bail!(
            "{}: it is built for another architecture than the board's, {arch} \
             (ELF machine {machine}, wanted {expected}); name the right one in TREELINE_AGENT_{}",
            reading(),
            arch.to_uppercase()
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
        let error = choose("amd64", None, &exe).unwrap_err().to_string();
        assert!(error.contains("`make agent`"), "{error}");
        let found = |arch: &str| choose(arch, None, &exe).unwrap();
        for place in ["release/device-agent", "device/device-agent"] {
            fs::write(target.join(place), "").unwrap();
            assert_eq!(found("amd64"), target.join(place));
        }
        // The programs of this machine are never taken for another's.
        let error = choose("arm64", None, &exe).unwrap_err().to_string();
        assert!(error.contains("`make agents`"), "{error}");
        let cross = target.join("aarch64-unknown-linux-gnu/device");
        fs::create_dir_all(&cross).unwrap();
        for place in [
            target.join("release/device-agent_arm64"),
            cross.join(PROGRAM),
        ] {
            fs::write(&place, "").unwrap();
            assert_eq!(found("arm64"), place);
        }
        let other = target.join("other");
        let wanted = || Some(("TREELINE_AGENT_ARM64".to_string(), other.clone()));
        let error = choose("arm64", wanted(), &exe).unwrap_err().to_string();
        assert!(error.contains("TREELINE_AGENT_ARM64 names"), "{error}");
        fs::write(&other, "").unwrap();
        assert_eq!(choose("arm64", wanted(), &exe).unwrap(), other);
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
