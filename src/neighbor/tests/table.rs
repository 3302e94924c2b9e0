//! The table against a naive map, and its bounds.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::binding::{Binding, Held};
use super::super::store::BindingId;
use super::super::table::{Table, TableFull};
use super::*;
use crate::ports::Psid;

fn binding(ip: Ipv4Addr, hardware: EthernetAddress, records: &[Record], seniority: i64) -> Binding {
    Binding {
        ip,
        hardware,
        records: records.iter().map(|record| Held { record: *record, until: None }).collect(),
        source: Source::Learned,
        seniority,
        state: State::Stale,
        heard: Instant::from_secs(0),
        challenged: None,
        disputed: None,
    }
}

/// Is there a record of one port in it: what precedes the set around it among static bindings.
fn is_single(record: &Record) -> bool {
    match record.claim {
        Claim::Range(range) => range.count() == 1,
        Claim::Psid(psid) => psid.scheme().length() == 16,
        Claim::Full | Claim::Portless(_) => false,
    }
}

/// The bindings as a list, and what the table must say for each port.
#[derive(Default)]
struct Model(BTreeMap<EthernetAddress, Binding>);

impl Model {
    /// Every record and its holder, the one that precedes last.
    fn claims(&self) -> Vec<(Record, EthernetAddress)> {
        let rank = |source| match source {
            Source::Proxy => 0,
            Source::Arp | Source::Learned => 1,
            Source::Lease | Source::Static => 2,
        };
        let all = self.0.values().flat_map(|one| one.records.iter().map(move |held| (one, held.record)));
        let mut claims: Vec<_> = all.collect();
        claims.sort_by_key(|(one, record)| {
            (rank(one.source), one.source == Source::Static && is_single(record), one.seniority)
        });
        claims.into_iter().map(|(one, record)| (record, one.hardware)).collect()
    }

    fn owner(&self, protocol: u8, port: Option<u16>) -> Option<EthernetAddress> {
        let claims = self.claims();
        // Rule 31: by protocol first, whatever the sources.
        let by_protocol = claims.iter().any(|(record, _)| record.claim == Claim::Portless(protocol));
        let counts = |record: &Record| {
            record.contains(protocol, port) && !(by_protocol && protocol != 0 && record.is_residual())
        };
        claims.iter().rfind(|(record, _)| counts(record)).map(|(_, host)| *host)
    }

    /// Every port of a protocol: the naive table.
    fn owners(&self, protocol: u8) -> Vec<Option<EthernetAddress>> {
        let mut owners = vec![None; 1 << 16];
        for (record, host) in self.claims() {
            let ranges = match record.claim {
                _ if record.scope != 0 && record.scope != protocol => Vec::new(),
                Claim::Range(range) => vec![range],
                Claim::Psid(psid) => psid.ranges().collect(),
                Claim::Full => vec![PortRange::ALL],
                Claim::Portless(_) => Vec::new(),
            };
            for range in ranges {
                owners[usize::from(range.first())..=usize::from(range.last())].fill(Some(host));
            }
        }
        owners
    }
}

pub(super) fn random_record(rng: &mut ChaCha8Rng, usual: Scheme) -> Record {
    let claim = match rng.random_range(0..20) {
        0 => Claim::Full,
        1..3 => [Claim::Portless(GRE), Claim::Portless(50), Claim::RESIDUAL][rng.random_range(0..3)],
        3..5 => Claim::Psid(Psid::single(rng.random())),
        5..12 => {
            let value = rng.random_range(0..usual.sets()) as u16;
            Claim::Psid(Psid::new(usual, value).unwrap())
        }
        12..15 => {
            let a = rng.random_range(0..=15);
            let any = scheme(a, rng.random_range(0..=16 - a));
            Claim::Psid(Psid::new(any, rng.random_range(0..any.sets()) as u16).unwrap())
        }
        _ => {
            let (one, two): (u16, u16) = (rng.random(), rng.random());
            Claim::Range(PortRange::new(one.min(two), one.max(two)).unwrap())
        }
    };
    let scoped = !matches!(claim, Claim::Full | Claim::Portless(_)) && rng.random_ratio(1, 3);
    let scope = if scoped { [TCP, UDP][rng.random_range(0..2)] } else { 0 };
    Record { scope, ..Record::new(claim, Lifetime::Unknown) }
}

