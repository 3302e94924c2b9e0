//! Whoever claims ports or addresses of others, by ARP of either kind, asks for everybody, or leases all there is, gets
//! nothing (PE-ARP rules 52, 109, 112 and 121). The victim's ssh session notices nothing of it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pearp::ports::Psid;
use pearp::wire::pe_arp::{Claim, DEFAULT_PRO, Kind, Lifetime, Message, PeAddress, Record};
use pearp::wire::{EthernetAddress, Frame, pe_arp_frame, plain_arp};
use smoltcp::wire::{ArpOperation, ArpRepr};

use crate::support::attack::{GROWTH, Scene, VICTIM, VICTIM_MAC};
use crate::support::dhcp::{Client, Plea};
use crate::support::intruder::{LIAR, OUTSIDE_MAC, Plug, ROUTER_MAC};
use crate::support::lab::{INET, Lab, ROUTER, SHARED};
use crate::support::wait::{await_some, await_true, within};

const EVERYBODY: EthernetAddress = EthernetAddress::BROADCAST;
const NONE: EthernetAddress = EthernetAddress([0; 6]);
const OWNER: EthernetAddress = EthernetAddress(VICTIM_MAC);
const H3_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 2, 3]);
/// The set of h2, and one that nobody has.
const STOLEN: &str = "0,4,2";
const FREE: &str = "0,4,9";

/// An address that no host has.
const NOBODY: &str = "198.51.100.77";

/// Frames of a flood in a second: what one processor that is busy with other things takes in.
const FLOOD: u32 = 10_000;

fn ip(address: &str) -> Ipv4Addr {
    address.parse().unwrap()
}

fn set(text: &str) -> Record {
    Record::new(Claim::Psid(text.parse().unwrap()), Lifetime::Seconds(3600))
}

/// {shared address, first port} of a set.
fn first(text: &str) -> PeAddress {
    let psid: Psid = text.parse().unwrap();
    shared().with_port(0, Some(psid.first()))
}

fn shared() -> PeAddress {
    PeAddress { shared: true, ..PeAddress::new(ip(SHARED)) }
}

fn router() -> PeAddress {
    PeAddress { router: true, ..PeAddress::new(ip(ROUTER)) }
}

/// What is asked of the router as the next hop (rule 39).
fn gateway() -> PeAddress {
    router().with_port(0, Some(0))
}

fn to(destination: EthernetAddress, message: &Message) -> Frame {
    pe_arp_frame(destination, message, DEFAULT_PRO)
}

fn announce(who: EthernetAddress, text: &str) -> Message {
    Message::announce(who, first(text), &[set(text)])
}

fn plain(
    operation: ArpOperation,
    from: EthernetAddress,
    sender: Ipv4Addr,
    to: EthernetAddress,
    target: Ipv4Addr,
) -> Frame {
    let message = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: from,
        source_protocol_addr: sender,
        target_hardware_addr: to,
        target_protocol_addr: target,
    };
    let destination = if to == NONE { EVERYBODY } else { to };
    plain_arp(from, destination, &message)
}

