//! Nothing is left behind and nothing else is touched, however a lab ends.

use crate::support::process::{Process, run};
use crate::support::sandbox::Sandbox;
use crate::support::wait::await_true;

/// Somebody else's: a namespace, one whose name looks like the lab's, a process in it and a device.
fn sandbox_with_foreigners() -> (Sandbox, Vec<Process>) {
    let sandbox = Sandbox::new();
    let set_up = "ip netns add foreign && ip netns add x-foreign && ip link add bridge9 type bridge && \
                  ip -n x-foreign link add eth9 type bridge && mkdir -p /run/foreign && touch /tmp/foreign";
    sandbox.sh(set_up).ok();
    let processes = ["foreign", "x-foreign"]
        .map(|netns| {
            Process::start(sandbox.command("ip").args([
                "netns",
                "exec",
                netns,
                "sh",
                "-c",
                "echo on; exec cat",
            ]))
        })
        .into_iter()
        .inspect(|process| drop(process.await_line("on")))
        .collect();
    (sandbox, processes)
}

#[track_caller]
fn assert_alive(processes: &mut [Process]) {
    for process in processes {
        assert!(process.is_running(), "{}", process.transcript());
        process.send_line("alive");
        process.await_line("alive");
    }
}

#[test]
fn up_and_down_change_nothing() {
    let (mut sandbox, mut foreigners) = sandbox_with_foreigners();
    let before = sandbox.snapshot();
    assert!(sandbox.lab(&["up"]).ok().starts_with("lab x is up after "));
    let links = |lines: &[String]| lines.iter().filter(|line| line.starts_with("link ")).count();
    assert_eq!(links(&sandbox.snapshot()), links(&before), "the initial namespace has no part in it");

    assert!(sandbox.lab(&["up"]).ok().starts_with("lab x is up already: hosts h1...h3 share 198.51.100.2"));
    sandbox.lab(&["up", "--hosts", "2"]).fails_in_one_line(1, &["is up with --hosts 3", "down"]);
    assert_eq!(sandbox.status()["state"], "up");
    sandbox.lab(&["exec", "h1", "ping", "-c", "1", "-W", "20", "203.0.113.80"]).ok();

    assert_eq!(sandbox.lab(&["down"]).ok(), "lab x is down\n");
    sandbox.assert_unchanged(&before);
    assert_eq!(sandbox.lab(&["down"]).ok(), "lab x is down already\n");
    sandbox.assert_unchanged(&before);
    assert_alive(&mut foreigners);
    assert!(sandbox.is_alive());
}

#[test]
fn down_cleans_up_after_killed_processes() {
    let (sandbox, mut foreigners) = sandbox_with_foreigners();
    let before = sandbox.snapshot();
    // All of them, then one host only.
    for victims in [&["h1", "h2", "h3", "router"][..], &["h2"]] {
        sandbox.lab(&["up"]).ok();
        kill(&sandbox, victims);
        sandbox.lab(&["up"]).fails_in_one_line(1, &["not complete", "down"]);
        assert_eq!(sandbox.lab(&["down"]).ok(), "lab x is down\n");
        sandbox.assert_unchanged(&before);
    }
    assert_alive(&mut foreigners);
}

/// kill -9, until the lab's status shows it.
fn kill(sandbox: &Sandbox, victims: &[&str]) {
    for node in sandbox.status()["nodes"].as_array().expect("a list") {
        if victims.iter().any(|victim| node["node"] == *victim) {
            sandbox.sh(&format!("kill -9 {}", node["pid"])).ok();
        }
    }
    await_true("dead processes", || {
        let status = sandbox.status();
        let nodes = status["nodes"].as_array().expect("a list");
        let dead = nodes.iter().filter(|node| victims.iter().any(|victim| node["node"] == *victim));
        dead.clone().count() == victims.len() && dead.clone().all(|node| node["pid"].is_null())
    });
    assert_eq!(sandbox.status()["state"], "partial");
}

