//! A host process while it serves.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::ExitStatus;

use anyhow::bail;
use serde_json::{Value, json};
use smoltcp::time::Instant;

use super::super::arp::table;
use super::super::explain;
use super::super::serve::{Ready, counters, shown};
use super::doctor::Doctor;
use super::hook::{Hook, Variables, lost, variables};
use crate::dhcp::client::{Client, ClientLease};
use crate::link::Offloads;
use crate::neighbor::ClaimPhase;
use crate::node::{Host, HostAddress, LeaseEvent, LeasedHost, LinkId, Node};
use crate::ports::{PortRange, Portless, Psid};
use crate::runtime::{Asked, Attendant, LeaseFile, Reason, Report, Service};
use crate::wire::ipv4;

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
    pub(super) ready: Option<Ready>,
    /// Addresses of which the hook has been told.
    pub(super) told: BTreeSet<Ipv4Addr>,
    /// Those of which somebody has been told that they are served.
    pub(super) served: BTreeSet<Ipv4Addr>,
    pub(super) doctor: Doctor,
    /// Runs the hook and looks into /proc.
    pub(super) attendant: Attendant,
    /// It has been asked which ports are in use.
    pub(super) looking: bool,
}

impl HostService {
    /// The hook is called; where there is none, everything is done.
    fn tell(&mut self, reason: Reason, variables: Variables) {
        match &mut self.hook {
            Some(hook) => hook.call(reason, variables),
            None if reason == Reason::Bound => self.serve(),
            None => {}
        }
    }

    fn serve(&mut self) {
        let Some(host) = self.station.host() else { return };
        for address in host.addresses().iter().filter(|address| address.is_in_use()) {
            let ip = address.cidr().address();
            if self.told.contains(&ip) && self.served.insert(ip) {
                let ports = address.ports();
                let ports: Vec<_> = ports.iter().map(PortRange::to_string).collect();
                tracing::info!(name = %self.name, address = %ip, ports = ports.join(","), "host serves");
            }
        }
        if let Some(ready) = self.ready.take() {
            ready.tell(&self.name);
        }
    }

    fn follow_fixed(&mut self) -> anyhow::Result<()> {
        let Station::Fixed(host) = &mut self.station else { return Ok(()) };
        if let Some((_, hardware)) = host.take_lost() {
            let owner = shown(hardware);
            let set = host.set();
            if self.ready.is_some() {
                bail!("ports {set} of {} are in use by {owner}: give this host another set", host.address());
            }
            tracing::error!(%owner, ports = %set, "set is in use by another host; probing again in 60 s");
        }
        let first = &host.addresses()[0];
        if host.phase().holds() && self.told.insert(first.cidr().address()) {
            let variables = variables(host, first, None);
            self.tell(Reason::Bound, variables);
        }
        Ok(())
    }

    fn follow_lease(&mut self) {
        while let Station::Leased(leased) = &mut self.station
            && let Some(event) = leased.poll_event()
        {
            let told = |lease: &ClientLease| {
                let host = leased.host()?;
                // What is being probed again is told of when it is in use.
                let address =
                    host.address_of(lease.address.address()).filter(|address| address.is_in_use())?;
                Some(variables(host, address, Some(lease)))
            };
            match event {
                LeaseEvent::Bound(lease) => {
                    let told = told(&lease);
                    tracing::info!(address = %lease.address, set = %shown_set(lease.set), server = %lease.server, "leased");
                    self.told.insert(lease.address.address());
                    self.store();
                    told.into_iter().for_each(|told| self.tell(Reason::Bound, told));
                }
                LeaseEvent::Changed(lease) => {
                    let told = told(&lease);
                    self.store();
                    told.into_iter().for_each(|told| self.tell(Reason::Renew, told));
                }
                LeaseEvent::Lost(ip) => {
                    let told = lost(ip, leased.host());
                    tracing::warn!(name = %self.name, address = %ip, "the lease is lost; asking for another one");
                    self.told.remove(&ip);
                    self.served.remove(&ip);
                    self.store();
                    self.tell(Reason::Deconfig, told);
                }
            }
        }
    }

