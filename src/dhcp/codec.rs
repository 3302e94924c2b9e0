//! Messages to meaning and back, over `dhcproto`.
//!
//! Received messages are read by its borrowed view, option by option: a broken option that nobody needs must not
//! spoil the others, and the owned decoder stops at the first one.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;

use dhcproto::v4::relay::RelayAgentInformation;
use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};
use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;

use crate::ports::{Portless, Psid};
use crate::wire::is_station;

/// The port set of a shared address (RFC 7618 §9).
pub(super) const OPTION_PORT_PARAMS: u8 = 159;
/// Vendor-identifying vendor-specific information (RFC 3925 §4): what has no port (PE-ARP rule 105).
pub(super) const OPTION_VENDOR: u8 = 125;
/// The enterprise number of that, which RFC 5612 reserves for documentation.
const ENTERPRISE: u32 = 32_473;
/// Sub-options: one byte for each IP protocol, and nothing at all.
const SUB_PROTOCOLS: u8 = 1;
const SUB_RESIDUAL: u8 = 2;
/// IP protocols that a reservation may have, so that they fit into one option.
pub(super) const MAX_PROTOCOLS: usize = 32;
/// Fields of fixed length and the cookie, in bytes (RFC 2131 §2).
const FIXED: usize = 240;
/// The shortest message that relays and old clients take, in bytes (RFC 1542 §2.1).
pub(super) const MIN_MESSAGE: usize = 300;
/// Bytes of a client identifier that are kept. RFC 4361 needs up to 135.
const MAX_CLIENT_ID: usize = 255;
/// Bytes of a host name that are kept (RFC 1035 §2.3.4).
const MAX_HOST_NAME: usize = 255;

/// Who a client is: option 61, or its hardware type and address where it sends none (RFC 2131 §4.2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Vec<u8>);

impl ClientId {
    /// The identifier of a client that sends none.
    pub fn of_hardware(hardware: EthernetAddress) -> Self {
        Self([&[1], hardware.as_bytes()].concat())
    }

    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// As `01:02:00:00:00:02:01`.
impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at > 0 { ":" } else { "" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClientId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let byte = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2);
        let bytes: Option<Vec<_>> = text.split(':').map(byte).collect();
        let valid = bytes.filter(|bytes| (2..=MAX_CLIENT_ID).contains(&bytes.len()));
        valid.map(Self).ok_or_else(|| {
            format!("`{text}` is no client identifier: write its bytes as 01:02:00:00:00:02:01")
        })
    }
}

/// Why a message is no request that a server can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Shorter than the fixed fields, or without the cookie of RFC 2131 §3.
    #[error("no DHCP message")]
    Format,
    /// From a server.
    #[error("not from a client")]
    NotRequest,
    /// Hardware other than Ethernet, or an address that is no host's.
    #[error("no Ethernet address of one host")]
    Hardware,
    /// No message type (BOOTP), or one of which RFC 2131 has no answer.
    #[error("no message type that a server answers")]
    Type,
    /// A client identifier that is too short or too long (RFC 2132 §9.14).
    #[error("no valid client identifier")]
    Client,
    /// Option 159 of the wrong length, or with no PSID in it.
    #[error("no valid port set")]
    PortSet,
}

/// What a client says.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) kind: MessageType,
    pub(super) client: ClientId,
    pub(super) hardware: EthernetAddress,
    /// The address that the client uses.
    pub(super) ciaddr: Option<Ipv4Addr>,
    /// The relay.
    pub(super) giaddr: Option<Ipv4Addr>,
    pub(super) broadcast: bool,
    /// Option 50.
    pub(super) requested: Option<Ipv4Addr>,
    /// Option 54.
    pub(super) server: Option<Ipv4Addr>,
    /// Option 159.
    pub(super) set: Option<Psid>,
    /// Whether option 159 is in the parameter request list (PE-ARP rule 96).
    pub(super) wants_set: bool,
    /// Option 51.
    pub(super) lease: Option<Duration>,
    /// Option 12.
    pub(super) host_name: Option<String>,
    /// The fields of fixed length, as they came.
    header: v4::Message,
    /// Options that a reply repeats: 61 (RFC 6842) and 82 (RFC 3046 §2.2).
    repeated: Vec<DhcpOption>,
}

