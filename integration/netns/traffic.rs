//! What the picture in README.md promises: everybody reaches everybody, by one address.

use std::collections::BTreeSet;

use crate::support::lab::{HOSTS, INET, LEGACY, Lab, SHARED, contains};
use crate::support::process::run;
use crate::support::ssh::{Ssh, Web, curl};

/// A port of the program part of each host, for servers.
fn server_port(lab: &Lab, host: &str, offset: u16) -> u16 {
    lab.ports(host)[0].0 + offset
}

#[test]
fn three_hosts_log_in_outside_with_one_address_and_three_port_sets() {
    let lab = Lab::up();
    let ssh = Ssh::new();
    let _sshd = ssh.serve(&lab, "inet", 22);
    // All at the same time: each session stays open until the last one has been seen.
    let mut sessions = HOSTS.map(|host| ssh.session(&lab, host, INET, 22));
    let mut seen = BTreeSet::new();
    for (host, session) in HOSTS.iter().zip(&sessions) {
        let (address, port) = session.peer();
        assert_eq!(address, SHARED);
        assert!(contains(&lab.ports(host), port), "{host} uses {port}");
        seen.insert(port);
    }
    assert_eq!(seen.len(), HOSTS.len());
    for session in &mut sessions {
        session.echo("still here");
    }
    for session in sessions {
        session.finish();
    }
}

#[test]
fn a_page_from_outside_for_each_host() {
    let lab = Lab::up();
    let _web = Web::serve(&lab, "inet", 80);
    for host in HOSTS {
        assert_eq!(run(&mut curl(&lab, host, &["http://203.0.113.80/"])).ok(), "page of inet\n");
        let peer = run(&mut curl(&lab, host, &["http://203.0.113.80/cgi-bin/peer"])).ok();
        let (address, port) = peer.trim_end().split_once(' ').expect("address and port");
        assert_eq!(address, SHARED);
        assert!(contains(&lab.ports(host), port.parse().expect("a port")), "{host} uses {port}");
    }
}

#[test]
fn ssh_and_http_inbound_to_each_host_by_port() {
    let lab = Lab::up();
    let ssh = Ssh::new();
    let mut servers = Vec::new();
    let mut pages = Vec::new();
    for host in HOSTS {
        servers.push(ssh.serve(&lab, host, server_port(&lab, host, 22)));
        pages.push(Web::serve(&lab, host, server_port(&lab, host, 80)));
    }
    for (client, address) in [("inet", INET), ("legacy", LEGACY)] {
        for host in HOSTS {
            let url = format!("http://{SHARED}:{}/", server_port(&lab, host, 80));
            assert_eq!(run(&mut curl(&lab, client, &[&url])).ok(), format!("page of {host}\n"));
            let session = ssh.session(&lab, client, SHARED, server_port(&lab, host, 22));
            assert_eq!(session.peer().0, address, "the client is seen as what it is");
            session.finish();
        }
    }
}

#[test]
fn hosts_with_the_same_address_talk_to_each_other() {
    let lab = Lab::up();
    let ssh = Ssh::new();
    let mut servers = Vec::new();
    let mut pages = Vec::new();
    for host in ["h1", "h2"] {
        servers.push(ssh.serve(&lab, host, server_port(&lab, host, 22)));
        pages.push(Web::serve(&lab, host, server_port(&lab, host, 80)));
    }
    // h1 also with itself.
    for (client, server) in [("h1", "h2"), ("h2", "h1"), ("h1", "h1")] {
        let session = ssh.session(&lab, client, SHARED, server_port(&lab, server, 22));
        let (address, port) = session.peer();
        assert_eq!(address, SHARED, "source and destination address are equal");
        assert!(contains(&lab.ports(client), port), "{client} uses {port}");
        session.finish();
        let url = format!("http://{SHARED}:{}/", server_port(&lab, server, 80));
        assert_eq!(run(&mut curl(&lab, client, &[&url])).ok(), format!("page of {server}\n"));
    }
}

#[test]
fn legacy_and_sharers_reach_each_other() {
    let lab = Lab::up();
    let ssh = Ssh::new();
    let _at_legacy = ssh.serve(&lab, "legacy", 22);
    let _page = Web::serve(&lab, "legacy", 80);
    let _outside = Web::serve(&lab, "inet", 80);
    for host in HOSTS {
        let session = ssh.session(&lab, host, LEGACY, 22);
        let (address, port) = session.peer();
        assert_eq!(address, SHARED);
        assert!(contains(&lab.ports(host), port), "{host} uses {port}");
        session.finish();
        assert_eq!(run(&mut curl(&lab, host, &["http://198.51.100.10/"])).ok(), "page of legacy\n");
    }
    let port = server_port(&lab, "h2", 80);
    let _at_sharer = Web::serve(&lab, "h2", port);
    let url = format!("http://{SHARED}:{port}/");
    assert_eq!(run(&mut curl(&lab, "legacy", &[&url])).ok(), "page of h2\n");
    // It needs no part of PE-ARP for anything else either.
    assert_eq!(run(&mut curl(&lab, "legacy", &["http://203.0.113.80/"])).ok(), "page of inet\n");
}
