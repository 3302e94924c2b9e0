//! What a link takes over from whoever sends on it.

use core::fmt;
use core::str::FromStr;

use crate::wire::{GsoKind, Offload};

/// Whether a device is asked for offloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadMode {
    /// As many as the kernel has: super-frames and open checksums cross in one piece.
    On,
    /// None: frames of wire size, as on a cable.
    Off,
}

impl FromStr for OffloadMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            other => Err(format!("`{other}` is neither `on` nor `off`")),
        }
    }
}

/// The offloads of a link, in both directions. Its default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Transport checksums may be partial.
    pub checksum: bool,
    /// TCP may come in super-frames, over IPv4 and IPv6.
    pub tcp: bool,
    /// Also with the CWR flag.
    pub ecn: bool,
    /// UDP may come in super-frames.
    pub udp: bool,
}

impl Offloads {
    /// Whether the link takes a frame as it is.
    pub fn take(self, offload: Offload) -> bool {
        let gso = offload.gso.is_none_or(|gso| match gso.kind {
            GsoKind::Tcp4 { ecn } | GsoKind::Tcp6 { ecn } => self.tcp && (self.ecn || !ecn),
            GsoKind::Udp => self.udp,
        });
        gso && (self.checksum || offload.checksum.is_none())
    }
}

impl fmt::Display for Offloads {
    /// As `checksum tso ecn uso`, or `off`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.checksum, "checksum"), (self.tcp, "tso"), (self.ecn, "ecn"), (self.udp, "uso")];
        let names: Vec<_> = all.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        f.write_str(if names.is_empty() { "off" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Checksum, Gso};

    #[test]
    fn a_link_takes_what_it_offers() {
        let checksum = Some(Checksum { start: 20, offset: 16 });
        let of = |kind| Offload { checksum, gso: Some(Gso { kind, size: 1448, header_len: 52 }) };
        let (tcp, ecn) = (of(GsoKind::Tcp4 { ecn: false }), of(GsoKind::Tcp4 { ecn: true }));
        let (udp, partial) = (of(GsoKind::Udp), Offload { checksum, gso: None });
        let offered = |offloads: Offloads| [partial, tcp, ecn, udp].map(|offload| offloads.take(offload));
        let none = Offloads::default();
        assert!(none.take(Offload::default()));
        assert_eq!(offered(none), [false; 4]);
        let checksum = Offloads { checksum: true, ..none };
        assert_eq!(offered(checksum), [true, false, false, false]);
        let tcp = Offloads { tcp: true, ..checksum };
        assert_eq!(offered(tcp), [true, true, false, false]);
        let all = Offloads { ecn: true, udp: true, ..tcp };
        assert_eq!(offered(all), [true; 4]);
        assert_eq!(
            (none.to_string(), all.to_string()),
            ("off".to_owned(), "checksum tso ecn uso".to_owned())
        );
    }
}