/// Rules 109 and 121: by every kind of message, of a stranger and of a sharer who wants more than it has.
#[test]
fn a_stolen_set_stays_its_owners() {
    let scene = Scene::new(Lab::up());
    let owners = scene.owners("router");
    scene.lab.end("h3", Signal::SIGKILL);
    for (who, mut plug) in [(H3_MAC, Plug::of_host(&scene.lab, "h3")), (LIAR, Plug::new(&scene.lab, "lan"))] {
        Scene::until_lines_are_due();
        let from = who.to_string();
        scene.dropped("router", "not_leased", || {
            for text in [STOLEN, FREE] {
                let ask = shared().with_port(6, Some(30_000));
                plug.send(&to(EVERYBODY, &announce(who, text)));
                plug.send(&to(ROUTER_MAC, &announce(who, text)));
                plug.send(&to(ROUTER_MAC, &Message::resolve(who, shared(), gateway(), &[set(text)])));
                plug.send(&to(EVERYBODY, &Message::resolve(who, shared(), ask, &[set(text)])));
            }
            8
        });
        scene.logged("not_leased", &[&from, SHARED, "8192-12287"]);
        scene.dropped("router", "unsolicited", || {
            let asked = shared().with_port(6, Some(scene.port));
            plug.send(&to(ROUTER_MAC, &Message::reply(who, asked, ROUTER_MAC, router(), &[set(STOLEN)])));
            plug.send(&to(ROUTER_MAC, &Message::conflict(who, first(STOLEN), ROUTER_MAC, &[set(STOLEN)])));
            2
        });
        scene.logged("unsolicited", &[&from, SHARED, &scene.port.to_string()]);
        scene.dropped("router", "no_authority", || {
            let asked = shared().with_port(6, Some(scene.port));
            plug.send(&to(ROUTER_MAC, &Message::nak(who, asked, ROUTER_MAC, router(), set(STOLEN))));
            let mut reply = Message::reply(who, asked, ROUTER_MAC, router(), &[set(STOLEN)]);
            reply.authority = true;
            plug.send(&to(ROUTER_MAC, &reply));
            2
        });
        scene.logged("no_authority", &[&from, SHARED]);
        // In the victim's name, from the liar's card; and in its own name, which gives back nothing.
        for node in ["router", "h1"] {
            let other = if node == "router" { ROUTER_MAC } else { EthernetAddress([2, 0, 0, 0, 2, 1]) };
            scene.dropped(node, "arp_sender", || {
                let mut forged = to(other, &Message::release(OWNER, first(STOLEN), &[set(STOLEN)]));
                forged.set_ethernet_addresses(who, other);
                plug.send(&forged);
                1
            });
        }
        scene.logged("arp_sender", &[&from, SHARED, "8192"]);
        plug.send(&to(EVERYBODY, &Message::release(who, first(STOLEN), &[set(STOLEN)])));
        // Rule 54: the owner objects at once.
        plug.heard(who);
        plug.send(&to(EVERYBODY, &Message::probe(who, first(STOLEN), &[set(STOLEN)])));
        let conflict = await_some("the owner's objection", || {
            plug.heard(who).into_iter().find(|message| message.kind() == Kind::Conflict)
        });
        assert_eq!(conflict.sender_hardware, OWNER);
        assert_eq!(scene.owners("router"), owners, "after {who}");
    }
    assert_eq!(scene.lab.pearp_json(VICTIM, &["status"])["state"], "bound");
    scene.finish("stolen sets");
}

/// Rules 3 and 26: nobody learns a shared address from plain ARP, be it the router or a sharer.
#[test]
fn plain_arp_with_a_shared_sender_teaches_nobody() {
    const EACH: u64 = 100;
    let scene = Scene::new(Lab::up());
    scene.lab.exec("h1", &["ping", "-n", "-c", "1", "-W", "10", INET]).ok();
    let nodes = ["router", "h1", VICTIM];
    let owners = nodes.map(|node| scene.owners(node));
    let mut plug = Plug::new(&scene.lab, "lan");
    let lies = [
        // Gratuitous, both ways (RFC 5227 §3), and a question of somebody else.
        plain(ArpOperation::Request, LIAR, ip(SHARED), NONE, ip(SHARED)),
        plain(ArpOperation::Reply, LIAR, ip(SHARED), EVERYBODY, ip(SHARED)),
        plain(ArpOperation::Request, LIAR, ip(SHARED), NONE, ip(ROUTER)),
    ];
    let before = nodes.map(|node| scene.drops(node, "plain_for_shared"));
    let sent = plug.flood(lies.iter().cycle().take(3 * EACH as usize).cloned(), FLOOD);
    for (node, before) in nodes.iter().zip(before) {
        await_true("all lies are counted", || scene.drops(node, "plain_for_shared") >= before + sent);
        assert_eq!(scene.drops(node, "plain_for_shared"), before + sent, "{node}");
    }
    // To one alone.
    for (node, mac) in [("router", ROUTER_MAC), (VICTIM, OWNER)] {
        scene.dropped(node, "plain_for_shared", || {
            plug.send(&plain(ArpOperation::Reply, LIAR, ip(SHARED), mac, ip(SHARED)));
            1
        });
    }
    scene.logged("plain_for_shared", &[&LIAR.to_string(), SHARED]);
    assert_eq!(nodes.map(|node| scene.owners(node)), owners);
    scene.finish("plain ARP");
}