/// Rules 30, 31, 35: after any sequence of changes each lookup finds who a search of all records finds, disputes
/// and heirs included; a table that was emptied holds nothing.
fn compare_with_the_naive_map(seed: u64, usual: Scheme, configured: bool) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut table = Table::default();
    if configured {
        table.configure_scheme(SHARED, usual);
    }
    let mut model = Model::default();
    let mut ids: BTreeMap<EthernetAddress, BindingId> = BTreeMap::new();
    for step in 0..240i64 {
        let host = mac(rng.random_range(0..14));
        if rng.random_ratio(3, 5) {
            let records: Vec<_> =
                (0..rng.random_range(1..5)).map(|_| random_record(&mut rng, usual)).collect();
            // Each seniority once, in no order.
            let mut new = binding(SHARED, host, &records, (step * 97) % 241);
            new.source =
                [Source::Proxy, Source::Arp, Source::Learned, Source::Static][rng.random_range(0..4)];
            ids.insert(host, table.insert(new.clone()).unwrap());
            model.0.insert(host, new);
        } else if let Some(id) = ids.remove(&host) {
            assert_eq!(table.remove(id).map(|gone| gone.hardware), Some(host));
            model.0.remove(&host);
        }
        let found = |protocol, port| {
            table.lookup(SHARED, protocol, port).map(|id| table.binding(id).unwrap().hardware)
        };
        for protocol in [0, TCP, UDP, GRE, 50] {
            assert_eq!(found(protocol, None), model.owner(protocol, None), "step {step}: {protocol}");
            let port = Some(rng.random());
            assert_eq!(found(protocol, port), model.owner(protocol, port), "step {step}: {port:?}");
        }
        if step % 120 == 119 {
            for protocol in [TCP, UDP] {
                let all: Vec<_> = (0..=u16::MAX).map(|port| found(protocol, Some(port))).collect();
                assert!(all == model.owners(protocol), "step {step}: protocol {protocol}");
            }
        }
    }
    for id in ids.into_values() {
        assert!(table.remove(id).is_some());
    }
    assert_eq!(table.counters(), [0; 4]);
    assert_eq!(table.lookup(SHARED, TCP, Some(4096)), None);
}

#[test]
fn dense_slots_find_what_a_search_finds() {
    compare_with_the_naive_map(1, scheme(0, 4), true);
    compare_with_the_naive_map(2, scheme(6, 8), true);
}

#[test]
fn sparse_slots_find_what_a_search_finds() {
    compare_with_the_naive_map(3, scheme(0, 4), false);
    compare_with_the_naive_map(4, scheme(2, 14), true);
}

