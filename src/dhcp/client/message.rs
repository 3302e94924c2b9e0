//! What a client says, and what it reads of a server's answer.

use core::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode};
use smoltcp::time::Duration;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::super::codec::{
    MIN_MESSAGE, OPTION_PORT_PARAMS, OPTION_VENDOR, address, port_set, port_set_option, portless,
};
use super::Config;
use crate::ports::{Portless, Psid};

/// Name servers that are kept.
const MAX_DNS: usize = 8;

/// Why a message is no answer to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It cannot be read.
    #[error("no DHCP message of a server")]
    Format,
    /// It is for another client, or answers an earlier question.
    #[error("an answer to another question")]
    Foreign,
    /// Nothing was asked that it could answer.
    #[error("not expected now")]
    Unexpected,
    /// It gives something that was not asked for, or that no host can use.
    #[error("not what was asked for")]
    Unusable,
}

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) kind: MessageType,
    pub(super) xid: u32,
    /// Since the client began, for relays and servers that prefer who waits long (RFC 2131 §2).
    pub(super) elapsed: Duration,
    /// The address in use.
    pub(super) ciaddr: Option<Ipv4Addr>,
    /// Option 50.
    pub(super) requested: Option<Ipv4Addr>,
    /// Option 159; of a whole address there is none.
    pub(super) set: Option<Psid>,
    /// Option 54.
    pub(super) server: Option<Ipv4Addr>,
}

impl Question {
    pub(super) fn to_bytes(self, config: &Config) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let ciaddr = self.ciaddr.unwrap_or(none);
        let chaddr = config.hardware.as_bytes();
        let mut message = v4::Message::new_with_id(self.xid, ciaddr, none, none, none, chaddr);
        message.set_secs(u16::try_from(self.elapsed.secs()).unwrap_or(u16::MAX));
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(self.kind));
        options.insert(DhcpOption::ClientIdentifier(config.id().as_bytes().to_vec()));
        self.requested.map(|ip| options.insert(DhcpOption::RequestedIpAddress(ip)));
        self.server.map(|ip| options.insert(DhcpOption::ServerIdentifier(ip)));
        self.set.filter(|set| *set != Psid::FULL).map(|set| options.insert(port_set_option(set)));
        // RFC 2131 table 5: who gives something back asks for nothing.
        if matches!(self.kind, MessageType::Discover | MessageType::Request) {
            // Mask, router, name servers, domain, lease time, T1 and T2.
            let mut wanted = vec![1, 3, 6, 15, 51, 58, 59];
            if config.shares {
                wanted.extend([OPTION_PORT_PARAMS, OPTION_VENDOR]);
            }
            let wanted = wanted.into_iter().map(OptionCode::from).collect();
            options.insert(DhcpOption::ParameterRequestList(wanted));
            if let Some(name) = &config.host_name {
                options.insert(DhcpOption::Hostname(name.clone()));
            }
        }
        // Every option is short, so that nothing can fail.
        let mut bytes = message.to_vec().unwrap_or_default();
        bytes.resize(bytes.len().max(MIN_MESSAGE), 0);
        bytes
    }
}

/// What a server says.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) kind: MessageType,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) set: Option<Psid>,
    /// What has no port.
    pub(super) portless: Portless,
    mask: Option<Ipv4Addr>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) dns: Vec<Ipv4Addr>,
    pub(super) domain: Option<String>,
    pub(super) lease: Option<Duration>,
    pub(super) renew: Option<Duration>,
    pub(super) rebind: Option<Duration>,
}

impl Answer {
    pub(super) fn parse(bytes: &[u8], xid: u32, hardware: EthernetAddress) -> Result<Self, Ignored> {
        let view = v4::borrowed::Message::new(bytes).map_err(|_| Ignored::Format)?;
        if bytes.get(236..240) != Some(&v4::MAGIC[..]) || view.opcode() != v4::Opcode::BootReply {
            return Err(Ignored::Format);
        }
        // The view trusts the length.
        if view.htype() != v4::HType::Eth || view.hlen() != 6 {
            return Err(Ignored::Format);
        }
        if view.xid() != xid || EthernetAddress::from_bytes(view.chaddr()) != hardware {
            return Err(Ignored::Foreign);
        }
        let mut answer = Self {
            kind: MessageType::Unknown(0),
            server: None,
            ip: Some(view.yiaddr()).filter(|ip| !ip.is_unspecified()),
            set: None,
            portless: Portless::default(),
            mask: None,
            gateway: None,
            dns: Vec::new(),
            domain: None,
            lease: None,
            renew: None,
            rebind: None,
        };
        for option in view.opts() {
            answer.read(u8::from(option.code()), option.data())?;
        }
        Ok(answer)
    }

    fn read(&mut self, code: u8, data: &[u8]) -> Result<(), Ignored> {
        let seconds = || {
            let bytes = <[u8; 4]>::try_from(data).ok();
            bytes.map(|bytes| Duration::from_secs(u32::from_be_bytes(bytes).into()))
        };
        let text = || core::str::from_utf8(data).ok().map(|text| text.trim_end_matches('\0').to_owned());
        match code {
            1 => self.mask = address(data),
            3 => self.gateway = data.get(..4).and_then(address),
            6 => self.dns = data.chunks_exact(4).filter_map(address).take(MAX_DNS).collect(),
            15 => self.domain = text(),
            51 => self.lease = seconds(),
            53 => self.kind = data.first().copied().map_or(MessageType::Unknown(0), MessageType::from),
            54 => self.server = address(data),
            58 => self.renew = seconds(),
            59 => self.rebind = seconds(),
            // A host without it is one that owns less.
            OPTION_VENDOR => self.portless = portless(data).unwrap_or_default(),
            // Another set than the server means would be somebody else's.
            OPTION_PORT_PARAMS => self.set = Some(port_set(data).ok_or(Ignored::Unusable)?),
            _ => {}
        }
        Ok(())
    }

    /// The address, with the length of the mask; without one, and with one that has holes, nothing is on the link.
    pub(super) fn address(&self) -> Option<Ipv4Cidr> {
        let mask = self.mask.map_or(u32::MAX, u32::from);
        let length = if mask.leading_ones() + mask.trailing_zeros() >= 32 { mask.leading_ones() } else { 32 };
        self.ip.map(|ip| Ipv4Cidr::new(ip, length as u8))
    }
}
