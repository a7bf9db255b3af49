//! The OSTree sysroot: which deployments there are, making one, choosing the order, taking one away.
//!
//! Opened for writing, `/sysroot` and `/boot` become writable in a mount namespace of this process alone
//! (libostree does that); the rest of the system goes on seeing them read-only.

mod mend;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bsp::device::ID_KARG;
use ostree::gio::Cancellable;
use ostree::glib::{KeyFile, VariantDict};
use ostree::{gio, RepoPruneFlags, SysrootWriteDeploymentsOpts};

use crate::problem::{Kind, Problem};

const NONE: Option<&Cancellable> = None;
/// Group of our keys in a deployment's origin file.
const ORIGIN_GROUP: &str = "treeline";

/// One deployment.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Identity (kernel argument `treeline.id`), if it has one.
    pub id: Option<String>,
    /// Commit checksum.
    pub commit: String,
    /// Product version, if known.
    pub version: Option<String>,
    /// Anti-rollback epoch of its release, if known.
    pub epoch: Option<u64>,
    handle: ostree::Deployment,
}

/// What is known about a commit that is being deployed; kept in the deployment's origin file, which
/// outlives a lost `/var`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// OSTree ref, e.g. `my-gateway/x86_64-uefi`.
    pub reference: String,
    /// Product version.
    pub version: String,
    /// Anti-rollback epoch.
    pub epoch: u64,
}

/// An open sysroot.
#[derive(Debug)]
pub struct Sysroot {
    inner: ostree::Sysroot,
    path: PathBuf,
}

impl Sysroot {
    /// Opens for reading only.
    pub fn read(path: &Path) -> Result<Self> {
        let inner = ostree::Sysroot::new(Some(&gio::File::for_path(path)));
        inner
            .load(NONE)
            .with_context(|| format!("reading the deployments below {}", path.display()))?;
        Ok(Self {
            inner,
            path: path.to_owned(),
        })
    }

    /// Opens for changing: takes libostree's lock, and first mends boot links that lead nowhere, with which
    /// libostree would refuse to work at all.
    pub fn write(path: &Path) -> Result<Self> {
        let inner = ostree::Sysroot::new(Some(&gio::File::for_path(path)));
        let open = || -> Result<()> {
            inner.initialize_with_mount_namespace(NONE)?;
            if !inner.try_lock()? {
                return Err(Problem::new(
                    Kind::Locked,
                    "another program is changing the deployments",
                )
                .hint("wait until it is done (an `ostree admin` command, perhaps)")
                .into());
            }
            mend::boot_links(path)?;
            Ok(inner.load(NONE)?)
        };
        open().with_context(|| format!("opening the deployments below {}", path.display()))?;
        Ok(Self {
            inner,
            path: path.to_owned(),
        })
    }

    /// All deployments, the default one first.
    pub fn deployments(&self) -> Vec<Deployed> {
        self.inner
            .deployments()
            .into_iter()
            .map(describe)
            .map(|mut deployed| {
                // The first deployment of an image was not made by the agent: its commit knows.
                deployed.version = deployed
                    .version
                    .or_else(|| self.version_in(&deployed.commit));
                deployed
            })
            .collect()
    }

    fn version_in(&self, commit: &str) -> Option<String> {
        let (commit, _) = self.repo().load_commit(commit).ok()?;
        let metadata = VariantDict::new(Some(&commit.child_value(0)));
        metadata.lookup("version").ok().flatten()
    }

    /// The deployment that bears this identity.
    pub fn find(&self, id: &str) -> Option<Deployed> {
        self.deployments()
            .into_iter()
            .find(|d| d.id.as_deref() == Some(id))
    }

    /// Time of a commit in the repository, seconds since 1970.
    pub fn commit_time(&self, commit: &str) -> Option<u64> {
        let (commit, _) = self.repo().load_commit(commit).ok()?;
        Some(ostree::commit_get_timestamp(&commit))
    }

    /// The repository.
    pub fn repo(&self) -> ostree::Repo {
        self.inner.repo()
    }

