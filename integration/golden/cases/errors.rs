//! ICMP errors from outside to a shared address: each goes to whoever sent what it embeds.

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside};
use crate::topology::*;

/// Every type and code of an error that a sender of TCP, UDP or a ping may get (RFC 792, RFC 1122 §3.2.2, RFC 1812).
const KINDS: [(&str, (u8, u8)); 16] = [
    ("net_unreachable", (3, 0)),
    ("host_unreachable", (3, 1)),
    ("protocol_unreachable", (3, 2)),
    ("port_unreachable", (3, 3)),
    ("fragmentation_needed", (3, 4)),
    ("source_route_failed", (3, 5)),
    ("net_prohibited", (3, 9)),
    ("host_prohibited", (3, 10)),
    ("prohibited", (3, 13)),
    ("source_quench", (4, 0)),
    ("redirect_net", (5, 0)),
    ("redirect_host", (5, 1)),
    ("ttl_exceeded", (11, 0)),
    ("reassembly_time_exceeded", (11, 1)),
    ("parameter_problem", (12, 0)),
    ("option_missing", (12, 1)),
];

fn case(name: &str, shows: impl Into<String>, rules: &'static str) -> Case {
    Case::new(format!("errors/{name}"), Setup::Router, shows, rules)
}

pub(crate) fn cases() -> Vec<Case> {
    let kinds = KINDS.map(|(name, kind)| of_kind(name, kind)).to_vec();
    [kinds, embedded(), dropped(), others()].concat()
}

/// About a SYN of h1, a datagram of h2 and a ping of h1: each as far as RFC 792 asks for, and whole.
fn of_kind(name: &str, kind: (u8, u8)) -> Case {
    let sent = [
        (H1, tcp((SHARED, 5000), (SERVER, 443))),
        (H2, udp((SHARED, 9000), (SERVER, 53))),
        (H1, echo_request(SHARED, SERVER, 8000)),
    ];
    let shows = format!(
        "ICMP {}/{} about TCP, UDP and a ping goes to the owner of the embedded source port or identifier.",
        kind.0, kind.1
    );
    let mut case = case(name, shows, "PE-ARP rule 62; RFC 5508; RFC 7596 §8.1");
    for (host, about) in sent {
        for about in [&about[..28], &about] {
            let error = icmp(SERVER, SHARED, kind, [0, 0, 5, 0x78], about);
            case = case.given(Outside, from_server(&error)).forwards(Lan, to_host(host, &forwarded(&error)));
        }
    }
    case
}

fn embedded() -> Vec<Case> {
    let options = [1, 1, 1, 0];
    let sent = tcp((SHARED, 5000), (SERVER, 443));
    let with_options = ip_with_options(SHARED, SERVER, TCP, &options, &sent[20..]);
    let both = ip_with_options(
        SERVER,
        SHARED,
        ICMP,
        &options,
        &icmp_error(SERVER, SHARED, (11, 0), &with_options)[20..],
    );
    let delivered = |name: &str, shows: &str, error: Vec<u8>| {
        case(name, shows, "PE-ARP rule 62")
            .given(Outside, from_server(&error))
            .forwards(Lan, to_host(H1, &forwarded(&error)))
    };
    let first = with(sent.clone(), |packet| packet.set_more_frags(true));
    vec![
        delivered(
            "embedded_options",
            "The embedded ports are found behind embedded options.",
            icmp_error(SERVER, SHARED, (3, 1), &with_options),
        ),
        delivered("options_of_both", "The embedded ports are found behind options of both packets.", both),
        delivered(
            "embedded_first_fragment",
            "A first fragment has ports, and an error about it an owner.",
            icmp_error(SERVER, SHARED, (11, 1), &first),
        ),
        delivered(
            "of_another_router",
            "Whoever on the way reports it, the error goes to who sent the packet.",
            icmp_error(NOWHERE, SHARED, (11, 0), &ttl(&sent, 1)),
        ),
        case(
            "scattered",
            "Under scheme (6, 6) the embedded port leads to its owner, too.",
            "PE-ARP rules 62, 69",
        )
        .given(
            Outside,
            from_server(&icmp_error(SERVER, SCATTERED, (3, 1), &udp((SCATTERED, 1071), (SERVER, 53)))),
        )
        .forwards(
            Lan,
            to_host(
                H2,
                &forwarded(&icmp_error(SERVER, SCATTERED, (3, 1), &udp((SCATTERED, 1071), (SERVER, 53)))),
            ),
        ),
    ]
}

