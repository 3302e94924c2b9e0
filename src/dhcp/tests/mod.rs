//! The server: a bench with a disk in memory, and clients' messages as bytes.

mod client;
mod file;
mod limits;
mod messages;
mod portless;
mod random;
mod relay;

use core::net::Ipv4Addr;

use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::*;
use crate::ports::Psid;

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(super) const SHARED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const LAN: usize = 0;

/// 15 sets, and three whole addresses.
pub(super) const FILE: &str = r#"
lease = 3600
dns = ["198.51.100.1"]
domain = "lab.example"

[[shared]]
addresses = "198.51.100.2"
scheme = [0, 4]

[[whole]]
addresses = "198.51.100.100-198.51.100.102"
"#;

pub(super) fn mac(last: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0, last])
}

pub(super) fn at(seconds: i64) -> Instant {
    Instant::from_secs(seconds)
}

pub(super) fn set(text: &str) -> Psid {
    text.parse().unwrap()
}

pub(super) fn config(text: &str) -> Config {
    config_with_router(text, Some(SERVER))
}

/// Of a server on a link with this router.
pub(super) fn config_with_router(text: &str, router: Option<Ipv4Addr>) -> Config {
    let link = ServerLink { link: LAN, address: Ipv4Cidr::new(SERVER, 24), router };
    Config::parse(text, vec![link], 7).unwrap_or_else(|error| panic!("{error}"))
}

/// A message of a client that can share.
pub(super) struct Ask {
    pub(super) message: v4::Message,
    pub(super) source: EthernetAddress,
}

pub(super) fn ask(kind: MessageType, hardware: EthernetAddress) -> Ask {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = v4::Message::new_with_id(7, none, none, none, none, hardware.as_bytes());
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    Ask { message, source: hardware }.listing(&[1, 3, 6, 159])
}

/// Of one that cannot.
pub(super) fn ask_legacy(kind: MessageType, hardware: EthernetAddress) -> Ask {
    ask(kind, hardware).listing(&[1, 3, 6, 12, 15])
}

impl Ask {
    pub(super) fn listing(self, codes: &[u8]) -> Self {
        let codes = codes.iter().copied().map(OptionCode::from).collect();
        self.with(DhcpOption::ParameterRequestList(codes))
    }

    pub(super) fn with(mut self, option: DhcpOption) -> Self {
        self.message.opts_mut().insert(option);
        self
    }

    pub(super) fn raw(self, code: u8, data: &[u8]) -> Self {
        self.with(DhcpOption::Unknown(UnknownOption::new(code.into(), data.to_vec())))
    }

    pub(super) fn client(self, id: &[u8]) -> Self {
        self.with(DhcpOption::ClientIdentifier(id.to_vec()))
    }

    pub(super) fn requested(self, ip: Ipv4Addr) -> Self {
        self.with(DhcpOption::RequestedIpAddress(ip))
    }

    pub(super) fn server(self) -> Self {
        self.with(DhcpOption::ServerIdentifier(SERVER))
    }

    pub(super) fn set(self, set: Psid) -> Self {
        self.with(codec::port_set_option(set))
    }

    pub(super) fn ciaddr(mut self, ip: Ipv4Addr) -> Self {
        self.message.set_ciaddr(ip);
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.message.to_vec().unwrap()
    }
}

/// What came of a message.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) destination: Destination,
    pub(super) message: v4::Message,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn kind(&self) -> MessageType {
        self.message.opts().msg_type().unwrap()
    }

    pub(super) fn set(&self) -> Option<Psid> {
        let Some(DhcpOption::Unknown(option)) = self.message.opts().get(OptionCode::Unknown(159)) else {
            return None;
        };
        let [a, k, high, low] = *option.data() else { panic!("{option:?}") };
        Some(Psid::from_left_aligned(a, k, u16::from_be_bytes([high, low])).unwrap())
    }

    pub(super) fn slot(&self) -> (Ipv4Addr, Psid) {
        (self.message.yiaddr(), self.set().unwrap_or(Psid::FULL))
    }

    pub(super) fn seconds(&self, code: OptionCode) -> u32 {
        match self.message.opts().get(code) {
            Some(
                DhcpOption::AddressLeaseTime(seconds)
                | DhcpOption::Renewal(seconds)
                | DhcpOption::Rebinding(seconds),
            ) => *seconds,
            other => panic!("{code:?}: {other:?}"),
        }
    }
}

