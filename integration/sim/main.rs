//! The nodes on simulated links: every scenario with many seeds, and proof that the checker can fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use pearp::sim::{Report, Scenario, Violation, run};

/// Seeds of each scenario; `scripts/soak` plays many more.
const SEEDS: u64 = 50;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/sim/scenarios").join(name)
}

fn scenario(name: &str) -> Scenario {
    let path = path(name);
    let text = fs::read_to_string(&path).unwrap();
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Plays seeds that must pass; the sums of datagrams sent, delivered and answered.
fn passes(name: &str) -> (u64, u64, u64) {
    let scenario = scenario(name);
    let mut sums = (0, 0, 0);
    for seed in 1..=SEEDS {
        let report = run(&scenario, seed, false);
        if let Some(violation) = report.violation {
            let again = format!("pearp sim integration/sim/scenarios/{name} --seed {seed}");
            panic!("at {}: {violation}\nto play it again: {again}", report.end);
        }
        sums = (sums.0 + report.sent, sums.1 + report.delivered, sums.2 + report.answered);
    }
    sums
}

#[test]
fn quiet() {
    let (sent, delivered, answered) = passes("quiet.toml");
    // Two flows of sixteen go to nobody; half of what is sent is answers.
    assert!(
        delivered > sent / 2 && answered > sent / 3,
        "{sent} sent, {delivered} delivered, {answered} answered"
    );
}

#[test]
fn lossy() {
    let (sent, delivered, _) = passes("lossy.toml");
    assert!(delivered > sent / 2, "{delivered} of {sent} delivered");
}

#[test]
fn router_restart() {
    passes("router-restart.toml");
}

#[test]
fn host_restart() {
    passes("host-restart.toml");
}

/// Set moves, and everything else that can happen, at times that the seed chooses.
#[test]
fn chaos() {
    let (sent, delivered, answered) = passes("chaos.toml");
    assert!(
        delivered > sent / 2 && answered > sent / 4,
        "{delivered} of {sent} delivered, {answered} answered"
    );
}

/// A set goes to another host when its lease is over, whoever is cut off.
#[test]
fn leases() {
    let (sent, delivered, _) = passes("leases.toml");
    assert!(delivered > sent / 3, "{delivered} of {sent} delivered");
}

#[test]
fn authority() {
    passes("authority.toml");
}

#[test]
fn two_lans() {
    let (sent, delivered, _) = passes("two-lans.toml");
    assert!(delivered > sent / 2, "{delivered} of {sent} delivered");
}

/// What makes the scenario of an authority a test of it: the same without one ends with the thief.
#[test]
fn without_an_authority_the_thief_gets_the_packets() {
    let text = fs::read_to_string(path("authority.toml")).unwrap();
    let scenario = Scenario::parse(&text.replace("authority = true", "authority = false")).unwrap();
    let stolen = (1..=SEEDS).filter(|seed| {
        let violation = run(&scenario, *seed, false).violation;
        matches!(violation, Some(Violation::Misdelivered { receiver, .. }) if receiver == "thief")
    });
    assert!(stolen.count() > 0);
}

/// What docs/simulation.md shows is a scenario.
#[test]
fn the_documented_scenarios_play() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/simulation.md")).unwrap();
    let blocks: Vec<_> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [whole, topology] = blocks[..] else { panic!("two blocks of TOML") };
    let report = run(&Scenario::parse(whole).unwrap(), 1, false);
    assert_eq!((report.violation, report.answered > 50), (None, true));
    Scenario::parse(&format!("about = \"two sites\"\nduration = 1\nsettle = 1\n{topology}")).unwrap();
}

#[test]
fn every_scenario_is_played() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/sim/scenarios");
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let played =
        ["authority", "chaos", "host-restart", "leases", "lossy", "quiet", "router-restart", "two-lans"];
    assert_eq!(names, played.map(|name| format!("{name}.toml")));
}

/// The same seed gives the same capture, byte for byte; another seed gives another one.
#[test]
fn a_seed_decides_everything() {
    for name in ["lossy.toml", "host-restart.toml", "chaos.toml", "leases.toml"] {
        let scenario = scenario(name);
        let [one, two, other] = [7, 7, 8].map(|seed| run(&scenario, seed, true));
        assert!(one.pcap.as_ref().is_some_and(|pcap| pcap.len() > 100_000), "{name}");
        assert!(one.pcap == two.pcap, "{name}: the captures differ");
        let all =
            |report: &Report| (report.capture_hash, report.frames, report.events, report.dropped.clone());
        assert_eq!(all(&one), all(&two), "{name}");
        assert_ne!(one.capture_hash, other.capture_hash, "{name}");
        assert!(
            run(&scenario, 7, false).capture_hash == one.capture_hash,
            "{name}: recording changes nothing"
        );
    }
}

const THIEF: &str = r#"
about = "a host uses the set of another one"
duration = 40
settle = 5

[[shared]]
address = "198.51.100.2"
scheme = [0, 4]
[[host]]
name = "h1"
psid = 1
[[host]]
name = "thief"
psid = 1
thief = true
[[flow]]
from = "inet"
to = "h1"
every = 0.5
"#;

fn thief(events: &str) -> Option<Violation> {
    let scenario = Scenario::parse(&format!("{THIEF}{events}")).unwrap();
    run(&scenario, 1, false).violation
}

fn event(at: f64, action: &str, node: &str) -> String {
    format!("[[event]]\nat = {at}\naction = \"{action}\"\nnode = \"{node}\"\n")
}

/// With the owner cut off nobody objects, and the thief gets what is sent to the owner: the checker sees it.
#[test]
fn a_misdelivered_datagram_is_detected() {
    let events =
        [event(0.0, "crash", "thief"), event(5.0, "partition", "h1"), event(10.0, "restart", "thief")];
    let violation = thief(&events.concat()).expect("a violation");
    let Violation::Misdelivered { sender, owner, receiver, .. } = &violation else { panic!("{violation}") };
    assert_eq!((sender.as_str(), owner.as_str(), receiver.as_str()), ("inet", "h1", "thief"));
}

/// With the owner there, the thief gets nothing (PE-ARP rules 54 and 57).
#[test]
fn an_owner_keeps_its_set() {
    let events = [event(0.0, "crash", "thief"), event(10.0, "restart", "thief")];
    assert_eq!(thief(&events.concat()), None);
}

/// A host that may not use its set sends nothing.
#[test]
fn a_flow_without_answers_is_detected() {
    let text = THIEF.replace("from = \"inet\"\nto = \"h1\"", "from = \"thief\"\nto = \"inet\"");
    let text = format!("{text}{}{}", event(0.0, "crash", "thief"), event(10.0, "restart", "thief"));
    let violation = run(&Scenario::parse(&text).unwrap(), 1, false).violation.expect("a violation");
    let Violation::NotHealed { from, sent: 20, missing: 20, .. } = &violation else { panic!("{violation}") };
    assert_eq!(from, "thief");
}

/// Two hosts that probe one set at the same time: neither uses it (PE-ARP rule 54).
#[test]
fn of_two_that_probe_nobody_wins() {
    let Some(Violation::NotHealed { missing: 20, .. }) = thief("") else {
        panic!("h1 or the thief uses the set")
    };
}
