//! A sharing host: between its programs and the LAN.

use std::net::Ipv4Addr;

use pearp::ports::PortRange;
use pearp::wire::EthernetAddress;
use pearp::wire::pe_arp::{Claim, Lifetime, Message, PeAddress, Record};

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Tun};
use crate::topology::*;

/// A port of the program part, and the one port of the stack part.
const PROGRAM: u16 = 5000;
const MAPPED: u16 = 8191;
/// A port outside the set, and another.
const LEAK: u16 = 1234;
const SECOND_LEAK: u16 = 1235;

const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

fn case(setup: Setup, name: &str, shows: &str, rules: &'static str) -> Case {
    Case::new(format!("host/{name}"), setup, shows, rules)
}

/// A frame on the LAN, from the router to h1 and back.
fn arriving(packet: &[u8]) -> Vec<u8> {
    frame(ROUTER_MAC, H1, packet)
}

fn leaving(packet: &[u8]) -> Vec<u8> {
    frame(H1, ROUTER_MAC, packet)
}

pub(crate) fn cases() -> Vec<Case> {
    [both_ways(), next_hops(), not_ours(), leaks(), pings(), groups(), stack(), whole_host()].concat()
}

fn both_ways() -> Vec<Case> {
    let out = tcp((SHARED, PROGRAM), (SERVER, 443));
    let back = tcp((SERVER, 443), (SHARED, PROGRAM));
    let short = udp_with((SERVER, 53), (SHARED, PROGRAM), b"hi");
    let mut padded = bare(ROUTER_MAC, H1, &short);
    padded.resize(60, 0xEE);
    let local = udp((SHARED, PROGRAM), (SHARED, 5001));
    let refused = |port| icmp_error(SHARED, SERVER, (3, 3), &udp((SERVER, 53), (SHARED, port)));
    let of_another = icmp_error(SHARED, SERVER, (3, 3), &udp((SERVER, 53), (LEGACY, PROGRAM)));
    vec![
        case(
            Setup::Host,
            "tcp",
            "A SYN of a program leaves by the gateway, and the answer comes back, both as they are.",
            "PE-ARP rules 86, 87, 89",
        )
        .given(Tun, out.clone())
        .forwards(Lan, leaving(&out))
        .given(Lan, arriving(&back))
        .forwards(Tun, back),
        case(Setup::Host, "padding", "Programs get no Ethernet padding.", "RFC 894")
            .given(Lan, padded)
            .forwards(Tun, short),
        case(
            Setup::Host,
            "ttl_1",
            "The host is the end of the way: TTL 1 and 0 are as good as any.",
            "RFC 1122 §3.2.1.7",
        )
        .given(Lan, arriving(&ttl(&back_of_ttl(), 1)))
        .forwards(Tun, ttl(&back_of_ttl(), 1))
        .given(Lan, arriving(&ttl(&back_of_ttl(), 0)))
        .forwards(Tun, ttl(&back_of_ttl(), 0)),
        case(
            Setup::Host,
            "loop_back",
            "What is for an own port comes back to the programs.",
            "PE-ARP rule 90",
        )
        .given(Tun, local.clone())
        .forwards(Tun, local),
        case(
            Setup::Host,
            "icmp_error_out",
            "An ICMP error leaves only about what was for the host's own port.",
            "PE-ARP rule 94",
        )
        .given(Tun, refused(PROGRAM))
        .forwards(Lan, leaving(&refused(PROGRAM)))
        .given(Tun, refused(9000))
        .drops("foreign_error")
        .given(Tun, of_another)
        .drops("foreign_error"),
        case(
            Setup::Host,
            "icmp_error_in",
            "An ICMP error about a packet of a program is for the programs.",
            "PE-ARP rule 62",
        )
        .given(Lan, arriving(&icmp_error(ROUTER, SHARED, (11, 0), &ttl(&out_of_ttl(), 1))))
        .forwards(Tun, icmp_error(ROUTER, SHARED, (11, 0), &ttl(&out_of_ttl(), 1))),
    ]
}

