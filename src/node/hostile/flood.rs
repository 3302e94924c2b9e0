//! Floods: what they cost is bounded by named constants, and no live traffic suffers.

use smoltcp::time::Instant;

use super::*;
use crate::neighbor::{
    LINK_QUESTIONS_PER_SECOND, MAX_BINDINGS, MAX_BINDINGS_PER_ADDRESS, MAX_BINDINGS_PER_HARDWARE, MAX_BLOCKS,
    MAX_PENDING_BYTES_PER_ADDRESS, MAX_QUESTIONS, MAX_SOLICITORS,
};
use crate::node::RouterConfig;
use crate::ports::{Psid, Scheme};
use crate::wire::pe_arp::{DEFAULT_PRO, MAX_RECORDS, Message, PeAddress, Record};
use crate::wire::pe_arp_frame;

/// What the rules say about a flood of claims: who is learned, until which bound.
struct Model {
    us: Us,
    counted: Counted,
    per_address: BTreeMap<Ipv4Addr, usize>,
    per_hardware: BTreeMap<EthernetAddress, usize>,
    bindings: usize,
}

impl Model {
    fn new<N: Node>(us: Us, bench: &Bench<N>) -> Self {
        let mut model = Self {
            us,
            counted: Counted::new(),
            per_address: BTreeMap::new(),
            per_hardware: BTreeMap::new(),
            bindings: 0,
        };
        for (link, entry) in bench.node.neighbors(bench.now) {
            if link == "lan" {
                model.add(entry.ip, entry.hardware.unwrap());
            }
        }
        model
    }

    fn count(&mut self, name: &'static str) {
        *self.counted.entry(name).or_default() += 1;
    }

    fn add(&mut self, ip: Ipv4Addr, hardware: EthernetAddress) {
        *self.per_address.entry(ip).or_default() += 1;
        *self.per_hardware.entry(hardware).or_default() += 1;
        self.bindings += 1;
    }

    /// Rule 29: a claim by a host that is not in the table with this address.
    fn claimed(&mut self, ip: Ipv4Addr, hardware: EthernetAddress) {
        let of = |count: Option<&usize>| count.copied().unwrap_or(0);
        let room = of(self.per_address.get(&ip)) < MAX_BINDINGS_PER_ADDRESS
            && of(self.per_hardware.get(&hardware)) < MAX_BINDINGS_PER_HARDWARE
            && self.bindings < MAX_BINDINGS;
        if room {
            self.add(ip, hardware);
        }
        self.count(if room { "delivered" } else { "table_full" });
    }
}

/// An announcement of a set with a protocol scope.
fn scoped(owner: EthernetAddress, ip: Ipv4Addr, scope: u8, owned: Record) -> Frame {
    let address = shared(ip).with_port(0, Some(0));
    let message = Message::announce(owner, address, &[Record { scope, ..owned }]);
    pe_arp_frame(EthernetAddress::BROADCAST, &message, DEFAULT_PRO)
}

