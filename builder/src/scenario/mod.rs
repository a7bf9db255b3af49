//! `builder test`: a device in QEMU is updated, broken and judged, by the very programs that users run.

pub mod device;
pub mod report;
pub mod table;
pub mod variant;