/// Rule 35: where the main group is alone, it says what all groups together say; and it is alone again when the others
/// have gone.
fn compare_the_short_cut(seed: u64, usual: Option<Scheme>, main: Scheme) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut table = Table::default();
    if let Some(usual) = usual {
        table.configure_scheme(SHARED, usual);
    }
    let mut changes = 0;
    let mut alone = false;
    for step in 0..4_000i64 {
        let host = mac(rng.random_range(0..12));
        let expected = |rng: &mut ChaCha8Rng| match usual {
            Some(_) => {
                let value = rng.random_range(0..main.sets()) as u16;
                Record::new(Claim::Psid(Psid::new(main, value).unwrap()), Lifetime::Unknown)
            }
            None => full(),
        };
        // Few stray claims, so that the table is often without any.
        let records: Vec<_> = (0..rng.random_range(0..4))
            .map(|_| if rng.random_ratio(1, 12) { random_record(&mut rng, main) } else { expected(&mut rng) })
            .collect();
        let mut new = binding(SHARED, host, &records, rng.random_range(0..8) * 4_000 + step);
        new.source = [Source::Learned, Source::Static][rng.random_range(0..2)];
        let id = table.insert(new).unwrap();
        if records.is_empty() {
            table.remove(id);
        }
        if table.has_short_cut(SHARED) != alone {
            alone = !alone;
            changes += 1;
        }
        for protocol in [0, TCP, GRE] {
            for port in [None, Some(rng.random())] {
                let (short, long) =
                    (table.lookup(SHARED, protocol, port), table.lookup_slowly(SHARED, protocol, port));
                assert_eq!(short, long, "step {step}: {protocol} {port:?}");
            }
        }
    }
    assert!(changes > 100, "{changes} changes between the ways");
}

/// Rule 35: owners of what has no port make no lookup of a port longer.
#[test]
fn portless_owners_leave_the_short_cut() {
    let mut table = Table::default();
    table.configure_scheme(SHARED, scheme(0, 4));
    let owned = [psid("0,4,1"), portless(GRE), portless(0)];
    let owner = table.insert(binding(SHARED, A, &owned, 1)).unwrap();
    assert!(table.has_short_cut(SHARED));
    assert_eq!([GRE, 50].map(|protocol| table.lookup(SHARED, protocol, None)), [Some(owner); 2]);
    let other = table.insert(binding(SHARED, B, &[of(TCP, range(80, 80))], 2)).unwrap();
    assert!(!table.has_short_cut(SHARED));
    table.remove(other);
    assert!(table.has_short_cut(SHARED));
}

#[test]
fn the_short_cut_leads_where_the_long_way_does() {
    compare_the_short_cut(5, Some(scheme(0, 4)), scheme(0, 4));
    compare_the_short_cut(6, Some(scheme(6, 8)), scheme(6, 8));
    compare_the_short_cut(7, None, scheme(0, 4));
}

/// The hosts of an address are in no order, and each is found.
#[test]
fn hosts_of_an_address_are_found() {
    let mut table = Table::default();
    let order = || (0..400u16).map(|n| n.wrapping_mul(41_111));
    let ids: Vec<_> = order()
        .map(|n| table.insert(binding(SHARED, mac(n), &[range(n, n)], i64::from(n))).unwrap())
        .collect();
    for (n, id) in order().zip(&ids).step_by(3) {
        assert_eq!(table.remove(*id).map(|gone| gone.hardware), Some(mac(n)));
    }
    for ((n, id), at) in order().zip(ids).zip(0..) {
        assert_eq!(table.find(SHARED, mac(n)), (at % 3 != 0).then_some(id));
    }
    assert_eq!(table.find(SHARED, mac(1)), None);
    let listed: Vec<_> = table.of_address(SHARED).map(|(_, binding)| binding.hardware).collect();
    assert_eq!(listed.len(), 266);
    assert!(listed.is_sorted());
}

/// Rule 30: addresses do not mix.
#[test]
fn addresses_are_apart() {
    let mut table = Table::default();
    let one = table.insert(binding(SHARED, A, &[range(10, 20)], 1)).unwrap();
    let two = table.insert(binding(OTHER, A, &[range(15, 30)], 2)).unwrap();
    assert_eq!(table.lookup(SHARED, TCP, Some(15)), Some(one));
    assert_eq!(table.lookup(OTHER, TCP, Some(15)), Some(two));
    assert_eq!(table.lookup(OTHER, TCP, Some(10)), None);
}

