//! Bad usage: one sentence that says what to do, and the right exit code.

use std::process::Command;

use tempfile::TempDir;

use crate::support::lab::script;
use crate::support::lab::{Lab, unique_name};
use crate::support::process::{Finished, run};
use crate::support::requirements::{find, machine, tools};
use crate::support::sandbox::Sandbox;

/// What netns/lab runs, beside what the tests run.
const LAB_TOOLS: &[&str] = &[
    "cat", "chmod", "cut", "dirname", "env", "grep", "ln", "mkdir", "mkfifo", "mv", "readlink", "realpath",
    "rm", "rmdir", "sed", "setsid", "sh", "stat", "tail", "uniq", "wc",
];

#[test]
fn usage_errors_of_the_lab() {
    let name = unique_name();
    let cases: &[(&[&str], &str)] = &[
        (&[], "no command"),
        (&["fly"], "unknown command 'fly'"),
        (&["up", "down"], "two commands"),
        (&["--fast", "up"], "unknown option '--fast'"),
        (&["up", "h1"], "'up' takes no 'h1'"),
        (&["up", "--hosts"], "--hosts wants a value"),
        (&["up", "--hosts", "many"], "--hosts wants a number"),
        (&["up", "--hosts", "-1"], "--hosts wants a number"),
        (&["up", "--hosts", "1001"], "--hosts 1001"),
        (&["up", "--psid", "4"], "--psid wants A,K"),
        (&["up", "--psid", "0,0"], "nothing to share"),
        (&["up", "--psid", "6,11"], "more than the 16 bits"),
        (&["up", "--psid", "7,4"], "below 1024"),
        (&["up", "--psid", "0,1", "--hosts", "253"], "room for 252 hosts"),
        (&["up", "--offload"], "--offload wants a value"),
        (&["up", "--offload", "maybe"], "--offload wants on or off"),
        (&["down", "--offload", "on"], "--offload belongs to 'up'"),
        (&["up", "--leaks", "drop"], "--leaks wants map or reject"),
        (&["up", "--mtu", "100"], "--mtu wants bytes from 576 to 9216"),
        (&["up", "--mtu", "jumbo"], "--mtu wants bytes from 576 to 9216"),
        (&["down", "--hosts", "3"], "--hosts belongs to 'up'"),
        (&["up", "--json"], "--json belongs to 'status' and 'arp'"),
        (&["exec", "h1"], "'exec' wants NODE and CMD"),
        (&["restart"], "'restart' wants one NODE"),
        (&["logs", "h1", "h2"], "'logs' wants one NODE"),
    ];
    for (arguments, message) in cases {
        run(script(&name).args(*arguments)).fails_in_one_line(2, &[message, "--help"]);
    }
    for name in ["", "UPPER", "a b", "../x", "a-name-that-is-too-long"] {
        run(script(name).arg("status")).fails_in_one_line(2, &["--name wants"]);
    }
    let status = run(script(&name).args(["status", "--json"])).ok();
    assert!(status.contains(r#""state":"down""#), "{status}");
}

#[test]
fn missing_root_is_said_in_one_sentence() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    for command in ["up", "down"] {
        let unprivileged = run(sandbox.command("setpriv").args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "/run/t/netns/lab",
            "--name",
            "x",
            command,
        ]));
        unprivileged.fails_in_one_line(1, &["need root", "sudo"]);
    }
    sandbox.assert_unchanged(&before);
}

#[test]
fn a_missing_tun_device_is_said_in_one_sentence() {
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir -p /run/t/empty && mount --bind /run/t/empty /dev/net").ok();
    let before = sandbox.snapshot();
    sandbox.lab(&["up"]).fails_in_one_line(1, &["/dev/net/tun is missing", "mknod"]);
    sandbox.assert_unchanged(&before);
}

#[test]
fn a_missing_program_is_said_in_one_sentence() {
    let sandbox = Sandbox::new();
    let before = sandbox.snapshot();
    let up = |pearp: &str| {
        let mut command = sandbox.script(&["up"]);
        if pearp.is_empty() {
            command.env_remove("PEARP")
        } else {
            command.env("PEARP", pearp)
        };
        run(&mut command)
    };
    up("").fails_in_one_line(1, &["/run/t/target/release/pearp is missing", "cargo build --release"]);
    up("/nowhere/pearp").fails_in_one_line(1, &["PEARP=/nowhere/pearp is no program"]);
    up("/bin/true").fails_with(1, &["is it the right program?"]);
    sandbox.assert_unchanged(&before);
}