/// Forged claim `number`; tells the model what should come of it.
fn forged(number: u32, model: &mut Model) -> Frame {
    let [_, b, c, d] = number.to_be_bytes();
    let forger = EthernetAddress([2, 0x66, 0, b, c, d]);
    let on_link = |from: u8, count: u32| Ipv4Addr::new(198, 51, 100, from + (number / 10 % count) as u8);
    let router = model.us == THE_ROUTER;
    match number % 10 {
        // The victim's own set, for every protocol in turn.
        0 => {
            if router {
                model.claimed(SHARED, forger);
            } else {
                model.count("conflicting_claim");
            }
            scoped(forger, SHARED, (number / 10) as u8, psid("0,4,1"))
        }
        // A free set of the same address, for every protocol in turn.
        1 => {
            model.claimed(SHARED, forger);
            scoped(forger, SHARED, (number / 10) as u8, psid("0,4,7"))
        }
        // A question with a set: it is the router's to learn.
        2 => {
            let ip = on_link(60, CLAIMED);
            if router {
                model.claimed(ip, forger);
            } else {
                model.count("delivered");
            }
            let asked = shared(SHARED).with_port(6, Some(9000));
            let message = Message::resolve(forger, shared(ip), asked, &[psid("0,4,1")]);
            pe_arp_frame(EthernetAddress::BROADCAST, &message, DEFAULT_PRO)
        }
        // Plain ARP in the name of the shared address.
        3 => {
            model.count("plain_for_shared");
            plain_arp(1, (forger, SHARED), (EthernetAddress([0; 6]), model.us.ip))
        }
        // A legacy host that asks for the router.
        4 => {
            let ip = on_link(100, 64);
            if router {
                model.claimed(ip, forger);
                model.count("arp_sent");
            } else {
                model.count("delivered");
            }
            plain_arp(1, (forger, ip), (EthernetAddress([0; 6]), ROUTER))
        }
        // One host that claims one address after the other.
        5 => {
            let [_, b, c, d] = (number / 10 / CLAIMED).to_be_bytes();
            let (greedy, ip) = (EthernetAddress([2, 0x67, 0, b, c, d]), on_link(60, CLAIMED));
            model.claimed(ip, greedy);
            announce(greedy, ip, psid("0,4,3"))
        }
        // Sets of other addresses.
        _ => {
            let ip = on_link(60, CLAIMED);
            model.claimed(ip, forger);
            announce(forger, ip, psid("6,4,1"))
        }
    }
}

/// Addresses from 198.51.100.60 on that forged PE-ARP claims.
const CLAIMED: u32 = 40;

