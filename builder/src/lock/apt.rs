//! apt in a root of its own: it knows the suites of a product and nothing of the machine it runs on, save how
//! that machine reaches the network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{bail, Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::archive::Source;
use super::parse::{self, Stanza, Uri};
use super::{SuiteState, INITRAMFS_STAND_IN};
use crate::cache::sha256_file;
use crate::command::Command;

/// A line of sources.list, taken apart.
#[derive(Debug, Clone)]
pub(super) struct SuiteLine {
    /// Options in brackets besides the architecture, e.g. `signed-by=…`.
    pub options: String,
    /// Address of the archive.
    pub uri: String,
    /// Suite, e.g. `trixie-updates`.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
}

/// An isolated apt root.
#[derive(Debug)]
pub(super) struct Apt {
    dir: PathBuf,
    suites: Vec<SuiteLine>,
    /// Two builders must not renew the same lists at once.
    _lock: Flock<File>,
}

impl Apt {
    /// The apt root in `dir` (kept between runs) for these suites and this architecture.
    pub fn open(dir: &Path, suites: Vec<SuiteLine>, arch: &str) -> Result<Self> {
        let open = || -> Result<Flock<File>> {
            for sub in [
                "etc/apt/apt.conf.d",
                "etc/apt/preferences.d",
                "etc/apt/trusted.gpg.d",
                "state/lists/partial",
                "cache/archives/partial",
            ] {
                fs::create_dir_all(dir.join(sub))?;
            }
            let file = File::create(dir.join("lock"))?;
            let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
            fs::write(dir.join("apt.conf"), configuration(dir, arch)?)?;
            fs::write(dir.join("etc/apt/sources.list"), sources(&suites, arch))?;
            fs::write(dir.join("status"), installed(arch))?;
            Ok(lock)
        };
        let lock = open().with_context(|| format!("preparing an apt root in {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            suites,
            _lock: lock,
        })
    }

    /// Brings the package lists up to date.
    pub fn update(&self) -> Result<()> {
        let output = self
            .command("apt-get")
            .args(["update", "-qq", "--error-on=any"])
            .capture()?;
        if output.status.success() {
            return Ok(());
        }
        let said = complaints(&output);
        let offline = [
            "resolving",
            "Could not connect",
            "Could not resolve",
            "Unable to connect",
            "Connection failed",
            "Network is unreachable",
        ]
        .iter()
        .any(|sign| said.contains(sign));
        let addresses: Vec<&str> = self.suites.iter().map(|line| line.uri.as_str()).collect();
        bail!(
            "reading the package lists of {}: {}\n{said}",
            addresses
                .first()
                .copied()
                .unwrap_or("an archive without an address"),
            if offline {
                "no network; nothing was changed (a build from an existing product.lock needs no package lists)"
            } else {
                "apt refuses them; is the suite's name right, and the archive's address?"
            }
        )
    }

    /// Names of all packages that the suites know.
    pub fn names(&self) -> Result<Vec<String>> {
        let text = self.command("apt-cache").arg("pkgnames").text()?;
        Ok(text.lines().map(str::to_string).collect())
    }

    /// What installing `packages` into an empty system would fetch. The error is what apt says.
    pub fn solve(&self, packages: &[String]) -> Result<std::result::Result<Vec<Uri>, String>> {
        let output = self
            .command("apt-get")
            .args(["install", "--print-uris", "-y", "-q", "--no-remove", "--"])
            .args(packages)
            .capture()?;
        if output.status.success() {
            return Ok(Ok(parse::uris(&String::from_utf8(output.stdout)?)?));
        }
        Ok(Err(complaints(&output)))
    }

    /// Where `packages` themselves stand, without their dependencies.
    pub fn locate(&self, packages: &[String]) -> Result<std::result::Result<Vec<Uri>, String>> {
        // apt says nothing of a package whose file lies in the directory that it is called in.
        let empty = tempfile::tempdir().context("creating an empty directory")?;
        let output = self
            .command("apt-get")
            .dir(empty.path())
            .args(["download", "--print-uris", "-qq", "--"])
            .args(packages)
            .capture()?;
        if output.status.success() {
            return Ok(Ok(parse::uris(&String::from_utf8(output.stdout)?)?));
        }
        Ok(Err(complaints(&output)))
    }

    /// The records of exactly these packages.
    pub fn show(&self, packages: &[Uri]) -> Result<Vec<Stanza>> {
        let text = self
            .command("apt-cache")
            .args(["show", "--"])
            .args(
                packages
                    .iter()
                    .map(|package| format!("{}={}", package.name, package.version)),
            )
            .text()?;
        Ok(parse::stanzas(&text))
    }

    /// State of the suites after [`Apt::update`].
    pub fn suites(&self) -> Result<Vec<SuiteState>> {
        let lists = self.dir.join("state/lists");
        self.suites
            .iter()
            .map(|line| {
                let file = find_release(&lists, line)?;
                let read = || -> Result<SuiteState> {
                    Ok(SuiteState {
                        name: line.suite.clone(),
                        date: parse::release_date(&fs::read_to_string(&file)?)?,
                        sha256: sha256_file(&file)?,
                    })
                };
                read().with_context(|| {
                    format!(
                        "reading the Release file of {} ({})",
                        line.suite,
                        file.display()
                    )
                })
            })
            .collect()
    }

