//! Frames in words, and how two of them differ.

use std::fmt::Write as _;

use pearp::wire::pe_arp::{DEFAULT_PRO, Message, Packet, PeAddress};
use pearp::wire::{ArpPacket, ArpRepr, ETHERNET_HEADER, EthernetFrame, EthernetProtocol, Ipv4Packet, Medium};
use smoltcp::time::Instant;

/// Seconds with microseconds.
pub(crate) fn time(at: Instant) -> String {
    format!("{:3}.{:06}", at.total_micros() / 1_000_000, at.total_micros() % 1_000_000)
}

/// What a frame says, in one line.
pub(crate) fn describe(medium: Medium, bytes: &[u8]) -> String {
    let length = bytes.len();
    match medium {
        Medium::Ip => format!("{length} bytes: {}", packet(bytes)),
        Medium::Ethernet => {
            let Ok(ethernet) = EthernetFrame::new_checked(bytes) else {
                return format!("{length} bytes: too short for Ethernet");
            };
            let said = match ethernet.ethertype() {
                EthernetProtocol::Ipv4 => packet(ethernet.payload()),
                EthernetProtocol::Arp => arp(ethernet.payload()),
                other => format!("{other}"),
            };
            format!("{length} bytes: {} > {}: {said}", ethernet.src_addr(), ethernet.dst_addr())
        }
    }
}

fn packet(bytes: &[u8]) -> String {
    let Ok(ip) = Ipv4Packet::new_checked(bytes) else { return "IPv4 that is damaged".to_owned() };
    let mut said = format!("{} > {} TTL {}", ip.src_addr(), ip.dst_addr(), ip.hop_limit());
    if ip.version() != 4 {
        return format!("IP version {}", ip.version());
    }
    if !ip.verify_checksum() {
        said.push_str(" wrong checksum");
    }
    if ip.header_len() > 20 {
        write!(said, " {} bytes of options", ip.header_len() - 20).unwrap();
    }
    if ip.frag_offset() > 0 || ip.more_frags() {
        let more = if ip.more_frags() { ", more follow" } else { "" };
        write!(said, " fragment {:#06x} from {}{more}", ip.ident(), ip.frag_offset()).unwrap();
    }
    let payload = ip.payload();
    let protocol: u8 = ip.next_header().into();
    if ip.frag_offset() == 0 {
        said.push_str(&transport(protocol, payload));
    }
    said
}

fn transport(protocol: u8, payload: &[u8]) -> String {
    let word = |at: usize| payload.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match (protocol, payload) {
        (1, [kind @ (0 | 8), ..]) => {
            let name = if *kind == 0 { "echo reply" } else { "echo request" };
            format!(" {name} {}", word(4).map_or("cut short".to_owned(), |identifier| identifier.to_string()))
        }
        (1, [kind @ (3 | 4 | 5 | 11 | 12), code, ..]) => {
            // Not `packet`: what is embedded is shorter than it says.
            let header = payload.get(8).map_or(0, |first| usize::from(first & 0x0F) * 4);
            match (payload.get(8..), payload.get(8 + header..)) {
                (Some(embedded), Some(rest)) if header >= 20 => {
                    let ip = Ipv4Packet::new_unchecked(embedded);
                    let (from, to) = (ip.src_addr(), ip.dst_addr());
                    format!(
                        " ICMP {kind}/{code} about {from} > {to}{}",
                        transport(ip.next_header().into(), rest)
                    )
                }
                _ => format!(" ICMP {kind}/{code} about what is cut short"),
            }
        }
        (1, [kind, code, ..]) => format!(" ICMP {kind}/{code}"),
        (6 | 17 | 33 | 132 | 136, _) => {
            let name = match protocol {
                6 => "TCP",
                17 => "UDP",
                33 => "DCCP",
                132 => "SCTP",
                _ => "UDP-Lite",
            };
            match (word(0), word(2)) {
                (Some(from), Some(to)) => format!(" {name} {from} > {to}"),
                _ => format!(" {name} cut short"),
            }
        }
        _ => format!(" protocol {protocol}"),
    }
}