pub(super) struct Bench {
    pub(super) server: Server,
    pub(super) disk: Vec<Lease>,
    pub(super) disk_works: bool,
    /// `Bindings` since the last look.
    pub(super) bindings: Vec<(Ipv4Addr, EthernetAddress)>,
}

impl Bench {
    pub(super) fn new(text: &str) -> Self {
        let server = Server::new(config(text), [], at(0));
        Self { server, disk: Vec::new(), disk_works: true, bindings: Vec::new() }
    }

    /// The server is killed and starts again.
    pub(super) fn restart(&mut self, text: &str, now: Instant) {
        self.restart_with(config(text), now);
    }

    pub(super) fn restart_with(&mut self, config: Config, now: Instant) {
        self.server = Server::new(config, self.disk.clone(), now);
        self.drain(now);
    }

    pub(super) fn try_give(&mut self, ask: &Ask, now: Instant) -> Result<Option<Answer>, Refused> {
        self.give_bytes(ask.source, &ask.bytes(), now)
    }

    pub(super) fn give_bytes(
        &mut self,
        source: EthernetAddress,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Option<Answer>, Refused> {
        self.server.handle_message(Arrival { link: LAN, source }, bytes, now)?;
        self.drain(now);
        let reply = self.server.poll_transmit();
        assert!(self.server.poll_transmit().is_none(), "one answer to one message");
        Ok(reply.map(|reply| Answer {
            destination: reply.destination,
            message: v4::Message::decode(&mut Decoder::new(&reply.message)).unwrap(),
            bytes: reply.message,
        }))
    }

    pub(super) fn give(&mut self, ask: &Ask, now: Instant) -> Option<Answer> {
        self.try_give(ask, now).unwrap()
    }

    pub(super) fn answer(&mut self, ask: &Ask, now: Instant) -> Answer {
        self.give(ask, now).expect("an answer")
    }

    pub(super) fn nothing(&mut self, ask: &Ask, now: Instant) {
        let answer = self.give(ask, now);
        assert!(answer.is_none(), "{answer:?}");
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
        assert!(self.server.poll_timeout().is_none_or(|at| at > now));
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        let mut commits = false;
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Commit(lease) if self.disk_works => {
                    self.disk.retain(|other| (other.ip, other.set) != (lease.ip, lease.set));
                    self.disk.push(lease);
                    commits = true;
                }
                Event::Commit(_) => commits = true,
                Event::Bindings { ip, hardware } => self.bindings.push((ip, hardware)),
            }
        }
        if commits {
            assert!(self.server.poll_transmit().is_none(), "nothing leaves before it is stored");
            self.server.committed(self.disk_works, now);
            self.drain(now);
        }
    }

    /// A lease by the whole exchange.
    pub(super) fn lease(&mut self, build: impl Fn(MessageType) -> Ask, now: Instant) -> (Ipv4Addr, Psid) {
        let offer = self.answer(&build(MessageType::Discover), now);
        assert_eq!(offer.kind(), MessageType::Offer);
        let (ip, psid) = offer.slot();
        let mut request = build(MessageType::Request).requested(ip).server();
        if psid != Psid::FULL {
            request = request.set(psid);
        }
        let ack = self.answer(&request, now);
        assert_eq!(ack.kind(), MessageType::Ack);
        assert_eq!(ack.slot(), (ip, psid));
        (ip, psid)
    }

    pub(super) fn state(&self, slot: (Ipv4Addr, Psid)) -> Option<LeaseState> {
        self.server.leases().find(|lease| (lease.ip, lease.set) == slot).map(|lease| lease.state)
    }

    pub(super) fn leased(&self, ip: Ipv4Addr, hardware: EthernetAddress, now: Instant) -> Vec<Psid> {
        self.server.granted(ip, hardware, now).map(|lease| lease.set).collect()
    }
}

/// A client that can share, as a function of the message type.
pub(super) fn sharer(last: u8) -> impl Fn(MessageType) -> Ask {
    move |kind| ask(kind, mac(last))
}

pub(super) fn legacy(last: u8) -> impl Fn(MessageType) -> Ask {
    move |kind| ask_legacy(kind, mac(last))
}
