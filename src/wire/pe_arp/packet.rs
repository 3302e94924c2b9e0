//! The view: fields at their offsets, nothing interpreted.

use core::net::Ipv4Addr;
use core::ops::Range;

use smoltcp::wire::EthernetAddress;

use super::{HEADER_LEN, RECORD_LEN, VERSION};
use crate::ports::PsidError;

mod field {
    use super::Range;

    pub(super) const HRD: Range<usize> = 0..2;
    pub(super) const PRO: Range<usize> = 2..4;
    pub(super) const HLN: usize = 4;
    pub(super) const PLN: usize = 5;
    pub(super) const OP: Range<usize> = 6..8;
    pub(super) const SHA: Range<usize> = 8..14;
    pub(super) const SPA: Range<usize> = 14..22;
    pub(super) const THA: Range<usize> = 22..28;
    pub(super) const TPA: Range<usize> = 28..36;
    pub(super) const VERSION_FLAGS: usize = 36;
    pub(super) const COUNT: usize = 37;
}

const HARDWARE_ETHERNET: u16 = 1;
const HARDWARE_LEN: u8 = 6;
const PROTOCOL_LEN: u8 = 8;

/// Why bytes are not a PE-ARP message. Each has a counter of its own (PE-ARP rules 8 and 11).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than the header, or than the number of records says.
    #[error("truncated PE-ARP message")]
    Truncated,
    /// Hardware type, address lengths or protocol of another ARP.
    #[error("not ARP for PE addresses on Ethernet")]
    Format,
    /// A version that this implementation does not speak.
    #[error("PE-ARP version {0}")]
    Version(u8),
    /// An opcode without meaning here.
    #[error("PE-ARP operation {0}")]
    Operation(u16),
    /// A record that cannot be; the whole message is dropped.
    #[error("invalid record: {0}")]
    Record(#[from] RecordError),
}

/// Why a record cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// An unknown record kind.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// A range whose first port is above its last.
    #[error("range {0}-{1} runs backwards")]
    Range(u16, u16),
    /// A FULL record that does not name all ports.
    #[error("FULL record that is not 0-65535")]
    Full,
    /// An impossible PSID.
    #[error(transparent)]
    Psid(#[from] PsidError),
}

/// A view of a PE-ARP message, the payload of an Ethernet frame.
///
/// Accessors panic on a buffer that [`Packet::new_checked`] would refuse, and only then.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Views `buffer` without a check.
    pub const fn new_unchecked(buffer: T) -> Self {
        Self { buffer }
    }

    /// Views `buffer` after a check of type, version and lengths. Trailing bytes are Ethernet padding.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn new_checked(buffer: T, pro: u16) -> Result<Self, ParseError> {
        let packet = Self { buffer };
        if packet.bytes().len() < HEADER_LEN {
            return Err(ParseError::Truncated);
        }
        if packet.word(field::HRD) != HARDWARE_ETHERNET
            || packet.word(field::PRO) != pro
            || packet.bytes()[field::HLN] != HARDWARE_LEN
            || packet.bytes()[field::PLN] != PROTOCOL_LEN
        {
            return Err(ParseError::Format);
        }
        if packet.version() != VERSION {
            return Err(ParseError::Version(packet.version()));
        }
        if packet.bytes().len() < HEADER_LEN + packet.record_count() * RECORD_LEN {
            return Err(ParseError::Truncated);
        }
        Ok(packet)
    }

    /// ar$pro of an ARP packet of any kind, if it is that long: what tells PE-ARP from plain ARP (PE-ARP rule 8).
    pub fn protocol_of(arp: &[u8]) -> Option<u16> {
        Some(u16::from_be_bytes(*arp.get(field::PRO)?.first_chunk()?))
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    fn word(&self, at: Range<usize>) -> u16 {
        u16::from_be_bytes([self.bytes()[at.start], self.bytes()[at.start + 1]])
    }

    /// ar$op.
    pub fn operation(&self) -> u16 {
        self.word(field::OP)
    }

    /// ar$sha.
    pub fn sender_hardware(&self) -> EthernetAddress {
        EthernetAddress::from_bytes(&self.bytes()[field::SHA])
    }

    /// ar$spa: address, protocol, flags, port.
    pub fn sender(&self) -> (Ipv4Addr, u8, u8, u16) {
        pe_address(&self.bytes()[field::SPA])
    }

    /// ar$tha.
    pub fn target_hardware(&self) -> EthernetAddress {
        EthernetAddress::from_bytes(&self.bytes()[field::THA])
    }

    /// ar$tpa: address, protocol, flags, port.
    pub fn target(&self) -> (Ipv4Addr, u8, u8, u16) {
        pe_address(&self.bytes()[field::TPA])
    }

    /// The protocol version.
    pub fn version(&self) -> u8 {
        self.bytes()[field::VERSION_FLAGS] >> 4
    }

    /// The message flags, 4 bits.
    pub fn flags(&self) -> u8 {
        self.bytes()[field::VERSION_FLAGS] & 0x0F
    }

    /// The number of records.
    pub fn record_count(&self) -> usize {
        usize::from(self.bytes()[field::COUNT])
    }

    /// The records: kind, protocol scope, 4 bytes by kind, lifetime in seconds.
    pub fn records(&self) -> impl Iterator<Item = (u8, u8, [u8; 4], u16)> + '_ {
        self.bytes()[HEADER_LEN..].chunks_exact(RECORD_LEN).take(self.record_count()).map(|bytes| {
            let body = [bytes[2], bytes[3], bytes[4], bytes[5]];
            (bytes[0], bytes[1], body, u16::from_be_bytes([bytes[6], bytes[7]]))
        })
    }
}

