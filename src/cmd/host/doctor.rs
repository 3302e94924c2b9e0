//! The leak doctor: whose packets have source ports outside the set, and what to do about it.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use super::super::output::TRANSPORTS;
use crate::node::{Leak, MappedLeak};
use crate::runtime::{Attendant, MAX_QUESTIONS, Owner};

/// Leaks that are asked about at a time; one place is left for a look at all ports.
const MAX_ASKED: usize = MAX_QUESTIONS - 1;
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
    TRANSPORTS.iter().find(|(_, number)| *number == protocol).map_or("?", |(name, _)| name)
}

/// What was found out about ports outside the set.
#[derive(Debug, Default)]
pub(super) struct Doctor {
    owners: HashMap<(u8, u16), Owner>,
    /// Leaks whose programs are asked for, in this order.
    asked: VecDeque<Leak>,
    /// How many have been asked for, and of how many there is an answer.
    questions: u64,
    answers: u64,
}

impl Doctor {
    /// Begins to find out whose the leak is. The number of the question, if there is one.
    pub(super) fn see(&mut self, leak: Leak, attendant: &mut Attendant) -> Option<u64> {
        if attendant.has_ended() || self.asked.len() >= MAX_ASKED {
            self.tell(&leak, None);
            return None;
        }
        attendant.find_owner(leak.protocol, leak.port);
        self.asked.push_back(leak);
        self.questions += 1;
        Some(self.questions)
    }

    /// How many questions have an answer.
    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// An answer to the oldest question.
    pub(super) fn hear(&mut self, (protocol, port): (u8, u16), owner: Option<Owner>) {
        let of_this = |leak: &Leak| (leak.protocol, leak.port) == (protocol, port);
        let Some(leak) = self.asked.pop_front() else { return };
        self.answers += 1;
        self.tell(&leak, owner.filter(|_| of_this(&leak)));
    }

    /// There are no more answers.
    pub(super) fn end(&mut self) {
        while let Some(leak) = self.asked.pop_front() {
            self.answers += 1;
            self.tell(&leak, None);
        }
    }

    fn tell(&mut self, leak: &Leak, owner: Option<Owner>) {
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
