//! What a host owns of a shared address that has no port.

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeSet;

/// TCP, UDP, DCCP, SCTP and UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
const ICMP: u8 = 1;
/// IANA keeps it: what asks about residual ownership names it (PE-ARP rule 34).
const RESERVED: u8 = 255;

/// IP protocols without ports, by number; and, of the residual owner, all that nobody owns by protocol (PE-ARP rule 66).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Portless {
    protocols: BTreeSet<u8>,
    residual: bool,
}

impl Portless {
    /// These protocols, and the rest if `residual`.
    ///
    /// # Errors
    /// See [`PortlessError`].
    pub fn new(protocols: impl IntoIterator<Item = u8>, residual: bool) -> Result<Self, PortlessError> {
        let own = |protocol| match protocol {
            0 => Err(PortlessError::Any),
            ICMP => Err(PortlessError::Icmp),
            RESERVED => Err(PortlessError::Reserved),
            protocol if WITH_PORTS.contains(&protocol) => Err(PortlessError::HasPorts(protocol)),
            protocol => Ok(protocol),
        };
        Ok(Self { protocols: protocols.into_iter().map(own).collect::<Result<_, _>>()?, residual })
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.protocols.is_empty() && !self.residual
    }

    /// What is owned by protocol, in ascending order.
    pub fn protocols(&self) -> impl Iterator<Item = u8> + '_ {
        self.protocols.iter().copied()
    }

    /// Whether it has all that nobody owns by protocol.
    pub const fn is_residual(&self) -> bool {
        self.residual
    }

    /// Both together.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self {
            protocols: self.protocols.union(&other.protocols).copied().collect(),
            residual: self.residual || other.residual,
        }
    }
}

/// As `41,47,residual`.
impl fmt::Display for Portless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocols = self.protocols().map(|protocol| protocol.to_string());
        let parts = protocols.chain(self.residual.then(|| "residual".to_owned()));
        f.write_str(&parts.collect::<Vec<_>>().join(","))
    }
}

/// Why something cannot be owned as what has no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortlessError {
    /// A protocol whose packets belong to the owners of their ports.
    #[error("IP protocol {0} has ports, and belongs to the owners of these")]
    HasPorts(u8),
    /// What is not an echo or an error goes to the residual owner.
    #[error(
        "ICMP (1) belongs to the owners of identifiers and of what errors are about: `residual` has the rest of it"
    )]
    Icmp,
    /// It means every protocol.
    #[error("0 is no IP protocol that can be owned: `residual` stands for all that nobody owns by number")]
    Any,
    /// No packet has it.
    #[error("IP protocol 255 is reserved, and no packet has it")]
    Reserved,
    /// Not a list.
    #[error("`{0}` is neither the number of an IP protocol nor `residual`")]
    Text(String),
}

impl FromStr for Portless {
    type Err = PortlessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut protocols, mut residual) = (Vec::new(), false);
        for part in text.split(',').map(str::trim) {
            match part {
                "residual" => residual = true,
                number => {
                    protocols.push(number.parse().map_err(|_| PortlessError::Text(part.to_owned()))?);
                }
            }
        }
        Self::new(protocols, residual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_written() {
        for (text, protocols, residual, written) in [
            ("47", &[47][..], false, "47"),
            ("47, 41,residual", &[41, 47], true, "41,47,residual"),
            ("residual", &[], true, "residual"),
            ("50,50", &[50], false, "50"),
        ] {
            let portless: Portless = text.parse().unwrap();
            assert_eq!(portless.protocols().collect::<Vec<_>>(), protocols, "{text}");
            assert_eq!((portless.is_residual(), portless.to_string().as_str()), (residual, written));
            assert_eq!(written.parse(), Ok(portless), "{text}");
        }
        assert!(Portless::default().is_empty());
        let both = "47".parse::<Portless>().unwrap().union(&"41,residual".parse().unwrap());
        assert_eq!(both.to_string(), "41,47,residual");
    }

    #[test]
    fn what_has_other_owners_is_refused() {
        for protocol in [6, 17, 33, 132, 136] {
            assert_eq!(protocol.to_string().parse::<Portless>(), Err(PortlessError::HasPorts(protocol)));
        }
        for (text, error) in [
            ("0", PortlessError::Any),
            ("47,1", PortlessError::Icmp),
            ("255", PortlessError::Reserved),
            ("256", PortlessError::Text("256".to_owned())),
            ("", PortlessError::Text(String::new())),
            ("gre", PortlessError::Text("gre".to_owned())),
        ] {
            assert_eq!(text.parse::<Portless>(), Err(error), "{text}");
        }
    }
}
