//! A router that gives leases, and a client that asks for port sets.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};
use nix::sys::signal::Signal;
use pearp::dhcp::client;
use pearp::link::{Device, Link};
use pearp::ports::Psid;
use pearp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, Frame, Ipv4Packet, ipv4};
use smoltcp::time::Instant;
use smoltcp::wire::UdpPacket;
use tempfile::TempDir;

use super::intruder::tap;
use super::lab::{Lab, ROUTER};
use super::process::Process;
use super::requirements::machine;
use super::wait::{PATIENCE, await_some, await_true};

const OPTION_159: u8 = 159;

/// A lab whose router gives leases. The lab's own router has made way for it.
#[derive(Debug)]
pub(crate) struct DhcpLab {
    pub(crate) router: Process,
    pub(crate) lab: Lab,
    arguments: Vec<String>,
    directory: TempDir,
}

impl DhcpLab {
    /// `pools` is the configuration; the lease file is in `leases/` of the directory.
    #[track_caller]
    pub(crate) fn up(pools: &str) -> Self {
        Self::of(Lab::with(&["--hosts", "0", "--static"]), pools)
    }

    /// One that has the machine to itself.
    #[track_caller]
    pub(crate) fn alone(pools: &str) -> Self {
        Self::of(Lab::alone(&["--hosts", "0", "--static"]), pools)
    }

    #[track_caller]
    fn of(lab: Lab, pools: &str) -> Self {
        let directory = TempDir::new().expect("a directory for leases");
        fs::create_dir(directory.path().join("leases")).expect("it is new");
        fs::write(directory.path().join("dhcp.toml"), pools).expect("a file can be written");
        let mut arguments = lab.arguments("router");
        let at = arguments.iter().position(|word| word == "--shared").expect("the lab shares an address");
        arguments.drain(at..at + 2);
        for (option, file) in [("--dhcp", "dhcp.toml"), ("--lease-file", "leases/leases")] {
            arguments.extend([option.to_owned(), directory.path().join(file).display().to_string()]);
        }
        lab.end("router", Signal::SIGTERM);
        let router = start(&lab, &arguments);
        Self { router, lab, arguments, directory }
    }

    pub(crate) fn lease_file(&self) -> PathBuf {
        self.directory.path().join("leases/leases")
    }

    /// `kill -9`, and a new process.
    #[track_caller]
    pub(crate) fn kill_router(&mut self) {
        self.router.signal(Signal::SIGKILL);
        await_true("the end of the router", || !self.router.is_running());
        self.router = start(&self.lab, &self.arguments);
    }

    /// `pearp leases --json`.
    #[track_caller]
    pub(crate) fn leases(&self) -> Vec<serde_json::Value> {
        self.lab.pearp_json("router", &["leases"]).as_array().expect("a list").clone()
    }
}

#[track_caller]
fn start(lab: &Lab, arguments: &[String]) -> Process {
    // A file that must not grow is an error, not the end: a test makes the disk full in this way.
    let mut command = lab.command("router", "sh");
    let router = Process::start(
        command.args(["-c", "trap '' 25; exec \"$@\"", "sh"]).arg(&machine().pearp).args(arguments),
    );
    await_true("the router serves", || lab.serves("router"));
    router
}

/// A client with a TAP of its own on the LAN's bridge.
pub(crate) struct Client {
    device: Device,
    hardware: EthernetAddress,
    xid: u32,
}

/// Many clients behind one TAP on the LAN's bridge, as many as a limit allows at a time.
pub(crate) struct Crowd {
    device: Device,
    clients: HashMap<EthernetAddress, client::Client>,
}

impl Crowd {
    #[track_caller]
    pub(crate) fn new(lab: &Lab, name: &str) -> Self {
        Self { device: tap(lab, "lan", name), clients: HashMap::new() }
    }

    fn transmit(&mut self, hardware: EthernetAddress) {
        let Some(client) = self.clients.get_mut(&hardware) else { return };
        while let Some(client::Transmit { message, .. }) = client.poll_transmit() {
            let frame = to_everybody(hardware, &message);
            // What the queue of the TAP does not take the client sends again.
            let _ = self.device.send(&frame, Instant::ZERO);
        }
    }

    /// `count` clients, with `window` of them asking at a time, get a lease each; the sets that they got.
    #[track_caller]
    pub(crate) fn lease(&mut self, count: u32, window: usize) -> Vec<(Ipv4Addr, Psid)> {
        let begin = std::time::Instant::now();
        let now = || Instant::from_micros(begin.elapsed().as_micros() as i64);
        let mut given = Vec::new();
        let mut next = 0;
        let mut frame = Frame::buffer();
        while given.len() < count as usize {
            while next < count && self.clients.len() < window {
                let [_, a, b, c] = next.to_be_bytes();
                let hardware = EthernetAddress([2, 0xD, 0xC, a, b, c]);
                let seed = u64::from(next);
                let config = client::Config {
                    hardware,
                    iaid: 0,
                    host_name: None,
                    shares: true,
                    wish: client::Wish::Any,
                    seed,
                };
                self.clients.insert(hardware, client::Client::new(config, None, now()));
                self.transmit(hardware);
                next += 1;
            }
            if self.device.receive(&mut frame, Instant::ZERO).is_err() {
                let due: Vec<_> = self
                    .clients
                    .iter_mut()
                    .filter(|(_, client)| client.poll_timeout().is_some_and(|at| at <= now()))
                    .map(|(hardware, client)| {
                        client.handle_timeout(now());
                        *hardware
                    })
                    .collect();
                due.into_iter().for_each(|hardware| self.transmit(hardware));
                assert!(begin.elapsed() < PATIENCE, "{} of {count} leases", given.len());
                std::thread::yield_now();
                continue;
            }
            let Ok(ethernet) = EthernetFrame::new_checked(frame.bytes()) else { continue };
            let (source, hardware) = (ethernet.src_addr(), ethernet.dst_addr());
            let Some(client) = self.clients.get_mut(&hardware) else { continue };
            let Ok(packet) = Ipv4Packet::new_checked(ethernet.payload()) else { continue };
            let Ok(udp) = UdpPacket::new_checked(packet.payload()) else { continue };
            let _ = client.handle_message(source, udp.payload(), now());
            if let Some(client::Event::Probe(lease)) = client.poll_event() {
                given.push((lease.address.address(), lease.set));
                self.clients.remove(&hardware);
            }
            self.transmit(hardware);
        }
        given
    }
}

