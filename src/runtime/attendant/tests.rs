//! A host's end against an attendant in a thread of the test, or against a child that is none.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::{self, JoinHandle};

use super::*;
use crate::wire::UDP;

const PATIENCE: Duration = Duration::from_secs(30);

/// A host whose attendant is a thread, beside a child that has ended.
fn served(hook: Option<HookCommand>) -> (Attendant, JoinHandle<anyhow::Result<()>>) {
    let (own, other) = StdStream::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    let child = Command::new("true").spawn().unwrap();
    let serves = thread::spawn(move || child::serve(other, hook));
    (Attendant::of(child, UnixStream::from_std(own)), serves)
}

/// A host whose attendant is something else, with the socket as its standard input.
fn with_child(program: &str, arguments: &[&str]) -> Attendant {
    let (own, other) = StdStream::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    let mut command = Command::new(program);
    let child = command.args(arguments).stdin(Stdio::from(OwnedFd::from(other))).spawn().unwrap();
    drop(command);
    Attendant::of(child, UnixStream::from_std(own))
}

/// Waits for a report as an event loop does.
fn report(attendant: &mut Attendant) -> Report {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(report) = attendant.poll() {
            return report;
        }
        assert!(Instant::now() < deadline, "no report: {attendant:?}");
        if attendant.has_ended() {
            // SIGCHLD says so in a loop.
            thread::yield_now();
        } else {
            let mut wait = [PollFd::new(attendant.socket.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut wait, PollTimeout::from(30_000_u16)), Ok(1), "it says nothing");
            attendant.readable = true;
        }
    }
}

fn script(path: &Path, text: &str) -> HookCommand {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    HookCommand { path: path.to_owned(), interface: "pe7".to_owned() }
}

#[test]
fn the_hook_is_called_with_its_variables() {
    let place = tempfile::tempdir().unwrap();
    let said = place.path().join("said");
    let text = format!("#!/bin/sh\necho \"$1 $interface $ip\" >{}\nexit 3\n", said.display());
    let (mut attendant, serves) = served(Some(script(&place.path().join("hook"), &text)));
    attendant.call_hook(Reason::Renew, vec![(Variable::Ip, "198.51.100.2".to_owned())]);
    let Report::Hook(Reason::Renew, Ok(status)) = report(&mut attendant) else { panic!("{attendant:?}") };
    assert_eq!(status.code(), Some(3));
    assert_eq!(fs::read_to_string(&said).unwrap(), "renew pe7 198.51.100.2\n");
    drop(attendant);
    serves.join().unwrap().unwrap();
}

#[test]
fn a_hook_that_cannot_run_is_said_so() {
    let nowhere = HookCommand { path: "/nowhere/hook".into(), interface: "pe0".to_owned() };
    for (hook, value, why) in [
        (Some(nowhere.clone()), "", "cannot run the lease hook /nowhere/hook"),
        (Some(nowhere), "a\0b", "zero byte"),
        (None, "", "there is no lease hook"),
    ] {
        let (mut attendant, _serves) = served(hook);
        attendant.call_hook(Reason::Bound, vec![(Variable::Domain, value.to_owned())]);
        let Report::Hook(Reason::Bound, Err(error)) = report(&mut attendant) else { panic!("{attendant:?}") };
        assert!(error.contains(why), "{error}");
    }
}

/// A long hook holds up no look.
#[test]
fn looks_go_on_while_a_hook_runs() {
    let place = tempfile::tempdir().unwrap();
    let end = place.path().join("end");
    let text = format!("#!/bin/sh\nread -r _ <{}\n", end.display());
    nix::unistd::mkfifo(&end, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (mut attendant, _serves) = served(Some(script(&place.path().join("hook"), &text)));
    attendant.call_hook(Reason::Bound, Vec::new());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    // A look may miss a socket while other tests close theirs.
    let deadline = Instant::now() + PATIENCE;
    let mut seen = (false, None);
    while seen != (true, Some(std::process::id())) {
        assert!(Instant::now() < deadline, "{seen:?}");
        attendant.look_at_ports(vec![Ipv4Addr::LOCALHOST]);
        let Report::Ports(Ok(ports)) = report(&mut attendant) else { panic!("{attendant:?}") };
        attendant.find_owner(UDP, port);
        let Report::Owner { owner, .. } = report(&mut attendant) else { panic!("{attendant:?}") };
        seen = (ports.contains(&(Ipv4Addr::LOCALHOST, port)), owner.map(|owner| owner.pid));
    }
    fs::write(&end, "now\n").unwrap();
    assert!(matches!(report(&mut attendant), Report::Hook(Reason::Bound, Ok(status)) if status.success()));
}

#[test]
fn a_child_that_is_killed_is_told_of_once() {
    let mut attendant = with_child("sleep", &["1000"]);
    attendant.find_owner(UDP, 3000);
    assert!(attendant.poll().is_none() && !attendant.has_ended());
    attendant.child.kill().unwrap();
    let Report::Ended(how) = report(&mut attendant) else { panic!("{attendant:?}") };
    assert!(how.contains("signal: 9"), "{how}");
    assert!(attendant.has_ended());
    attendant.call_hook(Reason::Bound, Vec::new());
    assert!(attendant.poll().is_none() && attendant.output.is_empty());
}

#[test]
fn a_child_that_says_something_else_is_not_listened_to() {
    for said in ["pearp attendant is not what this is", r"\377\377\377\377"] {
        let text = format!("printf '{said}' >&0");
        let mut attendant = with_child("sh", &["-c", &text]);
        let Report::Ended(how) = report(&mut attendant) else { panic!("{attendant:?}") };
        assert!(how.contains("exit status"), "{how}");
    }
}

#[test]
fn a_child_that_does_not_end_is_killed() {
    let attendant = with_child("sleep", &["1000"]);
    let pid = attendant.pid();
    drop(attendant);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "killed and reaped");
}
