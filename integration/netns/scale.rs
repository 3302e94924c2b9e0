//! How long it takes, and many hosts.

use std::time::Duration;

use crate::support::lab::{INET, Lab, SHARED, contains};
use crate::support::process::{Process, run};
use crate::support::ssh::{Web, curl};

const THREE_HOSTS: Duration = Duration::from_secs(2);
const FIFTY_HOSTS: Duration = Duration::from_secs(10);
/// What counts is how long the lab takes, not how busy the machine is with other things.
const ATTEMPTS: usize = 3;

#[test]
fn three_hosts_are_up_in_two_seconds() {
    let mut times = Vec::new();
    for _ in 0..ATTEMPTS {
        let lab = Lab::alone(&[]);
        times.push(lab.up_took());
        if lab.up_took() < THREE_HOSTS {
            return;
        }
    }
    panic!("up took {times:?}");
}

#[test]
fn fifty_hosts_are_up_in_ten_seconds_and_reach_the_outside() {
    let mut times = Vec::new();
    for _ in 0..ATTEMPTS {
        let lab = Lab::alone(&["--hosts", "50"]);
        times.push(lab.up_took());
        if lab.up_took() < FIFTY_HOSTS {
            return all_reach_the_outside(&lab);
        }
    }
    panic!("up took {times:?}");
}

fn all_reach_the_outside(lab: &Lab) {
    let hosts: Vec<_> = (1..=50).map(|number| format!("h{number}")).collect();
    let status = lab.status();
    let addresses: Vec<_> = status["nodes"].as_array().unwrap()[..hosts.len()]
        .iter()
        .map(|node| node["address"].as_str().unwrap().to_owned())
        .collect();
    for (number, address) in addresses.iter().enumerate() {
        // 15 hosts on each.
        assert_eq!(*address, format!("198.51.100.{}", 2 + number / 15), "h{}", number + 1);
    }
    let _web = Web::serve(lab, "inet", 80);
    let mut pings: Vec<_> = hosts
        .iter()
        .map(|host| Process::start(lab.command(host, "ping").args(["-n", "-c", "1", "-W", "20", INET])))
        .collect();
    for ping in &mut pings {
        assert_eq!(ping.finish(), Some(0), "{}", ping.transcript());
    }
    for (host, address) in hosts.iter().zip(&addresses) {
        let peer = run(&mut curl(lab, host, &["http://203.0.113.80/cgi-bin/peer"])).ok();
        assert!(peer.starts_with(&format!("{address} ")), "{host}: {peer}");
    }
}

#[test]
fn scattered_sets_work_as_contiguous_ones() {
    let lab = Lab::with(&["--psid", "6,6"]);
    let ports = lab.ports("h1");
    assert_eq!((ports.len(), ports[0]), (63, (1024, 1039)));
    let _web = Web::serve(&lab, "inet", 80);
    let pages: Vec<_> = ["h1", "h2", "h3"]
        .map(|host| (host, lab.ports(host)[17].0 + 3))
        .into_iter()
        .map(|(host, port)| (host, port, Web::serve(&lab, host, port)))
        .collect();
    for (host, port, _) in &pages {
        for _ in 0..20 {
            let peer = run(&mut curl(&lab, host, &["http://203.0.113.80/cgi-bin/peer"])).ok();
            let (address, source) = peer.trim_end().split_once(' ').unwrap();
            assert_eq!(address, SHARED);
            let source = source.parse().unwrap();
            assert!(contains(&lab.ports(host), source), "{host} uses {source}");
        }
        for client in ["inet", "legacy", "h1", "h2", "h3"] {
            let url = format!("http://{SHARED}:{port}/");
            assert_eq!(run(&mut curl(&lab, client, &[&url])).ok(), format!("page of {host}\n"), "{client}");
        }
    }
    // The table names a set of 63 ranges as one.
    let table = lab.run(&["arp", "-n"]).ok();
    assert!(table.lines().any(|line| line.contains("psid 6,6,0x0: 1024-1039 and 62 more")), "{table}");
}
