//! Leases: real clients, which know nothing of port sets, and one that asks for them.

use std::fs;
use std::path::PathBuf;

use dhcproto::v4::MessageType;
use nix::sys::signal::Signal;
use pearp::wire::EthernetAddress;
use serde_json::{Value, json};

use crate::support::capture::Capture;
use crate::support::dhcp::{Client, Crowd, DhcpLab};
use crate::support::lab::{INET, SHARED};
use crate::support::process::{Process, run};
use crate::support::requirements::machine;
use crate::support::wait::{await_some, await_true};

pub(crate) const POOLS: &str = r#"
lease = 600

[[shared]]
addresses = "198.51.100.2"
scheme = [0, 4]

[[whole]]
addresses = "198.51.100.100-198.51.100.109"
"#;

const SHARED_ONLY: &str = "[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 4]\n";
const LISTED: &[u8] = &[1, 3, 6, 51, 159];

fn mac(last: u8) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 9, last])
}

/// `legacy` without the address that the lab gave it.
fn without_address(dhcp: &DhcpLab) {
    dhcp.lab.exec("legacy", &["ip", "address", "flush", "dev", "eth0"]).ok();
}

fn is_whole(lease: &Value) -> bool {
    let address = lease["address"].as_str().unwrap();
    lease["psid"].is_null() && address.starts_with("198.51.100.10") && address.len() == 14
}

/// What tells what udhcpc got.
fn udhcpc_script(place: &tempfile::TempDir) -> PathBuf {
    let path = place.path().join("script");
    fs::write(&path, "#!/bin/sh\n[ \"$1\" != bound ] || echo \"bound $ip $mask $router $serverid $lease\"\n")
        .unwrap();
    run(std::process::Command::new("chmod").arg("755").arg(&path)).ok();
    path
}

#[test]
fn udhcpc_gets_a_whole_address() {
    let dhcp = DhcpLab::up(POOLS);
    without_address(&dhcp);
    let place = tempfile::TempDir::new().unwrap();
    let script = udhcpc_script(&place);
    let capture = Capture::start(&dhcp.lab, "lan", "legacy", "udp port 67");
    let words = ["udhcpc", "-i", "eth0", "-f", "-q", "-n", "-x", "hostname:old-host", "-s"];
    let bound = run(dhcp.lab.command("legacy", "busybox").args(words).arg(&script)).ok();
    let words: Vec<_> = bound.lines().find(|line| line.starts_with("bound")).unwrap().split(' ').collect();
    assert_eq!(words[2..], ["24", "198.51.100.1", "198.51.100.1", "600"]);
    let leases = dhcp.leases();
    assert_eq!(leases.len(), 1);
    assert!(is_whole(&leases[0]) && leases[0]["address"] == words[1], "{leases:?}");
    assert_eq!((&leases[0]["state"], &leases[0]["host_name"]), (&json!("bound"), &json!("old-host")));
    assert_eq!(leases[0]["link_address"], "02:00:00:00:00:10");
    assert_eq!(dhcp.lab.pearp_json("router", &["status"])["leases"]["bound"], 1);

    // What another program thinks of the server's packets.
    capture
        .await_packet("the acknowledgement", |packet| packet.ports() == (67, 68) && packet.bytes.len() > 300);
    let kinds = await_some("four messages in the capture", || {
        Some(capture.dhcp_by_tshark()).filter(|kinds| kinds.len() >= 4)
    });
    assert_eq!(kinds, ["1", "2", "3", "5"], "nothing malformed, and no complaint");
}

#[test]
fn dhclient_gets_a_whole_address_and_gives_it_back() {
    let dhcp = DhcpLab::up(POOLS);
    without_address(&dhcp);
    let place = tempfile::TempDir::new().unwrap();
    let file = |name: &str| place.path().join(name).display().to_string();
    let files = ["-cf", "/dev/null", "-sf", "/bin/true", "-lf", &file("leases"), "-pf", &file("pid")];
    let client = Process::start(
        dhcp.lab.command("legacy", "dhclient").args(["-4", "-d", "-1", "-v"]).args(files).arg("eth0"),
    );
    let line = client.await_line("bound to");
    let leases = dhcp.leases();
    assert!(
        is_whole(&leases[0]) && line.contains(leases[0]["address"].as_str().unwrap()),
        "{line} {leases:?}"
    );
    drop(client);
    // A release is unicast, by the kernel: it needs the address.
    let address = format!("{}/24", leases[0]["address"].as_str().unwrap());
    dhcp.lab.exec("legacy", &["ip", "address", "add", &address, "dev", "eth0"]).ok();
    run(dhcp.lab.command("legacy", "dhclient").args(["-4", "-r", "-v"]).args(files).arg("eth0")).ok();
    await_true("the release", || dhcp.leases()[0]["state"] == "released");
}

