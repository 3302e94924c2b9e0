//! TCP and UDP by port, in both directions.

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside};
use crate::topology::*;

pub(crate) fn cases() -> Vec<Case> {
    [inbound(), unowned(), upstream(), authority()].concat()
}

/// A packet from the server reaches its host.
fn delivered(case: Case, host: smoltcp::wire::EthernetAddress, packet: &[u8]) -> Case {
    case.given(Outside, from_server(packet)).forwards(Lan, to_host(host, &forwarded(packet)))
}

fn inbound() -> Vec<Case> {
    let tcp_to = |to| tcp((SERVER, 443), to);
    let udp_to = |to| udp((SERVER, 53), to);
    let case =
        |name: &str, shows: &str, rules| Case::new(format!("ports/{name}"), Setup::Router, shows, rules);
    let mut bounds = case(
        "bounds_of_sets",
        "The first and the last port of a set belong to it, their neighbors to others.",
        "PE-ARP rules 59, 69",
    );
    for (port, host) in [(4096, H1), (8191, H1), (8192, H2), (12_287, H2)] {
        bounds = delivered(bounds, host, &tcp_to((SHARED, port)));
        bounds = delivered(bounds, host, &udp_to((SHARED, port)));
    }
    let mut scattered = case(
        "scattered_sets",
        "Under scheme (6, 6) each range of a set leads to its owner.",
        "PE-ARP rules 59, 69",
    );
    for (port, host) in [(1040, H1), (1055, H1), (1056, H2), (1071, H2), (2064, H1), (64_544, H2)] {
        scattered = delivered(scattered, host, &tcp_to((SCATTERED, port)));
    }
    let unverified = patched(udp_to((SHARED, 5000)), 26, &[0xDE, 0xAD]);
    let without = patched(udp_to((SHARED, 5000)), 26, &[0, 0]);
    vec![
        delivered(
            case(
                "tcp",
                "A SYN to a port of h1 goes to h1, one hop less and else as it was.",
                "PE-ARP rules 59, 81",
            ),
            H1,
            &tcp_to((SHARED, 5000)),
        ),
        delivered(
            case(
                "udp",
                "A datagram to a port of h2 goes to h2, one hop less and else as it was.",
                "PE-ARP rules 59, 81",
            ),
            H2,
            &udp_to((SHARED, 9000)),
        ),
        bounds,
        scattered,
        delivered(
            delivered(
                case(
                    "udp_checksums",
                    "A wrong UDP checksum, and one that there is none of, are for the receiver.",
                    "PE-ARP rule 81; RFC 768",
                ),
                H1,
                &unverified,
            ),
            H1,
            &without,
        ),
        delivered(
            case(
                "whole_address",
                "A legacy host gets what is for its address, whatever the port.",
                "PE-ARP rule 4",
            ),
            LEGACY_MAC,
            &tcp_to((LEGACY, 80)),
        ),
        delivered(
            delivered(
                case(
                    "whole_address_fragments",
                    "A legacy host gets fragments in any order: nothing of them is looked at.",
                    "PE-ARP §11",
                ),
                LEGACY_MAC,
                &with(udp_to((LEGACY, 53)), |packet| packet.set_frag_offset(64)),
            ),
            LEGACY_MAC,
            &with(udp_to((LEGACY, 53)), |packet| packet.set_more_frags(true)),
        ),
        delivered(
            case("df_and_id", "DF and the identification of a packet are kept.", "PE-ARP rule 81"),
            H1,
            &udp_to((SHARED, 5000)),
        ),
    ]
}

fn unowned() -> Vec<Case> {
    let unassigned = [80, 1023].map(|port| tcp((SERVER, 443), (SCATTERED, port)));
    let mut nobody = Case::new(
        "ports/unassigned",
        Setup::Router,
        "Ports that no PSID of scheme (6, 6) has are dropped without a question, and the sender is told.",
        "PE-ARP rules 37, 69, 83",
    );
    for packet in &unassigned {
        nobody = nobody
            .given(Outside, from_server(packet))
            .drops("unassigned_port")
            .originates(Outside, to_server(&own_error_late(OUTSIDE_ROUTER, (3, 1), packet)));
    }
    let system = tcp((SERVER, 443), (SHARED, 80));
    let asks = || router_asks(SHARED, TCP, Some(80));
    vec![
        nobody,
        Case::new(
            "ports/system",
            Setup::Router,
            "A system port of scheme (0, 4) is asked for, as somebody may have PSID 0, and belongs to nobody.",
            "PE-ARP rules 38, 42, 71, 83",
        )
        .given(Outside, from_server(&system))
        .asks_in_vain(Lan, &asks())
        .drops("unreachable")
        .originates(Outside, to_server(&own_error_late(OUTSIDE_ROUTER, (3, 1), &system))),
    ]
}

fn upstream() -> Vec<Case> {
    let out = |name: &str, shows: &str, packet: Vec<u8>, host| {
        Case::new(format!("ports/{name}"), Setup::Router, shows, "PE-ARP rule 81")
            .given(Lan, from_host(host, &packet))
            .forwards(Outside, to_server(&forwarded(&packet)))
    };
    let lost = udp((SHARED, 5000), (NOWHERE, 53));
    let local = udp((LEGACY, 999), (SHARED, 5000));
    vec![
        out("upstream_tcp", "A SYN of h1 leaves to the server.", tcp((SHARED, 5000), (SERVER, 443)), H1),
        out("upstream_udp", "A datagram of h2 leaves to the server.", udp((SHARED, 9000), (SERVER, 53)), H2),
        out(
            "upstream_legacy",
            "A SYN of the legacy host leaves.",
            tcp((LEGACY, 999), (SERVER, 443)),
            LEGACY_MAC,
        ),
        Case::new(
            "ports/no_route",
            Setup::Router,
            "A sharer that sends to where no route leads is told so, by its port.",
            "PE-ARP rules 62, 83; RFC 1812 §4.3.3.1",
        )
        .given(Lan, from_host(H1, &lost))
        .drops("no_route")
        .originates(Lan, to_host(H1, &own_error(ROUTER, (3, 0), &lost))),
        Case::new(
            "ports/no_redirect",
            Setup::Router,
            "What a legacy host sends to a sharer by way of the router is forwarded, and causes no Redirect.",
            "PE-ARP rules 4, 78",
        )
        .given(Lan, from_host(LEGACY_MAC, &local))
        .forwards(Lan, to_host(H1, &forwarded(&local))),
    ]
}

fn authority() -> Vec<Case> {
    let unowned = udp((SERVER, 53), (SHARED, 20_000));
    vec![
        delivered(
            Case::new(
                "ports/authority_owned",
                Setup::Authority,
                "An authority delivers by the leases that it was told.",
                "PE-ARP rules 59, 121",
            ),
            H2,
            &udp((SERVER, 53), (SHARED, 9000)),
        ),
        Case::new(
            "ports/authority_unowned",
            Setup::Authority,
            "An authority asks nobody about a port that it leased to nobody: the sender is told at once.",
            "PE-ARP rules 68, 83, 121",
        )
        .given(Outside, from_server(&unowned))
        .drops("no_owner")
        .originates(Outside, to_server(&own_error_late(OUTSIDE_ROUTER, (3, 1), &unowned))),
    ]
}