fn back_of_ttl() -> Vec<u8> {
    udp((SERVER, 53), (SHARED, PROGRAM))
}

fn out_of_ttl() -> Vec<u8> {
    udp((SHARED, PROGRAM), (SERVER, 53))
}

fn next_hops() -> Vec<Case> {
    let to_h2 = tcp((SHARED, PROGRAM), (SHARED, 9000));
    let to_h3 = udp((SHARED, PROGRAM), (SHARED, 13_000));
    let to_legacy = tcp((SHARED, PROGRAM), (LEGACY, 80));
    let upstream = udp((SHARED, PROGRAM), (SERVER, 53));
    let nobody = (H1, Ipv4Addr::UNSPECIFIED);
    let port = |protocol, port| shared(SHARED).with_port(protocol, Some(port));
    let to_h1 =
        |owner, asked, records: &[Record]| pe(H1, &Message::reply(owner, asked, H1, shared(SHARED), records));
    let of_router = PeAddress::new(ROUTER).with_port(0, Some(0));
    let asks_gateway =
        |case: Case| case.says(Lan, h1_asks(EVERYBODY, of_router)).says(Lan, arp_request(nobody, ROUTER));
    let new = |name: &str, shows: &str, rules| {
        asks_gateway(case(Setup::NewHost, name, shows, rules).given(Tun, upstream.clone()))
    };
    let unowned = udp((SHARED, PROGRAM), (SHARED, 20_000));
    let gap = Record::new(Claim::Range(PortRange::new(16_384, 24_575).unwrap()), Lifetime::Seconds(60));
    let nak = Message::nak(AUTHORITY, port(UDP, 20_000), H1, shared(SHARED), gap);
    let told =
        |case: Case, reason: &str| case.drops(reason).originates(Tun, own_error(SHARED, (3, 1), &unowned));
    let refused = case(
        Setup::Host,
        "nak",
        "An authority says that nobody has the port: the program is told, and the next time at once.",
        "PE-ARP rules 43, 46, 83",
    )
    .given(Tun, unowned.clone())
    .says(Lan, h1_asks(EVERYBODY, port(UDP, 20_000)))
    .given(Lan, pe(H1, &nak))
    .takes();
    vec![
        case(
            Setup::Host,
            "sharer",
            "Another sharer that is known is sent to directly.",
            "PE-ARP rules 6, 86, 90",
        )
        .given(Tun, to_h2.clone())
        .forwards(Lan, frame(H1, H2, &to_h2)),
        case(
            Setup::Host,
            "sharer_asked_for",
            "A sharer that is not known is asked for by PE-ARP alone, with the own set.",
            "PE-ARP rules 3, 6, 22, 86",
        )
        .given(Tun, to_h3.clone())
        .says(Lan, h1_asks(EVERYBODY, port(UDP, 13_000)))
        .given(Lan, to_h1(H3, port(UDP, 13_000), &[psid("0,4,3")]))
        .takes()
        .forwards(Lan, frame(H1, H3, &to_h3)),
        case(
            Setup::Host,
            "legacy_asked_for",
            "A legacy host is asked for by plain ARP, too, from 0.0.0.0, as the own address is shared.",
            "PE-ARP rules 3, 40, 86",
        )
        .given(Tun, to_legacy.clone())
        .says(Lan, h1_asks(EVERYBODY, PeAddress::new(LEGACY).with_port(TCP, Some(80))))
        .says(Lan, arp_request(nobody, LEGACY))
        .given(Lan, arp_reply((LEGACY_MAC, LEGACY), (H1, Ipv4Addr::UNSPECIFIED)))
        .takes()
        .forwards(Lan, frame(H1, LEGACY_MAC, &to_legacy)),
        new(
            "gateway_plain",
            "The gateway is asked for in both ways; a plain answer will do.",
            "PE-ARP rules 3, 39, 40",
        )
        .given(Lan, arp_reply((ROUTER_MAC, ROUTER), (H1, Ipv4Addr::UNSPECIFIED)))
        .takes()
        .forwards(Lan, leaving(&upstream)),
        new("gateway_reply", "The gateway answers by PE-ARP with a FULL record.", "PE-ARP rules 39, 79")
            .given(Lan, to_h1(ROUTER_MAC, ROUTER_PE.with_port(0, Some(0)), &[FULL]))
            .takes()
            .forwards(Lan, leaving(&upstream)),
        asks_gateway(
            asks_gateway(
                new(
                    "gateway_away",
                    "No gateway: three questions, and the program is told.",
                    "PE-ARP rules 38, 42; RFC 1122 §3.2.2.1",
                )
                .wait(1000),
            )
            .wait(1000),
        )
        .wait(1000)
        .drops("unreachable")
        .originates(Tun, own_error(SHARED, (3, 1), &upstream)),
        told(told(refused, "no_owner").given(Tun, unowned.clone()), "no_owner"),
    ]
}

