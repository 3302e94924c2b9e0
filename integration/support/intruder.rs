//! A host that the lab knows nothing of, and whoever sends what it may not.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pearp::link::{Device, Link, OffloadMode};
use pearp::wire::pe_arp::{DEFAULT_PRO, Message, Packet};
use pearp::wire::{ETHERNET_HEADER, EthernetAddress, EthernetFrame, EthernetProtocol, Frame, Medium};
use smoltcp::time::Instant as Epoch;
use tempfile::TempDir;

use super::lab::{Lab, SHARED};
use super::requirements::machine;

/// The link-layer address of the router on the LAN.
pub(crate) const ROUTER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
/// Its link-layer address outside.
pub(crate) const OUTSIDE_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 1, 1]);
/// That of whoever lies.
pub(crate) const LIAR: EthernetAddress = EthernetAddress([2, 0, 0, 0, 9, 9]);

/// Frames of a flood that are sent in one go.
const BURST: usize = 64;

/// A host in the LAN's own namespace, with a TAP and a TUN that go with the lab.
pub(crate) struct Intruder<'a> {
    lab: &'a Lab,
    directory: TempDir,
}

impl<'a> Intruder<'a> {
    #[track_caller]
    pub(crate) fn new(lab: &'a Lab) -> Self {
        let devices = "ip tuntap add mode tap x1 && ip link set x1 master lan up && \
                       ip tuntap add mode tun pe9 && ip link set pe9 up";
        lab.exec("lan", &["sh", "-c", devices]).ok();
        Self { lab, directory: TempDir::new().unwrap() }
    }

    /// `pearp host` with this set; `redirect` is for the shell that starts it.
    pub(crate) fn command(&self, set: &str, redirect: &str) -> Command {
        let mut command = self.lab.command("lan", "sh");
        let socket = self.directory.path().join("x1.sock");
        command.arg("-c").arg(format!(
            "exec {pearp} host --name x1 --lan x1 --tun pe9 --mac 02:00:00:00:09:09 --address {SHARED}/24 \
             --gateway 198.51.100.1 {set} --socket {socket} {redirect}",
            pearp = machine().pearp.display(),
            socket = socket.display(),
        ));
        command
    }
}

/// A new TAP on the bridge of `lan` or `wan`.
#[track_caller]
pub(crate) fn tap(lab: &Lab, bridge: &str, name: &str) -> Device {
    let devices =
        format!("ip tuntap add mode tap {name} && ip link set {name} txqueuelen 10000 master {bridge} up");
    lab.exec(bridge, &["sh", "-c", &devices]).ok();
    open(lab, bridge, name)
}

#[track_caller]
fn open(lab: &Lab, bridge: &str, name: &str) -> Device {
    let device = format!("{}:{name}", lab.netns(bridge)).parse().expect("a name");
    Device::open(&device, Medium::Ethernet, OffloadMode::Off).expect("the TAP is there")
}

/// A plug of a bridge, by which any frame is sent.
pub(crate) struct Plug(Device);

impl Plug {
    /// A new one on the bridge of `lan` or `wan`.
    #[track_caller]
    pub(crate) fn new(lab: &Lab, bridge: &str) -> Self {
        Self(tap(lab, bridge, "liar"))
    }

    /// That of a host whose process has ended.
    #[track_caller]
    pub(crate) fn of_host(lab: &Lab, host: &str) -> Self {
        Self(open(lab, "lan", host))
    }

    #[track_caller]
    pub(crate) fn send(&mut self, frame: &Frame) {
        self.0.send(frame, Epoch::ZERO).expect("the TAP takes it");
    }

    /// Sends an IP packet.
    #[track_caller]
    pub(crate) fn send_packet(&mut self, from: EthernetAddress, to: EthernetAddress, packet: &[u8]) {
        self.send(&framed(from, to, packet));
    }

    /// Sends all frames, not faster than so many in a second; how many there were.
    #[track_caller]
    pub(crate) fn flood(&mut self, frames: impl IntoIterator<Item = Frame>, per_second: u32) -> u64 {
        let begin = Instant::now();
        let mut sent = 0_u64;
        for frame in frames {
            self.send(&frame);
            sent += 1;
            if sent.is_multiple_of(BURST as u64) {
                let due = begin + Duration::from_secs(1) * (sent as u32) / per_second;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        sent
    }

    /// The PE-ARP messages that have come to this link-layer address so far, and were not read yet.
    pub(crate) fn heard(&mut self, hardware: EthernetAddress) -> Vec<Message> {
        let mut heard = Vec::new();
        let mut frame = Frame::buffer();
        while self.0.receive(&mut frame, Epoch::ZERO).is_ok() {
            let Ok(ethernet) = EthernetFrame::new_checked(frame.bytes()) else { continue };
            if ethernet.dst_addr() != hardware || ethernet.ethertype() != EthernetProtocol::Arp {
                continue;
            }
            let packet = Packet::new_checked(&frame.bytes()[ETHERNET_HEADER..], DEFAULT_PRO);
            heard.extend(packet.ok().and_then(|packet| Message::parse(&packet).ok()));
        }
        heard
    }
}

/// An IP packet in an Ethernet frame.
pub(crate) fn framed(from: EthernetAddress, to: EthernetAddress, packet: &[u8]) -> Frame {
    let mut frame = Frame::from_packet(packet);
    frame.push_ethernet_header(from, to);
    frame
}
