//! What `router` and `dhcpd` have in common: pools, the lease file, and what is told of leases.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use smoltcp::time::Instant;

use super::leases;
use crate::dhcp::{Config, Server, ServerLink};
use crate::node::Lessor;
use crate::runtime::{Clock, Journal, random_seed};

/// Where the leases of a node are kept.
pub(super) struct LeaseStore {
    journal: Journal,
    path: PathBuf,
}

impl LeaseStore {
    /// The store, and a server on these links that gives what is in the file `pools` and knows what is leased.
    pub(super) fn open(
        pools: &Path,
        lease_file: &Path,
        links: Vec<ServerLink>,
        clock: &Clock,
    ) -> anyhow::Result<(Self, Server)> {
        let text = fs::read_to_string(pools).with_context(|| format!("cannot read {}", pools.display()))?;
        let config = Config::parse(&text, links, random_seed()?)
            .with_context(|| format!("{} is no DHCP configuration", pools.display()))?;
        let (journal, stored) = Journal::open(lease_file, clock.epoch())?;
        // Whoever asks may be in another directory.
        let path = std::path::absolute(lease_file)?;
        Ok((Self { journal, path }, Server::new(config, stored, clock.now())))
    }

    /// Where the lease file is written anew.
    pub(super) fn directory(&self) -> PathBuf {
        self.journal.directory()
    }

    /// Stores what the node wants stored, and tells it.
    pub(super) fn commit(&mut self, node: &mut impl Lessor, now: Instant) {
        let commits = node.take_commits();
        if !commits.is_empty() {
            // One fsync for all that came in this turn.
            let stored = self.journal.store(&commits, node.leases(), now);
            node.committed(stored, now);
        }
    }

    /// Adds the leases to a status.
    pub(super) fn tell(&self, status: &mut Value, node: &impl Lessor, now: Instant) {
        status["leases"] = leases::summary(node.leases(), now);
        status["lease_file"] = json!(self.path);
    }
}