fn dropped() -> Vec<Case> {
    let sent = udp((SHARED, 5000), (SERVER, 53));
    let ping = echo_request(SHARED, SERVER, 8000);
    let dropped = |name: &str, shows: &str, rules, reason: &str, about: &[Vec<u8>]| {
        let mut case = case(name, shows, rules);
        for about in about {
            let error = icmp_error(SERVER, SHARED, (3, 1), about);
            case = case.given(Outside, from_server(&error)).drops(reason);
        }
        case
    };
    let cut = |len: usize| sent[..len].to_vec();
    let fragment = with(sent.clone(), |packet| packet.set_frag_offset(64));
    let later = icmp_error(SERVER, SHARED, (3, 1), &fragment);
    let about_reply = icmp_error(SERVER, SHARED, (3, 1), &echo_reply(SHARED, SERVER, 5000));
    let short_header = patched(sent.clone(), 0, &[0x44]);
    let long_header = patched(sent.clone(), 0, &[0x4F]);
    vec![
        dropped(
            "foreign",
            "An error about a packet that its receiver did not send is dropped.",
            "PE-ARP rule 62; RFC 5508 §3.1",
            "foreign_error",
            &[
                udp((SERVER, 53), (SHARED, 5000)),
                udp((LEGACY, 5000), (SERVER, 53)),
                udp((SCATTERED, 1056), (SERVER, 53)),
            ],
        ),
        case(
            "later_fragment",
            "A later fragment has no ports: an error about it goes by its identification, which is of the sender's set.",
            "PE-ARP rules 62, 63",
        )
        .given(Outside, from_server(&later))
        .forwards(Lan, to_host(H1, &forwarded(&later))),
        dropped(
            "about_error",
            "An error about an error is dropped: nobody may have sent it.",
            "PE-ARP rule 62; RFC 1122 §3.2.2",
            "foreign_error",
            &[icmp_error(SHARED, SERVER, (3, 3), &udp((SERVER, 53), (SHARED, 5000)))],
        ),
        case(
            "about_reply",
            "An error about an echo reply goes by its identifier, as the reply came from its owner, or from the router.",
            "PE-ARP rules 60, 61",
        )
        .given(Outside, from_server(&about_reply))
        .forwards(Lan, to_host(H1, &forwarded(&about_reply))),
        dropped(
            "truncated",
            "An error whose embedded packet ends before its ports is dropped.",
            "PE-ARP rule 62",
            "truncated",
            &[
                cut(0),
                cut(1),
                cut(19),
                cut(20),
                cut(21),
                cut(23),
                ping[..27].to_vec(),
                short_header,
                long_header,
            ],
        ),
        case(
            "unassigned",
            "An error for a port that no PSID has is dropped, and no error is sent about it.",
            "PE-ARP rules 37, 83",
        )
        .given(
            Outside,
            from_server(&icmp_error(SERVER, SCATTERED, (3, 1), &udp((SCATTERED, 53), (SERVER, 53)))),
        )
        .drops("unassigned_port"),
        case(
            "unowned",
            "The owner of an embedded port is asked for; there is none, and no error is sent about an error.",
            "PE-ARP rules 62, 83; RFC 1812 §4.3.2.7",
        )
        .given(
            Outside,
            from_server(&icmp_error(SERVER, SHARED, (3, 1), &udp((SHARED, 20_000), (SERVER, 53)))),
        )
        .asks_in_vain(Lan, &router_asks(SHARED, UDP, Some(20_000)))
        .drops("unreachable"),
    ]
}

fn others() -> Vec<Case> {
    let refused = icmp_error(SHARED, SERVER, (3, 3), &udp((SERVER, 53), (SHARED, 5000)));
    let to_legacy = icmp_error(SERVER, LEGACY, (3, 3), &udp((LEGACY, 5000), (SERVER, 53))[..24]);
    vec![
        case("upstream", "An error that h1 sends about what it got leaves.", "PE-ARP rule 81")
            .given(Lan, from_host(H1, &refused))
            .forwards(Outside, to_server(&forwarded(&refused))),
        case("whole_address", "A legacy host gets every error to its address.", "PE-ARP §11")
            .given(Outside, from_server(&to_legacy))
            .forwards(Lan, to_host(LEGACY_MAC, &forwarded(&to_legacy))),
    ]
}
