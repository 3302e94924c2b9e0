//! TTL, MTU, and the rate of ICMP errors.

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside, Tun};
use crate::topology::*;

pub(crate) fn cases() -> Vec<Case> {
    [hops(), sizes()].concat()
}

fn hops() -> Vec<Case> {
    let case = |name: &str, shows: &str, rules| Case::new(format!("ttl/{name}"), Setup::Router, shows, rules);
    let inbound = udp((SERVER, 53), (SHARED, 5000));
    let outbound = tcp((SHARED, 9000), (SERVER, 443));
    let between = udp((SHARED, 5000), (SHARED, 9000));
    let (error, last) =
        (icmp_error(SERVER, SHARED, (3, 3), &udp((SHARED, 5000), (SERVER, 53))), ttl(&inbound, 1));
    let first = with(inbound.clone(), |packet| packet.set_more_frags(true));
    let mut trailed = bare(SERVER_MAC, OUTSIDE_MAC, &inbound);
    trailed.resize(1514, 0xEE);
    let mut many = case(
        "rate",
        "Of twelve packets at once, ten are answered by an error.",
        "PE-ARP rule 47; RFC 1812 §4.3.2.8",
    );
    for number in 0..12 {
        many = many.given(Outside, from_server(&last)).drops("ttl_exceeded");
        if number < 10 {
            many = many.originates(Outside, to_server(&own_error(OUTSIDE_ROUTER, (11, 0), &last)));
        }
    }
    let mut inward = case(
        "inbound",
        "A packet from outside with TTL 0 or 1 ends here; its sender is told.",
        "PE-ARP rule 81; RFC 1812 §5.3.1",
    );
    let mut outward = case(
        "outbound",
        "A packet of h2 with TTL 0 or 1 ends here; h2 is told, by its port.",
        "PE-ARP rules 62, 81",
    );
    let mut hairpin = case(
        "hairpin",
        "A packet of a sharer to another with TTL 0 or 1 ends here, and its sender is told.",
        "PE-ARP rules 62, 81, 82",
    );
    for hops in [1, 0] {
        let (inbound, outbound, between) = (ttl(&inbound, hops), ttl(&outbound, hops), ttl(&between, hops));
        inward = inward
            .given(Outside, from_server(&inbound))
            .drops("ttl_exceeded")
            .originates(Outside, to_server(&own_error(OUTSIDE_ROUTER, (11, 0), &inbound)));
        outward = outward
            .given(Lan, from_host(H2, &outbound))
            .drops("ttl_exceeded")
            .originates(Lan, to_host(H2, &own_error(ROUTER, (11, 0), &outbound)));
        hairpin = hairpin
            .given(Lan, from_host(H1, &between))
            .drops("ttl_exceeded")
            .originates(Lan, to_host(H1, &own_error(ROUTER, (11, 0), &between)));
    }
    vec![
        inward,
        outward,
        hairpin,
        case("two_left", "TTL 2 becomes 1, and 255 becomes 254.", "PE-ARP rule 81")
            .given(Outside, from_server(&ttl(&inbound, 2)))
            .forwards(Lan, to_host(H1, &ttl(&inbound, 1)))
            .given(Outside, from_server(&ttl(&inbound, 255)))
            .forwards(Lan, to_host(H1, &ttl(&inbound, 254))),
        case("of_an_error", "No error is sent about an ICMP error.", "PE-ARP rule 83; RFC 1812 §4.3.2.7")
            .given(Outside, from_server(&ttl(&error, 1)))
            .drops("ttl_exceeded"),
        case(
            "later_fragment",
            "No error is sent about a later fragment.",
            "PE-ARP rule 83; RFC 1812 §4.3.2.7",
        )
        .given(Outside, from_server(&first))
        .forwards(Lan, to_host(H1, &forwarded(&first)))
        .given(Outside, from_server(&with(last, |packet| packet.set_frag_offset(64))))
        .drops("ttl_exceeded"),
        many,
        Case::new(
            "ttl/host",
            Setup::Host,
            "A host sends no packet with TTL 0, whatever its programs say.",
            "RFC 1122 §3.2.1.7",
        )
        .given(Tun, ttl(&udp((SHARED, 5000), (SERVER, 53)), 0))
        .drops("ttl_exceeded"),
        Case::new(
            "mtu/trailing",
            Setup::NarrowLan,
            "Bytes behind a packet do not make a frame that is too large for the next link.",
            "RFC 894; PE-ARP rule 83",
        )
        .given(Outside, trailed)
        .forwards(Lan, to_host(H1, &forwarded(&inbound))),
    ]
}

fn sizes() -> Vec<Case> {
    let case = |name: &str, setup, shows: &str, rules| Case::new(format!("mtu/{name}"), setup, shows, rules);
    let inbound = |len| udp_of((SERVER, 53), (SHARED, 5000), len);
    let outbound = |len| udp_of((SHARED, 9000), (SERVER, 53), len);
    let narrow = usize::from(NARROW);
    let ping = icmp(SERVER, SHARED, (0, 0), [0x13, 0x88, 0, 3], &[0x5A; 1472]);
    let too_big = |from, about: &[u8]| own_error_with(from, (3, 4), NARROW, about);
    vec![
        case(
            "inbound",
            Setup::NarrowLan,
            "DF is set: the sender outside is told the MTU of the LAN, with 548 bytes of its packet.",
            "PE-ARP rule 83; RFC 1191 §4; RFC 1812 §4.3.2.3",
        )
        .given(Outside, from_server(&inbound(1500)))
        .drops("too_big")
        .originates(Outside, to_server(&too_big(OUTSIDE_ROUTER, &inbound(1500))))
        .given(Outside, from_server(&inbound(narrow + 1)))
        .drops("too_big")
        .originates(Outside, to_server(&too_big(OUTSIDE_ROUTER, &inbound(narrow + 1)))),
        case(
            "outbound",
            Setup::NarrowOutside,
            "DF is set: h2 is told the MTU of the outside, by its port.",
            "PE-ARP rules 62, 83; RFC 1191 §4",
        )
        .given(Lan, from_host(H2, &outbound(1500)))
        .drops("too_big")
        .originates(Lan, to_host(H2, &too_big(ROUTER, &outbound(1500)))),
        case(
            "hairpin",
            Setup::NarrowLan,
            "A sharer that sends too much to another is told the MTU of the LAN, by its port.",
            "PE-ARP rules 62, 82, 83",
        )
        .given(Lan, from_host(H1, &udp_of((SHARED, 5000), (SHARED, 9000), 1401)))
        .drops("too_big")
        .originates(Lan, to_host(H1, &too_big(ROUTER, &udp_of((SHARED, 5000), (SHARED, 9000), 1401)))),
        case(
            "echo_reply",
            Setup::NarrowLan,
            "The sender of an echo reply that is too big is told, too: a reply is no error.",
            "PE-ARP rules 60, 83",
        )
        .given(Outside, from_server(&ping))
        .drops("too_big")
        .originates(Outside, to_server(&too_big(OUTSIDE_ROUTER, &ping))),
        case(
            "exactly",
            Setup::NarrowLan,
            "A packet of exactly the MTU passes, and one of 1500 to the other side.",
            "PE-ARP rule 81",
        )
        .given(Outside, from_server(&inbound(narrow)))
        .forwards(Lan, to_host(H1, &forwarded(&inbound(narrow))))
        .given(Lan, from_host(H2, &outbound(1500)))
        .forwards(Outside, to_server(&forwarded(&outbound(1500)))),
    ]
}
