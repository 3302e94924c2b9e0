//! The meaning: what a message says, and which of the kinds of §4 it is.

use core::fmt;
use core::net::Ipv4Addr;
use std::borrow::Cow;

use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;

use super::packet::RecordError;
use super::{HEADER_LEN, MAX_RECORDS, Packet, ParseError, RECORD_LEN};
use crate::ports::{PortRange, Portless, Psid};

const OP_REQUEST: u16 = 1;
const OP_REPLY: u16 = 2;
const OP_NAK: u16 = 10;

const FLAG_COMPLETE: u8 = 1;
const FLAG_AUTHORITY: u8 = 2;
const FLAG_RELEASE: u8 = 4;

const ADDRESS_PORT_VALID: u8 = 1;
const ADDRESS_SHARED: u8 = 2;
const ADDRESS_ROUTER: u8 = 4;
const ADDRESS_RESIDUAL: u8 = 8;

const KIND_RANGE: u8 = 1;
const KIND_PSID: u8 = 2;
const KIND_FULL: u8 = 3;
const KIND_PORTLESS: u8 = 4;

/// A point in the address space `{IPv4, protocol, port}` (PE-ARP §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeAddress {
    /// The IPv4 address.
    pub ip: Ipv4Addr,
    /// The IP protocol, 0 for any.
    pub protocol: u8,
    /// The port or ICMP identifier.
    pub port: Option<u16>,
    /// The address has more than one owner.
    pub shared: bool,
    /// The sender is a router or a bridge.
    pub router: bool,
    /// The sender owns what has no port and nobody else owns by protocol: [`Claim::RESIDUAL`].
    pub residual: bool,
}

impl PeAddress {
    /// An address without protocol, port and flags.
    pub const fn new(ip: Ipv4Addr) -> Self {
        Self { ip, protocol: 0, port: None, shared: false, router: false, residual: false }
    }

    /// The same with a protocol and a port.
    pub const fn with_port(self, protocol: u8, port: Option<u16>) -> Self {
        Self { protocol, port, ..self }
    }

    /// The same as the address of who has these records, one of which no message carries.
    fn of_owner(self, records: &[Record]) -> Self {
        let owned = |record: &Record| record.is_residual() && !record.is_withdrawn();
        let residual = self.residual || records.iter().any(owned);
        Self { residual, ..self }
    }

    fn from_wire((ip, protocol, flags, port): (Ipv4Addr, u8, u8, u16)) -> Self {
        Self {
            ip,
            protocol,
            port: (flags & ADDRESS_PORT_VALID != 0).then_some(port),
            shared: flags & ADDRESS_SHARED != 0,
            router: flags & ADDRESS_ROUTER != 0,
            residual: flags & ADDRESS_RESIDUAL != 0,
        }
    }

    fn to_wire(self) -> (Ipv4Addr, u8, u8, u16) {
        let mut flags = 0;
        for (set, bit) in [
            (self.port.is_some(), ADDRESS_PORT_VALID),
            (self.shared, ADDRESS_SHARED),
            (self.router, ADDRESS_ROUTER),
            (self.residual, ADDRESS_RESIDUAL),
        ] {
            flags |= if set { bit } else { 0 };
        }
        (self.ip, self.protocol, flags, self.port.unwrap_or(0))
    }
}

/// How long a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The record is withdrawn.
    Withdrawn,
    /// Seconds, 1 to 65534.
    Seconds(u16),
    /// The sender does not say.
    Unknown,
}

impl Lifetime {
    /// The longest that a record can name, in seconds.
    const MAX_SECONDS: u16 = u16::MAX - 1;

    /// What an owner says of what ends in `left` (PE-ARP rule 24): nobody may think that it lasts longer, but what still
    /// runs is not withdrawn.
    pub fn at_most(left: Duration) -> Self {
        let seconds = u16::try_from(left.secs()).unwrap_or(u16::MAX);
        Self::Seconds(seconds.clamp(1, Self::MAX_SECONDS))
    }

