//! Ranges of addresses, and which of them this machine has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Any port: nothing is sent there.
const PORT: u16 = 9;

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    /// Its first address is the one behind it.
    base: IpAddr,
    prefix: u32,
}

impl Subnet {
    /// From an address and the length of its prefix: `172.30.9.0/24`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let base: IpAddr = base.parse().ok()?;
        let prefix = prefix.parse().ok()?;
        (prefix <= width(base)).then_some(Self { base, prefix })
    }

    /// The address in it by which this machine reaches the others in it, if it is in it.
    pub(super) fn own_address(self) -> Option<IpAddr> {
        let any = match self.base {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // To connect sends nothing, and asks the kernel by which address it would.
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((self.first(), PORT)).ok()?;
        let own = socket.local_addr().ok()?.ip();
        // Elsewhere the way leads out by another network.
        self.holds(own).then_some(own)
    }

    fn first(self) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits().saturating_add(1)).into(),
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits().saturating_add(1)).into(),
        }
    }

    fn holds(self, address: IpAddr) -> bool {
        let rest = width(self.base) - self.prefix;
        width(self.base) == width(address)
            && bits(self.base).checked_shr(rest) == bits(address).checked_shr(rest)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_a_range_are_in_it() {
        let holds = |subnet: &str, address: &str| {
            let subnet = Subnet::parse(subnet).unwrap();
            subnet.holds(address.parse().unwrap())
        };
        assert!(holds("172.30.9.0/24", "172.30.9.1"));
        assert!(holds("0.0.0.0/0", "10.0.0.1") && holds("::/0", "fd00::1"));
        assert!(holds("fd00:1::/64", "fd00:1::1"));
        assert!(!holds("172.30.9.0/24", "172.30.10.1"));
        assert!(!holds("0.0.0.0/0", "::1") && !holds("fd00:1::/64", "fd00:2::1"));
        for wrong in ["", "172.30.9.0", "172.30.9.0/33", "a/8", "::/129"] {
            assert_eq!(Subnet::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_machine_has_an_address_in_its_networks_and_in_no_other() {
        let own = |subnet: &str| Subnet::parse(subnet).unwrap().own_address();
        assert_eq!(own("127.0.0.0/8"), Some(Ipv4Addr::LOCALHOST.into()));
        // For documentation only: nobody's.
        assert_eq!(own("203.0.113.0/24"), None);
    }
}