/// Rule 31: the heir of a disputed port is the strongest that is left.
#[test]
fn a_disputed_port_is_inherited() {
    let mut table = Table::default();
    let [weak, strong, middle] = [(A, 1), (B, 3), (C, 2)]
        .map(|(host, rank)| table.insert(binding(SHARED, host, &[psid("0,4,1")], rank)));
    let holder = |table: &Table| table.lookup(SHARED, TCP, Some(5000));
    assert_eq!(holder(&table), strong.ok());
    table.remove(strong.unwrap());
    assert_eq!(holder(&table), middle.ok());
    table.remove(middle.unwrap());
    assert_eq!(holder(&table), weak.ok());
    table.remove(weak.unwrap());
    assert_eq!(holder(&table), None);
}

/// §3.3: all ports are not the whole address: what has no port belongs to FULL alone.
#[test]
fn all_ports_are_not_the_whole_address() {
    for all in [range(0, u16::MAX), psid("0,0,0")] {
        let mut table = Table::default();
        let id = table.insert(binding(SHARED, A, &[all], 1)).unwrap();
        assert_eq!(table.lookup(SHARED, GRE, None), None, "{all:?}");
        assert_eq!(table.lookup(SHARED, TCP, Some(0)), Some(id));
        table.remove(id);
        assert_eq!(table.counters(), [0; 4]);
    }
}

/// Rule 29: 16 learned bindings per MAC; no other gives way, and one may be replaced.
#[test]
fn bindings_of_one_host_are_bounded() {
    let mut rig = Rig::new(router());
    let address = |n: u8| Ipv4Addr::new(192, 0, 2, 100 + n);
    // Static bindings do not count.
    for n in 30..50 {
        assert_eq!(rig.engine.insert_static(address(n), A, &[full()], rig.now), Ok(()));
    }
    for n in 0..16 {
        assert_eq!(rig.hear(&announce(A, address(n), &[range(1, 9)])), Ok(()));
    }
    assert_eq!(rig.hear(&announce(A, address(16), &[range(1, 9)])), Err(Refused::TableFull));
    assert_eq!(rig.next_hop(tcp(address(16), 5)), None);
    assert_eq!(rig.hear(&announce(A, address(15), &[range(1, 8)])), Ok(()), "a replacement");
    assert_eq!(rig.hear(&announce(B, address(16), &[range(1, 9)])), Ok(()), "another host");
    assert_eq!(rig.hear(&release(A, address(0), &[range(1, 9)])), Ok(()));
    assert_eq!(rig.hear(&announce(A, address(17), &[range(1, 9)])), Ok(()), "a place is free");
}

/// Rule 29: 4096 learned bindings per address.
#[test]
fn bindings_of_one_address_are_bounded() {
    let mut table = Table::default();
    let one = |n: u16| binding(SHARED, mac(n), &[range(n, n)], i64::from(n));
    for n in 0..4096 {
        assert!(table.insert(one(n)).is_ok());
    }
    assert_eq!(table.insert(one(4096)), Err(TableFull));
    assert!(table.insert(one(7)).is_ok(), "a replacement");
    let fixed = Binding { source: Source::Static, ..one(4097) };
    assert!(table.insert(fixed).is_ok(), "the configuration is not bounded");
    assert_eq!(table.counters(), [4097, 4097, 1, 4096]);
}

/// Rule 50: blocks are bounded over all addresses, and a replacement at the bound counts once.
#[test]
fn blocks_are_bounded() {
    let mut table = Table::default();
    let ragged = |n: u16| {
        let ip = Ipv4Addr::new(192, 0, 2, (n / 4000) as u8);
        binding(ip, mac(n), &[range(1, u16::MAX - 1)], i64::from(n))
    };
    let fit = (MAX_BLOCKS / 30) as u16;
    for n in 0..fit {
        assert!(table.insert(ragged(n)).is_ok());
    }
    assert_eq!(table.insert(ragged(fit)), Err(TableFull));
    assert!(table.insert(ragged(fit - 1)).is_ok());
    assert_eq!(table.counters()[1], usize::from(fit) * 30);
}
