//! Captures by tcpdump, read while they grow.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pearp::wire::{Frame, Gso, GsoKind, Medium, Segments};
use tempfile::TempDir;

use super::lab::Lab;
use super::process::{Process, run};
use super::wait::await_some;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Bytes of a frame that are captured: all of it, on links without offloads and with them. The shorter, the more of
/// them the kernel can hold.
const SNAPSHOT: &str = "2048";
const SUPER_SNAPSHOT: &str = "66000";
/// What the kernel keeps for tcpdump, in KiB.
const BUFFER: &str = "32768";

const ETHERNET_HEADER: usize = 14;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const MORE_FRAGMENTS: u8 = 0x20;
const FIN: u8 = 0x01;
const RST: u8 = 0x04;

/// tcpdump at one interface of a node.
#[derive(Debug)]
pub(crate) struct Capture {
    _tcpdump: Process,
    file: PathBuf,
    _directory: TempDir,
}

/// An IPv4 packet as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Destination and source link-layer address; `None` on a TUN.
    pub(crate) ethernet: Option<[u8; 12]>,
    /// Everything from the IP header on, padding included.
    pub(crate) bytes: Vec<u8>,
}

impl Capture {
    /// Begins to capture; has begun when this returns.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, node: &str, interface: &str, filter: &str) -> Self {
        Self::start_with(lab, node, interface, filter, SNAPSHOT)
    }

    /// One that has room for frames of 64 KiB.
    #[track_caller]
    pub(crate) fn of_super_frames(lab: &Lab, node: &str, interface: &str, filter: &str) -> Self {
        Self::start_with(lab, node, interface, filter, SUPER_SNAPSHOT)
    }

    #[track_caller]
    fn start_with(lab: &Lab, node: &str, interface: &str, filter: &str, snapshot: &str) -> Self {
        let directory = TempDir::new().expect("a directory for captures");
        let file = directory.path().join("capture.pcap");
        let tcpdump = Process::start(
            lab.command(node, "tcpdump")
                // As root, unbuffered on both sides: what is on the wire is in the file soon.
                .args(["-Z", "root", "-n", "-U", "--immediate-mode", "-s", snapshot, "-B", BUFFER])
                .args(["-i", interface, "-w"])
                .arg(&file)
                .arg(filter),
        );
        tcpdump.await_line("listening on");
        Self { _tcpdump: tcpdump, file, _directory: directory }
    }

    /// What tshark makes of it: a line for each packet, with its DHCP message type, and whatever is wrong with it.
    #[track_caller]
    pub(crate) fn dhcp_by_tshark(&self) -> Vec<String> {
        let checks = ["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
        let fields = ["dhcp.option.dhcp", "_ws.malformed", "_ws.expert.message"].map(|field| ["-e", field]);
        let mut tshark = std::process::Command::new("tshark");
        tshark.arg("-r").arg(&self.file).args(checks).args(["-T", "fields"]).args(fields.as_flattened());
        run(&mut tshark).ok().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Whatever IPv4 has been captured so far.
    pub(crate) fn packets(&self) -> Vec<Captured> {
        let mut packets = Vec::new();
        let Ok(mut reader) = PcapReader::new(File::open(&self.file).expect("tcpdump listens")) else {
            return packets; // not even the header is written
        };
        let ethernet = reader.header().datalink == DataLink::ETHERNET;
        // The last one may be half written.
        while let Some(Ok(packet)) = reader.next_packet() {
            assert_eq!(packet.data.len(), packet.orig_len as usize, "captured whole");
            if !ethernet {
                packets.push(Captured { ethernet: None, bytes: packet.data.to_vec() });
                continue;
            }
            let (header, bytes) = packet.data.split_at(ETHERNET_HEADER);
            if header[12..] == [8, 0] {
                let addresses = header[..12].try_into().expect("twelve bytes");
                packets.push(Captured { ethernet: Some(addresses), bytes: bytes.to_vec() });
            }
        }
        packets
    }

    /// Waits until the capture shows a packet, and gives back all up to now. What left before that packet has
    /// been captured by then.
    #[track_caller]
    pub(crate) fn await_packet(&self, what: &str, wanted: impl Fn(&Captured) -> bool) -> Vec<Captured> {
        await_some(what, || {
            let packets = self.packets();
            packets.iter().any(&wanted).then_some(packets)
        })
    }
}

impl Captured {
    pub(crate) fn source(&self) -> Ipv4Addr {
        let bytes: [u8; 4] = self.bytes[12..16].try_into().expect("four bytes");
        bytes.into()
    }

    pub(crate) fn destination(&self) -> Ipv4Addr {
        let bytes: [u8; 4] = self.bytes[16..20].try_into().expect("four bytes");
        bytes.into()
    }

    pub(crate) fn protocol(&self) -> u8 {
        self.bytes[9]
    }

    pub(crate) fn ttl(&self) -> u8 {
        self.bytes[8]
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.bytes[0] & 0x0F) * 4..]
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.payload()[at..at + 2].try_into().expect("two bytes"))
    }

    /// Source and destination port of TCP and UDP.
    pub(crate) fn ports(&self) -> (u16, u16) {
        (self.word(0), self.word(2))
    }

    /// The identifier of ICMP echo.
    pub(crate) fn echo_identifier(&self) -> u16 {
        self.word(4)
    }

    /// The identification, which all fragments of a datagram have in common.
    pub(crate) fn identification(&self) -> u16 {
        u16::from_be_bytes([self.bytes[4], self.bytes[5]])
    }

    /// Where in its datagram this is, in bytes.
    pub(crate) fn fragment_offset(&self) -> usize {
        usize::from(u16::from_be_bytes([self.bytes[6], self.bytes[7]]) & 0x1FFF) * 8
    }

    /// Whether this is a part of a datagram.
    pub(crate) fn is_fragment(&self) -> bool {
        self.bytes[6] & MORE_FRAGMENTS != 0 || self.fragment_offset() != 0
    }

    /// Whether it left the host of the lab with this number.
    pub(crate) fn is_from_host(&self, number: u8) -> bool {
        self.ethernet.is_some_and(|addresses| addresses[6..] == [2, 0, 0, 0, 2, number])
    }

    /// Type of an ICMP message.
    pub(crate) fn icmp_type(&self) -> Option<u8> {
        (self.protocol() == ICMP).then(|| self.payload()[0])
    }

    pub(crate) fn is_fin(&self) -> bool {
        self.protocol() == TCP && self.payload()[TCP_FLAGS] & FIN != 0
    }

    pub(crate) fn is_rst(&self) -> bool {
        self.protocol() == TCP && self.payload()[TCP_FLAGS] & RST != 0
    }

    /// Whether the IP header checksum is right.
    pub(crate) fn has_valid_header(&self) -> bool {
        let header = &self.bytes[..self.bytes.len() - self.payload().len()];
        let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        (sum & 0xFFFF) + (sum >> 16) == 0xFFFF
    }

    /// The TCP packets of at most `mtu` bytes that a super-frame stands for, with complete checksums. A capture does
    /// not say how the sender wanted it cut: as large as the link allows, as TCP does.
    pub(crate) fn segments(&self, mtu: usize) -> Vec<Self> {
        let start = self.bytes.len() - self.payload().len();
        let header_len = start + usize::from(self.payload()[TCP_DATA_OFFSET] >> 4) * 4;
        let kind = GsoKind::Tcp4 { ecn: false };
        let size = (mtu - header_len) as u16;
        let mut frame = Frame::from_packet(&self.bytes);
        frame.offload.gso = Some(Gso { kind, size, header_len: header_len as u16 });
        let mut segments = Segments::of(&frame, Medium::Ip).expect("a TCP packet");
        let mut segment = Frame::buffer();
        let mut all = Vec::new();
        while segments.next_into(&mut segment) {
            all.push(Self { ethernet: self.ethernet, bytes: segment.bytes().to_vec() });
        }
        all
    }

    /// The packet without what a router may change: TTL and IP header checksum.
    pub(crate) fn unchanging(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[8] = 0;
        bytes[10..12].fill(0);
        bytes
    }
}
