//! The device configuration: `/usr/lib/device-agent/config.toml`, written by the builder into the
//! tree, read by the agent, overridden key by key in `/etc/device-agent/config.toml`.

use serde::{Deserialize, Serialize};

/// Where the builder writes the configuration (in the tree, without leading slash).
pub const CONFIG_PATH: &str = "usr/lib/device-agent/config.toml";
/// Where a device's owner may override single keys.
pub const CONFIG_OVERRIDE_PATH: &str = "etc/device-agent/config.toml";
/// The trusted TUF root, in the tree.
pub const ROOT_JSON_PATH: &str = "usr/lib/device-agent/root.json";
/// The CA certificates the agent trusts for the update server besides the system's (optional file).
pub const CA_PATH: &str = "usr/lib/device-agent/ca.pem";
/// Kernel argument that carries a deployment's identity (see `boot`).
pub const ID_KARG: &str = "treeline.id";

/// Everything the agent must know about the device it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceConfig {
    /// Product name as in `product.toml`.
    pub product: String,
    /// Product version of this tree.
    pub version: String,
    /// Board id; only releases for this board are accepted.
    pub board: String,
    /// Stateroot (`ostree admin os-init`), equal to the product name.
    pub stateroot: String,
    /// Where the boot state stands.
    pub boot: BootPlace,
    /// Update source and policy.
    #[serde(default)]
    pub update: Update,
    /// Commit-signing public keys, ed25519, base64 of 32 bytes; any one of them suffices.
    pub commit_keys: Vec<String>,
    /// When a boot is good.
    #[serde(default)]
    pub health: Health,
}

/// Where the boot state stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BootPlace {
    /// Boot backend.
    pub backend: crate::board::Backend,
    /// GUID (lower case) of the firmware partition in the partition table; on disks with an MBR its
    /// `<signature>-<number>`.
    pub firmware_partuuid: String,
    /// Where the U-Boot environment stands on the disk of the firmware partition (`uboot` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<crate::board::Environment>,
    /// Boots a new deployment has on trial.
    pub tries: u8,
}

/// Update source and policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Update {
    /// Base address: `https://…` or `file:///…` (a USB stick holds the same files). Empty: none.
    pub url: String,
    /// Channel followed.
    pub channel: String,
    /// Whether the timer installs what it finds; otherwise it only checks.
    pub automatic: bool,
    /// Where to POST the report after a judged boot (optional, `https://…`).
    pub report_url: Option<String>,
    /// Pins of the keys that servers may have, `sha256//…` (see `keys::pin`); none: the certificate decides alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pinned_keys: Vec<String>,
    /// File on the device with its own certificate (PEM, followed by those between it and its authority), for
    /// servers that want one.
    pub client_certificate: Option<String>,
    /// File on the device with the private key of `client_certificate` (PEM); without it, the key is in the same
    /// file.
    pub client_key: Option<String>,
    /// Command that signs with a private key in a TPM or a token, in place of `client_key`: it gets a SHA-256 digest
    /// and gives an ECDSA signature.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_signer: Vec<String>,
    /// Proxy (`http://host:port`); without it that of the environment.
    pub proxy: Option<String>,
    /// Compact deltas that take longer are left, for another way to the release.
    pub delta_time: DeltaTime,
}

/// How long applying a compact delta takes: a class, because devices differ.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DeltaTime {
    /// Up to 20 million decisions: a few files.
    Short,
    /// Up to 200 million: what a distribution changes in some months.
    Medium,
    /// More.
    #[default]
    Long,
}

impl DeltaTime {
    /// The class of a delta with so many decisions, as its release says.
    pub fn of(decisions: u64) -> Self {
        match decisions {
            0..=20_000_000 => Self::Short,
            20_000_001..=200_000_000 => Self::Medium,
            _ => Self::Long,
        }
    }
}

impl std::fmt::Display for DeltaTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Short => "short",
            Self::Medium => "medium",
            Self::Long => "long",
        })
    }
}

impl Default for Update {
    fn default() -> Self {
        Self {
            url: String::new(),
            channel: "stable".into(),
            automatic: false,
            report_url: None,
            pinned_keys: Vec::new(),
            client_certificate: None,
            client_key: None,
            client_signer: Vec::new(),
            proxy: None,
            delta_time: DeltaTime::default(),
        }
    }
}

/// When a boot is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Health {
    /// Seconds from the start of the agent's judgement to the moment the boot must have been found
    /// good; then a trial is given up and the device reboots.
    pub deadline_seconds: u64,
    /// Seconds that the system must stay good after the first time all checks pass.
    pub settle_seconds: u64,
    /// Units that must be active.
    pub units: Vec<String>,
    /// Commands that must exit 0.
    pub checks: Vec<Check>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            deadline_seconds: 600,
            settle_seconds: 5,
            units: Vec::new(),
            checks: Vec::new(),
        }
    }
}

/// One health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Check {
    /// Name that reports show.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Seconds it may take.
    #[serde(default = "default_check_timeout")]
    pub timeout_seconds: u64,
}

fn default_check_timeout() -> u64 {
    30
}
