//! Ethernet and IPv4 headers: what is no packet, nobody's, or has options.

use std::net::Ipv4Addr;

use pearp::wire::EthernetAddress;

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside};
use crate::topology::*;

fn case(name: &str, shows: &str, rules: &'static str) -> Case {
    Case::new(format!("headers/{name}"), Setup::Router, shows, rules)
}

fn packet() -> Vec<u8> {
    udp((SERVER, 53), (SHARED, 5000))
}

/// Each of these packets from outside is dropped for this reason, and nothing is said about it.
fn dropped(mut case: Case, packets: impl IntoIterator<Item = Vec<u8>>, reason: &str) -> Case {
    for packet in packets {
        case = case.given(Outside, bare(SERVER_MAC, OUTSIDE_MAC, &packet)).drops(reason);
    }
    case
}

pub(crate) fn cases() -> Vec<Case> {
    [options(), damaged(), cut(), nobody(), frames()].concat()
}

fn options() -> Vec<Case> {
    let sent = packet();
    let delivered = |name: &str, shows: &str, rules, options: &[u8]| {
        let packet = ip_with_options(SERVER, SHARED, UDP, options, &sent[20..]);
        case(name, shows, rules)
            .given(Outside, from_server(&packet))
            .forwards(Lan, to_host(H1, &forwarded(&packet)))
    };
    let expired = |options: &[u8]| ttl(&ip_with_options(SERVER, SHARED, UDP, options, &sent[20..]), 1);
    let timestamp = [68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        delivered(
            "option_nop",
            "The port is found behind options of no meaning.",
            "PE-ARP rules 59, 81",
            &[1, 1, 1, 0],
        ),
        delivered(
            "options_most",
            "The port is found behind 40 bytes of options.",
            "PE-ARP rules 59, 81",
            &[1; 40],
        ),
        delivered(
            "option_alert",
            "A Router Alert is forwarded as any other option.",
            "PE-ARP rule 81",
            &[148, 4, 0, 0],
        ),
        case(
            "option_in_error",
            "An error embeds the options of the packet that it is about.",
            "PE-ARP rule 83; RFC 1812 §4.3.2.3",
        )
        .given(Outside, from_server(&expired(&timestamp)))
        .drops("ttl_exceeded")
        .originates(Outside, to_server(&own_error(OUTSIDE_ROUTER, (11, 0), &expired(&timestamp)))),
    ]
}

fn damaged() -> Vec<Case> {
    let of_version = |version: u8, len: u8| patched(packet(), 0, &[version << 4 | len]);
    let of_total = |len: u16| with(packet(), |view| view.set_total_len(len));
    let mut flipped = Vec::new();
    for at in [1, 4, 8, 9, 10, 12, 16] {
        let byte = packet()[at] ^ 1;
        flipped.push(patched(packet(), at, &[byte]));
    }
    vec![
        dropped(
            case(
                "checksum",
                "A header with a wrong checksum is dropped, whatever byte is wrong.",
                "RFC 1812 §5.2.2",
            ),
            flipped,
            "header_checksum",
        ),
        dropped(
            case("version", "What is not version 4 is no IPv4.", "RFC 1812 §5.2.2"),
            [of_version(6, 5), of_version(0, 5), of_version(5, 5), of_version(6, 0)],
            "not_ipv4",
        ),
        dropped(
            case(
                "header_length",
                "A header of less than 5 words, or of more than there is, is none.",
                "RFC 1812 §5.2.2",
            ),
            [of_version(4, 0), of_version(4, 4), of_version(4, 15)],
            "truncated",
        ),
        dropped(
            case(
                "total_length",
                "A total length of less than the header, or of more than the frame has, is wrong.",
                "RFC 1812 §5.2.2",
            ),
            [of_total(0), of_total(19), of_total(53), of_total(1500), of_total(u16::MAX)],
            "truncated",
        ),
    ]
}

fn cut() -> Vec<Case> {
    let tcp = tcp((SERVER, 443), (SHARED, 5000));
    let of_payload = |protocol, bytes: &[u8]| ip(SERVER, SHARED, protocol, bytes);
    let lengths =
        |of: &[u8], lengths: &[usize]| lengths.iter().map(|len| of[..*len].to_vec()).collect::<Vec<_>>();
    let ports = of_payload(TCP, &tcp[20..24]);
    vec![
        dropped(
            case("cut_ip", "A packet that ends before its total length is dropped.", "RFC 1812 §5.2.2"),
            lengths(&packet(), &[0, 1, 19, 20, 28, 51]),
            "truncated",
        ),
        dropped(
            case("cut_ports", "A packet that ends before its ports is dropped.", "PE-ARP rule 59"),
            [TCP, UDP]
                .into_iter()
                .flat_map(|protocol| (0..4).map(move |len| of_payload(protocol, &[0x13; 4][..len]))),
            "truncated",
        ),
        dropped(
            case(
                "cut_icmp",
                "An ICMP message that ends before its eight bytes do is dropped.",
                "PE-ARP rules 60, 62",
            ),
            [0, 3, 8].into_iter().flat_map(|kind| {
                [1, 4, 7].map(|len| of_payload(ICMP, &[kind, 0, 0, 0, 0x13, 0x88, 0][..len]))
            }),
            "truncated",
        ),
        case(
            "only_ports",
            "Four bytes of TCP name the owner, and the rest is for h1 to judge.",
            "PE-ARP rule 59",
        )
        .given(Outside, from_server(&ports))
        .forwards(Lan, to_host(H1, &forwarded(&ports))),
    ]
}

