//! Sharers reach each other by way of the router (RFC 7596 §6.2).

use pearp::wire::EthernetAddress;

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::Lan;
use crate::topology::*;

/// h1 or h2 sends `packet` to the router, which sends it back to the same link.
fn back(name: &str, shows: &str, packet: &[u8], from: EthernetAddress, to: EthernetAddress) -> Case {
    Case::new(format!("hairpin/{name}"), Setup::Router, shows, "PE-ARP rules 6, 78, 82; RFC 7596 §6.2")
        .given(Lan, from_host(from, packet))
        .forwards(Lan, to_host(to, &forwarded(packet)))
}

pub(crate) fn cases() -> Vec<Case> {
    let (of_h1, of_h2) = ((SHARED, 5000), (SHARED, 9000));
    let refused = udp(of_h1, of_h2);
    let lost = tcp(of_h1, (SHARED, 20_000));
    vec![
        back(
            "tcp",
            "A SYN of h1 to a port of h2, both of one address, goes to h2.",
            &tcp(of_h1, of_h2),
            H1,
            H2,
        ),
        back(
            "udp",
            "A datagram of h2 to a port of h1, both of one address, goes to h1.",
            &udp(of_h2, of_h1),
            H2,
            H1,
        ),
        back(
            "icmp_error",
            "An ICMP error of h2 about a datagram of h1 goes to h1, by the embedded source port.",
            &icmp_error(SHARED, SHARED, (3, 3), &refused),
            H2,
            H1,
        ),
        back(
            "own_port",
            "What h1 sends to a port of its own set comes back.",
            &udp(of_h1, (SHARED, 5001)),
            H1,
            H1,
        ),
        back(
            "other_address",
            "Of another shared address the ports are those of its scheme.",
            &tcp(of_h1, (SCATTERED, 1056)),
            H1,
            H2,
        ),
        Case::new(
            "hairpin/authority_unowned",
            Setup::Authority,
            "A sharer that sends to a port of nobody is told so, by its own port.",
            "PE-ARP rules 62, 82, 83, 121",
        )
        .given(Lan, from_host(H1, &lost))
        .drops("no_owner")
        .originates(Lan, to_host(H1, &own_error_late(ROUTER, (3, 1), &lost))),
    ]
}
