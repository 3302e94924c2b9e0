//! Two hosts that want the same ports.

use crate::support::intruder::Intruder;
use crate::support::lab::{Lab, SHARED};
use crate::support::process::{Process, run};
use crate::support::ssh::{Web, curl};

#[test]
fn a_set_that_is_taken_is_refused_with_the_owner() {
    let lab = Lab::up();
    let intruder = Intruder::new(&lab);
    let sets = [
        ("--psid 0,4,2", "02:00:00:00:02:02"),        // the same set
        ("--ports 4000-4200", "02:00:00:00:02:01"),   // its end is in the set of h1
        ("--ports 16383-16400", "02:00:00:00:02:03"), // one port of h3
    ];
    for (set, owner) in sets {
        let failed = run(&mut intruder.command(set, "--ready-fd 3 3>/dev/null"));
        failed.fails_with(1, &[owner, "in use by", "another set"]);
    }
    // The owners go on as before.
    let port = lab.ports("h2")[0].0 + 80;
    let _web = Web::serve(&lab, "h2", port);
    let url = format!("http://{SHARED}:{port}/");
    assert_eq!(run(&mut curl(&lab, "inet", &[&url])).ok(), "page of h2\n");
}

#[test]
fn a_set_that_is_free_is_held_and_given_back() {
    let lab = Lab::up();
    let intruder = Intruder::new(&lab);
    for _ in 0..2 {
        let mut host = Process::start(&mut intruder.command("--ports 20000-20099", ""));
        host.await_line("host serves");
        // A third one sees it, by its address.
        host.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(host.finish(), Some(0), "{}", host.transcript());
    }
}

#[test]
fn a_host_without_anybody_who_waits_says_who_owns_its_set() {
    let lab = Lab::up();
    let intruder = Intruder::new(&lab);
    let host = Process::start(&mut intruder.command("--psid 0,4,3", ""));
    let line = host.await_line("set is in use by another host");
    assert!(line.contains("02:00:00:00:02:03"), "{line}");
}
