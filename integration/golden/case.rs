//! One capture: what a node is given, and by hand what has to come of it.

use std::collections::BTreeMap;

use smoltcp::time::{Duration, Instant};

use crate::topology::{Link, Setup};

/// From one frame to the next, unless a case waits.
const STEP: Duration = Duration::from_millis(1);
/// How long a node is watched after the last step: longer than three questions take, shorter than the 5 s after which it
/// asks about a binding that it has used (RFC 4861 §10 DELAY_FIRST_PROBE_TIME).
const QUIET: Duration = Duration::from_secs(4);

/// A frame on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timed {
    pub(crate) at: Instant,
    pub(crate) link: Link,
    pub(crate) bytes: Vec<u8>,
}

/// A frame that has to be sent, no earlier and no later.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
    pub(crate) link: Link,
    pub(crate) bytes: Vec<u8>,
}

/// A capture as it is written in `cases`: steps in the order of time. What is not expected must not happen.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Group and name: where its files are.
    pub(crate) name: String,
    /// What it shows.
    pub(crate) shows: String,
    /// Which rules ask for it.
    pub(crate) rules: &'static str,
    pub(crate) setup: Setup,
    pub(crate) inputs: Vec<Timed>,
    pub(crate) outputs: Vec<Expected>,
    /// Every counter that changes; all others stay.
    pub(crate) counters: BTreeMap<String, u64>,
    now: Instant,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        setup: Setup,
        shows: impl Into<String>,
        rules: &'static str,
    ) -> Self {
        Self {
            name: name.into(),
            shows: shows.into(),
            rules,
            setup,
            inputs: Vec::new(),
            outputs: Vec::new(),
            counters: BTreeMap::new(),
            now: setup.start(),
        }
    }

    /// Time passes.
    pub(crate) fn wait(mut self, millis: u64) -> Self {
        self.now += Duration::from_millis(millis);
        self
    }

    /// A frame arrives, a millisecond after what was before.
    pub(crate) fn given(mut self, link: Link, bytes: Vec<u8>) -> Self {
        self.now += STEP;
        self.inputs.push(Timed { at: self.now, link, bytes });
        *self.counters.entry("received".to_owned()).or_default() += 1;
        self
    }

    /// The node sends this frame now.
    pub(crate) fn sends(self, link: Link, bytes: Vec<u8>) -> Self {
        self.sends_within(0, link, bytes)
    }

    /// The node sends this frame at a random time from now on.
    pub(crate) fn sends_within(mut self, millis: u64, link: Link, bytes: Vec<u8>) -> Self {
        let to = self.now + Duration::from_millis(millis);
        self.outputs.push(Expected { from: self.now, to, link, bytes });
        self
    }

    /// The node forwards a frame in place.
    pub(crate) fn forwards(self, link: Link, bytes: Vec<u8>) -> Self {
        self.sends(link, bytes).more("forwarded")
    }

    /// The node sends a packet of its own.
    pub(crate) fn originates(self, link: Link, bytes: Vec<u8>) -> Self {
        self.sends(link, bytes).more("forwarded").more("originated")
    }

    /// The node sends an ARP message of either kind.
    pub(crate) fn says(self, link: Link, bytes: Vec<u8>) -> Self {
        self.sends(link, bytes).more("arp_sent")
    }

    /// The node asks three times, a second apart, and nobody answers (PE-ARP rule 38).
    pub(crate) fn asks_in_vain(self, link: Link, question: &[u8]) -> Self {
        (0..3).fold(self, |case, _| case.says(link, question.to_vec()).wait(1000))
    }

    /// The last frame is dropped for this reason.
    pub(crate) fn drops(self, reason: &str) -> Self {
        self.more(reason)
    }

    /// The last frame was for the node itself.
    pub(crate) fn takes(self) -> Self {
        self.more("delivered")
    }

    /// One more of a counter.
    pub(crate) fn more(mut self, counter: &str) -> Self {
        *self.counters.entry(counter.to_owned()).or_default() += 1;
        self
    }

    /// Until when the timers run.
    pub(crate) fn ends(&self) -> Instant {
        self.outputs.iter().map(|expected| expected.to).max().unwrap_or(self.now).max(self.now) + QUIET
    }
}