/// Outside nobody speaks PE-ARP, and no shared address is there.
#[test]
fn arp_from_outside_teaches_nobody() {
    let scene = Scene::new(Lab::up());
    let owners = scene.owners("router");
    let mut plug = Plug::new(&scene.lab, "wan");
    scene.dropped("router", "pe_arp_not_spoken", || {
        let asked = shared().with_port(6, Some(scene.port));
        let all = Message::solicit_all(LIAR, router(), ip(SHARED));
        let reply = Message::reply(LIAR, asked, OUTSIDE_MAC, router(), &[set(STOLEN)]);
        let release = Message::release(LIAR, first(STOLEN), &[set(STOLEN)]);
        for message in [announce(LIAR, STOLEN), reply, release, all] {
            plug.send(&to(OUTSIDE_MAC, &message));
            plug.send(&to(EVERYBODY, &message));
        }
        8
    });
    scene.logged("pe_arp_not_spoken", &[&LIAR.to_string(), SHARED]);
    let before = scene.drops("router", "off_link_claim") + scene.drops("router", "unsolicited");
    plug.send(&plain(ArpOperation::Request, LIAR, ip(SHARED), NONE, ip("203.0.113.1")));
    plug.send(&plain(ArpOperation::Reply, LIAR, ip(SHARED), OUTSIDE_MAC, ip("203.0.113.1")));
    await_true("both are counted", || {
        scene.drops("router", "off_link_claim") + scene.drops("router", "unsolicited") >= before + 2
    });
    assert_eq!(scene.owners("router"), owners);
    scene.finish("ARP from outside");
}

/// Rule 112: who is no router is not answered, and who says that it is one, once per second.
#[test]
fn a_flood_of_solicit_all_is_answered_once_a_second() {
    const FRAMES: usize = 10_000;
    let scene = Scene::new(Lab::up());
    let mut plug = Plug::new(&scene.lab, "lan");
    let claimed_router = Message::solicit_all(LIAR, PeAddress::new(ip(NOBODY)), ip(SHARED));
    let mut host = claimed_router.clone();
    host.sender.router = false;
    plug.heard(LIAR);
    let nodes = ["router", "h1", VICTIM, "h3"];
    let before = nodes.map(|node| scene.drops(node, "solicit_all"));
    let sent = plug.flood((0..FRAMES).map(|_| to(EVERYBODY, &host)), FLOOD);
    for (node, before) in nodes.iter().zip(before) {
        await_true("all are counted", || scene.drops(node, "solicit_all") >= before + sent);
        assert_eq!(scene.drops(node, "solicit_all"), before + sent, "{node}");
    }
    scene.logged("solicit_all", &[&LIAR.to_string(), NOBODY]);
    assert_eq!(plug.heard(LIAR), []);
    let begin = Instant::now();
    let before = scene.drops(VICTIM, "solicit_all");
    let sent = plug.flood((0..FRAMES).map(|_| to(EVERYBODY, &claimed_router)), FLOOD);
    // The last answer comes within two seconds of the last question.
    let mut answers = 0;
    within(Duration::from_secs(3), || {
        answers += plug.heard(LIAR).len();
        None::<()>
    });
    let seconds = begin.elapsed().as_secs() + 1;
    let refused = scene.drops(VICTIM, "solicit_all") - before;
    println!("SOLICIT-ALL: {answers} answers to {sent} frames in {seconds} s, {refused} refused at h2");
    assert!((3..=3 * seconds as usize).contains(&answers), "{answers} answers in {seconds} s");
    assert!(refused >= sent - 2 * seconds, "{refused} of {sent} are refused");
    scene.finish("SOLICIT-ALL");
}

