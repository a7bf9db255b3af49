//! Boot control: one state machine, several backends (`../../docs` has the page for people).
//!
//! The boot loader decides and counts; this module holds the same rules as a pure function, the
//! formats the boot loader reads, and the verdict that user space draws after a boot.

pub mod entry;
pub mod grub;
pub mod grubenv;
pub mod state;
pub mod store;
