//! `pearp dhcpd` beside a router that is a plain kernel.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::dhcp::POOLS;
use crate::support::capture::Capture;
use crate::support::dhcpd::{DHCPD, DhcpdLab, PLACE};
use crate::support::lab::{INET, Lab, SHARED};
use crate::support::process::run;
use crate::support::requirements::machine;
use crate::support::ssh::{Ssh, Web, curl, executable};

/// The first port that a host has leased.
fn first_port(lab: &Lab, host: &str) -> u16 {
    let status = lab.pearp_json(host, &["status"]);
    assert_eq!((&status["address"], &status["dhcp"]["server"]), (&json!(SHARED), &json!(DHCPD)), "{host}");
    status["ports"][0][0].as_u64().and_then(|port| port.try_into().ok()).expect("a port")
}

/// Hosts lease parts of one address, and talk to each other.
#[test]
fn sharers_reach_each_other() {
    let mut dhcpd = DhcpdLab::up(POOLS);
    let lab = &dhcpd.lab;
    for host in ["h1", "h2"] {
        lab.run(&["restart", host]).ok();
    }
    let [one, two] = ["h1", "h2"].map(|host| first_port(lab, host));
    assert_ne!(one, two);
    let _web = Web::serve(lab, "h2", two + 80);
    let url = format!("http://{SHARED}:{}/", two + 80);
    assert_eq!(run(&mut curl(lab, "h1", &[&url])).ok(), "page of h2\n");

    // PE-ARP rule 121: what nobody has leased has no owner, and h1 takes dhcpd's word for it.
    let free = (1..=15).map(|psid| psid * 4096).find(|port| ![one, two].contains(port)).unwrap();
    let said = Capture::start(lab, "h1", "pe0", "icmp");
    let failed = run(&mut curl(lab, "h1", &[&format!("http://{SHARED}:{free}/")]));
    failed.fails_with(7, &[]);
    assert!(lab.pearp_json("h1", &["status"])["drops"]["no_owner"].as_u64() >= Some(1));
    said.await_packet("host unreachable", |packet| packet.bytes[20..22] == [3, 1]);

    // The tools answer as they do at a router.
    let leases = dhcpd.leases();
    for host in ["h1", "h2"] {
        let lease = leases.iter().find(|lease| lease["host_name"] == host).unwrap();
        assert_eq!((&lease["state"], &lease["address"]), (&json!("bound"), &json!(SHARED)));
    }
    let who = lab.pearp_json(PLACE, &["who", &format!("{SHARED}:{}", two + 80)]);
    assert_eq!(who["host_name"], "h2");
    let table = lab.pearp_json(PLACE, &["arp", "-n"]);
    let leased = |line: &&Value| line["address"] == SHARED && line["source"] == "lease";
    assert_eq!(table.as_array().unwrap().iter().filter(leased).count(), 2, "{table}");
    let status = lab.pearp_json(PLACE, &["status"]);
    assert_eq!((&status["role"], &status["leases"]["bound"]), (&json!("dhcpd"), &json!(2)));
    assert_eq!(status["counters"]["pending"], 0);
    lab.assert_balanced(PLACE);

    dhcpd.dhcpd.signal(Signal::SIGTERM);
    assert_eq!(dhcpd.dhcpd.finish(), Some(0), "{}", dhcpd.dhcpd.transcript());
}

/// An unmodified client and an unmodified router.
#[test]
fn udhcpc_gets_a_whole_address_and_the_router() {
    let dhcpd = DhcpdLab::up(POOLS);
    let lab = &dhcpd.lab;
    lab.exec("legacy", &["ip", "address", "flush", "dev", "eth0"]).ok();
    let place = tempfile::TempDir::new().unwrap();
    let script = place.path().join("script");
    executable(
        &script,
        "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip address add \"$ip/$mask\" dev eth0\n\
         ip route add default via \"$router\"\necho \"bound $ip $router $serverid $lease\"\n",
    );
    let words = ["udhcpc", "-i", "eth0", "-f", "-q", "-n", "-x", "hostname:old-host", "-s"];
    let bound = run(lab.command("legacy", "busybox").args(words).arg(&script)).ok();
    let words: Vec<_> = bound.lines().find(|line| line.starts_with("bound")).unwrap().split(' ').collect();
    assert_eq!(words[2..], ["198.51.100.1", DHCPD, "600"]);
    let leases = dhcpd.leases();
    assert_eq!((&leases[0]["address"], &leases[0]["host_name"]), (&json!(words[1]), &json!("old-host")));
    assert_eq!((leases.len(), leases[0]["psid"].is_null()), (1, true), "a whole address");

    let web = Web::serve(lab, "inet", 80);
    assert_eq!(run(&mut curl(lab, "legacy", &[&format!("http://{INET}/")])).ok(), "page of inet\n");
    drop(web);
    // The server itself is there for everybody, the outside included.
    for node in ["legacy", "router", "inet"] {
        lab.exec(node, &["ping", "-n", "-c", "1", "-W", "10", DHCPD]).ok();
    }
    // And forwards nothing: a packet to somebody else by its link-layer address ends there.
    lab.exec(
        "legacy",
        &["ip", "neighbor", "replace", "198.51.100.77", "lladdr", "02:00:00:00:00:05", "dev", "eth0"],
    )
    .ok();
    lab.exec("legacy", &["ping", "-n", "-c", "1", "-W", "1", "198.51.100.77"]).fails_with(1, &[]);
    assert_eq!(lab.pearp_json(PLACE, &["status"])["drops"]["not_our_address"], 1);
    lab.assert_balanced(PLACE);
}

