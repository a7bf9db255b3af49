//! `product.toml`: what a device maker ships. The types stand here; `read` reads a file, `structure`
//! holds it against the schema, `check` judges what it means, `finding` shows what is wrong and where.

mod check;
mod document;
mod finding;
mod nearest;
pub mod read;
mod structure;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use bsp::board::{SecureBoot, Size};
use bsp::device::Check;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::is_product_name;
pub use finding::{Finding, Rejected};
pub use nearest::nearest;

/// Reads and checks the product description in `file`. What is wrong with it comes as [`Rejected`].
pub fn load(file: &Path) -> Result<Product> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let dir = file.parent().unwrap_or(Path::new("."));
    parse(&shown(file), &text, dir)
}

/// Reads and checks `text`, the content of `file` (a name for messages) in `dir`.
pub fn parse(file: &str, text: &str, dir: &Path) -> Result<Product> {
    let parsed = read::parse::<Product>(file, text)?;
    let boards = crate::project::boards::all(Some(dir))?;
    let findings = check::check(&parsed.value, &parsed.document, dir, &boards);
    if findings.is_empty() {
        Ok(parsed.value)
    } else {
        Err(Rejected::new(file, text, findings).into())
    }
}

/// The JSON Schema of `product.toml`.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Product)
}

/// A file's name as the user knows it: from where they stand, if it is below.
pub fn shown(file: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let name = file.strip_prefix(&here).unwrap_or(file);
    let name = name.strip_prefix(".").unwrap_or(name);
    name.display().to_string()
}

/// A product description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Product {
    /// Product name: lower case letters, digits, dashes. Also the stateroot.
    pub name: String,
    /// Version of the next release, e.g. `1.0.0`.
    pub version: String,
    /// Anti-rollback floor of releases made from now on.
    #[serde(default)]
    pub epoch: u64,
    /// Where the root file system comes from.
    pub base: Base,
    /// Packages to add and to drop.
    #[serde(default)]
    pub packages: Packages,
    /// Directory whose content is laid over the tree, with owner and mode rules.
    #[serde(default)]
    pub overlay: Option<Overlay>,
    /// Users with fixed ids.
    #[serde(default)]
    pub users: Vec<User>,
    /// systemd units to enable, disable, mask.
    #[serde(default)]
    pub units: Units,
    /// Host name and other system settings.
    #[serde(default)]
    pub system: System,
    /// Additional kernel arguments.
    #[serde(default)]
    pub kernel_args: Vec<String>,
    /// Partition sizes by label, e.g. `root = "2GiB"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partitions: BTreeMap<String, Size>,
    /// Update address and policy.
    #[serde(default)]
    pub update: Update,
    /// When a boot is good.
    #[serde(default)]
    pub health: Health,
    /// What is kept that a minimal tree drops.
    #[serde(default)]
    pub keep: Keep,
    /// Per-board additions, by board id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub board: BTreeMap<String, BoardSection>,
}

/// Where the root file system comes from; exactly one of `suite`, `rootfs`, `oci`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Base {
    /// Debian suite: `trixie`.
    #[serde(default)]
    pub suite: Option<String>,
    /// Archive components (with `suite`); default `["main"]`.
    #[serde(default)]
    pub components: Vec<String>,
    /// Which suites beside the release itself packages are taken from (with `suite`); default: both. For
    /// mirrors that have only a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Vec<Pocket>>,
    /// Archive address (with `suite`); default: the machine's own apt sources.
    #[serde(default)]
    pub mirror: Option<String>,
    /// Address of the suite's security archive; default: as `mirror`.
    #[serde(default)]
    pub security_mirror: Option<String>,
    /// A root file system tarball (tar, tar.gz, tar.xz, tar.zst).
    #[serde(default)]
    pub rootfs: Option<String>,
    /// An OCI image layout directory.
    #[serde(default)]
    pub oci: Option<String>,
}

/// A suite beside a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pocket {
    /// `<suite>-updates`.
    Updates,
    /// `<suite>-security`.
    Security,
}

/// Packages to add and to drop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Packages {
    /// Added.
    pub add: Vec<String>,
    /// Dropped from Treeline's own base list (a package that others depend on cannot be dropped).
    pub drop: Vec<String>,
}

/// An overlay directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Overlay {
    /// Directory, relative to `product.toml`.
    pub path: String,
    /// Owner and mode rules; the last one that matches wins. Default: root:root, 0755 for directories
    /// and executable files, 0644 for others.
    #[serde(default)]
    pub rules: Vec<OverlayRule>,
}

/// Owner and mode of the overlay paths that match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OverlayRule {
    /// Path pattern with `*`, `?` and `**`, e.g. `/etc/secret/**`.
    pub path: String,
    /// User name or id.
    #[serde(default)]
    pub user: Option<String>,
    /// Group name or id.
    #[serde(default)]
    pub group: Option<String>,
    /// Octal mode, e.g. `"0600"`.
    #[serde(default)]
    pub mode: Option<String>,
}

