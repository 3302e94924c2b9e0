use super::*;

const GOOD: &str = r#"about = "a test"
duration = 10
settle = 70.5
wiring = "hub"
faults = { loss = 0.1, delay_ms = [1, 2.5] }
[[shared]]
address = "198.51.100.2"
scheme = [0, 4]
[[host]]
name = "h1"
psid = 1
[[legacy]]
name = "old"
address = "198.51.100.10"
[[event]]
at = 3
action = "crash"
node = "h1"
[[flow]]
from = "inet"
to = "h1"
every = 0.5
"#;

const WIDE: &str = r#"about = "two routers"
duration = 10
settle = 70
[[segment]]
name = "west"
prefix = "198.51.100.0/24"
[[segment]]
name = "transit"
prefix = "203.0.113.0/24"
role = "outside"
faults = { loss = 0.5 }
[[router]]
name = "r1"
links = { west = "198.51.100.1", transit = "203.0.113.1" }
routes = { "192.0.2.0/24" = "203.0.113.2" }
authority = true
[[shared]]
address = "198.51.100.2"
scheme = [0, 4]
[[host]]
name = "h1"
psid = 1
lease = 30
[[host]]
name = "spare"
segment = "west"
[[event]]
at = 1
action = "takeover"
node = "h1"
to = "spare"
[[event]]
at = 2
action = "partition"
node = "r1"
segment = "transit"
[chaos]
every = 2
outage = [0.1, 5]
actions = ["crash", "move"]
nodes = ["h1", "r1"]
"#;

#[track_caller]
fn assert_errors(good: &str, cases: &[(&str, &str, &str, &str)]) {
    Scenario::parse(good).unwrap();
    for (from, to, line, field) in cases {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        let message = Scenario::parse(&good.replace(from, to)).unwrap_err().to_string();
        assert!(message.contains(line) && message.contains(field), "{to}: {message}");
    }
}

#[test]
fn a_scenario_is_read() {
    let scenario = Scenario::parse(GOOD).unwrap();
    assert_eq!(scenario.names(), ["router", "inet", "h1", "old"]);
    assert_eq!(scenario.settle, Duration::from_millis(70_500));
    let lan = &scenario.segments[0];
    assert_eq!(lan.faults.delay, (Duration::from_millis(1), Duration::from_micros(2500)));
    let crash =
        Fault { at: Duration::from_secs(3), action: Action::Crash, node: NodeId(2), segment: None, to: None };
    assert_eq!(scenario.events, [crash]);
    let set = scenario.host(NodeId(2)).unwrap().set.unwrap();
    let flow = &scenario.flows[0];
    assert_eq!((flow.from, flow.to), (Party::Node(NodeId(1)), Some(Party::Set(set))));
}

#[test]
fn segments_and_routers_are_read() {
    let scenario = Scenario::parse(WIDE).unwrap();
    assert_eq!(scenario.names(), ["r1", "h1", "spare"]);
    let [west, transit] = &scenario.segments[..] else { panic!("{:?}", scenario.segments) };
    assert_eq!((west.role, west.faults.loss), (Role::Lan, 0.0));
    assert_eq!((transit.role, transit.faults.loss), (Role::Outside, 0.5));
    let NodeKind::Router(router) = &scenario.nodes[0].kind else { panic!() };
    assert!(router.authority && router.routes.len() == 1);
    // In the order of the names.
    assert_eq!(router.links.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(scenario.host(NodeId(1)).unwrap().lease, Some(Duration::from_secs(30)));
    assert_eq!(scenario.host(NodeId(2)).unwrap().set, None);
    assert_eq!(scenario.events[0].to, Some(NodeId(2)));
    assert_eq!(scenario.events[1].segment, Some(SegmentId(1)));
    assert_eq!(scenario.chaos.as_ref().unwrap().nodes, [NodeId(1), NodeId(0)]);
}

#[test]
fn an_error_names_line_and_field() {
    assert_errors(
        GOOD,
        &[
            ("loss = 0.1", "loss = 1.1", "line 5", "faults.loss"),
            ("[0, 4]", "[16, 4]", "line 8", "shared.scheme"),
            ("psid = 1", "psid = 16", "line 11", "host.psid"),
            ("100.10", "101.10", "line 14", "legacy.address"),
            ("100.10", "100.2", "line 14", "legacy.address"),
            ("\"old\"", "\"inet\"", "line 13", "legacy.name"),
            ("198.51.100.10", "203.0.113.80", "line 14", "legacy.address"),
            ("at = 3", "at = 10", "line 16", "event.at"),
            ("node = \"h1\"", "node = \"h9\"", "line 18", "event.node"),
            ("to = \"h1\"", "to = \"inet\"", "line 21", "flow.to"),
            ("every = 0.5", "every = 0", "line 22", "flow.every"),
            ("every = 0.5", "evry = 0.5", "line 22", "evry"),
            ("every = 0.5", "every = \"0.5\"", "line 22", "every"),
            ("\"crash\"", "\"crush\"", "line 17", "crush"),
            ("\"crash\"", "\"move\"", "line 18", "event.to"),
        ],
    );
    assert_errors(
        WIDE,
        &[
            ("\"transit\"\nprefix", "\"west\"\nprefix", "line 8", "segment.name"),
            ("203.0.113.0/24", "203.0.113.1/24", "line 9", "segment.prefix"),
            ("\"203.0.113.0/24\"", "\"198.51.0.0/16\"", "line 9", "segment.prefix"),
            ("west = \"198", "east = \"198", "line 14", "router.links"),
            ("198.51.100.1\"", "203.0.113.7\"", "line 14", "router.links"),
            ("192.0.2.0/24", "192.0.2.0", "line 15", "router.routes"),
            ("segment = \"west\"", "", "line 25", "host.name"),
            ("to = \"spare\"", "to = \"r1\"", "line 31", "event.to"),
            ("segment = \"transit\"", "segment = \"east\"", "line 36", "event.segment"),
            ("[0.1, 5]", "[5, 0.1]", "line 39", "chaos.outage"),
            ("\"crash\", \"move\"", "\"restart\"", "line 40", "chaos.actions"),
            ("\"h1\", \"r1\"", "", "line 41", "chaos.nodes"),
        ],
    );
}