/// Rules 29, 52, 53 and 55: 100,000 forged claims of every kind. Who confirmed a set keeps it, the table stays within
/// each of its bounds, and each claim is counted as the bounds say.
fn forged_claims<N: Victim>(us: Us, mut bench: Bench<N>) -> Vec<Entry> {
    N::live(&mut bench);
    let mut model = Model::new(us, &bench);
    let (sent, counted) = give_all(&mut bench, LAN, (0..100_000).map(|number| forged(number, &mut model)));
    // The owner was asked once, or defended its set once.
    model.count("arp_sent");
    model.counted.insert("received", 100_000);
    assert_eq!(counted, model.counted);
    let everybody = EthernetAddress::BROADCAST;
    let once = if us == THE_ROUTER { ("Resolve".to_owned(), A) } else { ("Announce".to_owned(), everybody) };
    assert_eq!(sent.iter().filter(|one| describe(one) == once).count(), 1);

    let entries: Vec<_> =
        bench.node.neighbors(bench.now).into_iter().filter(|(link, _)| link == "lan").collect();
    let (mut per_address, mut per_hardware) = (BTreeMap::<_, usize>::new(), BTreeMap::<_, usize>::new());
    for (_, entry) in &entries {
        *per_address.entry(entry.ip).or_default() += 1;
        *per_hardware.entry(entry.hardware.unwrap()).or_default() += 1;
    }
    assert_eq!(entries.len(), model.bindings);
    assert!(entries.len() <= MAX_BINDINGS);
    assert_eq!(per_address[&SHARED], MAX_BINDINGS_PER_ADDRESS);
    assert!(per_address.values().all(|count| *count <= MAX_BINDINGS_PER_ADDRESS));
    assert_eq!(per_hardware.values().max(), Some(&MAX_BINDINGS_PER_HARDWARE));
    N::live(&mut bench);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

#[test]
fn forged_claims_at_the_router() {
    let entries = forged_claims(THE_ROUTER, confirmed_router());
    assert_eq!(entries.len(), MAX_BINDINGS);
}

#[test]
fn forged_claims_at_the_host() {
    let entries = forged_claims(THE_HOST, confirmed_host());
    assert!(entries.iter().all(|entry| entry.source == "learned"), "plain ARP told it nothing");
}

/// Rules 29, 35 and 72: as many records as a message takes, of every scheme and every scope. The blocks are bounded, a
/// set of 32,767 ranges is one of them, and lookups look at no other scope than the packet's.
#[test]
fn forged_schemes_and_scopes() {
    const MESSAGES: u32 = 2000;
    let mut bench = confirmed_router();
    let frames = (0..MESSAGES).map(|number| {
        let [_, b, c, d] = number.to_be_bytes();
        let forger = EthernetAddress([2, 0x66, 0, b, c, d]);
        let ip = if number % 2 == 0 { SHARED } else { Ipv4Addr::new(198, 51, 100, 60) };
        let record = |at: u32| {
            let offset = (at % 16) as u8;
            let scheme = Scheme::new(offset, (number % u32::from(17 - offset)) as u8).unwrap();
            let value = (number * 31 + at) % scheme.sets();
            let claim = Claim::Psid(Psid::new(scheme, value as u16).unwrap());
            Record { scope: (number + at) as u8, ..record(claim) }
        };
        let records: Vec<_> = (0..MAX_RECORDS as u32).map(record).collect();
        let message = Message::announce(forger, shared(ip).with_port(0, Some(0)), &records);
        pe_arp_frame(EthernetAddress::BROADCAST, &message, DEFAULT_PRO)
    });
    let known = table_of(&bench).iter().filter(|(ip, ..)| ip.octets()[..3] == SHARED.octets()[..3]).count();
    let (sent, counted) = give_all(&mut bench, LAN, frames);
    let learned = ((MAX_BLOCKS - known) / MAX_RECORDS) as i64;
    let all = i64::from(MESSAGES);
    let expected =
        [("received", all), ("delivered", learned), ("table_full", all - learned), ("arp_sent", 2)].into();
    assert_eq!(counted, expected);
    let mut asked: Vec<_> = sent.iter().map(|one| describe(one).1).collect();
    asked.sort_by_key(|owner| owner.0);
    assert_eq!(asked, [A, B], "each owner is asked once");
    Router::live(&mut bench);
}

/// Rules 36, 46 and 50: a scan of more blocks than there may be questions about.
#[test]
fn questions_are_bounded() {
    const ADDRESSES: usize = 20;
    let scheme: Scheme = "0,10".parse().unwrap();
    let address = |n: usize| Ipv4Addr::new(198, 51, 100, 100 + n as u8);
    let config =
        RouterConfig { shared: (0..ADDRESSES).map(|n| (address(n), scheme)).collect(), ..router_config() };
    let now = Instant::from_secs(1);
    let mut bench = Bench { node: Router::new(config, now), now };
    bench.pass(Duration::from_secs(5));
    bench.give(LAN, announce(C, WHOLE, FULL));
    let blocks = scheme.sets() as usize;
    let scan = (0..ADDRESSES * blocks).map(|n| {
        let port = (n % blocks * 64) as u16;
        ethernet(SERVER_MAC, OUTSIDE_MAC, &tcp((SERVER, 443), (address(n / blocks), port)))
    });
    let one = Frame::from_packet(&tcp((SERVER, 443), (SHARED, 1)));
    let (sent, counted) = give_all(&mut bench, OUTSIDE, scan);
    let waiting = MAX_PENDING_BYTES_PER_ADDRESS / one.memory();
    let asked = MAX_QUESTIONS / blocks;
    let expected: [(_, usize); 5] = [
        ("received", ADDRESSES * blocks),
        ("pending", asked * waiting),
        ("pending_full", asked * (blocks - waiting)),
        ("questions_full", (ADDRESSES - asked) * blocks),
        ("arp_sent", sent.len()),
    ];
    assert_eq!(counted, expected.map(|(name, count)| (name, count as i64)).into());
    assert_eq!(sent.len(), LINK_QUESTIONS_PER_SECOND as usize, "the burst of the link");
    let open =
        bench.node.neighbors(bench.now).iter().filter(|(_, entry)| entry.state == "incomplete").count();
    assert_eq!(open, MAX_QUESTIONS);
    let frame = ethernet(SERVER_MAC, OUTSIDE_MAC, &tcp((SERVER, 443), (WHOLE, 80)));
    bench.give(OUTSIDE, frame).is_forwarded(LAN);
}

/// Rules 36, 47 and 50: a scan of more addresses than there may be questions about. It costs each packet the same, and
/// live traffic nothing.
#[test]
fn addresses_asked_about_are_bounded() {
    const ADDRESSES: usize = 20_000;
    let mut config = router_config();
    config.links[1].address = "172.16.0.1/12".parse().unwrap();
    let now = Instant::from_secs(1);
    let mut bench = Bench { node: Router::new(config, now), now };
    bench.pass(Duration::from_secs(5));
    bench.give(LAN, announce(A, SHARED, psid("0,4,1")));
    let scan = (0..ADDRESSES as u32).map(|n| {
        let to = Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 17, 0, 0)) + n);
        ethernet(SERVER_MAC, OUTSIDE_MAC, &tcp((SERVER, 443), (to, 80)))
    });
    let (sent, counted) = give_all(&mut bench, OUTSIDE, scan);
    let (all, open) = (ADDRESSES as i64, MAX_QUESTIONS as i64);
    // RESOLVE and plain ARP for each token of the link.
    let burst = 2 * i64::from(LINK_QUESTIONS_PER_SECOND);
    let expected =
        [("received", all), ("pending", open), ("questions_full", all - open), ("arp_sent", burst)];
    assert_eq!(counted, expected.into());
    assert_eq!(sent.len() as i64, burst);
    let frame = ethernet(SERVER_MAC, OUTSIDE_MAC, &tcp((SERVER, 443), (SHARED, 5000)));
    bench.give(OUTSIDE, frame).is_forwarded(LAN);
}