/// Rules 29 and 50: a claim each of a hundred thousand strangers to some ports of the shared address, to all hosts.
#[test]
fn a_hundred_thousand_claims_leave_nothing() {
    const CLAIMS: u32 = 100_000;
    /// What the neighbor table of a host may become, in KiB: 4096 learned bindings of an address (rule 29), 2 KiB each.
    const HOST_TABLE: u64 = 8 << 10;
    let scene = Scene::new(Lab::alone(&[]));
    let owners = scene.owners("router");
    let host = scene.lab.memory_kib("h1", "VmRSS");
    let mut plug = Plug::new(&scene.lab, "lan");
    let claims = (0..CLAIMS).map(|number| {
        let [_, a, b, c] = number.to_be_bytes();
        let who = EthernetAddress([2, 9, 9, a, b, c]);
        let psid = format!("0,12,{}", 256 + number % 3840);
        to(EVERYBODY, &announce(who, &psid))
    });
    let begin = Instant::now();
    scene.dropped("router", "not_leased", || plug.flood(claims, 2 * FLOOD));
    let (took, host) = (begin.elapsed(), scene.lab.memory_kib("h1", "VmRSS").saturating_sub(host));
    println!("claims: {CLAIMS} in {took:?}; h1 has {host} KiB more");
    scene.logged("not_leased", &["02-09-09-", SHARED]);
    assert_eq!(scene.owners("router"), owners);
    assert!(host <= HOST_TABLE + GROWTH, "{host} KiB");
    scene.lab.assert_balanced("h1");
    // Who was there is heard as before.
    scene.lab.exec("h1", &["ping", "-n", "-c", "1", "-W", "10", INET]).ok();
    scene.finish("claims");
}

/// Rules 14, 20, 28 and 55: what a host is told by a liar changes nothing at it.
#[test]
fn a_host_is_not_talked_out_of_its_set() {
    let scene = Scene::new(Lab::up());
    let mut plug = Plug::new(&scene.lab, "lan");
    let asked = shared().with_port(6, Some(scene.port));
    let own = shared();
    let all = Record::new(Claim::Full, Lifetime::Seconds(3600));
    let owners = scene.owners(VICTIM);
    scene.dropped(VICTIM, "no_authority", || {
        let mut nak = Message::nak(LIAR, asked, OWNER, own, set(STOLEN));
        plug.send(&to(OWNER, &nak));
        nak.authority = false;
        plug.send(&to(OWNER, &nak));
        let mut reply = Message::reply(LIAR, gateway(), OWNER, own, &[all]);
        reply.authority = true;
        plug.send(&to(OWNER, &reply));
        3
    });
    scene.dropped(VICTIM, "unsolicited", || {
        plug.send(&to(OWNER, &Message::reply(LIAR, gateway(), OWNER, own, &[all])));
        plug.send(&to(OWNER, &Message::reply(LIAR, asked, OWNER, own, &[set(STOLEN)])));
        plug.send(&to(OWNER, &Message::conflict(LIAR, first(STOLEN), OWNER, &[set(STOLEN)])));
        3
    });
    scene.dropped(VICTIM, "arp_not_for_us", || {
        plug.send(&to(EVERYBODY, &Message::conflict(LIAR, first(STOLEN), LIAR, &[set(STOLEN)])));
        1
    });
    scene.dropped(VICTIM, "conflicting_claim", || {
        (0..20).for_each(|_| plug.send(&to(EVERYBODY, &announce(LIAR, STOLEN))));
        20
    });
    assert_eq!(scene.owners(VICTIM), owners);
    let status = scene.lab.pearp_json(VICTIM, &["status"]);
    assert_eq!(status["state"], "bound", "a leased set is kept");
    scene.lab.exec(VICTIM, &["ping", "-n", "-c", "1", "-W", "10", INET]).ok();
    scene.finish("what a host is told");
}

