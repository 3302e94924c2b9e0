//! Programs that look at paths, in two sharers at the same time: each hears what is about its own packets.

use super::fragments::drops;
use crate::support::capture::{Capture, Captured};
use crate::support::lab::{HOSTS, INET, LEGACY, Lab, ROUTER, SHARED};
use crate::support::process::{Process, run};
use crate::support::ssh::Web;
use crate::support::wait::await_true;

const TWO: [&str; 2] = ["h1", "h2"];
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// The same program in two sharers at once; what each of them wrote.
#[track_caller]
fn at_once(lab: &Lab, program: &str, arguments: &[&str]) -> [String; 2] {
    let mut running = TWO.map(|host| Process::start(lab.command(host, program).args(arguments)));
    running.each_mut().map(|process| {
        let code = process.finish();
        let said = process.transcript();
        assert_eq!(code, Some(0), "{program} {arguments:?}: {said}");
        said
    })
}

/// A lab whose server limits nothing: a kernel counts ICMP errors by address, and the sharers have one.
fn lab_without_limit() -> Lab {
    let lab = Lab::up();
    lab.set_kernel("inet", "icmp_ratelimit", "0");
    lab
}

#[test]
fn pings_that_must_not_be_cut() {
    let lab = Lab::up();
    let ping = |len| ["-n", "-M", "do", "-s", len, "-c", "10", "-i", "0.05", "-W", "20", INET];
    // What went astray would have been dropped by somebody.
    let before = drops(&lab);
    for len in ["56", "1472"] {
        for said in at_once(&lab, "ping", &ping(len)) {
            assert!(
                said.contains("10 received") && !said.contains("DUP!") && !said.contains("wrong"),
                "{said}"
            );
        }
    }
    assert_eq!(drops(&lab), before);
    for host in TWO {
        let said = run(lab.command(host, "ping").args(ping("1473")));
        said.fails_with(1, &["message too long, mtu=1500"]);
    }
}

#[test]
fn traceroute_of_two_sharers() {
    let lab = lab_without_limit();
    let _web = Web::serve(&lab, "inet", 80);
    let one_by_one = ["-n", "-q", "1", "-N", "1", "-w", "10", "-m", "5"];
    for method in [&[][..], &["-I"], &["-T"], &["-T", "-p", "81"], &["-U"], &["-UL"]] {
        for (to, expected) in [(INET, &[ROUTER, INET][..]), (LEGACY, &[LEGACY])] {
            for path in at_once(&lab, "traceroute", &[&one_by_one, method, &[to]].concat()) {
                let hops = path.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
                assert_eq!(hops.collect::<Vec<_>>(), expected, "{method:?}: {path}");
            }
        }
    }
}

#[test]
fn tracepath_of_two_sharers() {
    let lab = lab_without_limit();
    for path in at_once(&lab, "tracepath", &["-n", "-m", "5", INET]) {
        assert!(path.contains("Resume: pmtu 1500 hops 2 back 2"), "{path}");
        let hop =
            |number, address| path.lines().any(|line| line.starts_with(&format!(" {number}:  {address} ")));
        assert!(hop(1, ROUTER) && hop(2, INET) && !path.contains("no reply"), "{path}");
    }
}

#[test]
fn mtr_of_two_sharers() {
    let lab = lab_without_limit();
    let _web = Web::serve(&lab, "inet", 80);
    for method in [&[][..], &["-u"], &["-T", "-P", "80"]] {
        let arguments = [&["-n", "-r", "-c", "3", "-i", "1"], method, &[INET]].concat();
        for report in at_once(&lab, "mtr", &arguments) {
            let hops: Vec<_> = report.lines().filter(|line| line.contains(".|--")).collect();
            assert!(hops.len() == 2 && hops[0].contains(ROUTER) && hops[1].contains(INET), "{report}");
            assert!(hops.iter().all(|hop| hop.contains(" 0.0%")), "{method:?}: {report}");
        }
    }
    for host in TWO {
        let status = lab.pearp_json(host, &["status"]);
        assert!(status["counters"]["mapped"].as_u64() > Some(0), "mtr chooses ports itself: {status}");
    }
}

