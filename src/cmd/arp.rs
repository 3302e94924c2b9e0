//! `pearp arp`: the ARP table, like `arp`, with ports.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::output::{is_false, print_json, print_table, ranges, shown_ports};
use super::serve::shown;
use super::{Node, client};
use crate::neighbor::Entry;
use crate::runtime::Request;
use crate::wire::pe_arp::Claim;

const EXAMPLES: &str = "Examples:
  ip netns exec lab-router pearp arp -n
  ip netns exec lab-router pearp arp --json | jq '.[] | select(.state == \"reachable\")'

Without -n, addresses that /etc/hosts names are shown by name.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ArpArgs {
    #[command(flatten)]
    node: Node,
    /// Numbers only: do not look addresses up in /etc/hosts
    #[arg(short)]
    numeric: bool,
    /// Print JSON: [{address, ports, portless, protocol, link_address, link, state, source, age_s}]
    #[arg(long)]
    json: bool,
}

/// One line of the table.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    address: Ipv4Addr,
    /// Empty where the owner holds every port, or none.
    ports: Vec<(u16, u16)>,
    /// It holds what has no port, of `protocol`; `residual` stands for all that nobody holds by protocol.
    #[serde(default, skip_serializing_if = "is_false")]
    portless: bool,
    /// More ranges than are listed.
    #[serde(default, skip_serializing_if = "is_false")]
    ports_truncated: bool,
    /// `a,k,psid` where the claim is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    psid: Option<String>,
    protocol: String,
    link_address: Option<String>,
    link: String,
    state: String,
    source: String,
    age_s: Option<f64>,
}

/// The table as JSON.
pub(super) fn table(entries: Vec<(String, Entry)>) -> serde_json::Value {
    let lines: Vec<_> = entries.into_iter().map(|(link, entry)| line(link, &entry)).collect();
    serde_json::to_value(lines).unwrap_or_default()
}

pub(super) fn line(link: String, entry: &Entry) -> Line {
    let mut protocol = match entry.protocol {
        0 => "any".to_owned(),
        number => protocol_name(number),
    };
    let mut psid = None;
    let (ports, ports_truncated) = match entry.claim {
        Claim::Range(range) => (vec![(range.first(), range.last())], false),
        Claim::Psid(claimed) => {
            psid = Some(claimed.to_string());
            ranges(claimed)
        }
        Claim::Full => Default::default(),
        Claim::Portless(number) => {
            protocol =
                if entry.claim == Claim::RESIDUAL { "residual".to_owned() } else { protocol_name(number) };
            Default::default()
        }
    };
    Line {
        address: entry.ip,
        ports,
        portless: matches!(entry.claim, Claim::Portless(_)),
        ports_truncated,
        psid,
        protocol,
        link_address: entry.hardware.map(shown),
        link,
        state: entry.state.to_owned(),
        source: entry.source.to_owned(),
        age_s: entry.age.map(|age| age.total_millis() as f64 / 1000.0),
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        number => number.to_string(),
    }
}

pub(super) fn run(args: &ArpArgs) -> anyhow::Result<()> {
    let (value, _) = client::ask(&args.node, &Request::Arp)?;
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(print_json(&mut out, &value)?);
    }
    let lines: Vec<Line> = serde_json::from_value(value).context("the node is of another version")?;
    let names = if args.numeric { HashMap::new() } else { hosts() };
    let head = ["Address", "Ports", "Proto", "HWaddress", "State", "Source", "Age", "Link"];
    let rows = lines.into_iter().map(|line| {
        [
            names.get(&line.address).cloned().unwrap_or_else(|| line.address.to_string()),
            if line.portless {
                "none".to_owned()
            } else {
                shown_ports(&line.ports, line.psid.as_deref(), line.ports_truncated)
            },
            line.protocol,
            line.link_address.unwrap_or_else(|| "(incomplete)".to_owned()),
            line.state,
            line.source,
            line.age_s.map_or_else(|| "-".to_owned(), |age| format!("{age:.0}s")),
            line.link,
        ]
    });
    Ok(print_table(&mut out, head, rows)?)
}

/// Names from /etc/hosts. The resolver would block for seconds in a network without one.
fn hosts() -> HashMap<Ipv4Addr, String> {
    let text = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}
