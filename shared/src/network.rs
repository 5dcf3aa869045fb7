//! Networks: an address and which of its bits count.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};

/// A range of IPv4 or IPv6 addresses. An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) is the IPv4 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Base and mask.
    V4(u32, u32),
    /// Base and mask.
    V6(u128, u128),
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Something else than an address: a host's name, say.
    #[error("is not an IP address")]
    NotAnAddress,
    /// The number behind the slash.
    #[error("has a wrong number of bits behind the slash")]
    Bits,
    /// It has IPv4 addresses in IPv6 clothes and others.
    #[error("holds IPv4 addresses (::ffff:0.0.0.0/96) and others: name the IPv4 network")]
    Mapped,
    /// Of the other family, or no mask at all.
    #[error("is not a mask for this address")]
    Mask,
    /// It is said neither which network is meant nor that it is one address.
    #[error("has bits set outside its mask: the network is {network}, the address alone {address}")]
    HostBits {
        /// With these bits cleared.
        network: String,
        /// With all bits counting.
        address: String,
    },
}

impl Network {
    /// Reads `10.0.0.0/8`; a bare address is none.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let Some((address, bits)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map_or(Err(NetworkError::NotAnAddress), |_| Err(NetworkError::Bits));
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::NotAnAddress)?;
        let all_digits = !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit());
        let bits: u32 = bits.parse().ok().filter(|_| all_digits).ok_or(NetworkError::Bits)?;
        match address {
            IpAddr::V4(base) if bits <= 32 => Self::V4(base.into(), u32::MAX.checked_shl(32 - bits).unwrap_or(0)).whole(),
            IpAddr::V6(base) if bits <= 128 => Self::V6(base.into(), u128::MAX.checked_shl(128 - bits).unwrap_or(0)).unmapped(),
            _ => Err(NetworkError::Bits),
        }
    }

    /// Reads an address and a mask such as `255.0.0.0`.
    pub fn with_mask(address: &str, mask: &str) -> Result<Self, NetworkError> {
        let address: IpAddr = address.parse().map_err(|_| NetworkError::NotAnAddress)?;
        match (address, mask.parse().map_err(|_| NetworkError::Mask)?) {
            (IpAddr::V4(base), IpAddr::V4(mask)) => Self::V4(base.into(), mask.into()).whole(),
            (IpAddr::V6(base), IpAddr::V6(mask)) => Self::V6(base.into(), mask.into()).unmapped(),
            _ => Err(NetworkError::Mask),
        }
    }

    /// Whether `address` lies in it.
    pub fn has(&self, address: IpAddr) -> bool {
        match (*self, address.to_canonical()) {
            (Self::V4(base, mask), IpAddr::V4(address)) => u32::from(address) & mask == base,
            (Self::V6(base, mask), IpAddr::V6(address)) => u128::from(address) & mask == base,
            _ => false,
        }
    }

    /// Addresses are looked at as what they are, so a network of IPv4 addresses in IPv6 clothes is one of IPv4.
    fn unmapped(self) -> Result<Self, NetworkError> {
        const CLOTHES: u128 = !(u32::MAX as u128);
        let Self::V6(base, mask) = self else { return self.whole() };
        match Ipv6Addr::from(base).to_ipv4_mapped() {
            Some(base) if mask & CLOTHES == CLOTHES => Self::V4(base.into(), mask as u32).whole(),
            Some(_) => Err(NetworkError::Mapped),
            None => self.whole(),
        }
    }

    fn whole(self) -> Result<Self, NetworkError> {
        let cut = |base: IpAddr, bits: u32| format!("{base}/{bits}");
        match self {
            Self::V4(base, mask) if base & !mask != 0 => Err(NetworkError::HostBits {
                network: cut(IpAddr::V4((base & mask).into()), mask.count_ones()),
                address: cut(IpAddr::V4(base.into()), 32),
            }),
            Self::V6(base, mask) if base & !mask != 0 => Err(NetworkError::HostBits {
                network: cut(IpAddr::V6((base & mask).into()), mask.count_ones()),
                address: cut(IpAddr::V6(base.into()), 128),
            }),
            whole => Ok(whole),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn has(network: &str, address: &str) -> bool {
        Network::parse(network).unwrap().has(address.parse().unwrap())
    }

    #[test]
    fn addresses_within_are_had_and_others_not() {
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("0.0.0.0/0", "255.255.255.255") && !has("0.0.0.0/0", "::1"));
        assert!(has("127.0.0.1/32", "127.0.0.1") && !has("127.0.0.1/32", "127.0.0.2"));
        assert!(has("fd00::/8", "fdff::1") && !has("fd00::/8", "fe00::1"));
        assert!(has("::1/128", "::1") && has("::/0", "fe80::1") && !has("::/0", "10.0.0.1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3") && !has("::/0", "::ffff:10.1.2.3"));
    }

    #[test]
    fn ipv4_in_ipv6_clothes_is_ipv4() {
        assert_eq!(Network::parse("::ffff:10.0.0.0/104"), Network::parse("10.0.0.0/8"));
        assert!(has("::ffff:10.0.0.0/104", "::ffff:10.1.2.3") && has("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(has("::ffff:0:0/96", "1.2.3.4") && !has("::ffff:0:0/96", "::1"));
        assert_eq!(Network::with_mask("::ffff:10.0.0.0", "ffff:ffff:ffff:ffff:ffff:ffff:ff00::"), Network::parse("10.0.0.0/8"));
        for bits in [0, 64, 95] {
            assert_eq!(Network::parse(&format!("::ffff:10.0.0.0/{bits}")), Err(NetworkError::Mapped), "{bits}");
        }
        assert!(matches!(Network::parse("::ffff:10.0.0.1/104"), Err(NetworkError::HostBits { .. })));
    }

    #[test]
    fn masks_may_stand_apart() {
        let network = Network::with_mask("10.1.0.0", "255.255.0.0").unwrap();
        assert_eq!(network, Network::parse("10.1.0.0/16").unwrap());
        assert_eq!(Network::with_mask("fd00::", "ff00::"), Network::parse("fd00::/8"));
        assert_eq!(Network::with_mask("10.0.0.0", "ff00::"), Err(NetworkError::Mask));
        assert_eq!(Network::with_mask("10.0.0.0", "trust"), Err(NetworkError::Mask));
    }

    #[test]
    fn what_is_no_network_is_said() {
        for text in ["db.example.com", "", "10.0.0/8", "10.0.0.0.0/8", "samehost", "1/2/3"] {
            assert_eq!(Network::parse(text), Err(NetworkError::NotAnAddress), "{text}");
        }
        for text in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/0008", "::/129", "10.0.0.0"] {
            assert_eq!(Network::parse(text), Err(NetworkError::Bits), "{text}");
        }
        let error = Network::parse("10.1.2.3/8").unwrap_err().to_string();
        assert_eq!(error, "has bits set outside its mask: the network is 10.0.0.0/8, the address alone 10.1.2.3/32");
        assert!(Network::parse("fd00::1/8").is_err());
    }
}
