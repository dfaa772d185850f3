//! Ports and addresses on this machine.
//!
//! Both ranges lie below the one that the kernel takes for outgoing connections (32768 and up), so
//! that a port which was free while the server was down is still free when it comes back.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::{Range, RangeInclusive};
use std::sync::{Mutex, PoisonError};

/// Ports of tenants' URLs; kept for a tenant's whole life.
pub(crate) const TENANTS: Range<u16> = 20_000..32_768;
/// Ports of instances, where the settings name no others; each has its own for as long as it runs.
pub(crate) const INSTANCES: RangeInclusive<u16> = 10_000..=19_999;

/// How many ports are tried for a tenant before the kernel is asked for any.
const TRIES: u32 = 64;

/// Ports given out lately, whose instances may not listen yet. More than are ever started at a time.
static LATELY: Mutex<VecDeque<u16>> = Mutex::new(VecDeque::new());
const LATELY_KEPT: usize = 2048;

/// A port of `range` for a new instance, and for none that is started at the same time, if one is free. Nothing holds it:
/// another program may still take it, which shows when the instance wants to listen there.
pub(crate) fn for_instance(range: &RangeInclusive<u16>) -> Option<u16> {
    let mut lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    let (first, last) = (*range.start(), *range.end());
    let middle = random_in(&(first..=last));
    let all = (middle..=last).chain(first..middle);
    let fresh = all.filter(|port| !lately.contains(port));
    // In a small range all may have been given out lately, those of instances that are gone included.
    let again = lately.iter().copied().filter(|port| range.contains(port));
    let port = fresh.chain(again).find(|port| is_free(*port))?;
    lately.retain(|given| *given != port);
    lately.push_back(port);
    if lately.len() > LATELY_KEPT {
        lately.pop_front();
    }
    Some(port)
}

/// Addresses to try for a new tenant, the last of which leaves the choice to the kernel.
pub(crate) fn for_tenant(host: IpAddr) -> impl Iterator<Item = SocketAddr> {
    let random = (0..TRIES).map(|_| random_in(&(TENANTS.start..=TENANTS.end - 1)));
    random
        .chain([0])
        .map(move |port| SocketAddr::new(host, port))
}

/// Whether somebody listens on the loopback port now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// An address of this machine at which a server that listens on `address` is reached.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

fn random_in(range: &RangeInclusive<u16>) -> u16 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    let length = u32::from(range.end() - range.start()) + 1;
    let offset = u32::from_le_bytes(bytes) % length;
    range.start() + u16::try_from(offset).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_free() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(!is_free(port));
        assert_eq!(for_instance(&(port..=port)), None);
        assert!(INSTANCES.contains(&for_instance(&INSTANCES).unwrap()));
    }

    #[test]
    fn instances_that_start_together_get_ports_of_their_own() {
        let ports: std::collections::BTreeSet<u16> = (0..500)
            .map(|_| for_instance(&INSTANCES).unwrap())
            .collect();
        assert_eq!(ports.len(), 500);
    }

    #[test]
    fn a_port_is_given_out_again_when_there_is_no_other_one_and_it_is_free() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        drop(held);
        for _ in 0..2 {
            assert_eq!(for_instance(&(port..=port)), Some(port));
        }
    }
}
