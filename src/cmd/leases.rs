//! `pearp leases`: what a DHCP server gave.

use std::io;
use std::net::Ipv4Addr;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smoltcp::time::Instant;

use super::output::{is_false, leased_ranges, print_json, print_table, shown_ports};
use super::serve::shown;
use super::{Node, client};
use crate::dhcp::{Lease, LeaseState};
use crate::ports::Psid;
use crate::runtime::Request;

const EXAMPLES: &str = "Examples:
  ip netns exec lab-router pearp leases
  ip netns exec lab-router pearp leases --json | jq '.[] | select(.state == \"bound\")'

A set that was released or has expired is listed while it rests: nobody else gets it before.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LeasesArgs {
    #[command(flatten)]
    node: Node,
    /// Print JSON: [{address, ports, psid, client, link_address, state, left_s, host_name}]
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    address: Ipv4Addr,
    /// Empty where the address is whole.
    ports: Vec<(u16, u16)>,
    /// More ranges than are listed.
    #[serde(default, skip_serializing_if = "is_false")]
    ports_truncated: bool,
    /// `a,k,psid` where it is shared.
    psid: Option<String>,
    client: String,
    link_address: String,
    state: String,
    left_s: u64,
    host_name: Option<String>,
}

/// The leases as JSON, without those that are over.
pub(super) fn list<'a>(leases: impl Iterator<Item = &'a Lease>, now: Instant) -> Value {
    let lines: Vec<_> = leases.filter(|lease| now < lease.until).map(|lease| line(lease, now)).collect();
    serde_json::to_value(lines).unwrap_or_default()
}

/// How many there are in each state.
pub(super) fn summary<'a>(leases: impl Iterator<Item = &'a Lease> + Clone, now: Instant) -> Value {
    let states = [LeaseState::Offered, LeaseState::Bound, LeaseState::Released, LeaseState::Quarantined];
    let count = |state| leases.clone().filter(|lease| lease.state == state && now < lease.until).count();
    states.into_iter().map(|state| (state.name().to_owned(), Value::from(count(state)))).collect()
}

fn line(lease: &Lease, now: Instant) -> Line {
    let (ports, ports_truncated) = leased_ranges(lease.set);
    Line {
        address: lease.ip,
        ports,
        ports_truncated,
        psid: (lease.set != Psid::FULL).then(|| lease.set.to_string()),
        client: lease.client.to_string(),
        link_address: shown(lease.hardware),
        state: lease.state.name().to_owned(),
        left_s: (lease.until - now).secs(),
        host_name: lease.host_name.clone(),
    }
}

pub(super) fn run(args: &LeasesArgs) -> anyhow::Result<()> {
    let (value, _) = client::ask(&args.node, &Request::Leases)?;
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(print_json(&mut out, &value)?);
    }
    let lines: Vec<Line> = serde_json::from_value(value).context("the node is of another version")?;
    let head = ["Address", "Ports", "HWaddress", "State", "Left", "Name", "Client"];
    let rows = lines.into_iter().map(|line| {
        let ports = shown_ports(&line.ports, line.psid.as_deref(), line.ports_truncated);
        let name = line.host_name.unwrap_or_else(|| "-".to_owned());
        let left = format!("{}s", line.left_s);
        [line.address.to_string(), ports, line.link_address, line.state, left, name, line.client]
    });
    Ok(print_table(&mut out, head, rows)?)
}
