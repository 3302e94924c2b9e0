//! Where nodes do something else than docs/protocol.md or an RFC asks for. What is written here is what is asked for,
//! so that these captures have no files: a test sees that each still stands. One that is mended moves to its subject;
//! one that is to stay so becomes a DEVIATION in docs/protocol.md.

use pearp::ports::PortRange;
use pearp::wire::pe_arp::{Claim, Lifetime, Record};

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside};
use crate::topology::*;

fn case(setup: Setup, name: &str, shows: &str, rules: &'static str) -> Case {
    Case::new(format!("found/{name}"), setup, shows, rules)
}

pub(crate) fn cases() -> Vec<Case> {
    [claims(), errors(), headers()].concat()
}

fn claims() -> Vec<Case> {
    let to_h1 = tcp((SERVER, 443), (SHARED, 5000));
    let ignored = |name: &str, shows: &str, owned: Record| {
        case(Setup::Router, name, shows, "PE-ARP rules 5, 19, 52")
            .given(Lan, announce(STRANGER, SHARED, owned))
            .drops("conflicting_claim")
            .given(Outside, from_server(&to_h1))
            .forwards(Lan, to_host(H1, &forwarded(&to_h1)))
    };
    let across = Record::new(Claim::Range(PortRange::new(8000, 8999).unwrap()), Lifetime::Unknown);
    vec![
        // It is counted as taken, and stands as soon as the lease ends.
        ignored("claim_of_leased", "A claim to ports that h1 leased is ignored and counted.", psid("0,4,1")),
        ignored("claim_across_sets", "A claim across the sets of h1 and h2 is ignored and counted.", across),
    ]
}

fn errors() -> Vec<Case> {
    let datagram = udp((SERVER, 53), (SHARED, 7681));
    vec![
        // The own stack makes the embedded header anew: no DSCP, no identification, DF.
        case(
            Setup::EchoHost,
            "embedded_header",
            "The own stack embeds the header as it came.",
            "RFC 1122 §3.2.2; RFC 792",
        )
        .given(Lan, frame(ROUTER_MAC, H1, &datagram))
        .takes()
        .originates(Lan, frame(H1, ROUTER_MAC, &own_error(SHARED, (3, 3), &datagram))),
    ]
}

fn headers() -> Vec<Case> {
    let sent = udp((SERVER, 53), (SHARED, 5000));
    let with_route = |route: &[u8]| ip_with_options(SERVER, SHARED, UDP, route, &sent[20..]);
    let room = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let recorded = [7, 11, 8, 198, 51, 100, 1, 0, 0, 0, 0, 0];
    let short = udp_with((SERVER, 53), (SHARED, 13_000), b"hi");
    vec![
        case(
            Setup::Router,
            "record_route",
            "A router writes its address into a Record Route option.",
            "RFC 1812 §5.3.13.5; PE-ARP rule 81 has no DEVIATION",
        )
        .given(Outside, from_server(&with_route(&room)))
        .forwards(Lan, to_host(H1, &forwarded(&with_route(&recorded)))),
        // What waited has lost its padding.
        case(
            Setup::Router,
            "padding_after_wait",
            "A short packet that waited is padded with zeros.",
            "RFC 894",
        )
        .given(Outside, from_server(&short))
        .says(Lan, router_asks(SHARED, UDP, Some(13_000)))
        .given(Lan, answers(H3, (SHARED, UDP, 13_000), psid("0,4,3")))
        .takes()
        .forwards(Lan, to_host(H3, &forwarded(&short))),
    ]
}
