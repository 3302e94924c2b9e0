//! The commands of `netns/lab`, and how `pearp` is found in a node.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::lab::{HOSTS, Lab, SHARED, script, unique_name};
use crate::support::process::run;
use crate::support::requirements::machine;
use crate::support::wait::await_true;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn status_tells_who_is_who() {
    let lab = Lab::up();
    let status = lab.status();
    assert_eq!(keys(&status), ["name", "state", "lan", "nodes"]);
    assert_eq!(status["name"], lab.name());
    assert_eq!(status["state"], "up");
    assert_eq!(status["lan"], json!({ "netns": lab.netns("lan"), "bridge": "lan" }));

    let expected = [
        ("h1", SHARED, json!([[4096, 8191]]), "02:00:00:00:02:01", true),
        ("h2", SHARED, json!([[8192, 12287]]), "02:00:00:00:02:02", true),
        ("h3", SHARED, json!([[12288, 16383]]), "02:00:00:00:02:03", true),
        ("legacy", "198.51.100.10", json!([]), "02:00:00:00:00:10", false),
        ("router", "198.51.100.1", json!([]), "02:00:00:00:00:01", true),
        ("inet", "203.0.113.80", json!([]), "02:00:00:00:01:80", false),
    ];
    let nodes = status["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), expected.len());
    for (node, (name, address, ports, link_address, has_process)) in nodes.iter().zip(expected) {
        assert_eq!(keys(node), ["node", "netns", "pid", "address", "ports", "link_address"]);
        assert_eq!(node["node"], name);
        assert_eq!(node["netns"], lab.netns(name));
        assert_eq!(node["address"], address);
        assert_eq!(node["ports"], ports);
        assert_eq!(node["link_address"], link_address);
        match node["pid"].as_i64() {
            Some(pid) if has_process => {
                let program = fs::read_link(format!("/proc/{pid}/exe")).expect("it runs");
                assert_eq!(program, machine().pearp, "{name}");
            }
            other => assert_eq!((other, has_process), (None, false), "{name}"),
        }
    }

    let table = lab.run(&["status"]).ok();
    for (name, address) in [("h2", SHARED), ("legacy", "198.51.100.10"), ("inet", "203.0.113.80")] {
        assert!(table.lines().any(|line| line.starts_with(name) && line.contains(address)), "{table}");
    }
    assert!(table.contains("8192-12287"), "{table}");
}

#[test]
fn a_lab_that_does_not_exist_is_down() {
    let name = unique_name();
    let lab = |arguments: &[&str]| run(script(&name).args(arguments));
    let status: Value = serde_json::from_str(&lab(&["status", "--json"]).ok()).expect("JSON");
    let lan = json!({ "netns": format!("{name}-lan"), "bridge": "lan" });
    assert_eq!(status, json!({ "name": name, "state": "down", "lan": lan, "nodes": [] }));
    assert_eq!(lab(&["status"]).ok(), format!("lab {name} is down\n"));
    assert_eq!(lab(&["down"]).ok(), format!("lab {name} is down already\n"));
    let hint = format!("run 'netns/lab --name {name} up' first");
    for command in
        [&["exec", "h1", "true"][..], &["arp"], &["logs", "h1"], &["restart", "h1"], &["shell", "h1"]]
    {
        lab(command).fails_in_one_line(1, &["is down", &hint]);
    }
}

#[test]
fn exec_passes_input_exit_code_and_pearp() {
    let lab = Lab::up();
    let sum = lab.exec_with_input("h1", &["tr", "a-z", "A-Z"], b"stdin arrives\n");
    assert_eq!(sum.ok(), "STDIN ARRIVES\n");
    for (command, code) in [("exit 0", 0), ("exit 37", 37), ("kill -9 $$", 137)] {
        let ended = lab.run(&["exec", "legacy", "sh", "-c", command]);
        // ip netns exec is replaced by the command, so its signal is seen as such.
        assert_eq!(ended.code.unwrap_or(137), code, "{ended:?}");
    }
    lab.run(&["exec", "h1", "no-such-command"])
        .fails_in_one_line(127, &["no-such-command: command not found"]);
    let arguments = lab.run(&["exec", "h1", "printf", "%s|", "a b", "--json", "-h", ""]).ok();
    assert_eq!(arguments, "a b|--json|-h||", "arguments arrive as they are");

    let found = lab.run(&["exec", "h1", "sh", "-c", "command -v pearp"]).ok();
    assert_eq!(fs::canonicalize(found.trim_end()).expect("a program"), machine().pearp);
    for node in ["h2", "router"] {
        let status: Value =
            serde_json::from_str(&lab.run(&["exec", node, "pearp", "status", "--json"]).ok()).expect("JSON");
        assert_eq!(status["name"], node);
    }
    for bridge in ["lan", "wan"] {
        assert!(lab.run(&["exec", bridge, "ip", "-o", "link"]).ok().contains(bridge));
    }
    let shell = lab.exec_with_input("h1", &["sh"], b"ip -4 -o address show dev pe0\n").ok();
    assert!(shell.contains("198.51.100.2/32"), "{shell}");
}

#[test]
fn commands_find_the_control_socket_of_their_namespace() {
    let lab = Lab::up();
    for node in HOSTS.iter().chain(&["router"]) {
        // `ip netns exec t-…-h1 pearp …`, with no option and no variable.
        let status = lab.pearp_json(node, &["status"]);
        assert_eq!(status["name"], *node);
        assert_eq!(status["pid"].as_i64(), lab.pid(node).map(i64::from));
        lab.pearp(node, &["arp"]).ok();
        let socket = fs::metadata(lab.socket(node)).expect("the socket is there");
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    }
    // --socket overrides.
    let socket = lab.socket("h2");
    let other = lab.pearp_json("h1", &["status", "--socket", socket.to_str().expect("plain text")]);
    assert_eq!(other["name"], "h2");
    for command in [&["arp"][..], &["status"], &["nc", "203.0.113.80", "80"]] {
        lab.pearp("legacy", command).fails_in_one_line(1, &["no node answers on", "--socket"]);
    }
    lab.pearp("router", &["nc", "203.0.113.80", "80"])
        .fails_in_one_line(1, &["opens no connections: ask a host"]);
}

#[test]
fn the_router_shows_who_owns_which_ports() {
    shows_owners(&[], &["permanent"]);
    shows_owners(&["--static"], &["reachable", "stale", "delay", "probe"]);
}

fn shows_owners(options: &[&str], states: &[&str]) {
    let lab = Lab::with(options);
    for host in HOSTS {
        lab.exec(host, &["ping", "-c", "1", "-W", "10", "203.0.113.80"]).ok();
    }
    let mut owners = BTreeMap::new();
    await_true("three sets in the router's table", || {
        owners = shared_entries(&lab, states);
        owners.len() == HOSTS.len()
    });
    let expected: BTreeMap<_, _> = HOSTS
        .iter()
        .map(|host| {
            let node = lab.node(host);
            (node["ports"].to_string(), node["link_address"].clone())
        })
        .collect();
    assert_eq!(owners, expected);

    let table = lab.run(&["arp", "-n"]).ok();
    let line = table.lines().find(|line| line.contains("8192-12287")).unwrap_or_else(|| panic!("{table}"));
    assert!(line.starts_with(SHARED) && line.contains("02:00:00:00:02:02"), "{table}");
}

/// Ports → link-layer address of the shared address in the router's table, whose form is checked.
fn shared_entries(lab: &Lab, states: &[&str]) -> BTreeMap<String, Value> {
    let table: Value = serde_json::from_str(&lab.run(&["arp", "--json"]).ok()).expect("JSON");
    assert_eq!(table, lab_arp_without_age(lab, &table));
    let fields = ["address", "ports", "protocol", "link_address", "link", "state", "source", "age_s"];
    let mut owners = BTreeMap::new();
    for line in table.as_array().expect("a list") {
        // `psid` names a set that is one, beside the ports.
        let named: Vec<_> = keys(line).into_iter().filter(|key| *key != "psid").collect();
        assert_eq!(named, fields, "{line}");
        assert!(line["age_s"].is_null() || line["age_s"].as_f64().is_some_and(|age| age >= 0.0), "{line}");
        if line["address"] == SHARED && !line["link_address"].is_null() {
            assert!(line["link"].as_str().is_some_and(|link| link.ends_with(":router")), "{line}");
            assert!(states.contains(&line["state"].as_str().unwrap()), "{line}");
            owners.insert(line["ports"].to_string(), line["link_address"].clone());
        }
    }
    owners
}

/// The same table by `pearp arp`: age and state go on meanwhile, so they are taken from `like`.
fn lab_arp_without_age(lab: &Lab, like: &Value) -> Value {
    let mut table = lab.pearp_json("router", &["arp"]);
    for (line, other) in
        table.as_array_mut().expect("a list").iter_mut().zip(like.as_array().expect("a list"))
    {
        line["age_s"] = other["age_s"].clone();
        line["state"] = other["state"].clone();
        line["source"] = other["source"].clone();
    }
    table
}

#[test]
fn restart_and_logs() {
    let lab = Lab::up();
    for node in ["h1", "router"] {
        let before = lab.pid(node).expect("it runs");
        let said = lab.run(&["restart", node]).ok();
        let after = lab.pid(node).expect("it runs again");
        assert_ne!(before, after);
        assert_eq!(said, format!("{node} runs again, process {after}\n"));
        // Whether it is reaped at once is up to the first process of this machine.
        assert!(fs::read_link(format!("/proc/{before}/exe")).is_err(), "it has ended");
        let logs = lab.run(&["logs", node]).ok();
        assert!(
            logs.contains(&format!("{} ended", if node == "router" { "router" } else { "host" })),
            "{logs}"
        );
    }
    assert!(lab.run(&["logs", "h2"]).ok().contains("host serves"));
    for command in ["restart", "logs"] {
        lab.run(&[command, "legacy"]).fails_in_one_line(2, &["legacy is a plain kernel and has no process"]);
    }
    lab.run(&["exec", "h9", "true"]).fails_in_one_line(2, &["no node 'h9'", "h1 h2 h3 legacy router inet"]);
}

#[test]
fn everything_explains_itself() {
    let help = run(script("x").arg("--help")).ok();
    for word in ["up", "down", "status", "exec", "shell", "restart", "arp", "logs", "Examples:", "PEARP"] {
        assert!(help.contains(word), "{word}");
    }
    for command in ["host", "swarm", "router", "arp", "status", "nc", "psid"] {
        let help = run(std::process::Command::new(&machine().pearp).args([command, "--help"])).ok();
        assert!(help.contains("Example") && help.contains("Usage:"), "{help}");
    }
}
