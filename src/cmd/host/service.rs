//! A host process while it serves.

use anyhow::bail;
use serde_json::{Value, json};
use smoltcp::time::Instant;

use super::super::arp::table;
use super::super::serve::{counters, shown, tell_ready};
use super::doctor::Doctor;
use super::hook::{Hook, Reason, variables};
use crate::dhcp::client::ClientLease;
use crate::link::Offloads;
use crate::neighbor::ClaimPhase;
use crate::node::{Host, LeaseEvent, LeasedHost, Node};
use crate::ports::{PortRange, Psid};
use crate::runtime::{LeaseFile, Service};

/// Where a set stands, in a status.
pub(in crate::cmd) fn phase_name(phase: ClaimPhase) -> &'static str {
    match phase {
        ClaimPhase::Unclaimed => "released",
        ClaimPhase::Expired => "expired",
        ClaimPhase::Probing { .. } => "probing",
        ClaimPhase::Announcing { .. } | ClaimPhase::Held => "bound",
        ClaimPhase::Lost => "lost",
    }
}

/// Ranges as pairs of numbers.
pub(in crate::cmd) fn range_pairs(ranges: Vec<PortRange>) -> Vec<(u16, u16)> {
    ranges.into_iter().map(|range| (range.first(), range.last())).collect()
}

/// What the process is.
pub(super) enum Station {
    /// A host with what its command line says.
    Fixed(Box<Host>),
    /// One with what a DHCP server says.
    Leased(Box<LeasedHost>),
}

impl Station {
    fn host(&self) -> Option<&Host> {
        match self {
            Self::Fixed(host) => Some(host),
            Self::Leased(leased) => leased.host(),
        }
    }
}

pub(super) struct HostService {
    pub(super) station: Station,
    pub(super) name: String,
    pub(super) link_address: String,
    /// Name and offloads of each link.
    pub(super) offloads: [(String, Offloads); 2],
    pub(super) hook: Option<Hook>,
    pub(super) lease_file: Option<LeaseFile>,
    /// Whether the lease is given back at the end.
    pub(super) releases: bool,
    pub(super) ready_fd: Option<i32>,
    /// The hook has been told of the fixed set.
    pub(super) told: bool,
    pub(super) doctor: Doctor,
}

impl HostService {
    /// The hook is called; where there is none, everything is done.
    fn tell(&mut self, reason: Reason, variables: Vec<(&'static str, String)>) {
        match &mut self.hook {
            Some(hook) => hook.call(reason, variables),
            None if reason == Reason::Bound => self.serve(),
            None => {}
        }
    }

    fn serve(&mut self) {
        let Some(host) = self.station.host() else { return };
        tracing::info!(name = %self.name, address = %host.address().address(), ports = %host.set(), "host serves");
        if let Some(fd) = self.ready_fd.take() {
            tell_ready(fd, &self.name);
        }
    }

    fn follow_fixed(&mut self) -> anyhow::Result<()> {
        let Station::Fixed(host) = &mut self.station else { return Ok(()) };
        if let Some(hardware) = host.take_lost() {
            let owner = shown(hardware);
            let set = host.set();
            if self.ready_fd.is_some() {
                bail!("ports {set} of {} are in use by {owner}: give this host another set", host.address());
            }
            tracing::error!(%owner, ports = %set, "set is in use by another host; probing again in 60 s");
        }
        if !self.told && host.phase().holds() {
            self.told = true;
            let variables = variables(host, None);
            self.tell(Reason::Bound, variables);
        }
        Ok(())
    }

    fn follow_lease(&mut self) {
        while let Station::Leased(leased) = &mut self.station
            && let Some(event) = leased.poll_event()
        {
            let told = |lease: &ClientLease| leased.host().map(|host| variables(host, Some(lease)));
            match event {
                LeaseEvent::Bound(lease) => {
                    let told = told(&lease);
                    tracing::info!(address = %lease.address, set = %shown_set(lease.set), server = %lease.server, "leased");
                    self.store(Some(&lease));
                    told.into_iter().for_each(|told| self.tell(Reason::Bound, told));
                }
                LeaseEvent::Renewed(lease) => {
                    let told = told(&lease);
                    self.store(Some(&lease));
                    told.into_iter().for_each(|told| self.tell(Reason::Renew, told));
                }
                LeaseEvent::Lost => {
                    tracing::warn!(name = %self.name, "the lease is lost; asking for another one");
                    self.store(None);
                    self.tell(Reason::Deconfig, Vec::new());
                }
            }
        }
    }

    /// Without the file, the next start asks for any lease instead of this one.
    fn store(&self, lease: Option<&ClientLease>) {
        if let Some(Err(error)) = self.lease_file.as_ref().map(|file| file.store(lease)) {
            tracing::error!("{error:#}; the lease is used, but not kept over a restart");
        }
    }

    fn follow_hook(&mut self) -> anyhow::Result<()> {
        while let Some(hook) = &mut self.hook
            && let Some((reason, status)) = hook.poll()?
        {
            match reason {
                Reason::Bound if status.success() => self.serve(),
                Reason::Bound => bail!("the lease hook failed ({status}): its messages are above"),
                Reason::Renew | Reason::Deconfig if status.success() => {}
                Reason::Renew | Reason::Deconfig => {
                    tracing::error!(reason = reason.name(), %status, "the lease hook failed: its messages are above");
                }
            }
        }
        Ok(())
    }
}

fn shown_set(set: Psid) -> String {
    if set == Psid::FULL { "all ports".to_owned() } else { set.to_string() }
}

impl Service for HostService {
    fn node(&mut self) -> &mut dyn Node {
        match &mut self.station {
            Station::Fixed(host) => host.as_mut(),
            Station::Leased(leased) => leased.as_mut(),
        }
    }