    /// Without the file, the next start asks for any lease instead of these.
    fn store(&self) {
        let (Some(file), Station::Leased(leased)) = (&self.lease_file, &self.station) else { return };
        if let Err(error) = file.store(&leased.kept()) {
            tracing::error!("{error:#}; the lease is used, but not kept over a restart");
        }
    }

    /// An address in a status.
    fn shown_address(&self, host: &Host, address: &HostAddress) -> Value {
        let ip = address.cidr().address();
        let leased = match &self.station {
            Station::Leased(leased) => Some(leased),
            Station::Fixed(_) => None,
        };
        let port_use = leased.and_then(|leased| leased.port_use(ip));
        let sets = address.sets().map(|(id, set)| {
            json!({
                "ports": range_pairs(set.ranges()),
                "portless": address.portless_of(id).and_then(shown_portless),
                "state": phase_name(host.phase_of(id)),
                "draining": leased.is_some_and(|leased| leased.is_draining(id)),
            })
        });
        json!({
            "address": ip,
            "prefix_len": address.cidr().prefix_len(),
            "gateway": address.gateway(),
            "in_use": address.is_in_use(),
            "ports": range_pairs(address.ports()),
            "portless": shown_portless(address.portless()),
            "program_ports": range_pairs(address.program_part().ranges()),
            "stack_ports": range_pairs(address.stack_part().ranges()),
            "sets": sets.collect::<Value>(),
            "usable": port_use.map(|(_, total)| total),
            "used": port_use.map(|(used, _)| used),
        })
    }

    /// Which ports programs use decides about further sets.
    fn follow_ports(&mut self) {
        let Station::Leased(leased) = &mut self.station else { return };
        if leased.wants_look() && !self.looking && !self.attendant.has_ended() {
            let addresses = leased.host().into_iter().flat_map(Host::addresses);
            let addresses = addresses.map(|address| address.cidr().address()).collect();
            self.attendant.look_at_ports(addresses);
            self.looking = true;
        }
    }

    fn follow_attendant(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(report) = self.attendant.poll() {
            match report {
                Report::Hook(reason, ended) => {
                    if let Some(hook) = &mut self.hook {
                        hook.ended();
                    }
                    self.hook_ended(reason, ended)?;
                }
                Report::Ports(Ok(in_use)) => {
                    self.looking = false;
                    if let Station::Leased(leased) = &mut self.station {
                        leased.observe(&in_use, now);
                    }
                }
                Report::Ports(Err(error)) => {
                    tracing::error!(%error, "cannot read the sockets of /proc; {NO_LOOKS}");
                    self.end_looks();
                }
                Report::Owner { protocol, port, owner } => self.doctor.hear((protocol, port), owner),
                Report::Ended(how) => self.attendant_ended(&how),
            }
        }
        Ok(())
    }

    fn hook_ended(&mut self, reason: Reason, ended: Result<ExitStatus, String>) -> anyhow::Result<()> {
        match (reason, ended) {
            (_, Err(why)) => bail!("{why}"),
            (Reason::Bound, Ok(status)) if status.success() => self.serve(),
            (Reason::Bound, Ok(status)) => bail!("the lease hook failed ({status}): its messages are above"),
            (Reason::Renew | Reason::Deconfig, Ok(status)) if status.success() => {}
            (Reason::Renew | Reason::Deconfig, Ok(status)) => {
                tracing::error!(reason = reason.name(), %status, "the lease hook failed: its messages are above");
            }
        }
        Ok(())
    }

    /// Frames go on as they did.
    fn attendant_ended(&mut self, how: &str) {
        tracing::error!(
            pid = self.attendant.pid(),
            "the attendant of this host has ended ({how}): the lease hook is not called any more, programs with ports \
             outside the set are not named, and {NO_LOOKS}; start the host again when it suits"
        );
        self.doctor.end();
        self.end_looks();
    }

    fn end_looks(&mut self) {
        if let Station::Leased(leased) = &mut self.station {
            leased.end_looks();
        }
    }

    /// What nobody tells the programs any more.
    fn follow_hook(&mut self) -> anyhow::Result<()> {
        let Some(hook) = &mut self.hook else { return Ok(()) };
        hook.begin(&mut self.attendant);
        while self.attendant.has_ended()
            && let Some(reason) = hook.abandon()
        {
            match reason {
                Reason::Bound => {
                    bail!("the lease hook cannot be called, as the attendant of this host has ended")
                }
                Reason::Renew | Reason::Deconfig => {
                    tracing::error!(
                        reason = reason.name(),
                        "the lease hook is not called: its attendant has ended"
                    );
                }
            }
        }
        Ok(())
    }
}

