//! `pearp leases`: what a router's DHCP server gave.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smoltcp::time::Instant;

use super::serve::shown;
use super::{Node, client};
use crate::dhcp::{Lease, LeaseState};
use crate::ports::Psid;
use crate::runtime::Request;

/// Ranges listed of one set; `psid` names it whole.
const MAX_RANGES: usize = 1024;

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
    let shared = Some(lease.set).filter(|set| *set != Psid::FULL);
    let ranges = shared.into_iter().flat_map(Psid::ranges).take(MAX_RANGES);
    Line {
        address: lease.ip,
        ports: ranges.map(|range| (range.first(), range.last())).collect(),
        psid: shared.map(|set| set.to_string()),
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
        serde_json::to_writer_pretty(&mut out, &value)?;
        writeln!(out)?;
        return Ok(());
    }
    let lines: Vec<Line> = serde_json::from_value(value).context("the node is of another version")?;
    let head = ["Address", "Ports", "HWaddress", "State", "Left", "Name", "Client"].map(str::to_owned);
    let rows = lines.into_iter().map(|line| {
        let ports = match (&line.ports[..], &line.psid) {
            ([(first, last)], _) if first == last => first.to_string(),
            ([(first, last)], _) => format!("{first}-{last}"),
            ([(first, last), more @ ..], Some(psid)) => {
                format!("psid {psid}: {first}-{last} and {} more", more.len())
            }
            _ => "all".to_owned(),
        };
        let name = line.host_name.unwrap_or_else(|| "-".to_owned());
        let left = format!("{}s", line.left_s);
        [line.address.to_string(), ports, line.link_address, line.state, left, name, line.client]
    });
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