fn arp(bytes: &[u8]) -> String {
    if Packet::<&[u8]>::protocol_of(bytes) == Some(DEFAULT_PRO) {
        let message = Packet::new_checked(bytes, DEFAULT_PRO).map_err(|error| error.to_string());
        let message = message.and_then(|packet| Message::parse(&packet).map_err(|error| error.to_string()));
        return match message {
            Ok(message) => {
                let kind = format!("{:?}", message.kind()).to_uppercase();
                let records: Vec<_> = message.records.iter().map(|record| record.claim.to_string()).collect();
                let (sender, target) = (address(message.sender), address(message.target));
                format!("PE-ARP {kind} {sender} > {target} [{}]", records.join(", "))
            }
            Err(error) => format!("PE-ARP that is damaged: {error}"),
        };
    }
    match ArpPacket::new_checked(bytes).and_then(|packet| ArpRepr::parse(&packet)) {
        Ok(ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. }) => {
            format!("ARP {operation:?} {source_protocol_addr} > {target_protocol_addr}")
        }
        _ => "ARP that is damaged".to_owned(),
    }
}

fn address(address: PeAddress) -> String {
    let port = address.port.map_or("-".to_owned(), |port| port.to_string());
    let flags = [(address.shared, " shared"), (address.router, " router"), (address.residual, " residual")];
    let flags: String = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
    format!("{{{} {}:{port}{flags}}}", address.ip, address.protocol)
}

/// Both in words, and the bytes of both, with the first that differs marked.
pub(crate) fn difference(medium: Medium, expected: &[u8], actual: &[u8]) -> String {
    let first = expected.iter().zip(actual).position(|(one, other)| one != other);
    let first = first.unwrap_or(expected.len().min(actual.len()));
    let layer = if medium == Medium::Ethernet { ETHERNET_HEADER } else { 0 };
    let place = match first.checked_sub(layer) {
        Some(at) => format!("byte {first:#x}, which is byte {at} behind the link-layer header"),
        None => format!("byte {first:#x}, in the link-layer header"),
    };
    format!(
        "    expected {}\n{}    got      {}\n{}    they differ from {place}\n",
        describe(medium, expected),
        hexdump(expected, Some(first)),
        describe(medium, actual),
        hexdump(actual, Some(first)),
    )
}

/// Lines that are shown of a long frame: at its beginning, and around the marked byte.
const FIRST_LINES: usize = 6;
const LINES_AROUND: usize = 2;

/// 16 bytes a line; `>` stands before the marked one.
pub(crate) fn hexdump(bytes: &[u8], marked: Option<usize>) -> String {
    let mut text = String::new();
    let mut hidden = false;
    for (row, line) in bytes.chunks(16).enumerate() {
        let near = marked.is_some_and(|marked| row.abs_diff(marked / 16) <= LINES_AROUND);
        if row >= FIRST_LINES && !near {
            hidden = true;
            continue;
        }
        if core::mem::take(&mut hidden) {
            text.push_str("      …\n");
        }
        write!(text, "      {:04x} ", row * 16).unwrap();
        for (column, byte) in line.iter().enumerate() {
            let mark = if marked == Some(row * 16 + column) { '>' } else { ' ' };
            write!(text, "{mark}{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    if hidden {
        text.push_str("      …\n");
    }
    text
}

#[test]
fn the_first_byte_that_differs_is_marked() {
    let (one, other) = ([0_u8; 20], [&[0_u8; 17][..], &[9, 0, 0]].concat());
    let text = difference(Medium::Ip, &one, &other);
    assert!(text.contains("0010  00>00 00 00\n") && text.contains("0010  00>09 00 00\n"), "{text}");
    assert!(difference(Medium::Ethernet, &one, &one[..18]).contains("byte 0x12, which is byte 4"), "{text}");
}

#[test]
fn a_long_frame_is_shown_where_it_matters() {
    let text = hexdump(&[0; 1500], Some(1000));
    assert!(text.contains("03e0  00 00 00 00 00 00 00 00>00"), "{text}");
    assert_eq!(text.lines().count(), FIRST_LINES + 1 + 2 * LINES_AROUND + 1 + 1, "{text}");
}