/// A lease is on the disk before its client hears of it, and sharers do not need the server to talk.
#[test]
fn leases_outlive_kill_9() {
    let mut dhcpd = DhcpdLab::up(POOLS);
    for host in ["h1", "h2"] {
        dhcpd.lab.run(&["restart", host]).ok();
    }
    let ports = |lab: &Lab| ["h1", "h2"].map(|host| first_port(lab, host));
    let before = ports(&dhcpd.lab);
    let ssh = Ssh::new();
    let port = before[1] + 22;
    let _sshd = ssh.serve(&dhcpd.lab, "h2", port);
    let mut session = ssh.session(&dhcpd.lab, "h1", SHARED, port);
    session.echo("before");
    dhcpd.kill();
    session.echo("after");
    session.finish();
    assert_eq!(dhcpd.leases().iter().filter(|lease| lease["state"] == "bound").count(), 2);
    let lab = &dhcpd.lab;
    assert_eq!(lab.pearp_json(PLACE, &["who", &format!("{SHARED}:{port}")])["host_name"], "h2");
    // RFC 2131 §4.4.2: the hosts ask the new process for what the old one gave.
    for host in ["h1", "h2"] {
        lab.run(&["restart", host]).ok();
    }
    assert_eq!(ports(lab), before);
    assert_eq!(dhcpd.leases().len(), 2);
}

#[test]
fn usage_errors_of_dhcpd() {
    let place = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let pools = file("pools.toml", POOLS);
    let own = file("own.toml", "[[whole]]\naddresses = \"198.51.100.5-198.51.100.9\"\n");
    let gateway = file("gateway.toml", "[[whole]]\naddresses = \"198.51.100.1\"\n");
    let elsewhere = file("elsewhere.toml", "[[whole]]\naddresses = \"192.0.2.7\"\n");
    let leases = place.path().join("leases").display().to_string();
    let pearp = |changed: &[(&str, &str)], left_out: &str| {
        let usual = [
            ("--lan", "no-such-tap"),
            ("--mac", "02:00:00:00:00:05"),
            ("--address", "198.51.100.5/24"),
            ("--gateway", "198.51.100.1"),
            ("--dhcp", &pools),
            ("--lease-file", &leases),
        ];
        let mut command = std::process::Command::new(&machine().pearp);
        command.arg("dhcpd").env("LC_ALL", "C");
        for (option, value) in usual.into_iter().filter(|(option, _)| *option != left_out) {
            let value = changed.iter().find(|(other, _)| *other == option).map_or(value, |(_, value)| *value);
            command.args([option, value]);
        }
        run(&mut command)
    };
    for option in ["--lan", "--mac", "--address", "--dhcp", "--lease-file"] {
        pearp(&[], option).fails_with(2, &[option]);
    }
    pearp(&[("--mac", "01:00:00:00:00:05")], "").fails_with(2, &["first byte must be even"]);
    pearp(&[("--address", "198.51.100.5")], "").fails_with(2, &["prefix length"]);
    for (changed, left_out, message) in [
        (&[("--gateway", "203.0.113.1")], "", "gateway 203.0.113.1 is not another node of 198.51.100.0/24"),
        (&[("--gateway", DHCPD)], "", "gateway 198.51.100.5 is not another node"),
        (&[("--dhcp", "/nowhere")], "", "cannot read /nowhere"),
        (
            &[("--dhcp", &*own)],
            "",
            "line 2: whole.addresses: has the own address of a router, or of this server",
        ),
        (&[("--dhcp", &*gateway)], "", "line 2: whole.addresses: has the own address of a router"),
        (&[("--dhcp", &*elsewhere)], "", "line 2: whole.addresses: is not on the LAN"),
        (&[("--lan", "t")], "--gateway", "line 5: shared.addresses: needs `router`"),
        (&[("--lease-file", &*own)], "", "is no lease file"),
        (&[("--lan", "no-such-tap")], "", "no-such-tap"),
    ] {
        pearp(changed, left_out).fails_in_one_line(1, &[message]);
    }
}
