//! Processes that are killed, started again, and ended properly.

use nix::sys::signal::Signal;

use crate::support::lab::{INET, Lab};
use crate::support::process::{Process, run};
use crate::support::requirements::machine;
use crate::support::ssh::Ssh;
use crate::support::wait::await_true;

#[test]
fn a_session_outlives_the_router() {
    survives("router", &[]);
}

/// Its table comes from what the hosts answer, and not from a lease file.
#[test]
fn a_session_outlives_a_router_that_knows_nothing() {
    survives("router", &["--static"]);
}

#[test]
fn a_session_outlives_its_host_process() {
    survives("h1", &[]);
}

#[test]
fn a_session_outlives_the_process_of_a_static_host() {
    survives("h1", &["--static"]);
}

/// Kills a node's process under a live ssh session of h1 and starts it again.
fn survives(node: &str, options: &[&str]) {
    let lab = Lab::with(options);
    let ssh = Ssh::new();
    let _sshd = ssh.serve(&lab, "inet", 22);
    let mut session = ssh.session(&lab, "h1", INET, 22);
    session.echo("before");
    lab.end(node, Signal::SIGKILL);
    assert_eq!(lab.status()["state"], "partial");
    assert!(lab.node(node)["pid"].is_null());
    // Typed while nobody carries it.
    session.process.send_line("meanwhile");
    assert!(lab.run(&["restart", node]).ok().starts_with(&format!("{node} runs again")));
    assert_eq!(session.process.await_line("meanwhile"), "meanwhile");
    session.echo("after");
    assert_eq!(lab.status()["state"], "up");
    session.finish();
    // New sessions work as well.
    let session = ssh.session(&lab, "h1", INET, 22);
    session.peer();
    session.finish();
}

#[test]
fn sigterm_and_ctrl_c_leave_cleanly() {
    let lab = Lab::up();
    for node in ["h1", "router"] {
        let arguments = lab.arguments(node);
        lab.end(node, Signal::SIGTERM);
        assert!(!lab.socket(node).exists(), "the socket goes with the process");
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut process = Process::start(lab.command(node, &machine().pearp).args(&arguments));
            await_true("the node serves", || lab.serves(node));
            process.signal(signal);
            assert_eq!(process.finish(), Some(0), "{signal:?}: {}", process.transcript());
            assert!(!lab.socket(node).exists(), "{signal:?}");
            assert!(process.transcript().contains(" ended"), "{}", process.transcript());
        }
    }
}

#[test]
fn a_killed_process_loses_no_address_and_no_route() {
    let lab = Lab::up();
    let of_h1 = || {
        let address = lab.exec("h1", &["ip", "-4", "-o", "address"]).ok();
        let route = lab.exec("h1", &["ip", "-4", "route", "show", "table", "all"]).ok();
        let rule = lab.exec("h1", &["ip", "-4", "rule"]).ok();
        format!("{address}{route}{rule}")
    };
    // A TUN that nobody holds has no carrier, which shows in the routes.
    let settled = |text: &str| text.replace(" linkdown", "");
    let before = of_h1();
    lab.end("h1", Signal::SIGKILL);
    assert_eq!(settled(&of_h1()), before);
    lab.run(&["restart", "h1"]).ok();
    assert_eq!(of_h1(), before);
}

#[test]
fn a_node_is_not_started_twice() {
    let lab = Lab::up();
    let arguments = lab.arguments("h1");
    let second = run(lab.command("h1", &machine().pearp).args(&arguments));
    second.fails_with(1, &[]);
    assert!(second.stderr.lines().count() <= 3, "{second:?}");
    assert!(lab.serves("h1"), "the first one is not disturbed");
}