/// Pings once with this identifier; whether there was an answer.
fn is_answered(lab: &Lab, node: &str, identifier: u16, wait: &str) -> bool {
    let identifier = identifier.to_string();
    let options = ["-n", "-c", "1", "-W", wait, "-e", &identifier, SHARED];
    let said = run(lab.command(node, "ping").args(options));
    assert_eq!(said.code == Some(0), said.stdout.contains(&format!("from {SHARED}")), "{said:?}");
    said.code == Some(0)
}

/// Rule 61: with `--echo owner` a ping is answered by the host whose identifier it has, and by nobody else.
#[test]
fn the_owner_of_an_identifier_answers_a_ping() {
    let lab = Lab::up();
    let _router = lab.router_with(&["--echo", "owner"]);
    let lan = Capture::start(&lab, "lan", "lan", "icmp");
    let of = |host: &str| lab.ports(host)[0];
    for client in ["inet", "legacy"] {
        for (number, host) in (1..).zip(HOSTS) {
            for identifier in [of(host).0, of(host).1] {
                assert!(is_answered(&lab, client, identifier, "20"), "{client}: {identifier} of {host}");
                let answers = |packet: &Captured| {
                    packet.icmp_type() == Some(ECHO_REPLY) && packet.echo_identifier() == identifier
                };
                let packets = lan.await_packet("the answer", answers);
                let answers: Vec<_> = packets.iter().filter(|packet| answers(packet)).collect();
                assert!(answers.iter().any(|packet| packet.is_from_host(number)), "{answers:?}");
                assert!(
                    !answers
                        .iter()
                        .any(|packet| (1..=3).any(|other| other != number && packet.is_from_host(other)))
                );
            }
        }
        // One is in a set that no host has, the other one in the set that is given to nobody.
        for identifier in [20_000, 80] {
            assert!(!is_answered(&lab, client, identifier, "1"), "{client}: {identifier} is nobody's");
        }
    }
    let before = lan.packets().len();
    // Rule 92: a ping of the own address stays in the host.
    for host in HOSTS {
        assert!(is_answered(&lab, host, of("h1").0, "20"), "{host}");
    }
    assert_eq!(lan.packets().len(), before);
}

/// Sharers of another address choose identifiers of their own sets: who has the same ports of that address answers.
#[test]
fn sharers_of_two_addresses_ping_each_other() {
    let lab = Lab::with(&["--hosts", "4", "--psid", "0,2"]);
    let other = lab.node("h4")["address"].as_str().unwrap().to_owned();
    assert_ne!(other, SHARED);
    let ping = |host: &str, to: &str, wait: &str| {
        run(lab.command(host, "ping").args(["-n", "-c", "1", "-W", wait, to])).code == Some(0)
    };
    // The router answers for all of them.
    assert!(HOSTS.iter().all(|host| ping(host, &other, "20")) && ping("h4", SHARED, "20"));
    let _router = lab.router_with(&["--echo", "owner"]);
    let lan = Capture::start(&lab, "lan", "lan", "icmp");
    assert!(ping("h1", &other, "20"), "h4 has the same ports of its address");
    assert!(ping("h4", SHARED, "20"));
    assert!(!ping("h2", &other, "1"), "nobody has its ports of the other address");
    let answered = |from: u8, source: &str| {
        let answers =
            |packet: &&Captured| packet.icmp_type() == Some(ECHO_REPLY) && packet.is_from_host(from);
        lan.packets().iter().filter(answers).any(|packet| packet.source().to_string() == source)
    };
    await_true("both answers in the capture", || answered(4, &other) && answered(1, SHARED));
    let requests = |packet: &&Captured| packet.icmp_type() == Some(ECHO_REQUEST);
    assert!(lan.packets().iter().filter(requests).count() >= 3);
}