    /// What does not end before `left` is over: for whoever ends it then by himself.
    pub fn at_least(left: Duration) -> Self {
        let seconds = left.total_micros().div_ceil(Duration::from_secs(1).total_micros()).max(1);
        match u16::try_from(seconds) {
            Ok(seconds @ ..=Self::MAX_SECONDS) => Self::Seconds(seconds),
            _ => Self::Unknown,
        }
    }

    fn from_wire(seconds: u16) -> Self {
        match seconds {
            0 => Self::Withdrawn,
            u16::MAX => Self::Unknown,
            seconds => Self::Seconds(seconds),
        }
    }

    fn to_wire(self) -> u16 {
        match self {
            Self::Withdrawn => 0,
            Self::Seconds(seconds) => seconds,
            Self::Unknown => u16::MAX,
        }
    }
}

/// What a record claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A range of ports.
    Range(PortRange),
    /// A PSID; never expanded, it can stand for 32,767 ranges.
    Psid(Psid),
    /// The whole address, portless protocols included.
    Full,
    /// What has no port, of one IP protocol.
    Portless(u8),
}

impl Claim {
    /// What has no port and nobody owns by protocol. A message says it by a flag of the owner's address, and never by a
    /// record: see [`Message::claimed`].
    pub const RESIDUAL: Self = Self::Portless(0);

    /// The claims to what has no port.
    pub fn portless(portless: &Portless) -> impl Iterator<Item = Self> + '_ {
        portless.protocols().map(Self::Portless).chain(portless.is_residual().then_some(Self::RESIDUAL))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Range(range) => range.fmt(f),
            Self::Psid(psid) => match (psid.ranges().next(), psid.scheme().offset()) {
                (Some(range), 0) => range.fmt(f),
                _ => write!(f, "psid {psid}"),
            },
            Self::Full => f.write_str("all"),
            Self::RESIDUAL => f.write_str("residual"),
            Self::Portless(protocol) => write!(f, "protocol {protocol}"),
        }
    }
}

/// One record of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What is claimed.
    pub claim: Claim,
    /// For which IP protocol; 0 for every protocol with ports, and ICMP identifiers.
    pub scope: u8,
    /// For how long.
    pub lifetime: Lifetime,
}

impl Record {
    /// A record for every protocol.
    pub const fn new(claim: Claim, lifetime: Lifetime) -> Self {
        Self { claim, scope: 0, lifetime }
    }

    /// Whether the record takes back what it names (PE-ARP rule 24).
    pub fn is_withdrawn(&self) -> bool {
        self.lifetime == Lifetime::Withdrawn
    }

    /// Whether this is residual ownership.
    pub fn is_residual(&self) -> bool {
        self.claim == Claim::RESIDUAL
    }

    /// Whether the record holds the port, or the portless protocol, that `address` names.
    pub fn contains(&self, protocol: u8, port: Option<u16>) -> bool {
        // Protocol 0 asks for any: only a record without a scope holds that.
        let in_scope = self.scope == 0 || self.scope == protocol;
        match (self.claim, port) {
            (Claim::Full, _) => in_scope,
            (Claim::Range(range), Some(port)) => in_scope && range.contains(port),
            (Claim::Psid(psid), Some(port)) => in_scope && psid.contains(port),
            // PE-ARP rule 15. That another one may own the protocol by name is for whoever compares owners.
            (Claim::RESIDUAL, None) => true,
            (Claim::Portless(portless), None) => portless == protocol,
            (Claim::Portless(_), Some(_)) | (Claim::Range(_) | Claim::Psid(_), None) => false,
        }
    }

    fn from_wire((kind, scope, body, lifetime): (u8, u8, [u8; 4], u16)) -> Result<Self, RecordError> {
        let [b0, b1, b2, b3] = body;
        let claim = match kind {
            KIND_RANGE => {
                let (first, last) = (u16::from_be_bytes([b0, b1]), u16::from_be_bytes([b2, b3]));
                Claim::Range(PortRange::new(first, last).ok_or(RecordError::Range(first, last))?)
            }
            KIND_PSID => Claim::Psid(Psid::from_left_aligned(b0, b1, u16::from_be_bytes([b2, b3]))?),
            KIND_FULL if body == [0, 0, 0xFF, 0xFF] => Claim::Full,
            KIND_FULL => return Err(RecordError::Full),
            KIND_PORTLESS => Claim::Portless(b0),
            unknown => return Err(RecordError::Kind(unknown)),
        };
        // PE-ARP §3.3: it has no meaning there.
        let scope = if matches!(claim, Claim::Full | Claim::Portless(_)) { 0 } else { scope };
        Ok(Self { claim, scope, lifetime: Lifetime::from_wire(lifetime) })
    }

