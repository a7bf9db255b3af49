//! Trees for other architectures than this machine's. Only what must run there is emulated (qemu-user,
//! through the kernel's binfmt_misc): dpkg itself and the few programs that maintainer scripts call for what
//! they alone know. The scripts' interpreters and the everyday tools (shell, perl, coreutils, tar, dpkg-deb, …)
//! do the same on every architecture; their place is taken, while packages are installed, by this machine's
//! builds of the same packages. Afterwards nothing of them is left: the tree is the same to the byte.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};

use crate::command::Command;
use crate::lock::HELPERS;

/// Architecture of the machines that `builder` runs on.
pub(super) const NATIVE: &str = "amd64";
/// Directory in the tree, while it is being made, with this machine's programs.
pub(super) const PLACE: &str = "/.treeline";

const LOADER: &str = "ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Programs of those packages that tell what machine they run on, or that enter another root.
const NOT_TAKEN: [&str; 5] = ["arch", "chroot", "ischroot", "nproc", "uname"];

/// An unpacked package of this machine's architecture.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub name: String,
    pub dir: PathBuf,
}

/// Fails where programs of `arch` cannot run here.
pub(super) fn check_emulation(arch: &str) -> Result<()> {
    let found = Command::new("arch-test", "arch-test").arg(arch).capture()?;
    if found.status.success() {
        return Ok(());
    }
    bail!(
        "composing for {arch}: maintainer scripts of {arch} packages cannot run on this machine; install the Debian \
         packages qemu-user-static and binfmt-support, and see that /proc/sys/fs/binfmt_misc is mounted and has an \
         entry for {arch} (`systemctl restart systemd-binfmt` makes it; in a container it comes from the host)"
    )
}

/// The hooks for mmdebstrap that put the programs into the tree and take them out again.
#[derive(Debug)]
pub(super) struct Hooks {
    pub put: PathBuf,
    pub take: PathBuf,
}

/// Collects the programs of `packages` in `dir`, where anybody can read them.
pub(super) fn prepare(packages: &[Unpacked], dir: &Path) -> Result<Hooks> {
    collect(packages, dir).with_context(|| {
        format!(
            "collecting this machine's programs in {} to install foreign packages with",
            dir.display()
        )
    })
}

fn collect(packages: &[Unpacked], dir: &Path) -> Result<Hooks> {
    let native = dir.join("native");
    let bin = native.join("bin");
    for sub in ["bin", "lib", "lib64", "libexec", "aside"] {
        fs::create_dir_all(native.join(sub))?;
    }
    for package in packages {
        add_libraries(&package.dir.join(LIBRARIES), &native.join("lib"))?;
        let loader = package.dir.join("usr/lib64").join(LOADER);
        if loader.exists() {
            copy(&loader, &native.join("lib64").join(LOADER))?;
        }
        if package.name == "dpkg" {
            copy(&package.dir.join("usr/bin/dpkg-deb"), &bin.join("dpkg-deb"))?;
            copy(
                &package.dir.join("usr/bin/dpkg"),
                &native.join("libexec/dpkg"),
            )?;
        } else if HELPERS.contains(&package.name.as_str()) {
            for sub in ["usr/bin", "usr/sbin"] {
                add_programs(&package.dir.join(sub), &bin)?;
            }
        }
    }
    for needed in [
        "bin/dash",
        "bin/dpkg-deb",
        "libexec/dpkg",
        "lib64/ld-linux-x86-64.so.2",
    ] {
        ensure!(
            native.join(needed).exists(),
            "no package of the lock's `helpers` brings {needed}; run `builder update-lock`"
        );
    }
    symlink("dash", bin.join("sh"))?;
    if bin.join("mawk").exists() {
        symlink("mawk", bin.join("awk"))?;
    }
    script(&bin.join("dpkg"), include_str!("foreign/dpkg.sh"))?;
    let hooks = Hooks {
        put: dir.join("put"),
        take: dir.join("take"),
    };
    script(&hooks.put, include_str!("foreign/put.sh"))?;
    script(&hooks.take, include_str!("foreign/take.sh"))?;
    readable(dir)?;
    Ok(hooks)
}

/// Shared libraries, perl's modules: everything but character sets.
fn add_libraries(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if entry.file_name() != "gconv" {
                fs::create_dir_all(&target)?;
                add_libraries(&path, &target)?;
            }
        } else if kind.is_symlink() {
            symlink(fs::read_link(&path)?, &target)?;
        } else {
            copy(&path, &target)?;
        }
    }
    Ok(())
}

fn add_programs(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let taken = !NOT_TAKEN.iter().any(|not| name == *not);
        if taken && entry.file_type()?.is_file() && is_elf(&entry.path())? {
            copy(&entry.path(), &to.join(name))?;
        }
    }
    Ok(())
}

fn is_elf(path: &Path) -> Result<bool> {
    let mut magic = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut magic)?;
    Ok(magic == b"\x7fELF")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copying {}", from.display()))
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Whatever the umask: in a user namespace mmdebstrap is somebody else.
fn readable(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            readable(&entry.path())?;
        } else if kind.is_file() {
            let mode = entry.metadata()?.permissions().mode();
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode | 0o444))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "foreign_test.rs"]
mod tests;