/// A message of somebody who may not be who it says.
pub(crate) struct Plea(v4::Message);

impl Plea {
    /// DHCPDISCOVER of a client that shares.
    pub(crate) fn discover(hardware: EthernetAddress) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = v4::Message::new_with_id(1, none, none, none, none, hardware.as_bytes());
        message.opts_mut().insert(DhcpOption::MessageType(MessageType::Discover));
        message.opts_mut().insert(DhcpOption::ParameterRequestList(vec![OptionCode::from(OPTION_159)]));
        Self(message)
    }

    /// The frame, from this Ethernet source.
    pub(crate) fn from(&self, source: EthernetAddress) -> Frame {
        to_everybody(source, &self.0.to_vec().expect("a message"))
    }
}

/// From port 68 to port 67 of everybody.
fn to_everybody(hardware: EthernetAddress, data: &[u8]) -> Frame {
    let bytes = ipv4::udp((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), data);
    let mut frame = Frame::from_packet(&bytes);
    frame.push_ethernet_header(hardware, EthernetAddress::BROADCAST);
    frame
}

/// {address, option 159 as it came}.
pub(crate) type Given = (Ipv4Addr, Option<Vec<u8>>);

impl Client {
    #[track_caller]
    pub(crate) fn new(lab: &Lab, name: &str, hardware: EthernetAddress) -> Self {
        Self { device: tap(lab, "lan", name), hardware, xid: 0x7061 }
    }

    pub(crate) fn message(&self, kind: MessageType, listed: &[u8]) -> v4::Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let hardware = self.hardware.as_bytes();
        let mut message = v4::Message::new_with_id(self.xid, none, none, none, none, hardware);
        let codes = listed.iter().copied().map(OptionCode::from).collect();
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::ParameterRequestList(codes));
        message
    }

    /// Sends from port 68 to port 67 of everybody.
    pub(crate) fn send(&mut self, message: &v4::Message) {
        let data = message.to_vec().expect("a message");
        let frame = to_everybody(self.hardware, &data);
        self.device.send(&frame, Instant::ZERO).expect("the TAP takes it");
    }

    /// The next answer that is there, if it is ours.
    pub(crate) fn receive(&mut self) -> Option<v4::Message> {
        let mut frame = Frame::buffer();
        while self.device.receive(&mut frame, Instant::ZERO).is_ok() {
            let ethernet = EthernetFrame::new_checked(frame.bytes()).ok()?;
            if ethernet.ethertype() != EthernetProtocol::Ipv4 || ethernet.dst_addr() != self.hardware {
                continue;
            }
            let Ok(packet) = Ipv4Packet::new_checked(ethernet.payload()) else { continue };
            let Ok(udp) = UdpPacket::new_checked(packet.payload()) else { continue };
            assert_eq!((udp.src_port(), udp.dst_port()), (67, 68));
            assert_eq!(packet.src_addr().to_string(), ROUTER);
            assert!(packet.verify_checksum());
            assert!(udp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
            let message = v4::Message::decode(&mut Decoder::new(udp.payload())).expect("a DHCP message");
            assert_eq!(message.yiaddr(), packet.dst_addr());
            return Some(message);
        }
        None
    }

    /// Asks until there is an answer of this kind.
    #[track_caller]
    pub(crate) fn ask(&mut self, question: &v4::Message, kind: MessageType) -> v4::Message {
        // What others have sent to all meanwhile may have filled the queue of the TAP.
        let mut frame = Frame::buffer();
        while self.device.receive(&mut frame, Instant::ZERO).is_ok() {}
        self.send(question);
        await_some("an answer of the DHCP server", || {
            self.receive().filter(|answer| answer.opts().has_msg_type(kind))
        })
    }

    /// DISCOVER to ACK.
    #[track_caller]
    pub(crate) fn lease(&mut self, listed: &[u8]) -> Given {
        self.xid += 1;
        let offer = self.ask(&self.message(MessageType::Discover, listed), MessageType::Offer);
        let given = Self::given(&offer);
        let mut request = self.message(MessageType::Request, listed);
        let server = ROUTER.parse().expect("an address");
        request.opts_mut().insert(DhcpOption::ServerIdentifier(server));
        request.opts_mut().insert(DhcpOption::RequestedIpAddress(given.0));
        if let Some(data) = &given.1 {
            let option = UnknownOption::new(OptionCode::from(OPTION_159), data.clone());
            request.opts_mut().insert(DhcpOption::Unknown(option));
        }
        let ack = self.ask(&request, MessageType::Ack);
        assert_eq!(Self::given(&ack), given);
        given
    }

    pub(crate) fn given(message: &v4::Message) -> Given {
        let set = match message.opts().get(OptionCode::from(OPTION_159)) {
            Some(DhcpOption::Unknown(option)) => Some(option.data().to_vec()),
            _ => None,
        };
        (message.yiaddr(), set)
    }
}
