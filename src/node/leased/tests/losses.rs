//! Several leases of a host, and some of them are lost.

use super::several::{Pair, TWO_ADDRESSES, two_addresses};
use super::*;
use crate::node::LeakPolicy;
use crate::wire::FlowKey;

const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

fn states(pair: &Pair) -> Vec<ClientState> {
    pair.host.node.clients().map(Client::state).collect()
}

/// The host gives its first lease up, as if another host had its set.
fn lose_first(pair: &mut Pair) {
    let (sent, _) = pair.host.step(|node, now| {
        node.tenancies[0].client.probed(false, now);
        node.sync(now);
    });
    for (_, frame) in sent {
        pair.router.give(LAN, frame);
    }
}

#[test]
fn a_further_set_takes_the_place_of_the_first_one() {
    let mut pair = Pair::new(config(), TWO_ADDRESSES);
    let ip = pair.bound()[0].0;
    let first = pair.open(ip);
    pair.observe(ip, 100);
    let further: Vec<u16> = pair.open(ip).into_iter().filter(|port| !first.contains(port)).collect();
    // It was about to be given back.
    for _ in 0..122 {
        pair.observe_ports(&[further[3]]);
        pair.join(2);
    }
    assert_eq!(pair.open(ip), first);
    pair.events();
    let (_, echo) = pair.host.node.host().unwrap().stack_use();
    assert!(!further.contains(&echo.unwrap()));
    lose_first(&mut pair);
    assert_eq!(pair.open(ip), further);
    let events = pair.events();
    assert!(
        !events.is_empty() && events.iter().all(|event| matches!(event, LeaseEvent::Changed(_))),
        "{events:?}"
    );
    // The echo service moves, and what it had is free.
    let host = pair.host.node.host().unwrap();
    let (used, echo) = host.stack_use();
    assert!(host.stack_part().contains(echo.unwrap()) && used == 1, "{echo:?} {used}");
    // Nothing more is needed.
    pair.observe_ports(&[further[3]]);
    pair.join(20);
    assert_eq!(
        (states(&pair), pair.host.node.host().unwrap().addresses().len()),
        (vec![ClientState::Bound], 1)
    );
    assert_eq!(pair.host.node.client().lease().unwrap().set.first(), further[0]);
    // And so it is after a restart.
    let (kept, now) = (pair.host.node.kept(), pair.host.now);
    pair.host = Bench { node: LeasedHost::new(LeasedConfig { stored: kept, ..config() }, now), now };
    pair.join(3);
    assert_eq!((states(&pair), pair.open(ip)), (vec![ClientState::Bound], further));
}

#[test]
fn leases_of_another_network_wait_until_the_old_ones_have_ended() {
    let mut pair = Pair::new(config(), POOLS);
    pair.wait(200);
    pair.observe(SHARED, 100);
    assert_eq!(states(&pair), [ClientState::Bound; 2]);
    let now = pair.host.now;
    let mut renumbered = RouterConfig { authority: true, shared: Vec::new(), ..router_config() };
    renumbered.links[LAN.0].address = "198.51.100.1/25".parse().unwrap();
    let address = renumbered.links[LAN.0].address;
    let links = vec![ServerLink { link: LAN.0, address, router: Some(ROUTER) }];
    let mut node = Router::new(renumbered, now);
    let pools = "lease = 600\n[[shared]]\naddresses = \"198.51.100.10\"\nscheme = [0, 4]\n";
    node.serve_dhcp(Server::new(Config::parse(pools, links, 1).unwrap(), [], now), now);
    pair.router = Bench { node: Stored(node), now };
    for _ in 0..300 {
        pair.join(3);
    }
    let host = pair.host.node.host().unwrap();
    assert_eq!(
        host.addresses().iter().map(|one| one.cidr().to_string()).collect::<Vec<_>>(),
        ["198.51.100.10/25"]
    );
    assert_eq!(pair.host.node.client().state(), ClientState::Bound);
}

#[test]
fn a_further_set_of_an_address_that_is_gone_is_not_looked_for() {
    let mut pair = Pair::new(config(), POOLS);
    pair.observe(SHARED, 100);
    let mut kept = pair.host.node.kept();
    kept.iter_mut().for_each(|(_, lease)| lease.address = "192.0.2.5/24".parse().unwrap());
    let now = pair.host.now;
    pair.router = router_with("lease = 600\n[[shared]]\naddresses = \"198.51.100.10\"\nscheme = [0, 4]\n");
    pair.router.now = now;
    pair.host = Bench { node: LeasedHost::new(LeasedConfig { stored: kept, ..config() }, now), now };
    pair.join(30);
    assert_eq!(pair.bound().len(), 1);
    pair.observe_ports(&[]);
    assert_eq!(states(&pair), [ClientState::Bound]);
}

