//! The lease hook: a script that gives the programs their address, called as udhcpc calls its own.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use crate::dhcp::client::ClientLease;
use crate::node::{Host, HostAddress};
use crate::ports::{PortBitmap, PortRange};
use crate::runtime::{Attendant, Reason, Variable};

/// Ports below are for programs with the right to them, which bind them.
const FIRST_UNPRIVILEGED: u16 = 1024;
/// Calls that wait for the one that runs. A lease that comes and goes faster than that is not worth following.
const MAX_WAITING: usize = 16;

/// What the hook is told.
pub(super) type Variables = Vec<(Variable, String)>;

#[derive(Debug)]
struct Call {
    reason: Reason,
    variables: Variables,
}

/// The calls of one script, one after the other.
#[derive(Debug, Default)]
pub(super) struct Hook {
    waiting: VecDeque<Call>,
    running: Option<Reason>,
}

fn listed(ranges: &[PortRange]) -> String {
    ranges.iter().map(PortRange::to_string).collect::<Vec<_>>().join(",")
}

/// What the hook is told of an address of a host, and of its lease if it has one.
pub(super) fn variables(host: &Host, address: &HostAddress, lease: Option<&ClientLease>) -> Variables {
    let cidr = address.cidr();
    let mut variables = common(host);
    variables.extend([
        (Variable::Ip, cidr.address().to_string()),
        (Variable::PrefixLen, cidr.prefix_len().to_string()),
        (Variable::Router, address.gateway().map(|gateway| gateway.to_string()).unwrap_or_default()),
        (Variable::Ports, listed(&address.ports())),
        (Variable::ProgramPorts, listed(&address.open_part().ranges())),
        (Variable::StackPorts, listed(&address.stack_part().ranges())),
    ]);
    if let Some(lease) = lease {
        let dns: Vec<_> = lease.dns.iter().map(ToString::to_string).collect();
        variables.extend([
            (Variable::Dns, dns.join(" ")),
            (Variable::Domain, lease.domain.clone().unwrap_or_default()),
            (Variable::ServerId, lease.server.to_string()),
        ]);
    }
    variables
}

/// What it is told of an address that is used no longer.
pub(super) fn lost(ip: Ipv4Addr, host: Option<&Host>) -> Variables {
    let mut variables = host.map(common).unwrap_or_default();
    variables.push((Variable::Ip, ip.to_string()));
    variables
}

/// The addresses that are in use, and the ports that the kernel may choose for programs: those of the first one, as it
/// chooses before it knows which address a program will have.
fn common(host: &Host) -> Variables {
    let in_use = || host.addresses().iter().filter(|address| address.is_in_use());
    let Some(first) = in_use().next() else { return Vec::new() };
    // The kernel chooses no privileged ports (`ip_unprivileged_port_start`).
    let ports = first.open_part();
    let ports: PortBitmap = ports.ports().filter(|port| *port >= FIRST_UNPRIVILEGED).collect();
    let program = ports.ranges();
    let lowest = program.first().map_or(0, |range| range.first());
    let highest = program.last().map_or(0, |range| range.last());
    let holes: Vec<_> = program
        .windows(2)
        .filter_map(|pair| PortRange::new(pair[0].last().checked_add(1)?, pair[1].first().checked_sub(1)?))
        .collect();
    let addresses: Vec<_> = in_use().map(|address| address.cidr().address().to_string()).collect();
    vec![
        (Variable::Addresses, addresses.join(" ")),
        (Variable::PortRange, if program.is_empty() { String::new() } else { format!("{lowest} {highest}") }),
        (Variable::ReservedPorts, listed(&holes)),
    ]
}

impl Hook {
    /// Calls the hook, after the calls before.
    pub(super) fn call(&mut self, reason: Reason, variables: Variables) {
        if self.waiting.len() >= MAX_WAITING {
            tracing::error!("the lease hook does not end; a call is left out");
            self.waiting.pop_front();
        }
        self.waiting.push_back(Call { reason, variables });
    }