    /// Where the repository stands, for asking how much room is left.
    pub fn repo_path(&self) -> PathBuf {
        self.path.join("ostree/repo")
    }

    /// An identity for a new deployment of `commit`: the checksum, or `<checksum>-N` if that one is taken.
    pub fn new_id(&self, commit: &str) -> String {
        let taken: Vec<String> = self
            .deployments()
            .into_iter()
            .filter_map(|d| d.id)
            .collect();
        free_id(commit, &taken)
    }

    /// Checks out `commit` as a new deployment with `kargs`, `/etc` merged from `merge`. It is not in the
    /// boot menu until [`Self::set_order`].
    pub fn deploy(
        &self,
        stateroot: &str,
        commit: &str,
        origin: &Origin,
        merge: Option<&Deployed>,
        kargs: &[String],
    ) -> Result<Deployed> {
        let file = self.inner.origin_new_from_refspec(&origin.reference);
        file.set_string(ORIGIN_GROUP, "version", &origin.version);
        file.set_string(ORIGIN_GROUP, "epoch", &origin.epoch.to_string());
        let kargs: Vec<&str> = kargs.iter().map(String::as_str).collect();
        self.inner
            .deploy_tree(
                Some(stateroot),
                commit,
                Some(&file),
                merge.map(|d| &d.handle),
                &kargs,
                NONE,
            )
            .map(describe)
            .with_context(|| format!("checking out commit {commit}"))
    }

    /// Writes the boot menu with these deployments in this order, in one atomic switch. What is left out is
    /// no longer a deployment; [`Self::clean_up`] removes its files.
    pub fn set_order(&self, order: &[Deployed]) -> Result<()> {
        let handles: Vec<ostree::Deployment> = order.iter().map(|d| d.handle.clone()).collect();
        let options = SysrootWriteDeploymentsOpts {
            do_postclean: false,
        };
        self.inner
            .write_deployments_with_options(&handles, &options, NONE)
            .context("writing the boot menu")?;
        self.inner
            .load_if_changed(NONE)
            .context("reading the deployments again")?;
        Ok(())
    }

    /// Removes what no deployment and no ref needs any more.
    pub fn clean_up(&self) -> Result<()> {
        self.inner
            .cleanup(NONE)
            .context("removing old deployments and objects")
    }

    /// Points the ref `name` at a commit, or removes it.
    pub fn set_ref(&self, name: &str, commit: Option<&str>) -> Result<()> {
        self.repo()
            .set_ref_immediate(None, name, commit, NONE)
            .with_context(|| format!("setting the ref {name}"))
    }

    /// Removes objects that no ref reaches.
    pub fn prune(&self) -> Result<()> {
        self.repo()
            .prune(RepoPruneFlags::REFS_ONLY, 0, NONE)
            .context("removing unreachable objects")?;
        Ok(())
    }
}

fn describe(handle: ostree::Deployment) -> Deployed {
    let options = handle.bootconfig().and_then(|config| config.get("options"));
    let origin = handle.origin();
    let from_origin = |key: &str| {
        let origin: &KeyFile = origin.as_ref()?;
        origin.string(ORIGIN_GROUP, key).ok().map(|v| v.to_string())
    };
    Deployed {
        id: options.as_deref().and_then(id_in),
        commit: handle.csum().to_string(),
        version: from_origin("version"),
        epoch: from_origin("epoch").and_then(|e| e.parse().ok()),
        handle,
    }
}

/// The identity in a kernel command line.
pub fn id_in(options: &str) -> Option<String> {
    options
        .split_ascii_whitespace()
        .filter_map(|arg| arg.strip_prefix(ID_KARG)?.strip_prefix('='))
        .next_back()
        .map(str::to_owned)
}

fn free_id(commit: &str, taken: &[String]) -> String {
    let free = |id: &String| !taken.contains(id);
    std::iter::once(commit.to_owned())
        .chain((2u32..).map(|n| format!("{commit}-{n}")))
        .find(free)
        .unwrap_or_else(|| commit.to_owned())
}