    fn arp(&mut self, now: Instant) -> Value {
        table(self.node().neighbors(now))
    }

    fn status(&mut self, now: Instant) -> Value {
        let (counters, drops) = counters(self.node().counters());
        let mut status = json!({
            "name": self.name,
            "role": "host",
            "pid": std::process::id(),
            "state": "unconfigured",
            "link_address": self.link_address,
            "links": self.offloads.each_ref().map(|(link, offloads)| {
                json!({ "link": link, "offload": offloads.to_string() })
            }),
        });
        if let Some(host) = self.station.host() {
            let (used, echo) = host.stack_use();
            let address = host.address();
            status["state"] = json!(phase_name(host.phase()));
            status["address"] = json!(address.address());
            status["prefix_len"] = json!(address.prefix_len());
            status["gateway"] = json!(host.gateway());
            status["ports"] = json!(range_pairs(host.set().ranges()));
            status["program_ports"] = json!(range_pairs(host.program_part().ranges()));
            status["stack_ports"] = json!(range_pairs(host.stack_part().ranges()));
            status["stack_ports_used"] = json!(used);
            status["echo_port"] = json!(echo);
            status["mapped"] = self.doctor.list(host.mapped_leaks());
        }
        if let Station::Leased(leased) = &self.station {
            let client = leased.client();
            let left = |at: Instant| if now < at { (at - now).secs() } else { 0 };
            status["dhcp"] = json!({
                "state": client.state().name(),
                "client": client.id().to_string(),
                "server": client.lease().map(|lease| lease.server),
                "renew_s": client.lease().map(|lease| left(lease.renew)),
                "left_s": client.lease().map(|lease| left(lease.until)),
            });
        }
        status["counters"] = counters;
        status["drops"] = drops;
        status
    }

    fn host(&mut self) -> Option<&mut Host> {
        match &mut self.station {
            Station::Fixed(host) => Some(host),
            Station::Leased(leased) => leased.host_mut(),
        }
    }

    fn turn(&mut self, now: Instant) -> anyhow::Result<()> {
        if let Some(host) = self.host() {
            let leaks: Vec<_> = core::iter::from_fn(|| host.poll_leak()).collect();
            leaks.iter().for_each(|leak| self.doctor.see(leak, now));
        }
        self.follow_fixed()?;
        self.follow_lease();
        self.follow_hook()
    }

    fn stop(&mut self, now: Instant) {
        match &mut self.station {
            Station::Fixed(host) => host.release(now),
            Station::Leased(leased) if self.releases => {
                leased.release(now);
                self.store(None);
            }
            // The next start asks for it again.
            Station::Leased(_) => {}
        }
        tracing::info!(name = %self.name, "host ended");
    }
}