/// A user with fixed ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// Name.
    pub name: String,
    /// User id; also the group's unless `gid` is given.
    pub uid: u32,
    /// Group id.
    #[serde(default)]
    pub gid: Option<u32>,
    /// Further groups (must exist).
    #[serde(default)]
    pub groups: Vec<String>,
    /// Home directory; default `/home/<name>`.
    #[serde(default)]
    pub home: Option<String>,
    /// Shell; default `/bin/bash`.
    #[serde(default)]
    pub shell: Option<String>,
    /// Public ssh keys.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Password hash as in `/etc/shadow` (`openssl passwd -6`); default: locked.
    #[serde(default)]
    pub password_hash: Option<String>,
}

/// systemd units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Units {
    /// Enabled.
    pub enable: Vec<String>,
    /// Disabled.
    pub disable: Vec<String>,
    /// Masked.
    pub mask: Vec<String>,
}

/// Host name and other system settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct System {
    /// Host name; each `?` becomes a hexadecimal digit derived from the machine id. Default: the product's name.
    pub hostname: Option<String>,
    /// Root password hash as in `/etc/shadow`; default: locked.
    pub root_password_hash: Option<String>,
    /// ssh keys for root.
    pub root_ssh_keys: Vec<String>,
    /// Time zone, e.g. `Europe/Berlin`; default `UTC`.
    pub timezone: String,
    /// Locale; default `C.UTF-8`.
    pub locale: String,
}

impl Default for System {
    fn default() -> Self {
        Self {
            hostname: None,
            root_password_hash: None,
            root_ssh_keys: Vec::new(),
            timezone: "UTC".into(),
            locale: "C.UTF-8".into(),
        }
    }
}

/// Update address and policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Update {
    /// Base address, e.g. `https://updates.example.com/`; may be empty.
    pub url: String,
    /// Channel the device follows.
    pub channel: String,
    /// Whether devices install what they find by themselves.
    pub automatic: bool,
    /// systemd calendar or interval for the timer, e.g. `1h`.
    pub interval: String,
    /// CA certificate file (PEM) that devices trust for `url`, relative to `product.toml`.
    pub ca: Option<String>,
    /// Where devices POST their report after a judged boot.
    pub report_url: Option<String>,
    /// Pins of the keys that update and report server may have: `sha256//` and base64.
    pub pinned_keys: Vec<String>,
    /// File on the device with its own certificate (PEM), for servers that want one.
    pub client_certificate: Option<String>,
    /// File on the device with that certificate's private key, if it is not in the same file.
    pub client_key: Option<String>,
    /// Command on the device that signs with a key in a TPM or a token, in place of `client-key`.
    pub client_signer: Vec<String>,
    /// Proxy on the way to the servers, `http://host:port`.
    pub proxy: Option<String>,
    /// Compact deltas that take longer are left, for another way to the release.
    pub delta_time: bsp::device::DeltaTime,
    /// Boots a new deployment has on trial, 1 to 9.
    #[schemars(range(min = 1, max = 9))]
    pub tries: u8,
}

impl Default for Update {
    fn default() -> Self {
        Self {
            url: String::new(),
            channel: "stable".into(),
            automatic: false,
            interval: "1h".into(),
            ca: None,
            report_url: None,
            pinned_keys: Vec::new(),
            client_certificate: None,
            client_key: None,
            client_signer: Vec::new(),
            proxy: None,
            delta_time: bsp::device::DeltaTime::default(),
            tries: 3,
        }
    }
}

/// When a boot is good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Health {
    /// Seconds until a trial boot must have been found good (default 600).
    pub deadline_seconds: Option<u64>,
    /// Seconds that the system must stay good (default 5).
    pub settle_seconds: Option<u64>,
    /// Units that must be active.
    pub units: Vec<String>,
    /// Commands that must exit 0.
    pub checks: Vec<Check>,
}

/// What is kept that a minimal tree drops.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Keep {
    /// `/usr/share/doc`, `/usr/share/info`, … (copyright files are always kept).
    pub docs: bool,
    /// Manual pages.
    pub man: bool,
    /// Locales besides C and the chosen one.
    pub locales: bool,
}

/// Per-board additions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BoardSection {
    /// Packages for this board.
    pub packages: Packages,
    /// Kernel arguments for this board.
    pub kernel_args: Vec<String>,
    /// Partition sizes for this board.
    pub partitions: BTreeMap<String, Size>,
    /// Overlay laid over the product's own.
    pub overlay: Option<Overlay>,
    /// Units for this board.
    pub units: Units,
    /// Whose signatures start this board (UEFI only); default: as in the board file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureBoot>,
}

#[cfg(test)]
mod tests;
