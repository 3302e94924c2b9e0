//! Rules 62, 66, 87, 90 and 94: what has no port is the host's if and only if it owns it.

use super::*;

const GRE: u8 = 47;
const AH: u8 = 51;

/// A sharer that owns this of the address, too, and knows its gateway.
fn owner(portless: &str) -> Bench<Host> {
    let mut config = host_config(A, "0,4,1");
    config.first.portless = portless.parse().unwrap();
    let mut host = host_with(config);
    host.give(LAN, announce(ROUTER_MAC, ROUTER, FULL));
    host
}

fn esp(from: core::net::Ipv4Addr, to: core::net::Ipv4Addr) -> Vec<u8> {
    ip(from, to, AH, &[0; 16])
}

fn timestamp(from: core::net::Ipv4Addr, to: core::net::Ipv4Addr) -> Vec<u8> {
    icmp_error(from, to, (13, 0), &[0; 12])
}

/// What a host owns, and of GRE, AH and an ICMP timestamp what is its own.
const OWNERS: [(&str, [bool; 3]); 4] = [
    ("47", [true, false, false]),
    ("51", [false, true, false]),
    ("47,51", [true, true, false]),
    ("residual", [true, true, true]),
];

#[test]
fn the_lan_reaches_the_owner() {
    for (portless, owned) in OWNERS {
        let mut host = owner(portless);
        let packets = [gre(SERVER, SHARED), esp(SERVER, SHARED), timestamp(SERVER, SHARED)];
        for (packet, owned) in packets.into_iter().zip(owned) {
            let outcome = host.give(LAN, from_lan(&packet));
            if owned {
                outcome.is_forwarded(TUN);
                assert_eq!(outcome.frame.bytes(), packet, "without padding");
            } else {
                outcome.is_silent_drop(DropReason::Portless);
            }
        }
    }
}

#[test]
fn the_owner_sends() {
    for (portless, owned) in OWNERS {
        let mut host = owner(portless);
        let packets = [gre(SHARED, SERVER), esp(SHARED, SERVER), timestamp(SHARED, SERVER)];
        for (packet, owned) in packets.into_iter().zip(owned) {
            let outcome = host.give(TUN, from_program(&packet));
            if owned {
                outcome.is_forwarded(LAN);
                assert_eq!(
                    (addresses(&outcome.frame), packet_of(&outcome.frame)),
                    ((A, ROUTER_MAC), &packet[..])
                );
            } else {
                let told = [("portless", 1), ("originated", 1), ("forwarded", 1)];
                outcome.is(Verdict::Dropped(DropReason::Portless), &told);
                assert_eq!(icmp_of(outcome.only_packet(TUN)).kind, (3, 13));
            }
        }
    }
}

/// Rule 62: an error goes to the owner of what it is about; one about an echo reply is the router's.
#[test]
fn errors_about_what_has_no_port() {
    for (portless, owned) in OWNERS {
        let mut host = owner(portless);
        let error = |about: &[u8]| from_lan(&icmp_error(ROUTER, SHARED, (3, 1), about));
        let sent = [gre(SHARED, SERVER), esp(SHARED, SERVER), timestamp(SHARED, SERVER)];
        for (sent, owned) in sent.into_iter().zip(owned) {
            let outcome = host.give(LAN, error(&sent));
            if owned { outcome.is_forwarded(TUN) } else { outcome.is_silent_drop(DropReason::Portless) }
        }
        let of_router = echo_reply(SHARED, SERVER, 5000);
        host.give(LAN, error(&of_router)).is_silent_drop(DropReason::EchoIdentifier);
    }
}

/// Rule 94: an error leaves only where it is about a packet that was for this host.
#[test]
fn errors_that_a_host_sends() {
    for (portless, [of_gre, of_esp, _]) in OWNERS {
        let mut host = owner(portless);
        for (about, owned) in [(gre(SERVER, SHARED), of_gre), (esp(SERVER, SHARED), of_esp)] {
            let outcome = host.give(TUN, from_program(&icmp_error(SHARED, SERVER, (3, 2), &about)));
            if owned { outcome.is_forwarded(LAN) } else { outcome.is_silent_drop(DropReason::ForeignError) }
        }
        let foreign = icmp_error(SHARED, SERVER, (3, 2), &gre(SERVER, WHOLE));
        host.give(TUN, from_program(&foreign)).is_silent_drop(DropReason::ForeignError);
    }
}