    fn to_wire(self) -> (u8, [u8; 4]) {
        let pair = |high: u16, low: u16| {
            let ([b0, b1], [b2, b3]) = (high.to_be_bytes(), low.to_be_bytes());
            [b0, b1, b2, b3]
        };
        match self.claim {
            Claim::Range(range) => (KIND_RANGE, pair(range.first(), range.last())),
            Claim::Psid(psid) => {
                let [high, low] = psid.left_aligned().to_be_bytes();
                (KIND_PSID, [psid.scheme().offset(), psid.scheme().length(), high, low])
            }
            Claim::Full => (KIND_FULL, pair(0, u16::MAX)),
            Claim::Portless(protocol) => (KIND_PORTLESS, [protocol, 0, 0, 0]),
        }
    }
}

/// The kinds of message (PE-ARP §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for the owner of a port or of a portless protocol.
    Resolve,
    /// Asks every owner of an address to answer.
    SolicitAll,
    /// An owner's answer.
    Reply,
    /// An owner says what it owns.
    Announce,
    /// A host asks whether a set is free before it uses it.
    Probe,
    /// An owner's objection to a probe.
    Conflict,
    /// An owner gives its set back.
    Release,
    /// An authority says that a range has no owner.
    Nak,
}

/// A PE-ARP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    operation: u16,
    /// ar$sha.
    pub sender_hardware: EthernetAddress,
    /// ar$spa.
    pub sender: PeAddress,
    /// ar$tha; zero in a request.
    pub target_hardware: EthernetAddress,
    /// ar$tpa.
    pub target: PeAddress,
    /// The records are all that the sender owns of the address.
    pub complete: bool,
    /// The sender speaks as a configured authority.
    pub authority: bool,
    /// The sender gives its set back.
    pub release: bool,
    /// At most 182, as they are on the wire: [`Message::claimed`] has what they mean.
    pub records: Vec<Record>,
}

/// The records of an owner that messages carry; flag 8 stands for the other one (PE-ARP rule 125).
fn carried(own: &[Record]) -> impl Iterator<Item = &Record> {
    own.iter().filter(|record| !record.is_residual())
}

/// ar$tha of a request.
const NOBODY: EthernetAddress = EthernetAddress([0; 6]);

impl Message {
    fn new(operation: u16, hardware: EthernetAddress, sender: PeAddress, target: PeAddress) -> Self {
        Self {
            operation,
            sender_hardware: hardware,
            sender,
            target_hardware: NOBODY,
            target,
            complete: false,
            authority: false,
            release: false,
            records: Vec::new(),
        }
    }

    /// RESOLVE: `sender` asks for the owner of `target`; `own` may say what the sender owns itself.
    pub fn resolve(hardware: EthernetAddress, sender: PeAddress, target: PeAddress, own: &[Record]) -> Self {
        let records = carried(own).copied().collect();
        Self { records, ..Self::new(OP_REQUEST, hardware, sender.of_owner(own), target) }
    }

    /// SOLICIT-ALL: a router asks every owner of `ip`.
    pub fn solicit_all(hardware: EthernetAddress, sender: PeAddress, ip: Ipv4Addr) -> Self {
        let target = PeAddress { shared: true, ..PeAddress::new(ip) };
        Self::new(OP_REQUEST, hardware, PeAddress { router: true, ..sender }, target)
    }

