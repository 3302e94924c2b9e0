//! ARP of both kinds at the router.

use pearp::wire::pe_arp::{Claim, Lifetime, Message, PeAddress, Record};

use crate::case::Case;
use crate::packets::*;
use crate::topology::Link::{Lan, Outside};
use crate::topology::*;

const NOBODY: std::net::Ipv4Addr = std::net::Ipv4Addr::UNSPECIFIED;

pub(crate) fn cases() -> Vec<Case> {
    [plain(), plain_claims(), questions(), claims()].concat()
}

fn case(name: &str, shows: &str, rules: &'static str) -> Case {
    Case::new(format!("arp/{name}"), Setup::Router, shows, rules)
}

fn plain() -> Vec<Case> {
    let legacy = (LEGACY_MAC, LEGACY);
    vec![
        case(
            "proxy",
            "A legacy host that asks for a shared address gets the router's MAC.",
            "PE-ARP rules 3, 77",
        )
        .given(Lan, arp_request(legacy, SHARED))
        .takes()
        .says(Lan, arp_reply((ROUTER_MAC, SHARED), legacy)),
        case(
            "proxy_to_probe",
            "A legacy host that probes a shared address finds it taken.",
            "PE-ARP rule 77; RFC 5227",
        )
        .given(Lan, arp_request((STRANGER, NOBODY), SHARED))
        .takes()
        .says(Lan, arp_reply((ROUTER_MAC, SHARED), (STRANGER, NOBODY))),
        case(
            "own_address",
            "The router answers for its own address, as any host.",
            "PE-ARP rule 79; RFC 826",
        )
        .given(Lan, arp_request(legacy, ROUTER))
        .takes()
        .says(Lan, arp_reply((ROUTER_MAC, ROUTER), legacy))
        .given(Outside, arp_request((SERVER_MAC, SERVER), OUTSIDE_ROUTER))
        .takes()
        .says(Outside, arp_reply((OUTSIDE_MAC, OUTSIDE_ROUTER), (SERVER_MAC, SERVER))),
        case(
            "asked_by_a_sharer",
            "A sharing host asks for its gateway from 0.0.0.0, and is answered.",
            "PE-ARP rules 3, 79",
        )
        .given(Lan, arp_request((H3, NOBODY), ROUTER))
        .takes()
        .says(Lan, arp_reply((ROUTER_MAC, ROUTER), (H3, NOBODY))),
        case(
            "not_for_others",
            "The router does not answer for the whole address of another host.",
            "PE-ARP rule 77",
        )
        .given(Lan, arp_request((STRANGER, UNKNOWN), LEGACY))
        .takes()
        .given(Lan, arp_request((STRANGER, NOBODY), LEGACY))
        .takes(),
        case(
            "not_outside",
            "For a shared address the router does not answer on the outside.",
            "PE-ARP rule 77",
        )
        .given(Outside, arp_request((SERVER_MAC, SERVER), SHARED))
        .takes(),
    ]
}

fn plain_claims() -> Vec<Case> {
    let moved = tcp((SERVER, 443), (LEGACY, 80));
    let to_h1 = tcp((SERVER, 443), (SHARED, 5000));
    vec![
        case(
            "plain_from_shared",
            "Plain ARP with a shared address as its sender is ignored, and changes nothing.",
            "PE-ARP rules 3, 26",
        )
        .given(Lan, arp_request((STRANGER, SHARED), ROUTER))
        .drops("plain_for_shared")
        .given(Lan, arp_request((STRANGER, SHARED), SHARED))
        .drops("plain_for_shared")
        .given(Lan, arp_reply((STRANGER, SHARED), (ROUTER_MAC, ROUTER)))
        .drops("plain_for_shared")
        .given(Outside, from_server(&to_h1))
        .forwards(Lan, to_host(H1, &forwarded(&to_h1))),
        case(
            "gratuitous",
            "A legacy host that announces another MAC is sent to there.",
            "PE-ARP rule 27; RFC 826",
        )
        .given(Lan, arp_request((STRANGER, LEGACY), LEGACY))
        .takes()
        .given(Outside, from_server(&moved))
        .forwards(Lan, to_host(STRANGER, &forwarded(&moved))),
        case(
            "own_address_claimed",
            "The router defends its own address by PE-ARP and by plain ARP, once in ten seconds.",
            "PE-ARP rule 55; RFC 5227 §2.4",
        )
        .given(Lan, plain_arp(1, EVERYBODY, (STRANGER, ROUTER), (NO_MAC, ROUTER)))
        .drops("conflicting_claim")
        .says(Lan, announce(ROUTER_MAC, ROUTER, FULL))
        .says(Lan, arp_request((ROUTER_MAC, ROUTER), ROUTER))
        .given(Lan, arp_request((STRANGER, ROUTER), LEGACY))
        .drops("conflicting_claim"),
    ]
}