/// The set that one address had before is no answer to the question for more of another one.
#[test]
fn each_address_grows_by_itself() {
    let mut pair = Pair::new(two_addresses(), TWO_ADDRESSES);
    let count = |pair: &Pair, ip| pair.bound().iter().filter(|(of, _)| *of == ip).count();
    let all = |pair: &Pair, ip| pair.open(ip).into_iter().map(|port| (ip, port)).collect::<Vec<_>>();
    let in_use = all(&pair, SHARED);
    pair.observe_sockets(&in_use);
    assert_eq!((count(&pair, SHARED), count(&pair, SECOND)), (2, 1));
    for _ in 0..125 {
        pair.observe_sockets(&[]);
        pair.join(2);
    }
    assert_eq!((count(&pair, SHARED), count(&pair, SECOND)), (1, 1));
    let in_use = all(&pair, SECOND);
    pair.observe_sockets(&in_use);
    assert_eq!((count(&pair, SHARED), count(&pair, SECOND)), (1, 2));
}

/// PE-ARP rules 56 and 87.
#[test]
fn nothing_leaves_from_a_set_that_is_being_probed() {
    let mut config = config();
    config.options.leaks = LeakPolicy::Map;
    let mut pair = Pair::new(config, POOLS);
    let first = pair.host.node.host().unwrap().address_of(SHARED).unwrap().ports();
    let packet = |port| Frame::from_packet(&udp((SHARED, port), (SERVER, 53), b"?"));
    for (_, question) in pair.host.give(TUN, packet(5000)).sent {
        for (_, answer) in pair.router.give(LAN, question).sent {
            pair.host.give(LAN, answer);
        }
    }
    let in_use: Vec<_> = pair.open(SHARED).into_iter().map(|port| (SHARED, port)).collect();
    pair.begin_to_observe(&in_use);
    assert_eq!(states(&pair), [ClientState::Bound, ClientState::Probing]);
    for port in 40_000..40_200 {
        let outcome = pair.host.give(TUN, packet(port));
        assert_eq!(outcome.verdict, Verdict::Forward(LAN));
        let source = Ipv4Packet::new_checked(packet_of(&outcome.frame))
            .ok()
            .and_then(|packet| FlowKey::of(&packet).ok());
        let source = source.and_then(|key| key.source).unwrap();
        assert!(first.iter().any(|range| range.contains(source)), "{source}");
    }
}

/// RFC 2131 §3.1 item 5.
#[test]
fn who_takes_every_further_set_does_not_take_them_all_at_once() {
    let mut pair = Pair::new(config(), POOLS);
    for _ in 0..20 {
        let in_use: Vec<_> = pair.open(SHARED).into_iter().map(|port| (SHARED, port)).collect();
        pair.begin_to_observe(&in_use);
        let further = pair.bound().into_iter().map(|(_, set)| set).find(|set| set.first() != 4096);
        if let Some(set) = further {
            for (_, frame) in pair.host.give(LAN, announce(B, SHARED, psid(&set.to_string()))).sent {
                pair.router.give(LAN, frame);
            }
        }
        pair.host.now += Duration::from_millis(250);
        pair.router.now = pair.host.now;
    }
    assert_eq!(pair.leases(LeaseState::Quarantined).len(), 1, "in 5 s");
}

/// A server that has one address only.
#[test]
fn two_sets_of_one_address_are_not_two_addresses() {
    let mut pair = Pair::new(two_addresses(), POOLS);
    pair.join(20);
    assert_eq!(pair.bound().len(), 1);
    assert_eq!(pair.host.node.host().unwrap().addresses().len(), 1);
    // What is offered to it is of no use, and it leaves that to others for a while.
    let mut states = states(&pair);
    states.sort_by_key(|state| state.name());
    assert_eq!(states, [ClientState::Bound, ClientState::Init]);
}

#[test]
fn a_whole_address_is_not_looked_at() {
    let mut pair = Pair::new(config(), "lease = 600\n[[whole]]\naddresses = \"198.51.100.100\"\n");
    let ip = pair.bound()[0].0;
    pair.host.give(TUN, Frame::from_packet(&udp((ip, 5000), (ROUTER, 53), b"?")));
    pair.host.pass(Duration::from_secs(1));
    assert!(!pair.host.node.wants_look());
}
