//! Every input that fuzzing kept, once more: none may panic or break an invariant.

#[allow(unreachable_pub, reason = "it is the library of the fuzz package, too")]
#[path = "../fuzz/src/lib.rs"]
mod fuzzed;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&directory).expect("a committed corpus") {
        let input = fs::read(entry.expect("a readable directory").path()).expect("a readable input");
        run(&input);
        inputs += 1;
    }
    assert!(inputs > 0, "no inputs in {}", directory.display());
}

#[test]
fn pe_arp() {
    replay("pe_arp", fuzzed::pe_arp);
}

#[test]
fn flow_key() {
    replay("flow_key", fuzzed::flow_key);
}

#[test]
fn fragments() {
    replay("fragments", fuzzed::fragments);
}

#[test]
fn dhcp() {
    replay("dhcp", fuzzed::dhcp);
}

#[test]
fn dhcp_client() {
    replay("dhcp_client", fuzzed::dhcp_client);
}

#[test]
fn offload() {
    replay("offload", fuzzed::offload);
}

#[test]
fn host() {
    replay("host", fuzzed::host);
}

#[test]
fn router() {
    replay("router", fuzzed::router);
}

/// What a router gets, a DHCP server beside it may get, too.
#[test]
fn dhcpd() {
    for target in ["dhcpd", "router", "host"] {
        replay(target, fuzzed::dhcpd);
    }
}

/// What a host gets, one that leases what it has may get, too.
#[test]
fn leased() {
    for target in ["host", "leased"] {
        replay(target, fuzzed::leased);
    }
}

/// What a host gets, a swarm may get, too.
#[test]
fn swarm() {
    for target in ["host", "router"] {
        replay(target, fuzzed::swarm);
    }
}