    /// REPLY: the owner of `asked` answers `to` with its whole set.
    pub fn reply(
        hardware: EthernetAddress,
        asked: PeAddress,
        to_hardware: EthernetAddress,
        to: PeAddress,
        own: &[Record],
    ) -> Self {
        Self {
            target_hardware: to_hardware,
            complete: true,
            records: carried(own).copied().collect(),
            ..Self::new(OP_REPLY, hardware, asked.of_owner(own), to)
        }
    }

    /// ANNOUNCE: `first` is the owner's address with its first port.
    pub fn announce(hardware: EthernetAddress, first: PeAddress, own: &[Record]) -> Self {
        let first = first.of_owner(own);
        let records = carried(own).copied().collect();
        Self { complete: true, records, ..Self::new(OP_REQUEST, hardware, first, first) }
    }

    /// PROBE: may this host use `candidate`? The sender address is 0, so that nobody learns from it.
    pub fn probe(hardware: EthernetAddress, first: PeAddress, candidate: &[Record]) -> Self {
        let nobody = PeAddress::new(Ipv4Addr::UNSPECIFIED);
        let unknown = |record: &Record| Record { lifetime: Lifetime::Unknown, ..*record };
        let records = carried(candidate).map(unknown).collect();
        Self { complete: true, records, ..Self::new(OP_REQUEST, hardware, nobody, first.of_owner(candidate)) }
    }

    /// CONFLICT: the owner of `disputed` objects to the probe of `prober`.
    pub fn conflict(
        hardware: EthernetAddress,
        disputed: PeAddress,
        prober: EthernetAddress,
        own: &[Record],
    ) -> Self {
        Self::reply(hardware, disputed, prober, PeAddress::new(Ipv4Addr::UNSPECIFIED), own)
    }

    /// RELEASE: the owner gives `own` back.
    pub fn release(hardware: EthernetAddress, first: PeAddress, own: &[Record]) -> Self {
        let first = first.of_owner(own);
        let withdrawn = |record: &Record| Record { lifetime: Lifetime::Withdrawn, ..*record };
        let records = carried(own).map(withdrawn).collect();
        Self { release: true, records, ..Self::new(OP_REQUEST, hardware, first, first) }
    }

    /// NAK: an authority says that `gap` around `asked` has no owner, for the record's lifetime.
    pub fn nak(
        hardware: EthernetAddress,
        asked: PeAddress,
        to_hardware: EthernetAddress,
        to: PeAddress,
        gap: Record,
    ) -> Self {
        Self {
            target_hardware: to_hardware,
            authority: true,
            records: vec![gap],
            ..Self::new(OP_NAK, hardware, asked, to)
        }
    }

    /// Which kind of message this is; PE-ARP §4 gives the tests and their order.
    pub fn kind(&self) -> Kind {
        match self.operation {
            OP_NAK => Kind::Nak,
            OP_REPLY if self.target.ip.is_unspecified() => Kind::Conflict,
            OP_REPLY => Kind::Reply,
            _ if self.sender.ip.is_unspecified() => Kind::Probe,
            _ if self.release => Kind::Release,
            _ if self.sender == self.target => Kind::Announce,
            _ if self.target.protocol == 0 && self.target.port.is_none() => Kind::SolicitAll,
            _ => Kind::Resolve,
        }
    }