fn questions() -> Vec<Case> {
    let asked = |setup, name: &str, shows: &str, rules, message: &Message| {
        Case::new(format!("arp/{name}"), setup, shows, rules).given(Lan, pe(EVERYBODY, message)).takes()
    };
    let of_h2 = |target: PeAddress, records: &[Record]| Message::resolve(H2, shared(SHARED), target, records);
    let port = |port| shared(SHARED).with_port(TCP, Some(port));
    let gateway = PeAddress::new(ROUTER).with_port(0, Some(0));
    let gap = Record::new(psid("0,4,5").claim, Lifetime::Seconds(60));
    let single = pearp::ports::PortRange::single(5000);
    vec![
        asked(
            Setup::Router,
            "resolve_router",
            "The router answers for its own address with a FULL record and its flag.",
            "PE-ARP rules 39, 41, 79",
            &of_h2(gateway, &[]),
        )
        .says(
            Lan,
            pe(H2, &Message::reply(ROUTER_MAC, ROUTER_PE.with_port(0, Some(0)), H2, shared(SHARED), &[FULL])),
        ),
        asked(
            Setup::Router,
            "resolve_other",
            "The router does not answer for ports of others.",
            "PE-ARP rules 1, 41",
            &of_h2(port(5000), &[]),
        ),
        asked(
            Setup::Router,
            "resolve_with_set",
            "The router learns the set of an asker, and delivers by it.",
            "PE-ARP rules 20, 22",
            &Message::resolve(H3, shared(SHARED), port(5000), &[psid("0,4,3")]),
        )
        .given(Outside, from_server(&tcp((SERVER, 443), (SHARED, 13_000))))
        .forwards(Lan, to_host(H3, &forwarded(&tcp((SERVER, 443), (SHARED, 13_000))))),
        asked(
            Setup::Authority,
            "authority_nak",
            "An authority says that nobody owns what is asked, for the whole PSID and 60 s.",
            "PE-ARP rules 43, 121",
            &of_h2(port(20_500), &[]),
        )
        .says(Lan, pe(H2, &Message::nak(ROUTER_MAC, port(20_500), H2, shared(SHARED), gap))),
        asked(
            Setup::Authority,
            "authority_silent",
            "An authority is silent where there is an owner, who answers.",
            "PE-ARP rules 1, 121",
            &of_h2(port(5000), &[]),
        ),
        case("solicit_of_a_host", "A SOLICIT-ALL without the router's flag is dropped.", "PE-ARP rule 13")
            .given(Lan, {
                let mut message = Message::solicit_all(STRANGER, PeAddress::new(UNKNOWN), SHARED);
                message.sender.router = false;
                pe(EVERYBODY, &message)
            })
            .drops("solicit_all"),
        asked(
            Setup::Router,
            "solicit_of_a_router",
            "A SOLICIT-ALL of another router is for owners, and the router is none.",
            "PE-ARP rules 1, 41",
            &Message::solicit_all(STRANGER, PeAddress::new(UNKNOWN), SHARED),
        ),
        asked(
            Setup::Router,
            "probe",
            "The router is silent to a PROBE: it owns no part of the address.",
            "PE-ARP rule 54",
            &Message::probe(STRANGER, port(5000), &[Record::new(Claim::Range(single), Lifetime::Unknown)]),
        ),
    ]
}

fn claims() -> Vec<Case> {
    let to_h1 = tcp((SERVER, 443), (SHARED, 5000));
    let to_h3 = tcp((SERVER, 443), (SHARED, 13_000));
    let of_h3 = psid("0,4,3");
    let still_h1 =
        |case: Case| case.given(Outside, from_server(&to_h1)).forwards(Lan, to_host(H1, &forwarded(&to_h1)));
    vec![
        Case::new(
            "arp/claim_at_authority",
            Setup::Authority,
            "An authority believes what it was told and nothing else, even of a set that nobody leased.",
            "PE-ARP rule 121",
        )
        .given(Lan, announce(H3, SHARED, of_h3))
        .drops("not_leased"),
        case(
            "release",
            "A RELEASE ends what h3 had announced; the next packet is asked for.",
            "PE-ARP rule 25",
        )
        .given(Lan, announce(H3, SHARED, of_h3))
        .takes()
        .given(Outside, from_server(&to_h3))
        .forwards(Lan, to_host(H3, &forwarded(&to_h3)))
        .given(Lan, pe(EVERYBODY, &Message::release(H3, first_of(SHARED, of_h3), &[of_h3])))
        .takes()
        .given(Outside, from_server(&to_h3))
        .says(Lan, router_asks(SHARED, TCP, Some(13_000)))
        .given(Lan, answers(STRANGER, (SHARED, TCP, 13_000), of_h3))
        .takes()
        .forwards(Lan, to_host(STRANGER, &forwarded(&to_h3))),
        still_h1(
            case("release_of_leased", "A RELEASE does not end a lease.", "PE-ARP rule 25")
                .given(Lan, {
                    let owned = psid("0,4,1");
                    pe(EVERYBODY, &Message::release(H1, first_of(SHARED, owned), &[owned]))
                })
                .takes(),
        ),
        case("off_link", "A claim to an address of another link is ignored.", "PE-ARP rule 21")
            .given(Lan, announce(STRANGER, SERVER, psid("0,4,1")))
            .drops("off_link_claim"),
        case("outside", "On the outside no PE-ARP is spoken.", "PE-ARP rule 19")
            .given(Outside, announce(STRANGER, SERVER, psid("0,4,1")))
            .drops("pe_arp_not_spoken"),
    ]
}
