//! Golden PE-ARP frames and port-set vectors.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use pearp::ports::{PortRange, Psid, Scheme};
use pearp::wire::pe_arp::{Claim, DEFAULT_PRO, Kind, Lifetime, Message, Packet, PeAddress, Record};
use pearp::wire::{ETHERNET_HEADER, EthernetAddress, EthernetFrame, EthernetProtocol, TCP, pe_arp_frame};

const VECTORS: &str = include_str!("pe-arp-golden.txt");

const SHARED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
const ROUTER: PeAddress = PeAddress { router: true, ..PeAddress::new(Ipv4Addr::new(192, 0, 2, 1)) };
const BROADCAST: EthernetAddress = EthernetAddress::BROADCAST;

const fn mac(last: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0, last])
}

/// Name → bytes of every frame in the vector file.
fn frames() -> BTreeMap<String, Vec<u8>> {
    let mut frames = BTreeMap::new();
    let mut name = String::new();
    for line in VECTORS.lines() {
        if line.starts_with('G') {
            name = line.split_whitespace().next().unwrap().to_owned();
            frames.insert(name.clone(), Vec::new());
        } else if line.starts_with("   ") {
            let bytes = line.split_whitespace().skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap());
            frames.get_mut(&name).unwrap().extend(bytes);
        }
    }
    assert_eq!(frames.len(), 10);
    frames
}

fn parse(frame: &[u8]) -> Option<(EthernetAddress, Message)> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    assert_eq!(ethernet.ethertype(), EthernetProtocol::Arp);
    let packet = Packet::new_checked(ethernet.payload(), DEFAULT_PRO).ok()?;
    Some((ethernet.dst_addr(), Message::parse(&packet).ok()?))
}

#[test]
fn every_frame_parses_and_re_emits_byte_for_byte() {
    use Kind::{Announce, Conflict, Nak, Probe, Release, Reply, Resolve, SolicitAll};
    let kinds = [Resolve, Conflict, Reply, Announce, Probe, Nak, SolicitAll, Conflict, Release, Resolve];
    let kinds: BTreeMap<_, _> =
        ["G1", "", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9"].into_iter().zip(kinds).collect();
    for (name, bytes) in frames() {
        let (destination, message) = parse(&bytes).unwrap_or_else(|| panic!("{name} does not parse"));
        assert_eq!(message.kind(), kinds.get(name.as_str()).copied().unwrap_or(Reply), "{name}");
        assert_eq!(pe_arp_frame(destination, &message, DEFAULT_PRO).bytes(), bytes, "{name}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for (name, bytes) in frames() {
        let (_, message) = parse(&bytes).unwrap();
        let whole = ETHERNET_HEADER + message.buffer_len();
        for len in 0..bytes.len() {
            // Behind the message there is only padding.
            assert_eq!(parse(&bytes[..len]).is_some(), len >= whole, "{name} cut to {len}");
        }
    }
}

#[test]
fn constructors_give_the_golden_bytes() {
    let frames = frames();
    let port = PeAddress { shared: true, ..PeAddress::new(SHARED) };
    let first = port.with_port(0, Some(4096));
    let hour = Lifetime::Seconds(3600);
    let range = |first, last| PortRange::new(first, last).unwrap();
    let own = [Record::new(Claim::Range(range(4096, 8191)), hour)];
    let psid = [Record::new(Claim::Psid("6,8,0x34".parse().unwrap()), hour)];
    let portless = [own[0], Record::new(Claim::Portless(47), hour)];
    let asked = port.with_port(TCP, Some(1232));
    let unowned = port.with_port(TCP, Some(9000));

    let expected = [
        ("G1", BROADCAST, Message::resolve(mac(1), ROUTER, asked, &[])),
        ("G2", mac(1), Message::reply(mac(0xA), asked, mac(1), ROUTER, &psid)),
        ("G3", BROADCAST, Message::announce(mac(0xA), first, &own)),
        ("G4", BROADCAST, Message::probe(mac(0xA), first, &own)),
        ("G5", mac(1), {
            let gap = range(8192, 12287);
            Message::nak(
                mac(5),
                unowned,
                mac(1),
                ROUTER,
                Record::new(Claim::Range(gap), Lifetime::Seconds(60)),
            )
        }),
        ("G6", BROADCAST, Message::solicit_all(mac(1), ROUTER, SHARED)),
        ("G7", mac(0xB), Message::conflict(mac(0xA), first, mac(0xB), &own)),
        ("G8", BROADCAST, Message::release(mac(0xA), first, &own)),
        ("G9", BROADCAST, Message::resolve(mac(0xA), port, port.with_port(TCP, Some(20000)), &[])),
        ("G10", mac(1), Message::reply(mac(0xA), port.with_port(47, None), mac(1), ROUTER, &portless)),
    ];
    for (name, destination, message) in expected {
        assert_eq!(pe_arp_frame(destination, &message, DEFAULT_PRO).bytes(), frames[name], "{name}");
    }
}

#[test]
fn invalid_messages_are_refused_whole() {
    let frames = frames();
    let patch = |name: &str, at: usize, value: u8| {
        let mut bytes = frames[name].clone();
        bytes[at] = value;
        parse(&bytes)
    };
    assert!(patch("G2", 14 + 1, 6).is_none(), "hardware type");
    assert!(patch("G2", 14 + 4, 8).is_none(), "hardware length");
    assert!(patch("G2", 14 + 5, 4).is_none(), "protocol length");
    assert!(patch("G2", 14 + 7, 3).is_none(), "operation");
    assert!(patch("G2", 14 + 36, 0x21).is_none(), "version");
    assert!(patch("G2", 14 + 37, 2).is_none(), "record count past the end");
    assert!(patch("G2", 14 + 38, 5).is_none(), "record kind");
    assert!(patch("G2", 14 + 40, 16).is_none(), "a > 15");
    assert!(patch("G2", 14 + 41, 11).is_none(), "a + k > 16");
    assert!(patch("G2", 14 + 43, 1).is_none(), "bits below the PSID");
    assert!(patch("G3", 14 + 40, 0x30).is_none(), "first > last");
}

#[test]
fn port_set_vectors() {
    let mut lines = 0;
    for line in VECTORS.lines().filter(|line| line.starts_with("a=")) {
        lines += 1;
        let field = |name: &str| {
            let rest = &line[line.find(name).unwrap_or_else(|| panic!("{name} in {line}")) + name.len()..];
            rest.to_owned()
        };
        let number = |name: &str| -> u32 {
            let text: String = field(name).chars().take_while(char::is_ascii_digit).collect();
            text.parse().unwrap()
        };
        let pair = |name: &str| -> (u16, u16) {
            let text = field(name);
            let (first, last) = text[1..text.find(')').unwrap()].split_once(", ").unwrap();
            (first.parse().unwrap(), last.parse().unwrap())
        };
        let scheme = Scheme::new(number("a=") as u8, number("k=") as u8).unwrap();
        let set = |value| Psid::new(scheme, value).unwrap();
        let first = |value| {
            let range = set(value).ranges().next().unwrap();
            (range.first(), range.last())
        };
        assert_eq!(scheme.sets(), number("ratio="), "{line}");
        assert_eq!(set(1).ranges().count() as u32, number("ranges="), "{line}");
        assert_eq!(first(1), pair(" first="), "{line}");
        assert_eq!(first(0), pair("psid0 first="), "{line}");
        assert_eq!(set(0).count(), number("ports/psid=["), "{line}");
    }
    assert_eq!(lines, 9);
}
