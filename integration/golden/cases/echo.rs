//! Pings, and what else is for the router itself.

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside};
use crate::topology::*;

fn case(name: &str, shows: &str, rules: &'static str) -> Case {
    Case::new(format!("echo/{name}"), Setup::Router, shows, rules)
}

pub(crate) fn cases() -> Vec<Case> {
    [of_shared(), replies(), of_router(), services()].concat()
}

fn of_shared() -> Vec<Case> {
    let outside = echo_request(SERVER, SHARED, 77);
    let urgent = |packet| with(packet, |view| view.set_dscp(48));
    let answer = || to_server(&own_echo_reply(SHARED, SERVER, 77));
    let damaged = patched(outside.clone(), 22, &[0xDE, 0xAD]);
    vec![
        case(
            "from_outside",
            "The router answers a ping of a shared address in its name.",
            "PE-ARP rules 61, 80",
        )
        .given(Outside, from_server(&outside))
        .takes()
        .originates(Outside, answer()),
        case("precedence", "An answer is as urgent as its request.", "RFC 1812 §4.3.2.5")
            .given(Outside, from_server(&urgent(outside.clone())))
            .takes()
            .originates(Outside, to_server(&urgent(own_echo_reply(SHARED, SERVER, 77)))),
        case(
            "bound_identifier",
            "A request is answered by the router even where its identifier is in a set of somebody.",
            "PE-ARP rule 61",
        )
        .given(Outside, from_server(&echo_request(SERVER, SHARED, 5000)))
        .takes()
        .originates(Outside, to_server(&own_echo_reply(SHARED, SERVER, 5000))),
        case("scattered", "An identifier that no PSID has matters as little.", "PE-ARP rules 61, 80")
            .given(Outside, from_server(&echo_request(SERVER, SCATTERED, 77)))
            .takes()
            .originates(Outside, to_server(&own_echo_reply(SCATTERED, SERVER, 77))),
        case("from_legacy", "A legacy host on the LAN is answered, too.", "PE-ARP rules 61, 80")
            .given(Lan, from_host(LEGACY_MAC, &echo_request(LEGACY, SHARED, 77)))
            .takes()
            .originates(Lan, to_host(LEGACY_MAC, &own_echo_reply(SHARED, LEGACY, 77))),
        case(
            "from_sharer",
            "The answer to a sharer goes to it by its identifier.",
            "PE-ARP rules 60, 61, 80",
        )
        .given(Lan, from_host(H2, &echo_request(SHARED, SHARED, 9000)))
        .takes()
        .originates(Lan, to_host(H2, &own_echo_reply(SHARED, SHARED, 9000))),
        case(
            "authority",
            "A router that is the authority answers pings of a shared address as well.",
            "PE-ARP rules 61, 80",
        )
        .given(Outside, from_server(&outside))
        .takes()
        .originates(Outside, answer()),
        case(
            "ttl_1",
            "The router is the end of the way: the TTL does not matter.",
            "PE-ARP rule 81; RFC 1122 §3.2.1.7",
        )
        .given(Outside, from_server(&ttl(&outside, 1)))
        .takes()
        .originates(Outside, answer())
        .given(Outside, from_server(&ttl(&outside, 0)))
        .takes()
        .originates(Outside, answer()),
        case(
            "bad_checksum",
            "A request with a wrong ICMP checksum is not answered.",
            "RFC 1122 §3.2.2.6; RFC 792",
        )
        .given(Outside, from_server(&damaged))
        .drops("echo_damaged")
        .given(Outside, from_server(&patched(damaged, 22, &[0, 0])))
        .drops("echo_damaged"),
        case(
            "bad_checksum_sharer",
            "A sharer's request with a wrong ICMP checksum is not answered either.",
            "RFC 792",
        )
        .given(Lan, from_host(H1, &patched(echo_request(SHARED, SHARED, 5000), 22, &[0, 1])))
        .drops("echo_damaged"),
    ]
}

fn replies() -> Vec<Case> {
    let reply = |to, identifier| echo_reply(SERVER, to, identifier);
    let (bound, unbound) = (reply(SHARED, 5000), reply(SHARED, 20_000));
    let asks = || router_asks(SHARED, ICMP, Some(20_000));
    let upstream = echo_request(SHARED, SERVER, 9000);
    vec![
        case("request_upstream", "A request of a sharer to the outside leaves.", "PE-ARP rule 81")
            .given(Lan, from_host(H2, &upstream))
            .forwards(Outside, to_server(&forwarded(&upstream))),
        case("reply_bound", "A reply goes to the owner of its identifier.", "PE-ARP rule 60")
            .given(Outside, from_server(&bound))
            .forwards(Lan, to_host(H1, &forwarded(&bound)))
            .given(Outside, from_server(&reply(SCATTERED, 1056)))
            .forwards(Lan, to_host(H2, &forwarded(&reply(SCATTERED, 1056)))),
        case(
            "reply_unbound",
            "The owner of an identifier that nobody has is asked for, as one of ICMP, and there is none.",
            "PE-ARP rules 38, 60, 83",
        )
        .given(Outside, from_server(&unbound))
        .asks_in_vain(Lan, &asks())
        .drops("unreachable")
        .originates(Outside, to_server(&own_error_late(OUTSIDE_ROUTER, (3, 1), &unbound))),
        case("reply_unassigned", "An identifier that no PSID has belongs to nobody.", "PE-ARP rules 37, 60")
            .given(Outside, from_server(&reply(SCATTERED, 77)))
            .drops("unassigned_port")
            .originates(Outside, to_server(&own_error_late(OUTSIDE_ROUTER, (3, 1), &reply(SCATTERED, 77)))),
        case("whole_address", "A ping of a legacy host is for the legacy host.", "PE-ARP §11")
            .given(Outside, from_server(&echo_request(SERVER, LEGACY, 77)))
            .forwards(Lan, to_host(LEGACY_MAC, &forwarded(&echo_request(SERVER, LEGACY, 77)))),
    ]
}

