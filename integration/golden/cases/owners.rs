//! Who owns a packet, and who may send it: fragments, protocols without ports, sources (rules 59 to 66, 83 and 108 to
//! 111).

use std::net::Ipv4Addr;

use pearp::wire::pe_arp::{Claim, Lifetime, Message, Record};

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside, Tun};
use crate::topology::*;

const GRE: u8 = 47;
const ESP: u8 = 50;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

pub(crate) fn cases() -> Vec<Case> {
    [asked_for(), fragments(), portless(), sources()].concat()
}

/// A packet cut at these bytes of its payload.
fn pieces(packet: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let end = packet.len() - 20;
    let starts = [0].iter().chain(cuts).copied();
    let ends = cuts.iter().copied().chain([end]);
    let piece = |(from, to): (usize, usize)| {
        let bytes = [&packet[..20], &packet[20 + from..20 + to]].concat();
        with(bytes, |view| {
            view.set_total_len((20 + to - from) as u16);
            view.set_frag_offset(from as u16);
            view.set_more_frags(to < end);
            view.set_dont_frag(false);
        })
    };
    starts.zip(ends).map(piece).collect()
}

fn fragments() -> Vec<Case> {
    let case = |name: &str, setup, shows: &str| {
        Case::new(format!("fragments/{name}"), setup, shows, "PE-ARP rule 63")
    };
    let datagram = udp_of((SERVER, 53), (SHARED, 5000), 308);
    let three = pieces(&datagram, &[96, 192]);
    let [first, second, third] = [0, 1, 2].map(|at| three[at].clone());
    let arrives = |case: Case, piece: &[u8]| case.given(Outside, from_server(piece));
    let passes = |case: Case, piece: &[u8]| case.forwards(Lan, to_host(H1, &forwarded(piece)));
    let both = |case, piece: &[u8]| passes(arrives(case, piece), piece);
    let other = with(third.clone(), |view| view.set_ident(0x7777));
    let overlapping = pieces(&datagram, &[96, 184]).swap_remove(2);
    let syn = tcp((SERVER, 443), (SHARED, 5000));
    let tiny = pieces(&syn, &[8, 16]);
    let large = without_df(udp_of((SERVER, 53), (SHARED, 5000), 1500));
    let cut = pieces(&large, &[1376]);
    let start = |name: &str, shows: &str| case(name, Setup::Router, shows);
    vec![
        both(both(both(start("in_order", "Later fragments follow the first."), &first), &second), &third),
        {
            let held = arrives(
                arrives(start("last_first", "Later fragments that come first are held for it."), &third),
                &second,
            );
            passes(passes(both(held, &first), &third), &second)
        },
        {
            let held = arrives(
                start("shuffled", "A fragment that overtook the first is held; one behind it is not."),
                &second,
            );
            both(passes(both(held, &first), &second), &third)
        },
        arrives(
            both(both(start("duplicate", "A second copy of a fragment is dropped."), &first), &second),
            &second,
        )
        .drops("fragment_overlap"),
        arrives(
            both(
                both(start("overlapping", "A fragment with bytes that came before is dropped."), &first),
                &second,
            ),
            &overlapping,
        )
        .drops("fragment_overlap"),
        arrives(
            start("tiny", "A first fragment that ends before the flags of TCP is dropped: RFC 1858 §3."),
            &tiny[0],
        )
        .drops("fragment_tiny"),
        arrives(
            arrives(
                start(
                    "never_first",
                    "Fragments whose first one does not come are dropped after 2 s, in silence.",
                ),
                &second,
            ),
            &third,
        )
        .wait(1999)
        .drops("fragment_timeout")
        .drops("fragment_timeout"),
        arrives(
            both(
                both(
                    both(start("by_identification", "Another datagram's fragment does not follow."), &first),
                    &second,
                ),
                &third,
            ),
            &other,
        )
        .wait(2000)
        .drops("fragment_timeout"),
        case("made", Setup::NarrowLan, "Without DF a packet that is too large for the next link is cut.")
            .given(Outside, from_server(&large))
            .forwards(Lan, to_host(H1, &forwarded(&cut[0])))
            .originates(Lan, to_host(H1, &forwarded(&cut[1]))),
    ]
}