/// What a sharing host must not take, and says nothing about.
fn not_ours() -> Vec<Case> {
    let dropped = |name: &str, shows: &str, rules, frames: Vec<Vec<u8>>, reason: &str| {
        let mut case = case(Setup::Host, name, shows, rules);
        for frame in frames {
            case = case.given(Lan, frame).drops(reason);
        }
        case
    };
    let to = |port| [tcp((SERVER, 443), (SHARED, port)), udp((SERVER, 53), (SHARED, port))];
    let others: Vec<_> =
        [0, 80, 4095, 8192, 65_535].into_iter().flat_map(to).map(|packet| arriving(&packet)).collect();
    let about = udp((SHARED, 9000), (SERVER, 53));
    let martians = [
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 9],
        [240, 0, 0, 1],
        [255; 4],
        LAN_BROADCAST.octets(),
        [0; 4],
    ];
    let packet = udp((SERVER, 53), (SHARED, PROGRAM));
    vec![
        dropped(
            "other_port",
            "A packet to a port outside the set is dropped in silence.",
            "PE-ARP rules 7, 89",
            others,
            "not_our_port",
        ),
        dropped(
            "error_of_other_port",
            "An ICMP error about a port outside the set is dropped in silence.",
            "PE-ARP rules 7, 62, 89",
            vec![arriving(&icmp_error(SERVER, SHARED, (3, 3), &about))],
            "not_our_port",
        ),
        dropped(
            "other_address",
            "A packet to another address is not this host's.",
            "RFC 1122 §3.2.1.3",
            vec![arriving(&udp((SERVER, 53), (LEGACY, PROGRAM))), frame(ROUTER_MAC, EVERYBODY, &packet)],
            "not_our_address",
        ),
        dropped(
            "martian_source",
            "A source that no host has is dropped.",
            "PE-ARP rule 89; RFC 1122 §3.2.1.3",
            martians.map(|ip| arriving(&udp((ip.into(), 53), (SHARED, PROGRAM)))).to_vec(),
            "martian_source",
        ),
        dropped(
            "own_source",
            "Nobody else sends from the host's own address and ports.",
            "PE-ARP rule 89; RFC 1122 §3.2.1.3",
            vec![
                frame(H2, H1, &udp((SHARED, PROGRAM), (SHARED, 5001))),
                frame(H2, H1, &tcp((SHARED, MAPPED), (SHARED, 5001))),
            ],
            "martian_source",
        ),
        dropped(
            "other_station",
            "A frame for another station is not this host's.",
            "RFC 1122 §2.3",
            vec![frame(ROUTER_MAC, H2, &packet)],
            "not_our_frame",
        ),
        dropped(
            "checksum",
            "A header with a wrong checksum is dropped.",
            "RFC 1122 §3.2.1.2",
            vec![arriving(&patched(packet.clone(), 10, &[0, 1]))],
            "header_checksum",
        ),
        dropped(
            "truncated",
            "A packet that ends before its total length, or before its ports, is dropped.",
            "PE-ARP rule 59; RFC 1122 §3.2.1",
            vec![
                bare(ROUTER_MAC, H1, &packet[..40]),
                arriving(&ip(SERVER, SHARED, UDP, &[0x13, 0x88, 0x13])),
            ],
            "truncated",
        ),
        case(
            Setup::Host,
            "foreign_source",
            "A program that sends from another address is told that it may not.",
            "PE-ARP rules 87, 88",
        )
        .given(Tun, udp((LEGACY, PROGRAM), (SERVER, 53)))
        .drops("source_address")
        .originates(Tun, own_error(SHARED, (3, 13), &udp((LEGACY, PROGRAM), (SERVER, 53)))),
        case(
            Setup::Host,
            "martian_destination",
            "A program cannot send to what no host has.",
            "RFC 1122 §3.2.1.3",
        )
        .given(Tun, udp((SHARED, PROGRAM), (Ipv4Addr::LOCALHOST, 53)))
        .drops("martian_destination")
        .given(Tun, udp((SHARED, PROGRAM), (Ipv4Addr::new(240, 0, 0, 1), 53)))
        .drops("martian_destination"),
    ]
}

