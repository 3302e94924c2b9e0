//! ARP of both kinds at a host.

use std::net::Ipv4Addr;

use pearp::wire::pe_arp::{Message, PeAddress, Record};

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Tun};
use crate::topology::*;

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn case(setup: Setup, name: &str, shows: &str, rules: &'static str) -> Case {
    Case::new(format!("host_arp/{name}"), setup, shows, rules)
}

pub(crate) fn cases() -> Vec<Case> {
    [questions(), claims(), starts(), whole_address()].concat()
}

fn owned() -> Record {
    psid("0,4,1")
}

fn port(protocol: u8, port: u16) -> PeAddress {
    shared(SHARED).with_port(protocol, Some(port))
}

/// h1 says what it has.
fn announcement() -> Vec<u8> {
    announce(H1, SHARED, owned())
}

fn probe_of(hardware: smoltcp::wire::EthernetAddress) -> Vec<u8> {
    pe(EVERYBODY, &Message::probe(hardware, first_of(SHARED, owned()), &[owned()]))
}

/// The router asks h1.
fn asked(target: PeAddress) -> Vec<u8> {
    pe(EVERYBODY, &Message::resolve(ROUTER_MAC, ROUTER_PE, target, &[]))
}

/// h1 answers the router.
fn reply(asked: PeAddress) -> Vec<u8> {
    pe(ROUTER_MAC, &Message::reply(H1, asked, ROUTER_MAC, ROUTER_PE, &[owned()]))
}

fn questions() -> Vec<Case> {
    let portless = shared(SHARED).with_port(47, None);
    let solicit = || pe(EVERYBODY, &Message::solicit_all(ROUTER_MAC, ROUTER_PE, SHARED));
    vec![
        case(
            Setup::Host,
            "resolve",
            "The owner of a port answers with its whole set, whatever the protocol.",
            "PE-ARP rules 1, 41",
        )
        .given(Lan, asked(port(TCP, 5000)))
        .takes()
        .says(Lan, reply(port(TCP, 5000)))
        .given(Lan, asked(port(132, 8191)))
        .takes()
        .says(Lan, reply(port(132, 8191)))
        .given(Lan, asked(port(0, 4096)))
        .takes()
        .says(Lan, reply(port(0, 4096))),
        case(
            Setup::Host,
            "resolve_other",
            "For what it does not own it does not answer.",
            "PE-ARP rules 1, 7",
        )
        .given(Lan, asked(port(TCP, 4095)))
        .takes()
        .given(Lan, asked(port(TCP, 9000)))
        .takes()
        .given(Lan, asked(portless))
        .takes()
        .given(Lan, asked(shared(SCATTERED).with_port(TCP, Some(5000))))
        .takes(),
        case(
            Setup::Host,
            "solicit_all",
            "A router that asks every owner is answered within a second.",
            "PE-ARP rules 41, 84",
        )
        .given(Lan, solicit())
        .takes()
        .sends_within(1000, Lan, reply(shared(SHARED)))
        .more("arp_sent"),
        case(Setup::Host, "plain", "A sharing host is silent to plain ARP for its address.", "PE-ARP rule 3")
            .given(Lan, arp_request((LEGACY_MAC, LEGACY), SHARED))
            .takes()
            .given(Lan, arp_request((STRANGER, NOBODY), SHARED))
            .takes(),
        case(
            Setup::Host,
            "plain_from_shared",
            "Plain ARP from its shared address is ignored.",
            "PE-ARP rules 3, 26",
        )
        .given(Lan, arp_request((STRANGER, SHARED), SHARED))
        .drops("plain_for_shared")
        .given(Lan, arp_reply((STRANGER, SHARED), (H1, NOBODY)))
        .drops("plain_for_shared"),
    ]
}

fn claims() -> Vec<Case> {
    let conflict = Message::conflict(H1, port(0, 4096), STRANGER, &[owned()]);
    vec![
        case(Setup::Host, "probe", "Who probes a set in use is told so at once.", "PE-ARP rule 54")
            .given(Lan, probe_of(STRANGER))
            .takes()
            .says(Lan, pe(STRANGER, &conflict)),
        case(Setup::Host, "probe_of_other", "A PROBE of another set is no concern of h1.", "PE-ARP rule 54")
            .given(Lan, pe(EVERYBODY, &Message::probe(STRANGER, port(0, 12_288), &[psid("0,4,3")])))
            .takes(),
        case(
            Setup::Host,
            "claim",
            "A claim to its set is answered by one ANNOUNCE, and none for ten seconds more.",
            "PE-ARP rule 55",
        )
        .given(Lan, announce(STRANGER, SHARED, owned()))
        .drops("conflicting_claim")
        .says(Lan, announcement())
        .given(Lan, announce(STRANGER, SHARED, owned()))
        .drops("conflicting_claim")
        .wait(9997)
        .given(Lan, announce(STRANGER, SHARED, owned()))
        .drops("conflicting_claim")
        .wait(1)
        .given(Lan, announce(STRANGER, SHARED, owned()))
        .drops("conflicting_claim")
        .says(Lan, announcement()),
    ]
}