    /// What the message claims for its sender, asks for, or gives back: the records, without those that mean nothing, and
    /// [`Claim::RESIDUAL`] where flag 8 says so (PE-ARP rule 125).
    pub fn claimed(&self) -> Cow<'_, [Record]> {
        let residual = match self.kind() {
            Kind::Probe => self.target.residual,
            Kind::Resolve | Kind::Reply | Kind::Announce | Kind::Conflict | Kind::Release => {
                self.sender.residual
            }
            Kind::SolicitAll | Kind::Nak => false,
        };
        if !residual && !self.records.iter().any(Record::is_residual) {
            return Cow::Borrowed(&self.records);
        }
        let mut claimed: Vec<_> = carried(&self.records).copied().collect();
        if residual {
            // The flag has no lifetime of its own: that of the record which ends first.
            let seconds = claimed.iter().filter_map(|record| match record.lifetime {
                Lifetime::Seconds(seconds) => Some(seconds),
                Lifetime::Withdrawn | Lifetime::Unknown => None,
            });
            let lifetime = match seconds.min() {
                _ if self.release => Lifetime::Withdrawn,
                Some(seconds) => Lifetime::Seconds(seconds),
                None => Lifetime::Unknown,
            };
            claimed.push(Record::new(Claim::RESIDUAL, lifetime));
        }
        Cow::Owned(claimed)
    }

    /// Parses a checked view.
    ///
    /// # Errors
    /// [`ParseError::Operation`] and [`ParseError::Record`].
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, ParseError> {
        let operation = packet.operation();
        if !matches!(operation, OP_REQUEST | OP_REPLY | OP_NAK) {
            return Err(ParseError::Operation(operation));
        }
        let records = packet.records().map(Record::from_wire).collect::<Result<_, _>>()?;
        let flags = packet.flags();
        Ok(Self {
            operation,
            sender_hardware: packet.sender_hardware(),
            sender: PeAddress::from_wire(packet.sender()),
            target_hardware: packet.target_hardware(),
            target: PeAddress::from_wire(packet.target()),
            complete: flags & FLAG_COMPLETE != 0,
            authority: flags & FLAG_AUTHORITY != 0,
            release: flags & FLAG_RELEASE != 0,
            records,
        })
    }

    /// Bytes of the message, without Ethernet header and padding.
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN + self.records.len().min(MAX_RECORDS) * RECORD_LEN
    }

    /// Writes the message into a view of at least [`Message::buffer_len`] bytes.
    pub fn emit(&self, packet: &mut Packet<&mut [u8]>, pro: u16) {
        packet.set_format(pro, self.operation);
        packet.set_sender(self.sender_hardware, self.sender.to_wire());
        packet.set_target(self.target_hardware, self.target.to_wire());
        let mut flags = 0;
        for (set, bit) in
            [(self.complete, FLAG_COMPLETE), (self.authority, FLAG_AUTHORITY), (self.release, FLAG_RELEASE)]
        {
            flags |= if set { bit } else { 0 };
        }
        let records = &self.records[..self.records.len().min(MAX_RECORDS)];
        packet.set_flags(flags, records.len() as u8);
        for (index, record) in records.iter().enumerate() {
            let (kind, body) = record.to_wire();
            packet.set_record(index, kind, record.scope, body, record.lifetime.to_wire());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PE-ARP §3.3: what has every port, or none, has no scope, whatever the byte says.
    #[test]
    fn a_scope_without_meaning_is_ignored() {
        for (kind, body, port) in
            [(KIND_FULL, [0, 0, 0xFF, 0xFF], Some(80)), (KIND_PORTLESS, [47, 0, 0, 0], None)]
        {
            let record = Record::from_wire((kind, 6, body, 60)).unwrap();
            assert_eq!(record.scope, 0);
            assert!(record.contains(47, port));
        }
        let range = Record::from_wire((KIND_RANGE, 6, [0, 1, 0, 9], 60)).unwrap();
        assert!(range.contains(6, Some(5)) && !range.contains(17, Some(5)));
    }

    #[test]
    fn a_lifetime_is_never_a_withdrawal() {
        let seconds = |seconds: f64| Duration::from_micros((seconds * 1e6) as u64);
        for (left, at_most, at_least) in [
            (0.0, Lifetime::Seconds(1), Lifetime::Seconds(1)),
            (0.2, Lifetime::Seconds(1), Lifetime::Seconds(1)),
            (7.0, Lifetime::Seconds(7), Lifetime::Seconds(7)),
            (7.1, Lifetime::Seconds(7), Lifetime::Seconds(8)),
            (65_534.0, Lifetime::Seconds(65_534), Lifetime::Seconds(65_534)),
            (65_534.1, Lifetime::Seconds(65_534), Lifetime::Unknown),
            (1e9, Lifetime::Seconds(65_534), Lifetime::Unknown),
        ] {
            assert_eq!(Lifetime::at_most(seconds(left)), at_most, "{left} s");
            assert_eq!(Lifetime::at_least(seconds(left)), at_least, "{left} s");
        }
    }
}
