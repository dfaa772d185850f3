//! What root may do inside an instance.
//!
//! A program that runs as root in a namespace of its own is still root to the kernel. Taking
//! capabilities from the *bounding set* takes them from everything that is executed from here on.

use caps::{CapSet, Capability};

use super::protocol::Failure;

/// Docker's default set, without making devices (an image could reach any disk of the machine)
/// and without raw sockets (the network is the machine's own).
const KEPT: [Capability; 12] = [
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SYS_CHROOT,
];

/// Limits what is executed from here on to [`KEPT`]. Without effect for whoever has none to lose.
pub(super) fn limit() -> Result<(), Failure> {
    let step = "limit capabilities";
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        return Ok(());
    }
    for capability in caps::runtime::thread_all_supported() {
        if !KEPT.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability).map_err(Failure::at(step))?;
        }
    }
    caps::clear(None, CapSet::Inheritable).map_err(Failure::at(step))
}