pub(super) fn address(data: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)).filter(|ip| !ip.is_unspecified())
}

/// A name as it can be shown and stored: letters, digits, hyphens and dots.
fn host_name(data: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(data).ok()?.trim_end_matches('\0');
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    ((1..=MAX_HOST_NAME).contains(&text.len()) && text.bytes().all(valid)).then(|| text.to_owned())
}

pub(super) fn port_set(data: &[u8]) -> Option<Psid> {
    let [offset, length, high, low] = *data else { return None };
    Psid::from_left_aligned(offset, length, u16::from_be_bytes([high, low])).ok()
}

impl Request {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let view = v4::borrowed::Message::new(bytes).map_err(|_| Invalid::Format)?;
        let fixed = bytes.get(..FIXED).ok_or(Invalid::Format)?;
        if fixed[FIXED - v4::MAGIC.len()..] != v4::MAGIC {
            return Err(Invalid::Format);
        }
        if view.opcode() != v4::Opcode::BootRequest {
            return Err(Invalid::NotRequest);
        }
        // The view trusts the length.
        if view.htype() != v4::HType::Eth || view.hlen() != 6 {
            return Err(Invalid::Hardware);
        }
        let hardware = EthernetAddress::from_bytes(view.chaddr());
        if !is_station(hardware) {
            return Err(Invalid::Hardware);
        }
        let header = v4::Message::decode(&mut Decoder::new(fixed)).map_err(|_| Invalid::Format)?;
        let given = |ip: Ipv4Addr| Some(ip).filter(|ip| !ip.is_unspecified());
        let mut request = Self {
            kind: MessageType::Unknown(0),
            client: ClientId::of_hardware(hardware),
            hardware,
            ciaddr: given(view.ciaddr()),
            giaddr: given(view.giaddr()),
            broadcast: view.flags().broadcast(),
            requested: None,
            server: None,
            set: None,
            wants_set: false,
            lease: None,
            host_name: None,
            header,
            repeated: Vec::new(),
        };
        for option in view.opts() {
            request.read(&option)?;
        }
        match request.kind {
            MessageType::Discover
            | MessageType::Request
            | MessageType::Decline
            | MessageType::Release
            | MessageType::Inform => Ok(request),
            _ => Err(Invalid::Type),
        }
    }

    fn read(&mut self, option: &v4::borrowed::DhcpOption<'_>) -> Result<(), Invalid> {
        let data = option.data();
        match u8::from(option.code()) {
            12 => self.host_name = host_name(data),
            50 => self.requested = address(data),
            51 => {
                let seconds = <[u8; 4]>::try_from(data).ok().map(u32::from_be_bytes);
                self.lease = seconds.map(|seconds| Duration::from_secs(seconds.into()));
            }
            53 => self.kind = data.first().copied().map_or(MessageType::Unknown(0), MessageType::from),
            54 => self.server = address(data),
            55 => self.wants_set = data.contains(&OPTION_PORT_PARAMS),
            61 => {
                // RFC 2132 §9.14: at least two bytes.
                if !(2..=MAX_CLIENT_ID).contains(&data.len()) {
                    return Err(Invalid::Client);
                }
                self.client = ClientId(data.to_vec());
                self.repeated.push(DhcpOption::ClientIdentifier(data.to_vec()));
            }
            // Not as a raw option: the encoder would write that twice.
            82 => {
                let decoded = RelayAgentInformation::decode(&mut Decoder::new(data));
                self.repeated.extend(decoded.map(DhcpOption::RelayAgentInformation));
            }
            OPTION_PORT_PARAMS => self.set = Some(port_set(data).ok_or(Invalid::PortSet)?),
            _ => {}
        }
        Ok(())
    }

    /// The reply of a kind, with the fields that RFC 2131 table 3 takes from the request.
    pub(super) fn reply(&self, kind: MessageType, server: Ipv4Addr) -> ReplyMessage {
        let mut message = self.header.clone();
        message.set_opcode(v4::Opcode::BootReply).set_hops(0).set_secs(0);
        message.set_yiaddr(Ipv4Addr::UNSPECIFIED).set_siaddr(Ipv4Addr::UNSPECIFIED);
        message.clear_sname();
        message.clear_fname();
        if kind != MessageType::Ack {
            message.set_ciaddr(Ipv4Addr::UNSPECIFIED);
        }
        for option in &self.repeated {
            message.opts_mut().insert(option.clone());
        }
        let mut reply = ReplyMessage(message);
        reply.option(DhcpOption::MessageType(kind));
        reply.option(DhcpOption::ServerIdentifier(server));
        reply
    }
}

