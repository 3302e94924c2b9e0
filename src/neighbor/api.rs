//! What goes into the engine of a link and what comes out of it.

use core::net::Ipv4Addr;

use smoltcp::time::Duration;
use smoltcp::wire::{ArpRepr, EthernetAddress, Ipv4Cidr};

use super::claim::OwnSet;
use super::own::OwnId;
use crate::ports::Scheme;
use crate::wire::Frame;
use crate::wire::pe_arp::{Claim, Message};

/// What a node is on a link.
#[derive(Clone, Debug)]
pub struct Config {
    /// The own link-layer address.
    pub hardware: EthernetAddress,
    /// The on-link prefix: nothing is learned about addresses outside it.
    pub prefix: Ipv4Cidr,
    /// Whether the node is a router: it may ask SOLICIT-ALL.
    pub router: bool,
    /// What the node owns from the start; more may come, see
    /// [`Neighbors::add_own`](super::Neighbors::add_own).
    pub own: Vec<OwnSet>,
    /// Whether PE-ARP is spoken on the link; plain ARP always is.
    pub pe: bool,
    /// Shared addresses of the link and their schemes, as far as they are configured.
    pub schemes: Vec<(Ipv4Addr, Scheme)>,
    /// Answer plain ARP for the shared addresses (PE-ARP rule 3): the edge router only.
    pub proxy: bool,
    /// Who may answer for others, and NAK (PE-ARP rule 1).
    pub authorities: Vec<EthernetAddress>,
    /// The node is told every owner of the configured shared addresses, and is one of those (PE-ARP rule 121).
    pub authority: bool,
    /// Seed of the random times.
    pub seed: u64,
}

/// A next hop and what of it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The on-link address.
    pub ip: Ipv4Addr,
    /// The IP protocol.
    pub protocol: u8,
    /// The port or identifier that names the owner.
    pub port: Option<u16>,
}

impl Target {
    /// A next hop that forwards, so that the packet's own port does not matter: whoever holds the whole address.
    pub const fn gateway(ip: Ipv4Addr) -> Self {
        Self { ip, protocol: 0, port: Some(0) }
    }
}

/// A message to send on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// PE-ARP.
    Pe {
        /// Ethernet destination.
        destination: EthernetAddress,
        /// The message.
        message: Message,
    },
    /// Plain ARP.
    Arp {
        /// Ethernet destination.
        destination: EthernetAddress,
        /// The message.
        message: ArpRepr,
    },
}

/// What the caller has to know.
#[derive(Debug)]
pub enum Event {
    /// A packet that waited can leave.
    Resolved {
        /// The IP packet.
        frame: Frame,
        /// Its next hop.
        hardware: EthernetAddress,
        /// The caller made the packet itself.
        originated: bool,
    },
    /// A packet that waited is given up.
    Undeliverable {
        /// The IP packet.
        frame: Frame,
        /// The caller made the packet itself.
        originated: bool,
        /// Why.
        reason: Refused,
    },
    /// Two hosts claim the same ports of an address. Told at a limited rate.
    Conflict {
        /// The address.
        ip: Ipv4Addr,
        /// Who had it.
        incumbent: EthernetAddress,
        /// Who claims it now.
        newcomer: EthernetAddress,
    },
    /// Another host claims part of an own set.
    OwnConflict {
        /// The set.
        own: OwnId,
        /// Who.
        hardware: EthernetAddress,
        /// A disputed port.
        port: u16,
        /// The set was not yet in use and is given up.
        lost: bool,
    },
    /// An own set is free and now in use.
    Ready {
        /// The set.
        own: OwnId,
    },
    /// The lease of an own set is over, and it is no longer used.
    Expired {
        /// The set.
        own: OwnId,
    },
}

/// Why a message or a packet was refused. Each has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The question about the port failed lately.
    #[error("nobody answered for the port")]
    Unreachable,
    /// An authority said that the port has no owner.
    #[error("the port has no owner")]
    NoOwner,
    /// The port belongs to no PSID of the address's scheme.
    #[error("the port is outside the sharing scheme of the address")]
    Unassigned,
    /// Too many bytes wait for answers about the address, or newer packets took the place.
    #[error("too many packets wait for the address")]
    PendingFull,
    /// Too many questions on the link.
    #[error("too many open questions")]
    QuestionsFull,
    /// A sender or target address that can be no host's.
    #[error("address is no host's")]
    BadAddress,
    /// The Ethernet source differs from the sender in the message, or is no host's.
    #[error("sender does not match the frame")]
    SenderMismatch,
    /// A frame of our own that came back.
    #[error("own frame came back")]
    OwnEcho,
    /// PE-ARP where none is spoken.
    #[error("PE-ARP on a link without it")]
    NotSpoken,
    /// A claim to an address outside the on-link prefix.
    #[error("address is not on this link")]
    OffLink,
    /// An answer to a question that was not asked.
    #[error("unsolicited answer")]
    Unsolicited,
    /// An answer that is addressed to another host.
    #[error("answer for another host")]
    NotForUs,
    /// An answer that does not hold the port it was asked for.
    #[error("answer without the asked port")]
    WithoutAsked,
    /// A plain ARP message whose sender address is a shared one (PE-ARP rule 3).
    #[error("plain ARP from a shared address")]
    PlainForShared,
    /// A claim to ports that are in use by another.
    #[error("claim to ports in use")]
    Conflict,
    /// A NAK, or an answer for another, from a host that is no configured authority.
    #[error("not from an authority")]
    NoAuthority,
    /// SOLICIT-ALL from a host, or too often.
    #[error("SOLICIT-ALL not from a router, or too often")]
    Solicit,
    /// A bound of the table was reached.
    #[error("the table is full")]
    TableFull,
    /// A claim to an address of which this node is told every owner.
    #[error("claim without a lease")]
    NotLeased,
    /// A message without records where it needs some.
    #[error("message without records")]
    NoRecords,
}

/// One line of the ARP table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The IPv4 address.
    pub ip: Ipv4Addr,
    /// What of it.
    pub claim: Claim,
    /// For which IP protocol, 0 for all.
    pub protocol: u8,
    /// Who owns it; `None` where that is being asked or has failed.
    pub hardware: Option<EthernetAddress>,
    /// The state's name.
    pub state: &'static str,
    /// The source's name.
    pub source: &'static str,
    /// Since it was last heard of.
    pub age: Option<Duration>,
}