fn of_router() -> Vec<Case> {
    let ping = |from, to| echo_request(from, to, 77);
    vec![
        case("router", "The router answers a ping of either of its addresses.", "RFC 1812 §4.3.3.6")
            .given(Outside, from_server(&ping(SERVER, OUTSIDE_ROUTER)))
            .takes()
            .originates(Outside, to_server(&own_echo_reply(OUTSIDE_ROUTER, SERVER, 77)))
            .given(Outside, from_server(&ping(SERVER, ROUTER)))
            .takes()
            .originates(Outside, to_server(&own_echo_reply(ROUTER, SERVER, 77)))
            .given(Lan, from_host(LEGACY_MAC, &ping(LEGACY, ROUTER)))
            .takes()
            .originates(Lan, to_host(LEGACY_MAC, &own_echo_reply(ROUTER, LEGACY, 77))),
        case(
            "router_by_sharer",
            "A sharer that pings the router is answered by its identifier.",
            "PE-ARP rule 60",
        )
        .given(Lan, from_host(H1, &echo_request(SHARED, ROUTER, 5000)))
        .takes()
        .originates(Lan, to_host(H1, &own_echo_reply(ROUTER, SHARED, 5000))),
        case("router_bad_checksum", "A damaged ping of the router is not answered.", "RFC 792")
            .given(Outside, from_server(&patched(ping(SERVER, ROUTER), 22, &[0, 1])))
            .drops("echo_damaged"),
        case(
            "broadcast",
            "A ping of a whole link is not answered, nor forwarded.",
            "RFC 1812 §4.3.3.6; RFC 2644",
        )
        .given(Outside, from_server(&ping(SERVER, LAN_BROADCAST)))
        .drops("martian_destination"),
    ]
}

fn services() -> Vec<Case> {
    let to_router = |to| udp((SERVER, 53), (to, 161));
    let of_h1 = tcp((SHARED, 5000), (ROUTER, 22));
    let dhcp = udp((NOBODY, 68), (std::net::Ipv4Addr::BROADCAST, 67));
    let renewal = udp((LEGACY, 68), (ROUTER, 67));
    vec![
        case(
            "no_service",
            "The router has no service on its own addresses, and says so from each.",
            "PE-ARP rule 83",
        )
        .given(Outside, from_server(&to_router(OUTSIDE_ROUTER)))
        .drops("no_service")
        .originates(Outside, to_server(&own_error(OUTSIDE_ROUTER, (3, 3), &to_router(OUTSIDE_ROUTER))))
        .given(Outside, from_server(&to_router(ROUTER)))
        .drops("no_service")
        .originates(Outside, to_server(&own_error(ROUTER, (3, 3), &to_router(ROUTER)))),
        case(
            "no_service_sharer",
            "A sharer that calls a port of the router is told, by its own port, that there is no service.",
            "PE-ARP rules 62, 83",
        )
        .given(Lan, from_host(H1, &of_h1))
        .drops("no_service")
        .originates(Lan, to_host(H1, &own_error(ROUTER, (3, 3), &of_h1))),
        case(
            "error_taken",
            "An ICMP error and an echo reply to the router itself are taken, and no more.",
            "PE-ARP rule 83",
        )
        .given(
            Outside,
            from_server(&icmp_error(SERVER, OUTSIDE_ROUTER, (3, 3), &udp((OUTSIDE_ROUTER, 9), (SERVER, 9)))),
        )
        .takes()
        .given(Outside, from_server(&echo_reply(SERVER, OUTSIDE_ROUTER, 9)))
        .takes(),
        case(
            "dhcp_without_server",
            "Where no DHCP server is, a broadcast to its port is nobody's, and a renewal is told so.",
            "RFC 1812 §5.3.4; PE-ARP rule 83",
        )
        .given(Lan, frame(H3, EVERYBODY, &dhcp))
        .drops("not_our_frame")
        .given(Lan, from_host(LEGACY_MAC, &renewal))
        .drops("no_service")
        .originates(Lan, to_host(LEGACY_MAC, &own_error(ROUTER, (3, 3), &renewal))),
    ]
}

const NOBODY: std::net::Ipv4Addr = std::net::Ipv4Addr::UNSPECIFIED;
