//! When somebody is to look which ports are in use: while programs send, and now and then while there is something to be
//! given back; not at all on a host at rest.

use smoltcp::time::{Duration, Instant};

/// How often, while programs send.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often while there are further sets, and nobody sends.
const INTERVAL_IDLE: Duration = Duration::from_secs(5);
/// How soon somebody who was asked to look may have looked.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Looks {
    due: Option<Instant>,
    /// It is due, and nobody has been told so yet.
    wanted: bool,
    /// Since when the look that is not done yet is due.
    asked: Option<Instant>,
    /// When the last one was done.
    last: Instant,
    /// When a program sent something last.
    sent: Instant,
    /// Nobody can look.
    ended: bool,
}

impl Looks {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: None, wanted: false, asked: None, last: now, sent: now, ended: false }
    }

    /// A program has sent something.
    pub(super) fn sent(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        self.sent = now;
        let soon = self.last + INTERVAL;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)).max(now));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_some_and(|at| at <= now) {
            self.asked.get_or_insert(now);
            // Again soon, until it is done.
            (self.due, self.wanted) = (Some(now + AGAIN), true);
        }
    }

    /// Whether one is due; once.
    pub(super) fn take(&mut self) -> bool {
        core::mem::take(&mut self.wanted)
    }

    /// One was done. `goes_on`: whether another one is needed although nobody sends.
    pub(super) fn done(&mut self, goes_on: bool, now: Instant) {
        self.last = now;
        // What was sent meanwhile may have been from a port that was not seen yet.
        let unseen = self.asked.take().is_some_and(|asked| self.sent > asked);
        self.due = match unseen {
            true => Some(now + INTERVAL),
            false => goes_on.then_some(now + INTERVAL_IDLE),
        };
    }

    /// There are no more.
    pub(super) fn end(&mut self) {
        (self.ended, self.due, self.wanted) = (true, None, false);
    }
}
