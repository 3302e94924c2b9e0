//! What is going to happen, in order of time; at one instant, in the order in which it was put in.

use std::collections::BTreeMap;

use smoltcp::time::Instant;

/// The place of an event in the queue.
pub(super) type Key = (Instant, u64);

/// Events by (time, sequence number).
#[derive(Debug)]
pub(super) struct Queue<E> {
    events: BTreeMap<Key, E>,
    sequence: u64,
}

impl<E> Queue<E> {
    pub(super) const fn new() -> Self {
        Self { events: BTreeMap::new(), sequence: 0 }
    }

    pub(super) fn insert(&mut self, at: Instant, event: E) -> Key {
        let key = (at, self.sequence);
        self.sequence += 1;
        self.events.insert(key, event);
        key
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.events.remove(&key);
    }

    /// What is still to happen.
    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        self.events.values()
    }

    /// The next event that is not later than `end`.
    pub(super) fn pop(&mut self, end: Instant) -> Option<(Instant, E)> {
        let entry = self.events.first_entry().filter(|entry| entry.key().0 <= end)?;
        let ((at, _), event) = entry.remove_entry();
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time_then_of_insertion() {
        let at = Instant::from_millis;
        let mut queue = Queue::new();
        for (time, name) in [(5, "d"), (1, "a"), (1, "b"), (9, "e")] {
            queue.insert(at(time), name);
        }
        let removed = queue.insert(at(1), "removed");
        queue.insert(at(1), "c");
        queue.remove(removed);
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop(at(5))).map(|(_, name)| name).collect();
        assert_eq!(popped, ["a", "b", "c", "d"]);
        assert_eq!(queue.pop(at(9)), Some((at(9), "e")));
    }
}