/// Limits of messages and offers (src/dhcp/limit.rs): a client that asks ten thousand times, one that asks in the name of
/// others, and ten thousand that never take what they are offered. Whoever has a lease keeps it.
#[test]
fn a_pool_is_not_starved() {
    const MESSAGES: u32 = 10_000;
    let scene = Scene::new(Lab::with(&["--psid", "6,9"]));
    let leases = bound(&scene);
    assert_eq!(leases.len(), 3);
    let mut plug = Plug::new(&scene.lab, "lan");
    let mut honest = Client::new(&scene.lab, "new1", EthernetAddress([2, 0, 0, 7, 7, 1]));
    let random = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        EthernetAddress([2, 8, 8, a, b, c])
    };

    // One that asks for others.
    scene.dropped("router", "dhcp_invalid", || {
        let pleas = (0..MESSAGES).map(|number| Plea::discover(random(number)).from(LIAR));
        plug.flood(pleas, FLOOD)
    });
    scene.logged("dhcp_invalid", &[&LIAR.to_string()]);
    // One for itself: the burst, and four in a second.
    let before = scene.drops("router", "dhcp_limit");
    let begin = Instant::now();
    let sent = plug.flood((0..MESSAGES).map(|_| Plea::discover(LIAR).from(LIAR)), FLOOD);
    let most = 40 + 4 * (begin.elapsed().as_secs() + 2);
    await_true("most are refused", || scene.drops("router", "dhcp_limit") >= before + sent - most);
    scene.logged("dhcp_limit", &[&LIAR.to_string()]);
    let begin = Instant::now();
    assert_eq!(honest.lease(&[159]).0, ip(SHARED));
    println!("DHCP: a new host has a lease after {:?}", begin.elapsed());
    assert_eq!(bound(&scene).len(), 4);

    // Ten thousand others, each of which takes an offer away for a while. A new host gets its lease in their midst.
    let stop = AtomicBool::new(false);
    let (sent, took) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let going =
                (0..u32::MAX).take_while(|number| *number < MESSAGES || !stop.load(Ordering::Relaxed));
            plug.flood(going.map(|number| Plea::discover(random(number)).from(random(number))), FLOOD / 10)
        });
        let mut late = Client::new(&scene.lab, "new2", EthernetAddress([2, 0, 0, 7, 7, 2]));
        // So many have asked that all offers stand.
        let offers = await_some("a flood", || {
            let leases = scene.lab.pearp_json("router", &["leases"]);
            let offered = leases.as_array()?.iter().filter(|lease| lease["state"] == "offered").count();
            (offered >= 256).then_some(offered)
        });
        let begin = Instant::now();
        late.lease(&[159]);
        let took = begin.elapsed();
        assert_eq!(offers, 256, "no more stand");
        stop.store(true, Ordering::Relaxed);
        (flood.join().unwrap(), took)
    });
    println!("DHCP: another one after {took:?}, amid {sent} clients");
    assert!(took < Duration::from_secs(4), "sooner than a client would ask again: {took:?}");
    let now = bound(&scene);
    assert!(leases.iter().all(|lease| now.contains(lease)), "{leases:?} are no more in {now:?}");
    scene.finish("starvation");
}

/// {client, address, ports} of leases that are bound.
#[track_caller]
fn bound(scene: &Scene) -> Vec<[serde_json::Value; 3]> {
    let leases = scene.lab.pearp_json("router", &["leases"]);
    let bound = leases.as_array().unwrap().iter().filter(|lease| lease["state"] == "bound");
    bound.map(|lease| ["client", "address", "ports"].map(|name| lease[name].clone())).collect()
}