/// A message of the server.
#[derive(Clone, Debug)]
pub(super) struct ReplyMessage(v4::Message);

impl ReplyMessage {
    pub(super) fn option(&mut self, option: DhcpOption) {
        self.0.opts_mut().insert(option);
    }

    /// The address, and of a shared one the set.
    pub(super) fn lease(&mut self, ip: Ipv4Addr, set: Psid, lease: Duration) {
        self.0.set_yiaddr(ip);
        let seconds = u32::try_from(lease.secs()).unwrap_or(u32::MAX);
        self.option(DhcpOption::AddressLeaseTime(seconds));
        // RFC 2131 §4.4.5: half of the lease, and 7/8.
        self.option(DhcpOption::Renewal(seconds / 2));
        self.option(DhcpOption::Rebinding(seconds - seconds / 8));
        if set != Psid::FULL {
            self.option(port_set_option(set));
        }
    }

    /// With the broadcast flag.
    pub(super) fn broadcast(mut self) -> Self {
        let flags = self.0.flags().set_broadcast();
        self.0.set_flags(flags);
        self
    }

    /// The bytes; `None` where an option does not fit, which configuration has to prevent.
    pub(super) fn into_bytes(self) -> Option<Vec<u8>> {
        let mut bytes = self.0.to_vec().ok()?;
        if bytes.len() < MIN_MESSAGE {
            bytes.resize(MIN_MESSAGE, 0);
        }
        Some(bytes)
    }
}

/// Option 125 with what has no port; of more than [`MAX_PROTOCOLS`] protocols the first ones.
pub(super) fn portless_option(portless: &Portless) -> DhcpOption {
    let protocols: Vec<u8> = portless.protocols().take(MAX_PROTOCOLS).collect();
    let mut body = Vec::new();
    if !protocols.is_empty() {
        body.extend([SUB_PROTOCOLS, protocols.len() as u8]);
        body.extend(protocols);
    }
    if portless.is_residual() {
        body.extend([SUB_RESIDUAL, 0]);
    }
    let data = [&ENTERPRISE.to_be_bytes()[..], &[body.len() as u8], &body].concat();
    DhcpOption::Unknown(UnknownOption::new(OptionCode::from(OPTION_VENDOR), data))
}

/// What has no port, of an option 125; `None` where it is none that RFC 3925 allows, or gives what nobody can have. What
/// other enterprises say, and other sub-options, have no meaning here.
pub(super) fn portless(data: &[u8]) -> Option<Portless> {
    let (mut protocols, mut residual) = (Vec::new(), false);
    let mut rest = data;
    while !rest.is_empty() {
        let (enterprise, tail) = rest.split_first_chunk()?;
        let (length, tail) = tail.split_first()?;
        let (mut body, tail) = tail.split_at_checked(usize::from(*length))?;
        rest = tail;
        while !body.is_empty() && u32::from_be_bytes(*enterprise) == ENTERPRISE {
            let ([code, length], tail) = body.split_first_chunk()?;
            let (value, tail) = tail.split_at_checked(usize::from(*length))?;
            body = tail;
            match (*code, value) {
                (SUB_PROTOCOLS, value) => protocols.extend(value),
                (SUB_RESIDUAL, []) => residual = true,
                (SUB_RESIDUAL, _) => return None,
                _ => {}
            }
        }
    }
    Portless::new(protocols, residual).ok()
}

pub(super) fn port_set_option(set: Psid) -> DhcpOption {
    let [high, low] = set.left_aligned().to_be_bytes();
    let data = vec![set.scheme().offset(), set.scheme().length(), high, low];
    DhcpOption::Unknown(UnknownOption::new(OptionCode::Unknown(OPTION_PORT_PARAMS), data))
}