/// Ports where TCP has them, and 40 bytes in all.
fn ports_of(protocol: u8, from: End, to: End) -> Vec<u8> {
    let mut payload = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    payload.resize(40, 0x5A);
    ip(from.0, to.0, protocol, &payload)
}

fn esp(from: Ipv4Addr, to: Ipv4Addr, spi: u32) -> Vec<u8> {
    ip(from, to, ESP, &[&spi.to_be_bytes()[..], &[0x5A; 36]].concat())
}

fn gre(from: Ipv4Addr, to: Ipv4Addr, key: Option<u32>) -> Vec<u8> {
    let header = if key.is_some() { [0x20, 0, 8, 0] } else { [0, 0, 8, 0] };
    let key = key.map_or(Vec::new(), |key| key.to_be_bytes().to_vec());
    ip(from, to, GRE, &[&header[..], &key, &[0x5A; 32]].concat())
}

fn portless() -> Vec<Case> {
    let case =
        |name: &str, setup, shows: &str, rules| Case::new(format!("portless/{name}"), setup, shows, rules);
    let arrives = |case: Case, packet: &[u8], host| {
        case.given(Outside, from_server(packet)).forwards(Lan, to_host(host, &forwarded(packet)))
    };
    let mut ports =
        case("ports", Setup::Router, "SCTP, DCCP and UDP-Lite go by their ports.", "PE-ARP rule 59");
    let mut errors = case(
        "errors",
        Setup::Router,
        "Errors about SCTP, DCCP and UDP-Lite go by the embedded source port.",
        "PE-ARP rule 62",
    );
    let mut cut = case("cut", Setup::Router, "What ends before its ports is dropped.", "PE-ARP rule 59");
    for protocol in [SCTP, DCCP, UDP_LITE] {
        ports = arrives(ports, &ports_of(protocol, (SERVER, 9), (SHARED, 5000)), H1);
        ports = arrives(ports, &ports_of(protocol, (SERVER, 9), (SCATTERED, 1056)), H2);
        let about = ports_of(protocol, (SHARED, 9000), (SERVER, 9));
        errors = arrives(errors, &icmp_error(SERVER, SHARED, (3, 3), &about), H2);
        cut = cut
            .given(Outside, from_server(&ip(SERVER, SHARED, protocol, &[0x13, 0x88, 0x13])))
            .drops("truncated");
    }
    let low_bits =
        |case| arrives(arrives(case, &esp(SERVER, SHARED, 0xABCD_1388), H1), &esp(SERVER, SHARED, 9000), H2);
    let keyed = |case| {
        let packet = |key| gre(SERVER, SHARED, Some(key));
        arrives(arrives(case, &packet(0xABCD_1388), H1), &packet(9000), H2)
    };
    let inward = ports_of(SCTP, (SERVER, 9), (SHARED, 5000));
    let outward = ports_of(SCTP, (SHARED, 5000), (SERVER, 9));
    vec![
        ports,
        errors,
        cut,
        low_bits(case("esp", Setup::Router, "ESP goes by the low 16 bits of its SPI.", "PE-ARP rule 64")),
        keyed(case(
            "gre_key",
            Setup::Router,
            "GRE with a key goes by the low 16 bits of it.",
            "PE-ARP rule 65",
        )),
        case(
            "host",
            Setup::Host,
            "A host takes and sends SCTP by its ports, ESP by its SPI.",
            "PE-ARP rules 59, 64, 87, 89",
        )
        .given(Lan, frame(ROUTER_MAC, H1, &inward))
        .forwards(Tun, inward)
        .given(Tun, outward.clone())
        .forwards(Lan, frame(H1, ROUTER_MAC, &outward))
        .given(Lan, frame(ROUTER_MAC, H1, &esp(SERVER, SHARED, 5000)))
        .forwards(Tun, esp(SERVER, SHARED, 5000))
        .given(Lan, frame(ROUTER_MAC, H1, &ports_of(SCTP, (SERVER, 9), (SHARED, 9000))))
        .drops("not_our_port"),
    ]
}

