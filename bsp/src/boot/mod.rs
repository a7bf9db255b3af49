//! Boot control: one state machine, several backends (`../../docs` has the page for people).
//!
//! The boot loader decides and counts; this module holds the same rules as a pure function, the
//! formats the boot loader reads, and the verdict that user space draws after a boot.

pub mod entry;
pub mod grub;
pub mod grubenv;
pub mod state;
pub mod store;
pub mod uboot;
pub mod variables;

/// The boot state on the firmware partition: see [`state::BootState`].
pub const STATE_PATH: &str = "treeline/state.env";
/// The spare record of the last confirmed deployment, on the firmware partition.
pub const GOOD_PATH: &str = "treeline/good.env";
/// Both files of the boot state.
pub const STATE_FILES: &[&str] = &[STATE_PATH, GOOD_PATH];

/// What a boot loader that checks signatures says of a deployment of which a file is missing, altered or signed with
/// another key; the identity comes after it, because GRUB breaks lines.
pub const NOT_LOADED: &str = "Treeline: not what was signed:";