fn leaks() -> Vec<Case> {
    let out = |port| udp((SHARED, port), (SERVER, 53));
    let back = |port| udp((SERVER, 53), (SHARED, port));
    let connect = |port| tcp((SHARED, port), (SERVER, 443));
    let mapped = |name: &str, shows: &str, rules| {
        case(Setup::Host, name, shows, rules)
            .given(Tun, out(LEAK))
            .forwards(Lan, leaving(&out(MAPPED)))
            .more("mapped")
    };
    // The sum of the embedded datagram stays that of the wire: nobody verifies it.
    let told = patched(out(MAPPED), 20, &LEAK.to_be_bytes());
    let rejected = |case: Case, packet: Vec<u8>| {
        case.given(Tun, packet.clone())
            .drops("source_port")
            .originates(Tun, own_error(SHARED, (3, 13), &packet))
    };
    let prohibited = case(
        Setup::StrictHost,
        "leak_rejected",
        "A program that uses a port outside the set is told that it may not, and nothing leaves.",
        "PE-ARP rules 87, 88",
    );
    let stack_port = case(
        Setup::StrictHost,
        "stack_port_rejected",
        "A program may not use a port of the stack part either.",
        "PE-ARP rules 87, 91",
    );
    vec![
        mapped(
            "leak_mapped",
            "A port outside the set becomes one of the stack part on the way out, and comes back as it was.",
            "PE-ARP rules 87, 88",
        )
        .given(Lan, arriving(&back(MAPPED)))
        .forwards(Tun, back(LEAK))
        .given(Tun, out(LEAK))
        .forwards(Lan, leaving(&out(MAPPED)))
        .more("mapped"),
        case(
            Setup::Host,
            "leak_mapped_tcp",
            "A TCP port outside the set is mapped and comes back as one of UDP does.",
            "PE-ARP rule 88",
        )
        .given(Tun, connect(LEAK))
        .forwards(Lan, leaving(&connect(MAPPED)))
        .more("mapped")
        .given(Lan, arriving(&tcp((SERVER, 443), (SHARED, MAPPED))))
        .forwards(Tun, tcp((SERVER, 443), (SHARED, LEAK))),
        mapped(
            "leak_error",
            "An ICMP error about a leak gets the program's port back.",
            "PE-ARP rules 62, 88",
        )
        .given(Lan, arriving(&icmp_error(SERVER, SHARED, (3, 3), &out(MAPPED))))
        .forwards(Tun, icmp_error(SERVER, SHARED, (3, 3), &told)),
        rejected(
            mapped(
                "leak_without_room",
                "Where no port of the stack part is free, a leak is rejected.",
                "PE-ARP rule 88",
            ),
            out(SECOND_LEAK),
        ),
        rejected(rejected(prohibited, out(LEAK)), connect(9000)),
        rejected(stack_port, out(MAPPED)),
    ]
}