#[test]
fn down_ends_whatever_runs_inside() {
    let (sandbox, mut foreigners) = sandbox_with_foreigners();
    let before = sandbox.snapshot();
    sandbox.lab(&["up"]).ok();
    let mut stubborn = Process::start(&mut sandbox.script(&[
        "exec",
        "legacy",
        "sh",
        "-c",
        "trap '' TERM HUP INT; echo on; while :; do read -r line; done",
    ]));
    stubborn.await_line("on");
    sandbox.lab(&["down"]).ok();
    stubborn.finish();
    drop(stubborn);
    sandbox.assert_unchanged(&before);
    assert_alive(&mut foreigners);
}

#[test]
fn an_interrupted_up_leaves_nothing() {
    let (sandbox, mut foreigners) = sandbox_with_foreigners();
    let before = sandbox.snapshot();
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let said = sandbox.sh(&format!(
            "setsid env --default-signal=HUP,INT,TERM /run/t/netns/lab --name x up --hosts 9 >/run/t/said 2>&1 & up=$!
             until [ -e /run/pearp/labs/x/nodes ]; do :; done
             kill -{signal} $up; wait $up; code=$?; cat /run/t/said; rm /run/t/said; echo \"code $code\""
        ));
        let said = said.ok();
        assert!(said.contains("did not come up and has been taken down"), "{signal}: {said}");
        assert!(said.ends_with(&format!("code {code}\n")), "{signal}: {said}");
        sandbox.assert_unchanged(&before);
    }
    assert_alive(&mut foreigners);
}

#[test]
fn down_cleans_up_after_a_killed_up() {
    let (sandbox, mut foreigners) = sandbox_with_foreigners();
    let before = sandbox.snapshot();
    // At different moments: the record is there, a namespace is there, a node runs.
    for moment in ["pearp/labs/x/nodes", "netns/x-inet", "pearp/labs/x/h3.pid"] {
        sandbox
            .sh(&format!(
                "/run/t/netns/lab --name x up --hosts 9 >/dev/null 2>&1 & up=$!
                 until [ -e /run/{moment} ]; do :; done
                 kill -9 $up $(pgrep -P $up) 2>/dev/null; wait $up; true"
            ))
            .ok();
        sandbox.lab(&["down"]).ok();
        sandbox.assert_unchanged(&before);
    }
    assert_alive(&mut foreigners);
}

#[test]
fn two_labs_live_side_by_side() {
    let (sandbox, mut foreigners) = sandbox_with_foreigners();
    let before = sandbox.snapshot();
    let other =
        |arguments: &[&str]| run(sandbox.command("/run/t/netns/lab").args(["--name", "y"]).args(arguments));
    sandbox.lab(&["up"]).ok();
    let with_one = sandbox.snapshot();
    other(&["up", "--hosts", "2"]).ok();
    let ping = ["exec", "h1", "ping", "-c", "1", "-W", "20", "203.0.113.80"];
    sandbox.lab(&ping).ok();
    other(&ping).ok();
    other(&["down"]).ok();
    sandbox.assert_unchanged(&with_one);
    sandbox.lab(&ping).ok();
    sandbox.lab(&["down"]).ok();
    sandbox.assert_unchanged(&before);
    assert_alive(&mut foreigners);
}

#[test]
fn a_foreign_namespace_in_the_way_is_left_alone() {
    let (sandbox, mut foreigners) = sandbox_with_foreigners();
    sandbox.sh("ip netns add x-legacy").ok();
    let before = sandbox.snapshot();
    sandbox.lab(&["up"]).fails_with(1, &["namespace x-legacy exists", "ip netns del x-legacy"]);
    sandbox.assert_unchanged(&before);
    assert_alive(&mut foreigners);
}

#[test]
fn down_from_inside_the_lab_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.lab(&["up"]).ok();
    let inside = sandbox.lab(&["exec", "h1", "/run/t/netns/lab", "--name", "x", "down"]);
    inside.fails_in_one_line(1, &["inside lab x", "leave it"]);
    assert_eq!(sandbox.status()["state"], "up");
}
