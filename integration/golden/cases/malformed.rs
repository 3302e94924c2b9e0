//! ARP that must be dropped, each message under one reason.

use pearp::wire::EthernetAddress;

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::Lan;
use crate::topology::*;

/// Where an ARP message begins in a frame.
const ARP: usize = 14;

/// An ANNOUNCE of a free set, with other bytes at `at` of the ARP message.
fn altered(at: usize, bytes: &[u8]) -> Vec<u8> {
    patched(announce(H3, SHARED, psid("0,4,3")), ARP + at, bytes)
}

fn case(name: &str, shows: &str, rules: &'static str) -> Case {
    Case::new(format!("malformed/{name}"), Setup::Router, shows, rules)
}

fn each(mut case: Case, frames: impl IntoIterator<Item = Vec<u8>>, reason: &str) -> Case {
    for frame in frames {
        case = case.given(Lan, frame).drops(reason);
    }
    case
}

pub(crate) fn cases() -> Vec<Case> {
    let whole = announce(H3, SHARED, psid("0,4,3"));
    let records: [[u8; 8]; 11] = [
        // No such kind.
        [0, 0, 0x30, 0, 0x3F, 0xFF, 0, 60],
        [5, 0, 0x30, 0, 0x3F, 0xFF, 0, 60],
        // RANGE whose first is above its last.
        [1, 0, 0x3F, 0xFF, 0x30, 0, 0, 60],
        // PSID with a > 15, with a + k > 16, with a bit below the k bits.
        [2, 0, 16, 0, 0, 0, 0, 60],
        [2, 0, 0, 17, 0, 0, 0, 60],
        [2, 0, 9, 8, 0, 0, 0, 60],
        [2, 0, 0, 4, 0x30, 1, 0, 60],
        [2, 0, 0, 4, 0x38, 0, 0, 60],
        // FULL with another body.
        [3, 0, 0, 0, 0, 0, 0, 60],
        [3, 0, 0, 1, 0xFF, 0xFF, 0, 60],
        [255, 0, 0, 0, 0xFF, 0xFF, 0, 60],
    ];
    let group = EthernetAddress([1, 0, 0x5E, 0, 0, 1]);
    let sent_by =
        |ethernet: EthernetAddress, sender: EthernetAddress| patched(altered(8, &sender.0), 6, &ethernet.0);
    let plain = || arp_request((LEGACY_MAC, LEGACY), ROUTER);
    let from = |ip: [u8; 4]| altered(14, &ip);
    let plain_from = |ip: [u8; 4]| patched(plain(), ARP + 14, &ip);
    vec![
        each(
            case(
                "format",
                "Hardware type, lengths and protocol are those of §3.1, or the message is no PE-ARP.",
                "PE-ARP rule 8",
            ),
            [(0, [0, 6]), (2, [8, 1]), (2, [0x88, 0xB6]), (4, [8, 8]), (4, [6, 4])]
                .map(|(at, bytes)| altered(at, &bytes)),
            "arp_format",
        ),
        each(
            case("version", "Another version is not understood.", "PE-ARP rule 8"),
            [0x01, 0x21, 0xF1].map(|byte| altered(36, &[byte])),
            "pe_arp_version",
        ),
        each(
            case("operation", "An operation other than 1, 2 and 10 is not understood.", "PE-ARP rule 12"),
            [0, 3, 9, 11].map(|op| altered(6, &[0, op])),
            "pe_arp_operation",
        ),
        each(
            case("records", "A message with an invalid record is dropped whole.", "PE-ARP rule 11"),
            records.map(|record| altered(38, &record)),
            "pe_arp_record",
        ),
        each(
            case("truncated", "A message that ends before its records do is dropped.", "PE-ARP rule 8"),
            [
                altered(37, &[2]),
                altered(37, &[255]),
                whole[..59].to_vec(),
                whole[..ARP + 38].to_vec(),
                whole[..ARP].to_vec(),
            ],
            "truncated",
        ),
        each(
            case("sender", "The sender is the Ethernet source, and one station's.", "PE-ARP rule 9"),
            [
                sent_by(H3, H1),
                sent_by(STRANGER, H3),
                sent_by(group, group),
                sent_by(EVERYBODY, EVERYBODY),
                sent_by(H3, ROUTER_MAC),
            ],
            "arp_sender",
        ),
        each(
            case("own_echo", "A frame of the router that comes back is a loop.", "PE-ARP rule 9"),
            [sent_by(ROUTER_MAC, ROUTER_MAC), sent_by(ROUTER_MAC, H3)],
            "own_echo",
        ),
        each(
            case("addresses", "Nobody has these addresses, in PE-ARP and in plain ARP.", "PE-ARP rule 10"),
            [[0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4], LAN_BROADCAST.octets()]
                .into_iter()
                .flat_map(|ip| [from(ip), plain_from(ip)]),
            "arp_address",
        ),
        each(
            case(
                "plain",
                "Plain ARP with another format, or cut short, is dropped.",
                "PE-ARP rule 8; RFC 826",
            ),
            [
                patched(plain(), ARP, &[0, 6]),
                patched(plain(), ARP + 4, &[6, 8]),
                patched(plain(), ARP + 6, &[0, 3]),
            ],
            "arp_format",
        )
        .given(Lan, plain()[..ARP + 27].to_vec())
        .drops("truncated"),
    ]
}