fn pings() -> Vec<Case> {
    let out = |identifier| echo_request(SHARED, SERVER, identifier);
    let sent = |name: &str, shows: &str, rules| {
        case(Setup::Host, name, shows, rules).given(Tun, out(77)).forwards(Lan, leaving(&out(MAPPED)))
    };
    let reply = |identifier| echo_reply(SERVER, SHARED, identifier);
    let error = |identifier| icmp_error(ROUTER, SHARED, (11, 0), &out(identifier));
    let own = echo_request(SHARED, SHARED, 77);
    let of_shared = |identifier| echo_request(SHARED, SCATTERED, identifier);
    vec![
        sent(
            "ping",
            "The identifier of a ping becomes one of the stack part, and the reply gets it back.",
            "PE-ARP rule 93",
        )
        .given(Lan, arriving(&reply(MAPPED)))
        .forwards(Tun, reply(77))
        .given(Lan, arriving(&reply(MAPPED)))
        .forwards(Tun, reply(77)),
        sent("ping_error", "An ICMP error about a ping gets its identifier back.", "PE-ARP rules 62, 93")
            .given(Lan, arriving(&error(MAPPED)))
            .forwards(Tun, error(77)),
        sent(
            "ping_without_room",
            "Where no identifier is free, a ping of another program is dropped.",
            "PE-ARP rule 93",
        )
        .given(Tun, out(78))
        .drops("echo_identifier"),
        case(Setup::Host, "ping_own", "A ping of the own address is answered here.", "PE-ARP rule 92")
            .given(Tun, own.clone())
            .takes()
            .originates(Tun, own_echo_reply(SHARED, SHARED, 77))
            .given(Tun, patched(own, 22, &[0, 1]))
            .drops("echo_damaged"),
        case(
            Setup::Host,
            "ping_shared",
            "A ping of an address known to be shared goes to the gateway, which answers for it.",
            "PE-ARP rules 26, 61, 92",
        )
        .given(Lan, announce(H2, SCATTERED, psid("6,6,2")))
        .takes()
        .given(Tun, of_shared(77))
        .forwards(Lan, leaving(&of_shared(MAPPED))),
        case(
            Setup::Host,
            "ping_in",
            "A request reaches its owner where the router leaves it to that; nobody else answers.",
            "PE-ARP rules 61, 89",
        )
        .given(Lan, arriving(&echo_request(SERVER, SHARED, PROGRAM)))
        .forwards(Tun, echo_request(SERVER, SHARED, PROGRAM))
        .given(Lan, frame(H2, H1, &echo_request(SHARED, SHARED, 9000)))
        .drops("echo_identifier"),
        case(
            Setup::Host,
            "reply_to_nobody",
            "A reply to an identifier that is not mapped is dropped.",
            "PE-ARP rules 89, 93",
        )
        .given(Lan, arriving(&reply(MAPPED)))
        .drops("echo_identifier")
        .given(Lan, arriving(&reply(PROGRAM)))
        .drops("echo_identifier")
        .given(Lan, arriving(&error(PROGRAM)))
        .drops("echo_identifier"),
        case(
            Setup::Host,
            "reply_out",
            "A host answers requests with identifiers of its set, and no others.",
            "PE-ARP rules 61, 87",
        )
        .given(Tun, echo_reply(SHARED, SERVER, PROGRAM))
        .forwards(Lan, leaving(&echo_reply(SHARED, SERVER, PROGRAM)))
        .given(Tun, echo_reply(SHARED, SERVER, 9000))
        .drops("echo_identifier"),
    ]
}