#[test]
fn a_missing_tool_is_said_in_one_sentence() {
    for (missing, package) in
        [("ip", "iproute2"), ("bridge", "iproute2"), ("flock", "util-linux"), ("nsenter", "util-linux")]
    {
        let place = TempDir::new().unwrap();
        for tool in LAB_TOOLS.iter().copied().chain(tools()).filter(|tool| *tool != missing) {
            let program = find(tool, &machine().path).unwrap_or_else(|| panic!("{tool} is missing here"));
            std::os::unix::fs::symlink(program, place.path().join(tool)).unwrap();
        }
        let name = unique_name();
        let up = run(script(&name).arg("up").env("PATH", place.path()));
        let hint = format!("apt-get install {package}");
        up.fails_in_one_line(1, &[&format!("the tool '{missing}' is missing"), &hint]);
    }
}

const HOST: [&str; 10] = [
    "host",
    "--lan",
    "no-such-tap",
    "--mac",
    "02:00:00:00:09:09",
    "--address",
    "198.51.100.2/24",
    "--psid",
    "0,4,9",
    "--gateway=198.51.100.1",
];

fn pearp(arguments: &[&str]) -> Finished {
    let _ = machine();
    run(Command::new(&machine().pearp).args(arguments).env("LC_ALL", "C"))
}

#[test]
fn usage_errors_of_pearp() {
    let lan = "x:t,address=198.51.100.1/24,mac=02:00:00:00:00:01";
    let host = |option: &str, value: &str| -> Vec<String> {
        let mut words: Vec<String> = HOST.map(str::to_owned).to_vec();
        match words.iter().position(|word| word == option) {
            Some(at) => words[at + 1] = value.to_owned(),
            None => words.extend([option.to_owned(), value.to_owned()]),
        }
        words
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let cases = [
        (words(&[]), "Usage"),
        (words(&["fly"]), "fly"),
        (words(&["host"]), "--lan"),
        (host("--mac", "02:00"), "six bytes"),
        (host("--mac", "ff:ff:ff:ff:ff:ff"), "first byte must be even"),
        (host("--address", "198.51.100.2"), "prefix length"),
        (host("--address", "198.51.100.255/24"), "not a host's address"),
        (host("--psid", "0,17,0"), "--psid"),
        (host("--psid", "0,4,16"), "--psid"),
        (host("--ports", "5000-5010"), "cannot be used with"),
        (host("--stack-ports", "1"), "--stack-ports"),
        (host("--echo", "seven"), "lowest"),
        (host("--offload", "maybe"), "neither `on` nor `off`"),
        (words(&["router"]), "--lan"),
        (words(&["router", "--lan", "x:t"]), "address=ADDRESS/LENGTH is missing"),
        (words(&["router", "--lan", lan, "--shared", "198.51.100.2"]), "ADDRESS=A,K"),
        (words(&["nc", "203.0.113.80"]), "PORT"),
        (words(&["nc", "203.0.113.80", "0"]), "0"),
        (words(&["psid", "1"]), "1"),
    ];
    for (arguments, message) in cases {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        pearp(&arguments).fails_with(2, &[message]);
    }

    // What only shows when it is put together.
    let cases = [
        (host("--gateway", "203.0.113.1"), "--gateway 203.0.113.1"),
        (host("--stack-ports", "4096"), "leaves none for programs"),
    ];
    for (mut arguments, message) in cases {
        arguments.retain(|word| word != "--gateway=198.51.100.1");
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let message = message.trim_start_matches("--");
        pearp(&arguments).fails_in_one_line(1, &[message]);
    }
    pearp(&["router", "--lan", lan, "--shared", "203.0.113.2=0,4"]).fails_in_one_line(1, &["is on no --lan"]);
    pearp(&["router", "--lan", lan, "--shared", "198.51.100.1=0,4"])
        .fails_in_one_line(1, &["the router's own"]);
}

#[test]
fn devices_that_do_not_exist_are_named() {
    let lab = Lab::with(&["--hosts", "1"]);
    let host = |lan: &str, more: &[&str]| {
        let lan = format!("--lan={lan}");
        let fixed =
            ["host", &lan, "--mac", "02:00:00:00:09:09", "--address", "198.51.100.2/24", "--psid", "0,4,9"];
        lab.pearp("legacy", &[&fixed, more].concat())
    };
    host("no-such-tap", &[]).fails_in_one_line(1, &["no-such-tap"]);
    host("no-such-netns:tap", &[]).fails_in_one_line(1, &["no-such-netns"]);
    let wrong = format!("{}:lan", lab.netns("lan"));
    host(&wrong, &[]).fails_in_one_line(1, &["lan"]);
    let busy = format!("{}:h1", lab.netns("lan"));
    host(&busy, &[]).fails_in_one_line(1, &["h1"]);
}