/// What has no port, where there is something.
fn shown_portless(portless: &Portless) -> Option<String> {
    (!portless.is_empty()).then(|| portless.to_string())
}

/// What a host does without looks at ports.
const NO_LOOKS: &str = "this host asks for no further ports, and gives none back";

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
            let first = &host.addresses()[0];
            let address = first.cidr();
            status["state"] = json!(phase_name(host.phase()));
            status["address"] = json!(address.address());
            status["prefix_len"] = json!(address.prefix_len());
            status["gateway"] = json!(host.gateway());
            status["ports"] = json!(range_pairs(first.ports()));
            status["portless"] = json!(shown_portless(first.portless()));
            status["program_ports"] = json!(range_pairs(host.program_part().ranges()));
            status["stack_ports"] = json!(range_pairs(host.stack_part().ranges()));
            status["stack_ports_used"] = json!(used);
            status["echo_port"] = json!(echo);
            status["addresses"] =
                host.addresses().iter().map(|address| self.shown_address(host, address)).collect();
            status["mapped"] = self.doctor.list(host.mapped_leaks());
        }
        if let Station::Leased(leased) = &self.station {
            let left = |at: Instant| if now < at { (at - now).secs() } else { 0 };
            let shown = |client: &Client| {
                json!({
                    "state": client.state().name(),
                    "client": client.id().to_string(),
                    "address": client.lease().map(|lease| lease.address.address()),
                    "set": client.lease().map(|lease| shown_set(lease.set)),
                    "server": client.lease().map(|lease| lease.server),
                    "renew_s": client.lease().map(|lease| left(lease.renew)),
                    "left_s": client.lease().map(|lease| left(lease.until)),
                })
            };
            status["leases"] = leased.clients().map(shown).collect();
            // The first one is always there.
            status["dhcp"] = status["leases"][0].clone();
        }
        status["counters"] = counters;
        status["drops"] = drops;
        status
    }

    fn explain(&mut self, asked: &Asked, now: Instant) -> Result<Value, String> {
        let packet = explain::bytes_of(asked)?;
        let links: Vec<_> = self.node().links().into_iter().map(|(name, _)| name).collect();
        let Some(host) = self.station.host() else { return Err("this host has no address yet".to_owned()) };
        let view = ipv4::check(&packet).map_err(|error| error.to_string())?;
        // What comes from an own address is a program's, unless it is for another sharer of it.
        let link = usize::from(host.address_of(view.src_addr()).is_some());
        let link = explain::link_of(&links, asked.link.as_deref(), Some(link))?;
        let about = host.explain(LinkId(link), &packet, now);
        Ok(explain::value(about, &links, json!([])))
    }

    fn host(&mut self) -> Option<&mut Host> {
        match &mut self.station {
            Station::Fixed(host) => Some(host),
            Station::Leased(leased) => leased.host_mut(),
        }
    }

    /// A program may end as soon as it hears that its packet was rejected, and then it could not be named any more.
    fn taken(&mut self, _now: Instant) -> Option<u64> {
        let mut last = None;
        while let Some(leak) = self.host().and_then(Host::poll_leak) {
            last = self.doctor.see(leak, &mut self.attendant).or(last);
        }
        last
    }

    fn seen(&self) -> u64 {
        self.doctor.answers()
    }

    fn attendant(&mut self) -> Option<&mut Attendant> {
        Some(&mut self.attendant)
    }

    fn turn(&mut self, now: Instant) -> anyhow::Result<()> {
        self.follow_attendant(now)?;
        self.follow_fixed()?;
        self.follow_ports();
        self.follow_lease();
        self.follow_hook()
    }

    fn stop(&mut self, now: Instant) {
        match &mut self.station {
            Station::Fixed(host) => host.release(now),
            Station::Leased(leased) if self.releases => {
                leased.release(now);
                self.store();
            }
            // The next start asks for it again.
            Station::Leased(_) => {}
        }
        tracing::info!(name = %self.name, "host ended");
    }
}