fn nobody() -> Vec<Case> {
    let sources = [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 9], [240, 0, 0, 1], [255; 4]];
    let links = [LAN_BROADCAST, Ipv4Addr::new(203, 0, 113, 255)];
    let nobody = || sources.map(Ipv4Addr::from).into_iter().chain(links);
    let from = |ip| udp((ip, 53), (SHARED, 5000));
    let to = |ip| udp((SERVER, 53), (ip, 5000));
    vec![
        dropped(
            case("martian_source", "A source that no host has is dropped.", "RFC 1812 §5.3.7"),
            nobody().map(from),
            "martian_source",
        ),
        dropped(
            case("router_source", "Nobody else sends from an address of the router.", "RFC 1812 §5.3.7"),
            [ROUTER, OUTSIDE_ROUTER].map(from),
            "martian_source",
        ),
        dropped(
            case(
                "martian_destination",
                "A destination that no host has is not forwarded to, nor is a whole link's.",
                "RFC 1812 §5.3.7; RFC 2644",
            ),
            nobody().map(to),
            "martian_destination",
        ),
    ]
}

fn frames() -> Vec<Case> {
    let group = EthernetAddress([1, 0, 0x5E, 0, 0, 5]);
    let framed = |source, destination| frame(source, destination, &packet());
    let of_type = |ethertype: u16| patched(framed(SERVER_MAC, OUTSIDE_MAC), 12, &ethertype.to_be_bytes());
    let each = |mut case: Case, frames: Vec<Vec<u8>>, reason: &str| {
        for frame in frames {
            case = case.given(Outside, frame).drops(reason);
        }
        case
    };
    let short = udp_with((SERVER, 53), (SHARED, 5000), b"hi");
    let mut padded = bare(SERVER_MAC, OUTSIDE_MAC, &short);
    padded.resize(60, 0xEE);
    let mut out = bare(ROUTER_MAC, H1, &forwarded(&short));
    out.resize(60, 0xEE);
    let lengths = |lengths: &[usize]| {
        lengths.iter().map(|len| framed(SERVER_MAC, OUTSIDE_MAC)[..*len].to_vec()).collect()
    };
    vec![
        each(
            case("other_station", "A frame for another station is not the router's.", "RFC 1812 §5.3.4"),
            vec![framed(SERVER_MAC, STRANGER), framed(SERVER_MAC, ROUTER_MAC)],
            "not_our_frame",
        ),
        each(
            case(
                "link_broadcast",
                "A packet that came to all of a link is not forwarded.",
                "RFC 1812 §5.3.4",
            ),
            vec![framed(SERVER_MAC, EVERYBODY), framed(SERVER_MAC, group)],
            "not_our_frame",
        ),
        each(
            case("frame_source", "A frame from no station is dropped.", "PE-ARP rule 9"),
            vec![
                framed(EVERYBODY, OUTSIDE_MAC),
                framed(group, OUTSIDE_MAC),
                framed(EthernetAddress([0; 6]), OUTSIDE_MAC),
            ],
            "frame_source",
        ),
        each(
            case("own_frame", "A frame of the router that comes back is a loop.", "PE-ARP rule 9"),
            vec![framed(OUTSIDE_MAC, OUTSIDE_MAC), framed(OUTSIDE_MAC, EVERYBODY)],
            "own_echo",
        ),
        each(
            case("ether_type", "VLAN tags, IPv6, LLDP and lengths are not spoken.", "PE-ARP §3.1; RFC 894"),
            vec![of_type(0x8100), of_type(0x88A8), of_type(0x86DD), of_type(0x88CC), of_type(46)],
            "ether_type",
        ),
        each(
            case("runts", "Fewer bytes than an Ethernet header are no frame.", "RFC 894"),
            lengths(&[0, 1, 6, 12, 13]),
            "short_frame",
        ),
        case(
            "padding",
            "Ethernet padding is no part of the packet, and does no harm.",
            "RFC 894; PE-ARP rule 81",
        )
        .given(Outside, padded)
        .forwards(Lan, out),
    ]
}
