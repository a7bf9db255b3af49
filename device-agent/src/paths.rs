//! Where the agent's files stand. Tests give a root of their own.

use std::path::{Path, PathBuf};

/// All places the agent reads and writes, below one root (`/` on a device).
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self::below("/")
    }
}

impl Paths {
    /// Places below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `path` (without leading slash) below the root.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// The root itself: libostree's sysroot path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Configuration from the tree.
    pub fn config(&self) -> PathBuf {
        self.at(bsp::device::CONFIG_PATH)
    }

    /// The owner's configuration.
    pub fn config_override(&self) -> PathBuf {
        self.at(bsp::device::CONFIG_OVERRIDE_PATH)
    }

    /// The agent's own state; it can be lost at any time without harm.
    pub fn state(&self) -> PathBuf {
        self.at("var/lib/device-agent")
    }

    /// Volatile state of this boot.
    pub fn run(&self) -> PathBuf {
        self.at("run/device-agent")
    }

    /// libostree's boot entries and menu (a symlink that is swapped).
    pub fn loader(&self) -> PathBuf {
        self.at("boot/loader")
    }
}
