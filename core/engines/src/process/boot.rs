//! Which start of the machine this is.
//!
//! Records on disk name it, for two reasons: process ids mean nothing after a restart, and a tree
//! unpacked before a crash of the machine may have lost content that was never flushed.

use std::fs;

/// The kernel's id of this start of the machine; empty where the kernel does not tell.
pub(crate) fn id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}
