//! Gives the frames of a capture to a fresh node, with a virtual clock and a fixed seed.

use std::collections::BTreeMap;

use pearp::node::{Counters, LinkId, Node, Verdict};
use smoltcp::time::Instant;

use crate::case::Timed;
use crate::topology::{Link, Setup, as_frame};

/// All that came of a capture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// What the node sent, in its order.
    pub(crate) outputs: Vec<Timed>,
    /// Every counter that changed, and by how much.
    pub(crate) counters: BTreeMap<String, u64>,
}

/// The counters of a node by their names.
pub(crate) fn counters_of(counters: &Counters) -> BTreeMap<String, u64> {
    let Counters { received, originated, delivered, forwarded, pending, mapped, arp_sent, arp_lost, .. } =
        *counters;
    [
        ("received", received),
        ("originated", originated),
        ("delivered", delivered),
        ("forwarded", forwarded),
        ("pending", pending),
        ("mapped", mapped),
        ("arp_sent", arp_sent),
        ("arp_lost", arp_lost),
    ]
    .into_iter()
    .chain(counters.drops().map(|(reason, count)| (reason.name(), count)))
    .map(|(name, count)| (name.to_owned(), count))
    .collect()
}

struct Bench {
    node: Box<dyn Node>,
    links: Vec<Link>,
    now: Instant,
    sent: Vec<Timed>,
}

impl Bench {
    fn id_of(&self, link: Link) -> LinkId {
        let at = self.links.iter().position(|one| *one == link);
        LinkId(at.expect("a link of the node"))
    }

    fn record(&mut self, link: LinkId, bytes: &[u8]) {
        self.sent.push(Timed { at: self.now, link: self.links[link.0], bytes: bytes.to_vec() });
    }

    fn drain(&mut self) {
        while let Some((link, frame)) = self.node.poll_transmit(self.now) {
            self.record(link, frame.bytes());
        }
        assert!(self.node.counters().is_balanced(), "{:?}", self.node.counters());
    }

    fn give(&mut self, link: Link, bytes: &[u8]) {
        let mut frame = as_frame(link, bytes);
        let id = self.id_of(link);
        if let Verdict::Forward(link) = self.node.handle_frame(id, &mut frame, self.now) {
            self.record(link, frame.bytes());
        }
        self.drain();
    }

    /// Runs every timer at its time, until `end`.
    fn pass(&mut self, end: Instant) {
        while let Some(due) = self.node.poll_timeout(self.now).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.node.handle_timeout(self.now);
            self.drain();
            let next = self.node.poll_timeout(self.now);
            assert!(next.is_none_or(|next| next > self.now), "a deadline that stays due");
        }
        self.now = end;
    }
}

/// What becomes of `inputs`, which are in the order of time.
pub(crate) fn replay(setup: Setup, inputs: &[Timed], ends: Instant) -> Replayed {
    let node = setup.build();
    let link_of = |name: &str| Link::ALL.into_iter().find(|link| link.name() == name).unwrap();
    let links = node.links().iter().map(|(name, _)| link_of(name)).collect();
    let mut bench = Bench { node, links, now: Instant::ZERO, sent: Vec::new() };
    let mut before = BTreeMap::new();
    if setup.start() > Instant::ZERO {
        bench.drain();
        bench.pass(Instant::from_secs(5));
        for (link, bytes) in setup.before() {
            bench.give(link, &bytes);
        }
        bench.pass(setup.start());
        bench.sent.clear();
        before = counters_of(bench.node.counters());
    } else {
        bench.drain();
    }
    for input in inputs {
        bench.pass(input.at);
        bench.give(input.link, &input.bytes);
    }
    bench.pass(ends);
    let mut counters = counters_of(bench.node.counters());
    for (name, count) in &mut counters {
        *count -= before.get(name).copied().unwrap_or(0);
    }
    counters.retain(|_, count| *count != 0);
    Replayed { outputs: bench.sent, counters }
}

/// A counter that [`counters_of`] forgets would be one that no capture asserts.
#[test]
fn every_counter_is_known() {
    let text = format!("{:?}", Counters::default());
    let (fields, _) = text.trim_start_matches("Counters { ").split_once(", drops:").unwrap();
    let names: Vec<_> = fields.split(", ").map(|field| field.split(':').next().unwrap()).collect();
    let known = counters_of(&Counters::default());
    assert_eq!(names.len(), known.len(), "{names:?}");
    assert!(names.iter().all(|name| known.contains_key(*name)), "{names:?}");
}