impl Packet<&mut [u8]> {
    /// Writes the fixed fields.
    pub fn set_format(&mut self, pro: u16, operation: u16) {
        self.buffer[field::HRD].copy_from_slice(&HARDWARE_ETHERNET.to_be_bytes());
        self.buffer[field::PRO].copy_from_slice(&pro.to_be_bytes());
        self.buffer[field::HLN] = HARDWARE_LEN;
        self.buffer[field::PLN] = PROTOCOL_LEN;
        self.buffer[field::OP].copy_from_slice(&operation.to_be_bytes());
    }

    /// Writes ar$sha and ar$spa.
    pub fn set_sender(&mut self, hardware: EthernetAddress, address: (Ipv4Addr, u8, u8, u16)) {
        self.buffer[field::SHA].copy_from_slice(hardware.as_bytes());
        write_pe_address(&mut self.buffer[field::SPA], address);
    }

    /// Writes ar$tha and ar$tpa.
    pub fn set_target(&mut self, hardware: EthernetAddress, address: (Ipv4Addr, u8, u8, u16)) {
        self.buffer[field::THA].copy_from_slice(hardware.as_bytes());
        write_pe_address(&mut self.buffer[field::TPA], address);
    }

    /// Writes the version, the flags and the number of records.
    pub fn set_flags(&mut self, flags: u8, record_count: u8) {
        self.buffer[field::VERSION_FLAGS] = VERSION << 4 | flags & 0x0F;
        self.buffer[field::COUNT] = record_count;
    }

    /// Writes record `index`.
    pub fn set_record(&mut self, index: usize, kind: u8, scope: u8, body: [u8; 4], lifetime: u16) {
        let bytes = &mut self.buffer[HEADER_LEN + index * RECORD_LEN..][..RECORD_LEN];
        bytes[0] = kind;
        bytes[1] = scope;
        bytes[2..6].copy_from_slice(&body);
        bytes[6..].copy_from_slice(&lifetime.to_be_bytes());
    }
}

fn pe_address(bytes: &[u8]) -> (Ipv4Addr, u8, u8, u16) {
    let address = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
    (address, bytes[4], bytes[5], u16::from_be_bytes([bytes[6], bytes[7]]))
}

fn write_pe_address(bytes: &mut [u8], (address, protocol, flags, port): (Ipv4Addr, u8, u8, u16)) {
    bytes[..4].copy_from_slice(&address.octets());
    bytes[4] = protocol;
    bytes[5] = flags;
    bytes[6..].copy_from_slice(&port.to_be_bytes());
}