/// Rules 41, 47 and 112: SOLICIT-ALL is answered once per second and asker, for as many askers as have room.
fn solicit_all_flood<N: Victim>(us: Us, mut bench: Bench<N>) {
    let solicit = |asker: u32| {
        let [_, b, c, d] = asker.to_be_bytes();
        let message =
            Message::solicit_all(EthernetAddress([2, 0x68, 0, b, c, d]), PeAddress::new(WHOLE), us.ip);
        pe_arp_frame(EthernetAddress::BROADCAST, &message, DEFAULT_PRO)
    };
    let mut flood = |frames: u32, askers: u32, most: usize| {
        let table = table_of(&bench);
        let (mut answers, mut counted) = (Vec::new(), Counted::new());
        for number in 0..frames {
            let (sent, count) = give_all(&mut bench, LAN, core::iter::once(solicit(number % askers)));
            let (later, more) = bench.pass(Duration::from_millis(1));
            answers.extend(sent.into_iter().chain(later));
            for (name, count) in count.into_iter().chain(more) {
                *counted.entry(name).or_default() += count;
            }
        }
        let (last, more) = bench.pass(Duration::from_secs(2));
        answers.extend(last);
        *counted.entry("arp_sent").or_default() += more.get("arp_sent").unwrap_or(&0);
        assert!(answers.iter().all(|one| describe(one).0 == "Reply"));
        assert!((1..=most).contains(&answers.len()), "{} answers", answers.len());
        let taken = counted["delivered"];
        assert!(taken as usize >= answers.len());
        let expected = [
            ("received", i64::from(frames)),
            ("delivered", taken),
            ("solicit_all", i64::from(frames) - taken),
            ("arp_sent", answers.len() as i64),
        ];
        assert_eq!(counted, expected.into());
        assert_eq!(table_of(&bench), table);
    };
    // 10 s: one answer in each, and one that was due when the flood ended.
    flood(10_000, 1, 11);
    // As many askers as there are places, each with a turn of a second at least.
    flood(10_000, 1000, 11 * MAX_SOLICITORS);
}

#[test]
fn solicit_all_flood_at_the_router() {
    solicit_all_flood(THE_ROUTER, router());
}

#[test]
fn solicit_all_flood_at_the_host() {
    solicit_all_flood(THE_HOST, host());
}