/// Rule 90: what is for the host itself comes back.
#[test]
fn to_the_own_address() {
    let mut host = owner("47");
    let outcome = host.give(TUN, from_program(&gre(SHARED, SHARED)));
    outcome.is_forwarded(TUN);
    let mut other = owner("51");
    let outcome = other.give(TUN, from_program(&gre(SHARED, SHARED)));
    assert_eq!(outcome.verdict, Verdict::Dropped(DropReason::Portless));
}

/// Rules 58 and 86: the owner at an on-link address is asked for by protocol, and what waited leaves for it; an error about
/// GRE leaves for who owns GRE.
#[test]
fn what_waits_leaves_for_the_owner_by_protocol() {
    const ON_LINK: core::net::Ipv4Addr = core::net::Ipv4Addr::new(198, 51, 100, 77);
    let mut host = owner("47");
    let packets = [gre(SHARED, ON_LINK), icmp_error(SHARED, ON_LINK, (3, 2), &gre(ON_LINK, SHARED))];
    for packet in packets {
        let outcome = host.give(TUN, from_program(&packet));
        assert_eq!(outcome.verdict, Verdict::Pending);
        if let Some((_, question)) = outcome
            .sent
            .iter()
            .find(|(_, frame)| message_of(frame).is_some_and(|message| message.kind() == Kind::Resolve))
        {
            let asked = message_of(question).unwrap().target;
            assert_eq!((asked.ip, asked.protocol, asked.port), (ON_LINK, GRE, None));
        }
    }
    let outcome = host.give(LAN, announce(B, ON_LINK, record(Claim::Portless(GRE))));
    outcome.is(Verdict::Delivered, &[("delivered", 1), ("pending", -2), ("forwarded", 2)]);
    assert!(outcome.sent.iter().all(|(link, frame)| *link == LAN && addresses(frame) == (A, B)));
}

/// A set that is not in use owns nothing, and each set of an address has its own.
#[test]
fn what_has_no_port_goes_with_a_set() {
    let mut host = owner("47");
    let more = SetConfig {
        set: "8192-8999".parse().unwrap(),
        portless: "51,residual".parse().unwrap(),
        ..host_config(A, "0,4,1").first
    };
    let more = host.node.add_set(more, host.now).unwrap();
    host.step(|_, _| ());
    host.give(LAN, from_lan(&esp(SERVER, SHARED))).is_silent_drop(DropReason::Portless);
    let shown = |host: &Bench<Host>| host.node.addresses()[0].portless().to_string();
    assert_eq!(shown(&host), "47");
    host.pass(Duration::from_secs(5));
    assert_eq!(shown(&host), "47,51,residual");
    host.give(LAN, from_lan(&esp(SERVER, SHARED))).is_forwarded(TUN);
    assert!(host.node.remove_set(more, host.now));
    host.step(|_, _| ());
    host.give(LAN, from_lan(&esp(SERVER, SHARED))).is_silent_drop(DropReason::Portless);
    host.give(LAN, from_lan(&gre(SERVER, SHARED))).is_forwarded(TUN);
    assert_eq!(shown(&host), "47");
}

/// Rule 126: a lease that is renewed with something else is announced so.
#[test]
fn a_renewal_may_change_it() {
    let mut host = owner("47");
    host.node.renew_with(OwnId::FIRST, &"51,residual".parse().unwrap(), Duration::from_secs(60), host.now);
    let (sent, _) = host.pass(Duration::from_secs(1));
    let announced: Vec<_> = sent.iter().filter_map(|(_, frame)| message_of(frame)).collect();
    let [message] = &announced[..] else { panic!("{announced:?}") };
    assert_eq!((message.kind(), message.sender.residual), (Kind::Announce, true));
    let claims: Vec<_> = message.records.iter().map(|record| record.claim).collect();
    assert_eq!(claims, [Claim::Psid("0,4,1".parse().unwrap()), Claim::Portless(AH)]);
    host.give(LAN, from_lan(&gre(SERVER, SHARED))).is_forwarded(TUN);
    host.node.renew_with(OwnId::FIRST, &crate::ports::Portless::default(), Duration::from_secs(60), host.now);
    host.step(|_, _| ());
    host.give(LAN, from_lan(&gre(SERVER, SHARED))).is_silent_drop(DropReason::Portless);
    assert!(host.node.addresses()[0].portless().is_empty());
}