    fn command(&self, program: &str) -> Command {
        Command::new(program, "apt").env("APT_CONFIG", self.dir.join("apt.conf"))
    }
}

/// The sources of the machine's own apt.
pub(super) fn machine_sources() -> Result<Vec<Source>> {
    let text = Command::new("apt-get", "apt")
        .args([
            "indextargets",
            "--format",
            "$(RELEASE)\t$(REPO_URI)\t$(LABEL)",
            "Created-By: Packages",
        ])
        .text()?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut words = line.split('\t');
            Some(Source {
                release: words.next()?.to_string(),
                uri: words.next()?.to_string(),
                label: words.next().unwrap_or("").to_string(),
            })
        })
        .collect())
}

/// Proxies that the machine's apt is told to use, as (`http` or `https`, address).
pub(super) fn proxies() -> Result<Vec<(&'static str, String)>> {
    let own = Command::new("apt-config", "apt").arg("dump").text()?;
    let mut found = Vec::new();
    for line in own.lines() {
        for key in ["http", "https"] {
            let value = line
                .strip_prefix(&format!("Acquire::{key}::Proxy \""))
                .and_then(|rest| rest.strip_suffix("\";"));
            if let Some(value) = value.filter(|value| !value.is_empty() && *value != "DIRECT") {
                found.push((key, value.to_string()));
            }
        }
    }
    Ok(found)
}

fn configuration(dir: &Path, arch: &str) -> Result<String> {
    let at = |path: &str| dir.join(path).display().to_string();
    let mut text = format!(
        "Dir \"{root}/\";\n\
         Dir::Etc \"{etc}/\";\n\
         Dir::Etc::Parts \"{etc}/apt.conf.d/\";\n\
         Dir::Etc::Main \"{etc}/none\";\n\
         Dir::Etc::NetrcParts \"/etc/apt/auth.conf.d/\";\n\
         Dir::State \"{state}/\";\n\
         Dir::State::Status \"{status}\";\n\
         Dir::Cache \"{cache}/\";\n\
         APT::Architecture \"{arch}\";\n\
         APT::Architectures {{ \"{arch}\"; }};\n\
         APT::Install-Recommends \"false\";\n\
         APT::Install-Suggests \"false\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n",
        root = dir.display(),
        etc = at("etc/apt"),
        state = at("state"),
        status = at("status"),
        cache = at("cache"),
    );
    let own = Command::new("apt-config", "apt").arg("dump").text()?;
    for line in own.lines().filter(|line| is_about_the_network(line)) {
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// Proxies, retries and the like of the machine hold for our apt too.
fn is_about_the_network(line: &str) -> bool {
    [
        "Acquire::http",
        "Acquire::https",
        "Acquire::Retries",
        "Acquire::ForceIPv",
        "Acquire::Check-",
        "Acquire::Max-FutureTime",
    ]
    .iter()
    .any(|prefix| line.starts_with(prefix))
}

fn sources(suites: &[SuiteLine], arch: &str) -> String {
    suites
        .iter()
        .map(|line| {
            format!(
                "deb [arch={arch} {}] {} {} {}\n",
                line.options,
                line.uri,
                line.suite,
                line.components.join(" ")
            )
        })
        .collect()
}

/// An empty system, but for the stand-in for an initramfs generator.
fn installed(arch: &str) -> String {
    format!(
        "Package: {INITRAMFS_STAND_IN}\nStatus: install ok installed\nMaintainer: none\nArchitecture: {arch}\n\
         Version: 1\nProvides: linux-initramfs-tool\nDescription: the builder assembles the initramfs\n"
    )
}

fn find_release(lists: &Path, line: &SuiteLine) -> Result<PathBuf> {
    // apt names lists by address and path with `/` as `_`.
    let mut found = Vec::new();
    for entry in fs::read_dir(lists).with_context(|| format!("listing {}", lists.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if ["InRelease", "Release"]
            .iter()
            .any(|kind| name.ends_with(&format!("_dists_{}_{kind}", line.suite)))
        {
            found.push(path);
        }
    }
    found.sort();
    found.into_iter().next().with_context(|| {
        format!(
            "apt left no Release file of {} in {}",
            line.suite,
            lists.display()
        )
    })
}

/// What apt says that matters, without its progress and its advice for interactive use.
fn complaints(output: &Output) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let noise = [
        "'",
        "Some packages could not be installed",
        "requested an impossible situation",
        "distribution that some required packages",
        "or been moved out of Incoming",
        "The following information may help",
        "Reading ",
        "Building ",
    ];
    text.lines()
        .filter(|line| !line.trim().is_empty() && !noise.iter().any(|sign| line.starts_with(sign)))
        .collect::<Vec<_>>()
        .join("\n")
}