    /// Has the attendant begin the next call, where none goes on.
    pub(super) fn begin(&mut self, attendant: &mut Attendant) {
        if self.running.is_none()
            && !attendant.has_ended()
            && let Some(Call { reason, variables }) = self.waiting.pop_front()
        {
            attendant.call_hook(reason, variables);
            self.running = Some(reason);
        }
    }

    /// The call that goes on has ended.
    pub(super) fn ended(&mut self) {
        self.running = None;
    }

    /// What is not called any more because nobody is there to do it; the call that went on comes first.
    pub(super) fn abandon(&mut self) -> Option<Reason> {
        self.running.take().or_else(|| self.waiting.pop_front().map(|call| call.reason))
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::time::{Duration, Instant};

    use super::*;
    use crate::node::support::host_config;
    use crate::node::{Node, SetConfig};

    const HARDWARE: smoltcp::wire::EthernetAddress = smoltcp::wire::EthernetAddress([2, 0, 0, 0, 2, 1]);

    fn host(set: &str) -> Host {
        let mut host = Host::new(host_config(HARDWARE, set), Instant::ZERO).unwrap();
        pass(&mut host);
        host
    }

    fn config(address: &str, set: &str) -> SetConfig {
        SetConfig { address: address.parse().unwrap(), ..host_config(HARDWARE, set).first }
    }

    /// Until what it probes is in use.
    fn pass(host: &mut Host) {
        let end = Instant::ZERO + Duration::from_secs(10);
        while let Some(at) = host.poll_timeout(end).filter(|at| *at <= end) {
            host.handle_timeout(at);
        }
    }

    fn shown(variables: &[(Variable, String)], names: &[&str]) -> Vec<String> {
        let value =
            |name: &&str| variables.iter().find(|(of, _)| of.name() == *name).map(|(_, value)| value.clone());
        names.iter().map(|name| value(name).unwrap_or_else(|| "missing".to_owned())).collect()
    }

    #[test]
    fn the_kernel_chooses_what_it_may() {
        for (set, range, reserved) in [
            ("0,4,1", "4096 7679", ""),
            // A whole address has privileged ports, too, and the kernel takes none of them for a range.
            ("0-65535", "1024 57343", ""),
            ("80-81,2000-2009,3000-3009", "2000 3007", "2010-2999"),
            ("443", "", ""),
        ] {
            let host = host(set);
            let variables = variables(&host, &host.addresses()[0], None);
            assert_eq!(shown(&variables, &["port_range", "reserved_ports"]), [range, reserved], "{set}");
        }
    }

    #[test]
    fn each_address_is_told_of_with_all_of_them() {
        let mut host = host("0,4,1");
        host.add_set(config("198.51.100.3/24", "0,4,2"), Instant::ZERO).unwrap();
        let first = &host.addresses()[0];
        assert_eq!(
            shown(&variables(&host, first, None), &["addresses"]),
            ["198.51.100.2"],
            "it is being probed"
        );
        pass(&mut host);
        host.add_set(config("198.51.100.2/24", "0,4,3"), Instant::ZERO).unwrap();
        pass(&mut host);
        let [first, second] = host.addresses() else { panic!("{host:?}") };
        let names = ["ip", "addresses", "ports", "program_ports", "port_range", "reserved_ports"];
        let both = "198.51.100.2 198.51.100.3";
        let ranges = ["4096 15871", "7680-12287"];
        assert_eq!(
            shown(&variables(&host, first, None), &names),
            ["198.51.100.2", both, "4096-8191,12288-16383", "4096-7679,12288-15871", ranges[0], ranges[1]]
        );
        assert_eq!(
            shown(&variables(&host, second, None), &names),
            ["198.51.100.3", both, "8192-12287", "8192-11775", ranges[0], ranges[1]]
        );
        assert_eq!(shown(&lost(Ipv4Addr::LOCALHOST, Some(&host)), &["ip", "addresses"]), ["127.0.0.1", both]);
        assert_eq!(shown(&lost(Ipv4Addr::LOCALHOST, None), &["ip", "addresses"]), ["127.0.0.1", "missing"]);
    }
}