fn groups() -> Vec<Case> {
    let group = EthernetAddress([1, 0, 0x5E, 0, 0, 251]);
    let to = |ip| udp((SHARED, 5353), (ip, 5353));
    let from = |source, ip| udp((source, 68), (ip, 5353));
    let inward = [
        (group, from(LEGACY, MDNS)),
        (EVERYBODY, from(LEGACY, Ipv4Addr::BROADCAST)),
        (EVERYBODY, from(LEGACY, LAN_BROADCAST)),
        (EVERYBODY, from(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)),
    ];
    let mut heard = case(
        Setup::Host,
        "groups_in",
        "Programs hear what is for groups and for all, whatever the port; also from a host without an address.",
        "PE-ARP rules 67, 89",
    );
    for (destination, packet) in inward {
        heard = heard.given(Lan, frame(LEGACY_MAC, destination, &packet)).forwards(Tun, packet);
    }
    vec![
        heard,
        case(
            Setup::Host,
            "groups_out",
            "Programs send to groups and to all, from ports of the set.",
            "PE-ARP rules 67, 87; RFC 1112 §6.4",
        )
        .given(Tun, to(MDNS))
        .forwards(Lan, frame(H1, group, &to(MDNS)))
        .given(Tun, to(LAN_BROADCAST))
        .forwards(Lan, frame(H1, EVERYBODY, &to(LAN_BROADCAST)))
        .given(Tun, to(Ipv4Addr::BROADCAST))
        .forwards(Lan, frame(H1, EVERYBODY, &to(Ipv4Addr::BROADCAST))),
    ]
}

/// The host's own stack: UDP echo on 7680, and nothing on 7681.
fn stack() -> Vec<Case> {
    let data = b"golden capture, 24 bytes";
    vec![
        case(
            Setup::EchoHost,
            "stack_echo",
            "The own stack answers at its port.",
            "PE-ARP rules 89, 91; RFC 862",
        )
        .given(Lan, arriving(&udp_with((SERVER, 53), (SHARED, 7680), data)))
        .takes()
        .originates(Lan, leaving(&own_udp((SHARED, 7680), (SERVER, 53), data))),
        case(
            Setup::EchoHost,
            "stack_refuses",
            "At a port that it owns it answers as any host: RST.",
            "PE-ARP rule 89; RFC 9293 §3.5.2",
        )
        .given(Lan, arriving(&tcp((SERVER, 443), (SHARED, 7681))))
        .takes()
        .originates(Lan, bare(H1, ROUTER_MAC, &reset((SHARED, 7681), (SERVER, 443)))),
    ]
}

fn whole_host() -> Vec<Case> {
    let gre = |from, to| ip(from, to, 47, &[0; 40]);
    let ping = echo_request(SHARED, SERVER, 77);
    let (inward, outward) = (tcp((SERVER, 443), (SHARED, 22)), udp((SHARED, 80), (SERVER, 53)));
    let later = |from, to| with(udp((from, 1), (to, 1)), |packet| packet.set_frag_offset(64));
    vec![
        case(
            Setup::WholeHost,
            "whole_ports",
            "A host with a whole address has every port.",
            "PE-ARP rule 76",
        )
        .given(Lan, arriving(&inward))
        .forwards(Tun, inward)
        .given(Tun, outward.clone())
        .forwards(Lan, leaving(&outward)),
        case(
            Setup::WholeHost,
            "whole_portless",
            "A host with a whole address has what has no ports, too, and later fragments.",
            "PE-ARP §11",
        )
        .given(Lan, arriving(&gre(SERVER, SHARED)))
        .forwards(Tun, gre(SERVER, SHARED))
        .given(Tun, gre(SHARED, SERVER))
        .forwards(Lan, leaving(&gre(SHARED, SERVER)))
        .given(Lan, arriving(&later(SERVER, SHARED)))
        .forwards(Tun, later(SERVER, SHARED))
        .given(Tun, later(SHARED, SERVER))
        .forwards(Lan, leaving(&later(SHARED, SERVER))),
        case(
            Setup::WholeHost,
            "whole_ping",
            "The pings of a host with a whole address are its own, in both directions.",
            "PE-ARP rule 76",
        )
        .given(Tun, ping.clone())
        .forwards(Lan, leaving(&ping))
        .given(Lan, arriving(&echo_request(SERVER, SHARED, 77)))
        .forwards(Tun, echo_request(SERVER, SHARED, 77)),
    ]
}
