//! What the router counts for each lease, beside what really happens.

use serde_json::Value;

use crate::support::lab::{INET, Lab, SHARED};
use crate::support::process::run;
use crate::support::ssh::{Web, curl};
use crate::support::wait::await_true;

/// Bytes of the page that is loaded.
const PAGE: u64 = 5_000_000;
/// IP and TCP headers of a segment, with timestamps.
const HEADERS: u64 = 52;

fn traffic(lab: &Lab, host: &str) -> Value {
    let leases = lab.pearp_json("router", &["leases"]);
    let lease = leases.as_array().expect("a list").iter().find(|lease| lease["host_name"] == *host);
    lease.expect("every host has one")["traffic"].clone()
}

/// One count towards a host or from it.
fn count(lab: &Lab, host: &str, direction: &str, name: &str) -> u64 {
    traffic(lab, host)[direction][name].as_u64().expect("a count")
}

fn load(lab: &Lab, node: &str, url: &str) -> u64 {
    let page = run(&mut curl(lab, node, &["-o", "/dev/null", "-w", "%{size_download}", url])).ok();
    page.parse().expect("a size")
}

/// No more packets come for a host.
fn await_rest(lab: &Lab, host: &str) {
    await_true("the end of all connections", || {
        ["h1", "inet"].iter().all(|node| {
            let open = lab.exec(node, &["ss", "-Htn", "state", "connected", "exclude", "time-wait"]).ok();
            open.is_empty()
        })
    });
    let mut before = Value::Null;
    await_true("counts that rest", || {
        let now = traffic(lab, host);
        core::mem::replace(&mut before, now.clone()) == now
    });
}

#[test]
fn downloads_are_counted_for_who_made_them() {
    const TIMES: u64 = 3;
    let lab = Lab::up();
    let idle = traffic(&lab, "h2");
    let web = Web::serve(&lab, "inet", 80);
    web.add("page", &vec![b'x'; PAGE as usize]);
    let before = count(&lab, "h1", "to_host", "bytes");
    for _ in 0..TIMES {
        assert_eq!(load(&lab, "h1", &format!("http://{INET}/page")), PAGE);
    }
    await_rest(&lab, "h1");
    let [bytes, packets] = ["bytes", "packets"].map(|name| count(&lab, "h1", "to_host", name));
    // Super-frames count as what they are on the wire: what is not headers is the page, what HTTP says of it, and what
    // was lost behind the router and came again.
    let payload = bytes - before - packets * HEADERS;
    let sent = TIMES * PAGE;
    assert!((sent..sent + sent / 20).contains(&payload), "{payload} for {sent} in {packets} packets");
    assert!(packets * 1500 >= bytes, "{packets} packets of {bytes} bytes");
    let flows = |direction| count(&lab, "h1", direction, "flows");
    assert_eq!((flows("from_host"), flows("to_host")), (TIMES, 0));
    assert!(count(&lab, "h1", "from_host", "packets") > 0);
    assert_eq!(traffic(&lab, "h2"), idle, "h2 shares the address and did nothing");

    // The other way round it is the outside that begins.
    let port = lab.ports("h1")[0].0 + 80;
    let _web = Web::serve(&lab, "h1", port);
    load(&lab, "inet", &format!("http://{SHARED}:{port}/"));
    await_rest(&lab, "h1");
    assert_eq!((flows("from_host"), flows("to_host")), (TIMES, 1));
    let shown = lab.pearp("router", &["leases"]).ok();
    let line = shown.lines().find(|line| line.contains(" h1 ")).expect("a line for h1");
    assert!(shown.contains("To host") && line.contains(" MB "), "{shown}");

    // It is the same lease when the host comes again; a router that comes again begins anew.
    lab.run(&["restart", "h1"]).ok();
    assert!(count(&lab, "h1", "to_host", "bytes") >= bytes);
    lab.run(&["restart", "router"]).ok();
    assert_eq!((flows("from_host"), flows("to_host")), (0, 0));
}

/// Without super-frames the kernel of the host counts the same packets and bytes, unless some are lost on the way.
#[test]
fn the_host_counts_the_same() {
    // The queue of a TAP, 1000 packets, holds all of it.
    const SMALL: u64 = 500_000;
    let lab = Lab::with(&["--hosts", "2", "--offload", "off"]);
    let kernel = || {
        let text = lab.exec("h1", &["ip", "-s", "-j", "link", "show", "pe0"]).ok();
        let link: Value = serde_json::from_str(&text).expect("JSON");
        ["packets", "bytes"].map(|name| link[0]["stats64"]["rx"][name].as_u64().expect("a count"))
    };
    let router = || ["packets", "bytes"].map(|name| count(&lab, "h1", "to_host", name));
    let web = Web::serve(&lab, "inet", 80);
    web.add("page", &vec![b'x'; SMALL as usize]);
    let before = [kernel(), router()];
    assert_eq!(load(&lab, "h1", &format!("http://{INET}/page")), SMALL);
    await_rest(&lab, "h1");
    let change = |after: [u64; 2], before: [u64; 2]| [after[0] - before[0], after[1] - before[1]];
    assert_eq!(change(kernel(), before[0]), change(router(), before[1]));

    // Hosts of one LAN need no router, and it counts nothing of what they do.
    let port = lab.ports("h2")[0].0 + 80;
    let _web = Web::serve(&lab, "h2", port);
    let before = traffic(&lab, "h1");
    load(&lab, "h1", &format!("http://{SHARED}:{port}/"));
    assert_eq!(traffic(&lab, "h1"), before);
}