/// It probes the address by ARP before it takes it, and nobody may answer: nor may the router, as a proxy.
#[test]
fn dhcpcd_gets_a_whole_address_and_routes() {
    let dhcp = DhcpLab::up(POOLS);
    without_address(&dhcp);
    // It remembers leases for the whole machine; the mounts end with the process.
    let private = "mkdir -p /run/dhcpcd && for d in /var/lib/dhcpcd /run/dhcpcd; do mount -t tmpfs tmpfs $d; done && \
                   exec dhcpcd -4 -1 -B -c /bin/true -f /dev/null eth0";
    run(dhcp.lab.command("legacy", "sh").args(["-c", private])).ok();
    let leases = dhcp.leases();
    assert!(is_whole(&leases[0]), "{leases:?}");
    let addresses = dhcp.lab.exec("legacy", &["ip", "-4", "address", "show", "dev", "eth0"]).ok();
    assert!(addresses.contains(&format!("{}/24", leases[0]["address"].as_str().unwrap())), "{addresses}");
    // With the route that it was told, it reaches the outside.
    dhcp.lab.exec("legacy", &["ping", "-c", "1", "-W", "10", INET]).ok();
}

#[test]
fn without_a_pool_for_them_legacy_clients_get_no_offer() {
    let dhcp = DhcpLab::up(SHARED_ONLY);
    without_address(&dhcp);
    let place = tempfile::TempDir::new().unwrap();
    let script = udhcpc_script(&place);
    let words = ["udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "2", "-T", "1", "-s"];
    let failed = run(dhcp.lab.command("legacy", "busybox").args(words).arg(&script));
    failed.fails_with(1, &["no lease"]);
    assert_eq!(dhcp.leases(), Vec::<Value>::new());
    let drops = &dhcp.lab.pearp_json("router", &["status"])["drops"];
    assert!(drops["dhcp_invalid"].is_null(), "they were understood: {drops}");
}

#[test]
fn a_client_that_asks_for_159_gets_a_set_and_its_packets() {
    let dhcp = DhcpLab::up(POOLS);
    let mut one = Client::new(&dhcp.lab, "c1", mac(1));
    let mut two = Client::new(&dhcp.lab, "c2", mac(2));
    let (first, second) = (one.lease(LISTED), two.lease(LISTED));
    assert_eq!((first.0.to_string(), second.0.to_string()), (SHARED.to_owned(), SHARED.to_owned()));
    let (first, second) = (first.1.unwrap(), second.1.unwrap());
    assert_ne!(first, second);
    assert_eq!((first.len(), &first[..2]), (4, &[0, 4][..]));
    // The lease is the binding: nobody has spoken PE-ARP.
    let table = dhcp.lab.pearp_json("router", &["arp", "-n"]);
    let of_one =
        table.as_array().unwrap().iter().find(|line| line["link_address"] == "02:00:00:00:09:01").unwrap();
    assert_eq!((&of_one["address"], &of_one["source"]), (&json!(SHARED), &json!("lease")));
    let port = u16::from_be_bytes([first[2], first[3]]) + 80;
    assert!(of_one["ports"][0][0].as_u64().unwrap() <= port.into());
    let capture = Capture::start(&dhcp.lab, "lan", "c1", "udp and dst net 198.51.100.2");
    dhcp.lab.exec("inet", &["sh", "-c", &format!("echo hello | nc -u -w 1 {SHARED} {port}")]);
    let packets = capture.await_packet("a packet for the owner", |packet| packet.ports().1 == port);
    assert_eq!(packets[0].ethernet.unwrap()[..6], *mac(1).as_bytes());
    // Whole for those who do not list it.
    let whole = Client::new(&dhcp.lab, "c3", mac(3)).lease(&[1, 3, 6]);
    assert!(whole.1.is_none() && whole.0.octets()[3] >= 100, "{whole:?}");
}

#[test]
fn a_lease_outlives_a_router_that_is_killed_after_the_ack() {
    let mut dhcp = DhcpLab::up(POOLS);
    let mut given = Vec::new();
    for last in 1..=5 {
        let mut client = Client::new(&dhcp.lab, &format!("c{last}"), mac(last));
        let (ip, set) = client.lease(LISTED);
        // In the very moment in which the client knows.
        dhcp.kill_router();
        let set = set.unwrap();
        assert!(!given.contains(&set), "given twice");
        given.push(set);
        let leases = dhcp.leases();
        assert_eq!(leases.len(), usize::from(last), "{leases:?}");
        let own = format!("02:00:00:00:09:{last:02x}");
        let lease = leases.iter().find(|lease| lease["link_address"] == *own).unwrap();
        assert_eq!((&lease["state"], &lease["address"]), (&json!("bound"), &json!(ip.to_string())));
        let table = dhcp.lab.pearp_json("router", &["arp", "-n"]);
        assert!(table.as_array().unwrap().iter().any(|line| line["link_address"] == *own), "{table}");
    }
}

#[test]
fn a_full_disk_gives_no_lease_and_says_so() {
    let dhcp = DhcpLab::up(POOLS);
    let mut client = Client::new(&dhcp.lab, "c1", mac(1));
    client.lease(LISTED);
    let before = fs::read(dhcp.lease_file()).unwrap();
    // The kernel refuses to make the file any longer.
    let limit = format!("--fsize={}:", before.len());
    run(std::process::Command::new("prlimit").args(["--pid", &dhcp.router.pid().to_string(), &limit])).ok();
    let mut second = Client::new(&dhcp.lab, "c2", mac(2));
    let discover = second.message(MessageType::Discover, LISTED);
    let offer = second.ask(&discover, MessageType::Offer);
    assert!(Client::given(&offer).1.is_some());
    let mut request = second.message(MessageType::Request, LISTED);
    *request.opts_mut() = offer.opts().clone();
    request.opts_mut().insert(dhcproto::v4::DhcpOption::MessageType(MessageType::Request));
    request.opts_mut().insert(dhcproto::v4::DhcpOption::RequestedIpAddress(offer.yiaddr()));
    second.send(&request);
    let line = dhcp.router.await_line("lease file cannot be written");
    assert!(line.contains("no lease is given") && line.contains("free space"), "{line}");
    assert!(second.receive().is_none(), "no acknowledgement");
    assert_eq!(fs::read(dhcp.lease_file()).unwrap(), before);
    assert_eq!(dhcp.lab.pearp_json("router", &["status"])["leases"]["bound"], 1);
    run(std::process::Command::new("prlimit").args([
        "--pid",
        &dhcp.router.pid().to_string(),
        "--fsize=unlimited:",
    ]))
    .ok();
    second.ask(&request, MessageType::Ack);
    assert_eq!(dhcp.lab.pearp_json("router", &["status"])["leases"]["bound"], 2);
}

#[test]
fn usage_errors_of_dhcp() {
    let place = tempfile::TempDir::new().unwrap();
    let lan = "x:t,address=198.51.100.1/24,mac=02:00:00:00:00:01";
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let pearp = |words: &[&str]| {
        let command = [&["router", "--lan", lan], words].concat();
        run(std::process::Command::new(&machine().pearp).args(command).env("LC_ALL", "C"))
    };
    let pools = file("pools.toml", POOLS);
    let bad = file("bad.toml", "lease = 5\n");
    let leases = place.path().join("leases").display().to_string();
    pearp(&["--dhcp", &pools]).fails_with(2, &["--lease-file"]);
    pearp(&["--dhcp", &bad, "--lease-file", &leases]).fails_in_one_line(1, &["bad.toml", "line 1: lease: "]);
    pearp(&["--dhcp", &pools, "--lease-file", &bad]).fails_in_one_line(1, &["is no lease file"]);
    pearp(&["--dhcp", &pools, "--lease-file", "/proc/none"])
        .fails_in_one_line(1, &["cannot open the lease file"]);
    pearp(&["--dhcp", &pools, "--lease-file", &leases, "--shared", "198.51.100.3=0,4"])
        .fails_in_one_line(1, &["leave --shared out"]);
    assert_eq!(fs::read_to_string(&bad).unwrap(), "lease = 5\n");
}

#[test]
fn a_router_without_dhcp_says_so() {
    let lab = crate::support::lab::Lab::with(&["--hosts", "0", "--static"]);
    lab.pearp("router", &["leases"]).fails_in_one_line(1, &["--dhcp"]);
    lab.signal("router", Signal::SIGTERM);
}

/// `scripts/bench-dhcp` runs it. Every acknowledgement is on the disk before it is sent.
#[test]
#[ignore = "measures how fast the machine is"]
fn thousands_of_leases_a_second() {
    const CLIENTS: u32 = 10_000;
    const GOAL: f64 = 2000.0;
    let pools = "[[shared]]\naddresses = \"198.51.100.2-198.51.100.251\"\nscheme = [0, 6]\n";
    let mut rates = Vec::new();
    for window in [1, 4, 16, 64, 200] {
        let mut dhcp = DhcpLab::alone(pools);
        let mut crowd = Crowd::new(&dhcp.lab, "x1");
        let count = CLIENTS;
        let begin = std::time::Instant::now();
        let given = crowd.lease(count, window);
        let rate = f64::from(count) / begin.elapsed().as_secs_f64();
        let different: std::collections::HashSet<_> = given.iter().collect();
        assert_eq!(different.len(), given.len(), "no set is given twice");
        let drops = &dhcp.lab.pearp_json("router", &["status"])["drops"];
        println!("{window} clients at a time: {count} leases, {rate:.0} exchanges/s; drops {drops}");
        // All of them are on the disk.
        let begin = std::time::Instant::now();
        dhcp.kill_router();
        println!("  the router serves again {:.2} s after kill -9", begin.elapsed().as_secs_f64());
        assert_eq!(dhcp.leases().len(), count as usize);
        rates.push(rate);
    }
    assert!(rates.iter().any(|rate| *rate >= GOAL), "{rates:?}");
}
