//! What has no port, between kernels: traceroute sends packets of any IP protocol, and a kernel that does not speak it
//! says so.

use std::fs;
use std::path::Path;

use crate::support::lab::{INET, Lab, ROUTER, SHARED};
use crate::support::process::run;

/// The way of one packet of an IP protocol after the other, and how it ends.
#[track_caller]
fn trace(lab: &Lab, node: &str, protocol: u8, to: &str) -> String {
    let mut command = lab.command(node, "traceroute");
    let one_by_one = ["-n", "-q", "1", "-N", "1", "-w", "5", "-m", "3"];
    run(command.args(one_by_one).args(["-P", &protocol.to_string(), to])).ok()
}

/// Reserves more for those hosts: {PSID, what their reservations say}. Router and hosts know of it when this returns.
#[track_caller]
pub(crate) fn reserve(lab: &Lab, reserved: &[(u8, &str)]) {
    let pools = Path::new("/run/pearp/labs").join(lab.name()).join("dhcp.toml");
    let mut text = fs::read_to_string(&pools).expect("the lab has pools");
    for (psid, more) in reserved {
        let psid = format!("\npsid = {psid}\n");
        assert!(text.contains(&psid), "{text}");
        text = text.replace(&psid, &format!("{psid}{more}\n"));
    }
    fs::write(&pools, text).expect("a file can be written");
    lab.run(&["restart", "router"]).ok();
    for (psid, _) in reserved {
        lab.run(&["restart", &format!("h{psid}")]).ok();
    }
}

/// Rules 66, 94 and 105: GRE is h1's by number, and all the rest h2's; what they answer leaves.
#[test]
fn every_protocol_reaches_its_owner() {
    let lab = Lab::up();
    assert!(trace(&lab, "inet", 47, SHARED).contains("!H"), "nobody owns GRE");
    reserve(&lab, &[(1, "portless = [47]"), (2, "residual = true")]);
    for (protocol, owner) in [(47, "h1"), (51, "h2")] {
        let forwarded =
            || ["h1", "h2"].map(|host| lab.pearp_json(host, &["status"])["counters"]["forwarded"].clone());
        let before = forwarded();
        let path = trace(&lab, "inet", protocol, SHARED);
        let last = path.lines().last().unwrap_or_default();
        assert!(last.contains(SHARED) && last.contains("!P"), "{protocol}: {path}");
        let after = forwarded();
        assert_eq!(
            [after[0] != before[0], after[1] != before[1]],
            [owner == "h1", owner == "h2"],
            "{protocol}"
        );
        // Rule 87: it leaves from its owner, and nobody else.
        let way = trace(&lab, owner, protocol, INET);
        assert!(way.contains(ROUTER) && way.contains(INET), "{protocol}: {way}");
    }
    for protocol in [47, 51] {
        let drops = || lab.pearp_json("h3", &["status"])["drops"]["portless"].as_u64().unwrap_or(0);
        let before = drops();
        let way = trace(&lab, "h3", protocol, INET);
        assert!(!way.contains(ROUTER) && drops() > before, "{protocol}: {way}");
    }
    assert_eq!(lab.pearp_json("h1", &["status"])["portless"], "47");
    assert_eq!(lab.pearp_json("h2", &["ports"])["portless"], "residual");
    let table = lab.pearp_json("router", &["arp"]);
    let owners: Vec<_> = table
        .as_array()
        .expect("a list")
        .iter()
        .filter(|line| line["portless"] == true)
        .map(|line| (line["protocol"].clone(), line["link_address"].clone()))
        .collect();
    let expected = [("47", "02:00:00:00:02:01"), ("residual", "02:00:00:00:02:02")];
    assert_eq!(owners.len(), expected.len(), "{table}");
    for (protocol, hardware) in expected {
        assert!(owners.contains(&(protocol.into(), hardware.into())), "{table}");
    }
}
