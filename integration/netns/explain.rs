//! `pearp explain`: what it says is what happens to real packets.

use serde_json::Value;

use crate::support::lab::{INET, LEGACY, Lab, SHARED};

/// Link-layer addresses of h1 and h2.
const H1: &str = "02:00:00:00:02:01";
const H2: &str = "02:00:00:00:02:02";

fn explained(lab: &Lab, node: &str, more: &[&str], packet: &str) -> Value {
    let said = lab.pearp(node, &[&["explain", "--json"], more, &[packet]].concat());
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn rules(value: &Value) -> Vec<&str> {
    let steps = value["steps"].as_array().expect("a list").iter();
    steps.map(|step| step["rule"].as_str().expect("every step has a rule")).collect()
}

#[test]
fn the_router_names_binding_lease_and_rule() {
    let lab = Lab::up();
    let port = lab.ports("h1")[0].0 + 905;
    let value = explained(&lab, "router", &[], &format!("tcp {INET}:443 > {SHARED}:{port}"));
    assert_eq!((&value["verdict"], &value["link_address"]), (&"forwarded".into(), &H1.into()), "{value}");
    assert_eq!(
        (&value["binding"]["source"], &value["binding"]["link_address"]),
        (&"lease".into(), &H1.into())
    );
    let leases = value["leases"].as_array().expect("a list");
    assert_eq!((leases.len(), &leases[0]["host_name"]), (1, &"h1".into()), "{value}");
    assert!(rules(&value).contains(&"PE-ARP rule 59"), "{value}");

    let dropped = |more: &[&str], packet: String, reason: &str, rule: &str| {
        let value = explained(&lab, "router", more, &packet);
        assert_eq!(
            (&value["verdict"], &value["reason"]),
            (&"dropped".into(), &reason.into()),
            "{packet}: {value}"
        );
        assert_eq!(rules(&value).last(), Some(&rule), "{packet}: {value}");
    };
    let outward = format!("udp {SHARED}:{port} > {INET}:53");
    dropped(&["--from", H2], outward.clone(), "spoofed_port", "PE-ARP rule 110");
    dropped(&[], format!("udp {INET}:53 > {SHARED}:50000"), "no_owner", "PE-ARP rule 121");
    dropped(&[], format!("udp {INET}:53 > {SHARED}:{port} ttl 1"), "ttl_exceeded", "PE-ARP rule 81");
    dropped(&[], format!("udp {INET}:53 > {SHARED}:{port} df len 9000"), "too_big", "RFC 1191 §4");
    dropped(
        &[],
        format!("icmp 3/1 {INET} > {SHARED} about udp {LEGACY}:1 > {INET}:53"),
        "foreign_error",
        "PE-ARP rule 62",
    );
    assert_eq!(explained(&lab, "router", &["--from", H1], &outward)["reason"], Value::Null);
    // It said so, and nothing changed.
    assert_eq!(lab.pearp_json("router", &["status"])["drops"]["spoofed_port"], Value::Null);
}

#[test]
fn a_host_explains_what_its_programs_send_and_get() {
    let lab = Lab::up();
    let port = lab.ports("h1")[0].0 + 905;
    let leak = explained(&lab, "h1", &[], &format!("udp {SHARED}:60000 > {INET}:53"));
    assert!(rules(&leak).contains(&"PE-ARP rule 88"), "{leak}");
    let foreign = explained(&lab, "h1", &[], &format!("tcp {INET}:443 > {SHARED}:50000"));
    assert_eq!(foreign["reason"], "not_our_port", "{foreign}");
    let own = explained(&lab, "h1", &[], &format!("tcp {INET}:443 > {SHARED}:{port}"));
    assert_eq!((&own["verdict"], &own["link"]), (&"forwarded".into(), &"pe0".into()), "{own}");
}

#[test]
fn what_cannot_be_explained_is_said_in_one_sentence() {
    let lab = Lab::up();
    let packet = format!("tcp {INET}:443 > {SHARED}:5001");
    let refused = |node: &str, arguments: &[&str], code: i32, message: &str| {
        lab.pearp(node, &[&["explain"], arguments].concat()).fails_with(code, &[message]);
    };
    refused("router", &["tcp 1.2.3.4 > 1.2.3.5:1"], 2, "has no port");
    refused("router", &["--link", "nowhere", &packet], 1, "has no link `nowhere`");
    refused("router", &["--from", "x", &packet], 2, "not a link-layer address");
    refused("router", &[&format!("tcp {INET}:443 > {SHARED}:50000")], 1, "would be dropped: no_owner");
    refused("inet", &[&packet], 1, "no node answers");
}
