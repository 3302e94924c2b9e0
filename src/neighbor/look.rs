//! What the table and the questions say of a target, without a change to either: for explanations.

use smoltcp::time::Instant;

use super::api::{Entry, Refused, Target};
use super::engine::Neighbors;
use super::questions::Block;
use crate::wire::pe_arp::Record;

/// What would come of a packet for a target now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It leaves by this binding.
    Bound(Entry),
    /// It is dropped.
    Refused(Refused),
    /// It waits; the owner is being asked for.
    Asking,
    /// It waits, and the owner is asked for.
    Unknown,
}

impl Neighbors {
    /// What [`Neighbors::next_hop`], or else [`Neighbors::enqueue`], would make of a packet; but for full queues.
    pub fn look(&self, target: Target, now: Instant) -> Look {
        if let Some(entry) = self.entry_of(target, now) {
            return Look::Bound(entry);
        }
        if let (Some(scheme), Some(port)) = (self.table.scheme(target.ip), target.port)
            && !scheme.covers(port)
        {
            return Look::Refused(Refused::Unassigned);
        }
        if self.config.authority && self.table.scheme(target.ip).is_some() {
            return Look::Refused(Refused::NoOwner);
        }
        let block = Block::of(self.question_scheme(target.ip), target.protocol, target.port);
        self.questions.look(target, block, now)
    }

    /// The binding that stands for a target, with the record that names it.
    pub fn entry_of(&self, target: Target, now: Instant) -> Option<Entry> {
        let binding = self.table.binding(self.binding_of(target)?)?;
        let named = |record: &&Record| record.contains(target.protocol, target.port);
        let record = binding.records.iter().map(|held| &held.record).find(named)?;
        Some(Entry {
            ip: binding.ip,
            claim: record.claim,
            protocol: record.scope,
            hardware: Some(binding.hardware),
            state: binding.state.at(now).name(),
            source: binding.source.name(),
            age: (!binding.source.is_given()).then(|| now - binding.heard),
        })
    }
}
