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
use crate::node::{Tally, Traffic};
use crate::ports::Psid;
use crate::runtime::Request;

const EXAMPLES: &str = "Examples:
  ip netns exec lab-router pearp leases
  ip netns exec lab-router pearp leases --json | jq '.[] | select(.state == \"bound\")'
  ip netns exec lab-router pearp leases --json | jq '.[] | {host_name, traffic}'

A set that was released or has expired is listed while it rests: nobody else gets it before.

Traffic is what the router has forwarded to the host and from it since the client got the lease,
or since the router started, if that was later; a renewal changes nothing. It is counted by
address and port:
  bytes    of IP packets, without Ethernet headers; 1 MB is 1,000,000 bytes
  packets  as on the wire, however many of them the router gets in one piece
  flows    TCP connections begun: segments with SYN and without ACK, repeated ones included;
           flows of UDP are not counted, as no datagram shows that it is the first one
  drops    packets that the router dropped, for whatever reason: see `pearp status`
Not counted are packets to and from the router itself, what hosts of one LAN send each other
directly, and what names no port of a shared address, as later fragments.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LeasesArgs {
    #[command(flatten)]
    node: Node,
    /// Print JSON: [{address, ports, psid, client, link_address, state, left_s, host_name, traffic: {to_host: {packets,
    /// bytes, flows, drops}, from_host: {…}}}]; traffic is null where none is counted: of an offer, and behind a relay
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
    #[serde(default)]
    traffic: Option<Both>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Both {
    to_host: Counts,
    from_host: Counts,
}

#[derive(Debug, Serialize, Deserialize)]
struct Counts {
    packets: u64,
    bytes: u64,
    flows: u64,
    drops: u64,
}

impl From<Tally> for Counts {
    fn from(Tally { packets, bytes, flows, drops }: Tally) -> Self {
        Self { packets, bytes, flows, drops }
    }
}

/// The leases as JSON, without those that are over.
pub(super) fn list<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    traffic: impl Fn(&Lease) -> Option<Traffic>,
    now: Instant,
) -> Value {
    let current = leases.filter(|lease| now < lease.until);
    let lines: Vec<_> = current.map(|lease| line(lease, traffic(lease), now)).collect();
    serde_json::to_value(lines).unwrap_or_default()
}

/// How many there are in each state.
pub(super) fn summary<'a>(leases: impl Iterator<Item = &'a Lease> + Clone, now: Instant) -> Value {
    let states = [LeaseState::Offered, LeaseState::Bound, LeaseState::Released, LeaseState::Quarantined];
    let count = |state| leases.clone().filter(|lease| lease.state == state && now < lease.until).count();
    states.into_iter().map(|state| (state.name().to_owned(), Value::from(count(state)))).collect()
}

fn line(lease: &Lease, traffic: Option<Traffic>, now: Instant) -> Line {
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
        traffic: traffic.map(|Traffic { to_host, from_host }| Both {
            to_host: to_host.into(),
            from_host: from_host.into(),
        }),
    }
}

/// Three digits and a unit.
fn shown_bytes(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut shown = (bytes as f64, "B");
    for unit in units {
        // 999.5 would be shown as 1000.
        if shown.0 < 999.5 {
            break;
        }
        shown = (shown.0 / 1000.0, unit);
    }
    let (amount, unit) = shown;
    let decimals = if unit == "B" || amount >= 99.95 {
        0
    } else if amount >= 9.995 {
        1
    } else {
        2
    };
    format!("{amount:.decimals$} {unit}")
}

pub(super) fn run(args: &LeasesArgs) -> anyhow::Result<()> {
    let (value, _) = client::ask(&args.node, &Request::Leases)?;
    let mut out = io::stdout().lock();
    if args.json {
        return Ok(print_json(&mut out, &value)?);
    }
    let lines: Vec<Line> = serde_json::from_value(value).context("the node is of another version")?;
    let head = ["Address", "Ports", "HWaddress", "State", "Left", "To host", "From host", "Name", "Client"];
    let rows = lines.into_iter().map(|line| {
        let ports = shown_ports(&line.ports, line.psid.as_deref(), line.ports_truncated);
        let name = line.host_name.unwrap_or_else(|| "-".to_owned());
        let left = format!("{}s", line.left_s);
        let bytes = |counts: fn(&Both) -> &Counts| {
            line.traffic.as_ref().map_or_else(|| "-".to_owned(), |both| shown_bytes(counts(both).bytes))
        };
        let (to_host, from_host) = (bytes(|both| &both.to_host), bytes(|both| &both.from_host));
        let address = line.address.to_string();
        [address, ports, line.link_address, line.state, left, to_host, from_host, name, line.client]
    });
    Ok(print_table(&mut out, head, rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (9_994, "9.99 kB"),
            (9_995, "10.0 kB"),
            (99_949, "99.9 kB"),
            (99_950, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (12_345_678, "12.3 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(shown_bytes(bytes), shown, "{bytes}");
        }
    }
}