/// What has no port and is asked for by its protocol: this is so already.
fn asked_for() -> Vec<Case> {
    let case =
        |name: &str, setup, shows: &str, rules| Case::new(format!("portless/{name}"), setup, shows, rules);
    let without = gre(SERVER, SHARED, None);
    let timestamp = icmp(SERVER, SHARED, (13, 0), [0, 77, 0, 3], &[0; 12]);
    let asks = |protocol| router_asks(SHARED, protocol, None);
    let owned = Record::new(Claim::Portless(GRE), Lifetime::Unknown);
    let asked = shared(SHARED).with_port(GRE, None);
    let reply = Message::reply(H3, asked, ROUTER_MAC, ROUTER_PE, &[psid("0,4,3"), owned]);
    let nobody = |name: &str, shows: &str, protocol, packet: &[u8]| {
        let case =
            case(name, Setup::Router, shows, "PE-ARP rules 66, 83").given(Outside, from_server(packet));
        case.asks_in_vain(Lan, &asks(protocol))
            .drops("unreachable")
            .originates(Outside, to_server(&own_error_late(OUTSIDE_ROUTER, (3, 1), packet)))
    };
    let leak = gre(SHARED, SERVER, None);
    vec![
        case(
            "gre",
            Setup::Router,
            "The owner of GRE without a key is asked for, and says so by a PORTLESS record.",
            "PE-ARP rules 65, 66",
        )
        .given(Outside, from_server(&without))
        .says(Lan, asks(GRE))
        .given(Lan, pe(ROUTER_MAC, &reply))
        .takes()
        .forwards(Lan, to_host(H3, &forwarded(&without))),
        nobody("nobody", "What nobody owns is dropped, and the sender told.", GRE, &without),
        nobody("timestamp", "ICMP other than echo and errors has no port.", ICMP, &timestamp),
        case(
            "host_leak",
            Setup::Host,
            "Portless traffic leaves only from its owner; the program is told.",
            "PE-ARP rules 87, 88",
        )
        .given(Tun, leak.clone())
        .drops("portless")
        .originates(Tun, own_error(SHARED, (3, 13), &leak)),
    ]
}

fn sources() -> Vec<Case> {
    let case =
        |name: &str, shows: &str, rules| Case::new(format!("sources/{name}"), Setup::Authority, shows, rules);
    let dropped =
        |case: Case, host, packet: &[u8]| case.given(Lan, from_host(host, packet)).drops("spoofed_port");
    let of_h1 = [
        tcp((SHARED, 5000), (SERVER, 443)),
        udp((SHARED, 5000), (SHARED, 9000)),
        echo_request(SHARED, SERVER, 5000),
    ];
    let mut stolen =
        case("port", "h2 cannot send from a port or identifier of h1.", "PE-ARP rule 110; RFC 7597 §8.1");
    let mut unknown = case(
        "stranger",
        "A host without a lease cannot send from any port of the shared address.",
        "PE-ARP rule 110",
    );
    for packet in &of_h1 {
        stolen = dropped(stolen, H2, packet);
        unknown = dropped(unknown, STRANGER, packet);
    }
    let refused = |to| icmp_error(SHARED, SERVER, (3, 3), &udp((SERVER, 53), to));
    vec![
        stolen,
        unknown,
        dropped(
            case("unowned", "A port that nobody leased is nobody's to send from.", "PE-ARP rule 110"),
            H1,
            &udp((SHARED, 20_000), (SERVER, 53)),
        ),
        case("icmp_error", "An ICMP error tells only of what its sender got.", "PE-ARP rule 111")
            .given(Lan, from_host(H2, &refused((SHARED, 9000))))
            .forwards(Outside, to_server(&forwarded(&refused((SHARED, 9000)))))
            .given(Lan, from_host(H2, &refused((SHARED, 5000))))
            .drops("spoofed_error"),
        case("outside", "Nobody outside sends from an address of the LAN.", "RFC 2827; RFC 1812 §5.3.8")
            .given(Outside, from_server(&udp((SHARED, 5000), (SHARED, 9000))))
            .drops("spoofed_address")
            .given(Outside, from_server(&udp((LEGACY, 53), (SHARED, 9000))))
            .drops("spoofed_address"),
    ]
}