fn starts() -> Vec<Case> {
    let packet = udp((SHARED, 5000), (SHARED, 9000));
    let conflict = Message::conflict(H2, port(0, 4096), H1, &[owned()]);
    let starting = |name: &str, shows: &str, rules| {
        case(Setup::StartingHost, name, shows, rules).says(Lan, probe_of(H1))
    };
    let announced =
        |case: Case| case.wait(198).says(Lan, announcement()).wait(2000).says(Lan, announcement());
    vec![
        announced(
            starting(
                "start",
                "A configured set is probed once and announced twice; until then nothing leaves.",
                "PE-ARP rules 5, 56",
            )
            .given(Tun, packet.clone())
            .drops("set_not_held")
            .given(Lan, asked(port(TCP, 5000)))
            .takes(),
        ),
        starting(
            "start_conflict",
            "A set that another host has is not used; it is probed again after a minute, and then free.",
            "PE-ARP rules 56, 57",
        )
        .given(Lan, pe(H1, &conflict))
        .takes()
        .given(Tun, packet)
        .drops("set_not_held")
        .wait(59_999)
        .sends_within(1000, Lan, probe_of(H1))
        .more("arp_sent")
        .wait(200)
        .sends_within(1000, Lan, announcement())
        .more("arp_sent")
        .wait(2000)
        .sends_within(1000, Lan, announcement())
        .more("arp_sent"),
        starting(
            "start_together",
            "Two hosts that probe the same set at once both give way.",
            "PE-ARP rule 54; RFC 5227 §2.1.1",
        )
        .given(Lan, probe_of(H2))
        .takes(),
    ]
}

fn whole_address() -> Vec<Case> {
    let address = PeAddress::new(SHARED);
    let first = address.with_port(0, Some(0));
    let start = case(
        Setup::StartingWholeHost,
        "whole_start",
        "A whole address is probed and announced in both ways, as a legacy host may have it.",
        "PE-ARP rule 56; RFC 5227 §2.1.1, §2.3",
    );
    let announced =
        |case: Case| case.says(Lan, arp_request((H1, SHARED), SHARED)).says(Lan, announce(H1, SHARED, FULL));
    let asked_for = address.with_port(TCP, Some(80));
    vec![
        announced(
            announced(
                start
                    .says(Lan, arp_request((H1, NOBODY), SHARED))
                    .says(Lan, pe(EVERYBODY, &Message::probe(H1, first, &[FULL])))
                    .wait(200),
            )
            .wait(2000),
        ),
        case(
            Setup::WholeHost,
            "whole_plain",
            "A host answers plain ARP for its whole address.",
            "PE-ARP rule 76; RFC 826",
        )
        .given(Lan, arp_request((LEGACY_MAC, LEGACY), SHARED))
        .takes()
        .says(Lan, arp_reply((H1, SHARED), (LEGACY_MAC, LEGACY))),
        case(
            Setup::WholeHost,
            "whole_resolve",
            "A host answers for every port of its whole address with a FULL record.",
            "PE-ARP rule 41",
        )
        .given(Lan, asked(asked_for))
        .takes()
        .says(Lan, pe(ROUTER_MAC, &Message::reply(H1, asked_for, ROUTER_MAC, ROUTER_PE, &[FULL]))),
        case(
            Setup::WholeHost,
            "whole_claim",
            "A host defends its whole address against plain ARP, in both ways.",
            "PE-ARP rule 55; RFC 5227 §2.4",
        )
        .given(Lan, arp_request((STRANGER, SHARED), SHARED))
        .drops("conflicting_claim")
        .says(Lan, announce(H1, SHARED, FULL))
        .says(Lan, arp_request((H1, SHARED), SHARED))
        .given(Lan, arp_request((STRANGER, SHARED), ROUTER))
        .drops("conflicting_claim"),
    ]
}
