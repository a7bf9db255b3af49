//! The device side: check → fetch → verify → stage → arm → reboot → judge → confirm | fall back → report.
#![forbid(unsafe_code)]
