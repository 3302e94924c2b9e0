//! The leak doctor: whose packets have source ports outside the set, and what to do about it.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use smoltcp::time::{Duration, Instant};

use crate::node::{Leak, MappedLeak};
use crate::runtime::{Owner, Socket, SocketKind, read_sockets};
use crate::wire::TCP;

/// /proc is read at most so often: with many processes that takes milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The protocol of a raw socket for whole packets: `IPPROTO_RAW`.
const HEADER_INCLUDED: u16 = 255;
/// Ports whose programs are remembered.
const MAX_OWNERS: usize = 1024;

/// Programs that are known to choose their source ports themselves, and how they are kept within a set.
const REMEDIES: [(&str, &str); 8] = [
    (
        "unbound",
        "set `outgoing-port-permit` to the program part, and `outgoing-port-avoid: 0-65535` before it",
    ),
    ("named", "name a port of the program part in `query-source`"),
    ("openvpn", "set `nobind`, or `lport` to a port of the program part"),
    (
        "chrom",
        "turn off its own resolver: --disable-features=AsyncDns, or the policy BuiltInDnsClientEnabled",
    ),
    ("mtr", "it counts source ports itself with -u and -T; use ICMP, the default"),
    ("nmap", "give a port of the program part with -g, or connect with -sT"),
    ("hping", "give a port of the program part with -s and -k"),
    ("wg", "set ListenPort to a port of the program part"),
];

fn remedy(name: &str) -> &'static str {
    let known = REMEDIES.iter().find(|(program, _)| name.starts_with(program));
    known
        .map_or("let it bind port 0, or a port of the program part (see `pearp ports`)", |(_, remedy)| remedy)
}

fn protocol_name(protocol: u8) -> &'static str {
    if protocol == TCP { "tcp" } else { "udp" }
}

/// What was found out about ports outside the set.
#[derive(Debug, Default)]
pub(super) struct Doctor {
    owners: HashMap<(u8, u16), Owner>,
    /// When /proc was read last, and what it said.
    looked: Option<(Instant, Vec<Socket>)>,
}

impl Doctor {
    /// Finds out whose the leak is, and says so.
    pub(super) fn see(&mut self, leak: &Leak, now: Instant) {
        let owner = self.owner(leak, now);
        let (program, remedy) = match &owner {
            Some(owner) => (format!("{} (process {})", owner.name, owner.pid), remedy(&owner.name)),
            // A raw socket has no port, and a program may be gone.
            None => ("unknown".to_owned(), remedy("")),
        };
        let (port, to, protocol) = (leak.port, leak.to, protocol_name(leak.protocol));
        match leak.mapped {
            Some(mapped) => tracing::warn!(program, port, protocol, %to, mapped, remedy,
                "a program used a source port outside this host's set; the host has chosen another one for it"),
            None => tracing::warn!(program, port, protocol, %to, remedy,
                "a program used a source port outside this host's set; the packet was dropped"),
        }
        if let Some(owner) = owner {
            if self.owners.len() >= MAX_OWNERS {
                self.owners.clear();
            }
            self.owners.insert((leak.protocol, leak.port), owner);
        }
    }

    fn owner(&mut self, leak: &Leak, now: Instant) -> Option<Owner> {
        let kind = if leak.protocol == TCP { SocketKind::Tcp } else { SocketKind::Udp };
        let find = |sockets: &[Socket]| {
            let of_port = |socket: &&Socket| socket.kind == kind && socket.local.1 == leak.port;
            let owner = sockets.iter().filter(of_port).find_map(|socket| socket.owner.clone());
            // Who makes packets by hand has no socket with the port; where there is one such program, it is that. Those
            // of other protocols are not asked about: ping has one for ICMP.
            owner.or_else(|| {
                let protocols = [u16::from(leak.protocol), HEADER_INCLUDED];
                let of_protocol =
                    |socket: &&Socket| socket.kind == SocketKind::Raw && protocols.contains(&socket.local.1);
                let mut by_hand = sockets.iter().filter(of_protocol);
                let first = by_hand.find_map(|socket| socket.owner.clone())?;
                let alone = by_hand.filter_map(|socket| socket.owner.as_ref()).all(|other| *other == first);
                alone.then_some(first)
            })
        };
        // Not longer: the port may be another program's by now, and who made packets by hand may have ended.
        if let Some((at, sockets)) = &self.looked
            && now < *at + LOOK_AGAIN
        {
            return find(sockets);
        }
        // Without /proc a leak is still told of, without its program.
        let sockets = read_sockets(Path::new("/proc")).unwrap_or_default();
        let owner = find(&sockets);
        self.looked = Some((now, sockets));
        owner
    }

    /// The mapped ports with their programs, for a status.
    pub(super) fn list(&self, leaks: impl Iterator<Item = MappedLeak>) -> Value {
        let mut leaks: Vec<_> = leaks.collect();
        leaks.sort_by_key(|leak| (leak.port, leak.protocol));
        let lines = leaks.into_iter().map(|leak| {
            let owner = self.owners.get(&(leak.protocol, leak.port));
            json!({
                "protocol": protocol_name(leak.protocol),
                "port": leak.port,
                "mapped": leak.mapped,
                "to": format!("{}:{}", leak.to.0, leak.to.1),
                "packets": leak.packets,
                "pid": owner.map(|owner| owner.pid),
                "name": owner.map(|owner| &owner.name),
            })
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;
    use crate::wire::UDP;

    #[test]
    fn a_program_is_looked_up_again_as_it_may_be_another_one() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let leak = Leak { protocol: UDP, port, to: Ipv4Addr::LOCALHOST, mapped: None };
        let mut doctor = Doctor::default();
        let begin = Instant::from_secs(1);
        let pid = |owner: Option<Owner>| owner.map(|owner| owner.pid);
        let this = Some(std::process::id());
        assert_eq!(pid(doctor.owner(&leak, begin)), this);
        drop(socket);
        assert_eq!(pid(doctor.owner(&leak, begin + LOOK_AGAIN / 2)), this, "/proc is not read that often");
        assert_eq!(pid(doctor.owner(&leak, begin + LOOK_AGAIN)), None, "it has closed its socket");
    }
}
