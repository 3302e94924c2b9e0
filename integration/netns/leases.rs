//! Hosts that lease their address and ports by DHCP.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::capture::{Capture, Captured};
use crate::support::intruder::Intruder;
use crate::support::lab::{HOSTS, INET, Lab, SHARED};
use crate::support::process::{Process, run};
use crate::support::requirements::machine;
use crate::support::ssh::{Ssh, Web, curl};
use crate::support::wait::{PATIENCE, await_some, await_true, within};

const H2: &str = "02:00:00:00:02:02";

fn dhcp(lab: &Lab, host: &str) -> Value {
    lab.pearp_json(host, &["status"])["dhcp"].clone()
}

/// Its ports, as the host itself says.
fn ports(lab: &Lab, host: &str) -> Value {
    lab.pearp_json(host, &["status"])["ports"].clone()
}

fn lease_of(lab: &Lab, host: &str) -> Option<Value> {
    let leases = lab.pearp_json("router", &["leases"]);
    let bound = |lease: &&Value| lease["host_name"] == *host && lease["state"] == "bound";
    leases.as_array().expect("a list").iter().find(bound).cloned()
}

fn ping(lab: &Lab, host: &str) {
    lab.exec(host, &["ping", "-n", "-c", "1", "-W", "10", INET]).ok();
}

#[test]
fn every_host_has_the_lease_that_the_router_gave() {
    let lab = Lab::up();
    for host in HOSTS {
        let lease = lease_of(&lab, host).unwrap_or_else(|| panic!("{host} has none"));
        let status = lab.pearp_json(host, &["status"]);
        assert_eq!((&lease["address"], &lease["ports"]), (&status["address"], &status["ports"]), "{host}");
        assert_eq!(lease["ports"], lab.node(host)["ports"], "{host}");
        assert_eq!(
            (&lease["client"], &status["dhcp"]["state"]),
            (&status["dhcp"]["client"], &"bound".into())
        );
        ping(&lab, host);
    }
}

/// RFC 2131 §4.4.2.
#[test]
fn a_lease_is_kept_over_kill_9_and_restart() {
    let lab = Lab::up();
    let before = ports(&lab, "h2");
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let asked = Capture::start(&lab, "lan", "lan", "udp port 67");
        lab.end("h2", signal);
        assert!(lease_of(&lab, "h2").is_some(), "{signal}: it is not given back");
        lab.run(&["restart", "h2"]).ok();
        assert_eq!(ports(&lab, "h2"), before);
        ping(&lab, "h2");
        let packets = asked.await_packet("the acknowledgement", |packet| packet.ports() == (67, 68));
        assert_eq!(packets.len(), 2, "one REQUEST and one ACK: {packets:?}");
    }
}

#[test]
fn a_host_starts_with_its_lease_while_no_server_is_there() {
    let lab = Lab::up();
    let before = ports(&lab, "h1");
    let arguments = lab.arguments("h1");
    lab.end("router", Signal::SIGKILL);
    lab.end("h1", Signal::SIGKILL);
    // The lab would not wait as long as the host does.
    let _host = Process::start(lab.command("h1", &machine().pearp).args(&arguments));
    await_true("the host serves", || lab.serves("h1"));
    assert_eq!(ports(&lab, "h1"), before);
    assert!(dhcp(&lab, "h1")["server"].is_string());
    // Sharers reach each other without it.
    let port = lab.ports("h2")[0].0 + 80;
    let _web = Web::serve(&lab, "h2", port);
    let url = format!("http://{SHARED}:{port}/");
    assert_eq!(run(&mut curl(&lab, "h1", &[&url])).ok(), "page of h2\n");
    lab.run(&["restart", "router"]).ok();
    ping(&lab, "h1");
}

/// RFC 2131 §4.4.5. T2 of the shortest lease is after 52.5 s.
#[test]
fn a_router_that_is_away_beyond_t2_interrupts_nothing() {
    let lab = Lab::with(&["--hosts", "2"]);
    let pools = lab.arguments("router");
    let pools = &pools[pools.iter().position(|word| word == "--dhcp").unwrap() + 1];
    let text = fs::read_to_string(pools).unwrap();
    fs::write(pools, text.replace("lease = 3600", "lease = 60")).unwrap();
    for node in ["router", "h1", "h2"] {
        lab.run(&["restart", node]).ok();
    }
    assert!(dhcp(&lab, "h1")["left_s"].as_u64() < Some(61));
    // Sharers talk to each other meanwhile.
    let ssh = Ssh::new();
    let port = lab.ports("h2")[0].0 + 22;
    let _sshd = ssh.serve(&lab, "h2", port);
    let mut session = ssh.session(&lab, "h1", SHARED, port);
    lab.end("router", Signal::SIGKILL);
    let rebinding =
        within(Duration::from_secs(70), || (dhcp(&lab, "h1")["state"] == "rebinding").then_some(()));
    rebinding.expect("T2 comes");
    session.echo("nobody renews");
    lab.run(&["restart", "router"]).ok();
    await_true("a lease that lasts longer", || {
        let dhcp = dhcp(&lab, "h1");
        dhcp["state"] == "bound" && dhcp["left_s"].as_u64() > Some(30)
    });
    session.echo("renewed");
    session.finish();
    ping(&lab, "h1");
}

/// Starts a host so that it gives its lease back at the end, and ends it; its arguments.
fn give_back(lab: &Lab, host: &str) -> Vec<String> {
    let mut arguments = lab.arguments(host);
    arguments.push("--release".to_owned());
    lab.end(host, Signal::SIGTERM);
    let mut process = Process::start(lab.command(host, &machine().pearp).args(&arguments));
    await_true("the host serves", || lab.serves(host));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.finish(), Some(0), "{}", process.transcript());
    await_true("the router knows", || lease_of(lab, host).is_none());
    arguments
}

#[test]
fn a_lease_can_be_given_back() {
    let lab = Lab::up();
    let arguments = give_back(&lab, "h3");
    let at = arguments.iter().position(|word| word == "--lease-file").unwrap();
    assert!(!fs::exists(&arguments[at + 1]).unwrap(), "nothing to ask for next time");
    let table = lab.pearp_json("router", &["arp"]);
    let mut owners = table.as_array().unwrap().iter().map(|line| line["link_address"].clone());
    assert!(owners.all(|owner| owner != "02:00:00:00:02:03"), "{table}");
}

/// PE-ARP rules 99 and 102: somebody who has no lease uses a set. Who leases it declines it and gets another one.
#[test]
fn a_set_that_a_squatter_uses_is_declined() {
    let lab = Lab::up();
    let set = ports(&lab, "h2");
    lab.end("h2", Signal::SIGKILL);
    let intruder = Intruder::new(&lab);
    let squatter = Process::start(&mut intruder.command("--psid 0,4,2", ""));
    squatter.await_line("host serves");
    let declined = Capture::start(&lab, "lan", "lan", "udp port 67");
    let arguments = lab.arguments("h1").join(" ").replace("02:00:00:00:02:01", H2);
    let arguments = arguments.replace("h1", "h2");
    let host = Process::start(lab.command("h2", &machine().pearp).args(arguments.split(' ')));
    host.await_line("in use by another host");
    let new = await_some("another lease", || lease_of(&lab, "h2").filter(|lease| lease["ports"] != set));
    await_true("the host serves", || lab.serves("h2"));
    assert_eq!(ports(&lab, "h2"), new["ports"]);
    ping(&lab, "h2");
    let leases = lab.pearp_json("router", &["leases"]);
    let resting = leases.as_array().unwrap().iter().find(|lease| lease["ports"] == set).unwrap();
    assert_eq!(resting["state"], "quarantined");
    // tshark understands what was said.
    // REQUEST of the stored lease, ACK, DECLINE; DISCOVER, OFFER, REQUEST, ACK.
    assert_eq!(declined.dhcp_by_tshark(), ["3", "5", "4", "1", "2", "3", "5"]);
}

/// Who had it then, and who has it now.
#[test]
fn who_had_a_port() {
    let lab = Lab::up();
    let who = |endpoint: &str, more: &[&str]| lab.pearp("router", &[&["who", endpoint], more].concat());
    let now = |endpoint| serde_json::from_str::<Value>(&who(endpoint, &["--json"]).ok()).unwrap();
    let first = now("198.51.100.2:9000");
    assert_eq!((&first["link_address"], &first["host_name"]), (&H2.into(), &"h2".into()));
    assert_eq!((&first["ports"], &first["psid"]), (&serde_json::json!([[8192, 12287]]), &"0,4,0x2".into()));
    // Over a restart of the host it is one time.
    lab.run(&["restart", "h2"]).ok();
    let again = now("198.51.100.2:9000");
    assert_eq!(first["from"], again["from"]);
    assert!(again["until"].as_str() > first["until"].as_str(), "{first} {again}");
    let shown = who("198.51.100.2:9000", &[]).ok();
    assert!(shown.contains("h2") && shown.contains("unless it is renewed"), "{shown}");

    // It is given back, and h2 has another one.
    give_back(&lab, "h2");
    who("198.51.100.2:9000", &[]).fails_in_one_line(1, &["nobody had a lease of 198.51.100.2:9000"]);
    let from = first["from"].as_str().unwrap();
    let then = who("198.51.100.2:9000", &["--at", from, "--json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&then).unwrap()["link_address"], H2);

    for (endpoint, more) in [("198.51.100.2", &[][..]), ("198.51.100.2:9000", &["--at", "yesterday"])] {
        who(endpoint, more).fails_with(2, &["invalid value"]);
    }
    who("198.51.100.2:9000", &["--lease-file", "/nowhere"])
        .fails_in_one_line(1, &["cannot read the lease file"]);
    lab.pearp("h1", &["who", "198.51.100.2:9000"]).fails_in_one_line(1, &["gives no leases"]);
}

/// `pearp ports`, beside what really happens.
#[test]
fn the_ports_in_use_and_their_programs() {
    let lab = Lab::up();
    let usage = || lab.pearp_json("h1", &["ports"]);
    let idle = usage();
    assert_eq!((&idle["ports"], &idle["free"]), (&3584.into(), &3584.into()), "{idle}");
    let port = lab.ports("h1")[0].0 + 80;
    let _web = Web::serve(&lab, "h1", port);
    let _server = Web::serve(&lab, "inet", 80);
    let mut session = Process::start(lab.command("h1", "nc").args([INET, "80"]));
    let connected = await_some("a connection in the list", || {
        let usage = usage();
        (usage["connected"] == 1).then_some(usage)
    });
    assert_eq!((&connected["listening"], &connected["free"]), (&1.into(), &3582.into()), "{connected}");
    let sockets = connected["sockets"].as_array().unwrap();
    let nc = sockets.iter().find(|socket| socket["remote"] == "203.0.113.80:80").unwrap();
    assert_eq!((&nc["name"], &nc["in_set"], &nc["protocol"]), (&"nc".into(), &true.into(), &"tcp".into()));
    let web = sockets.iter().find(|socket| socket["port"] == port).unwrap();
    assert_eq!((&web["state"], &web["in_set"]), (&"listening".into(), &true.into()));
    assert!(session.is_running());
    drop(session);

    // Who closes first waits.
    let url = format!("http://{INET}/");
    assert_eq!(run(&mut curl(&lab, "h1", &[&url])).ok(), "page of inet\n");
    // A port outside the set, which the kernel lets a program have.
    let _outside = Process::start(lab.command("h1", "nc").args(["-l", "-u", "-p", "3000"]));
    await_true("a port outside the set", || usage()["outside"] == 1);
    let shown = lab.pearp("h1", &["ports"]).ok();
    assert!(shown.contains("program ports in use") && shown.contains("3000 !"), "{shown}");
    lab.pearp("router", &["ports"]).fails_in_one_line(1, &["only a host has programs"]);
}

#[test]
fn wrong_flags_of_a_leased_host_are_named() {
    let lab = Lab::with(&["--hosts", "1"]);
    lab.end("h1", Signal::SIGTERM);
    let host = |more: &[&str]| {
        let base = ["host", "--lan", "lan", "--mac", "02:00:00:00:02:01"];
        run(std::process::Command::new(&machine().pearp).args(base).args(more))
    };
    host(&["--dhcp", "--psid", "0,4,1"]).fails_with(2, &["--dhcp", "--psid"]);
    host(&["--dhcp", "--address", "198.51.100.2/24"]).fails_with(2, &["--dhcp", "--address"]);
    host(&["--psid", "0,4,1"]).fails_with(2, &["--address"]);
    host(&["--psid", "0,4,1", "--address", "198.51.100.2/24", "--release"]).fails_with(2, &["--release"]);
    let real = |file: &str| {
        let arguments =
            ["host", "--lan", &format!("{}:h1", lab.netns("lan")), "--dhcp", "--lease-file", file]
                .map(str::to_owned);
        run(lab.command("h1", &machine().pearp).args(arguments).args(["--mac", "02:00:00:00:02:01"]))
    };
    real("/nowhere/lease").fails_in_one_line(1, &["/nowhere/lease", "no directory"]);
    real("/tmp").fails_in_one_line(1, &["is a directory"]);
}

/// Another maker's server, which carries option 159 as bytes of its configuration: ISC dhcpd, in the legacy node.
#[test]
fn a_set_of_another_makers_server() {
    let lab = Lab::with(&["--hosts", "1"]);
    let arguments: Vec<_> =
        lab.arguments("h1").into_iter().filter(|word| word != "--dhcp" && word != "--lease-file").collect();
    let lease_file = arguments.iter().position(|word| word.ends_with("leases/h1")).unwrap();
    let arguments = [&arguments[..lease_file], &arguments[lease_file + 1..], &["--dhcp".to_owned()]].concat();
    for node in ["h1", "router"] {
        lab.end(node, Signal::SIGTERM);
    }
    let directory = tempfile::tempdir().unwrap();
    // It gives up root.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = |name: &str| directory.path().join(name);
    let text = "option port-params code 159 = string;\n\
                authoritative;\n\
                default-lease-time 600;\n\
                subnet 198.51.100.0 netmask 255.255.255.0 { option routers 198.51.100.1; }\n\
                host h1 {\n\
                  hardware ethernet 02:00:00:00:02:01;\n\
                  fixed-address 198.51.100.2;\n\
                  option port-params 00:04:50:00;\n\
                }\n";
    fs::write(path("dhcpd.conf"), text).unwrap();
    fs::write(path("leases"), "").unwrap();
    let said = Capture::start(&lab, "lan", "lan", "udp port 67");
    let server = Process::start(
        lab.command("legacy", "dhcpd")
            .args(["-4", "-f", "-d", "-user", "root", "-group", "root", "-cf"])
            .arg(path("dhcpd.conf"))
            .arg("-lf")
            .arg(path("leases"))
            .arg("-pf")
            .arg(path("pid"))
            .arg("eth0"),
    );
    server.await_line("Server starting service");
    let _host = Process::start(lab.command("h1", &machine().pearp).args(&arguments));
    await_true("the host serves", || lab.serves("h1"));
    assert_eq!(ports(&lab, "h1"), serde_json::json!([[20_480, 24_575]]), "PSID 5 of (0, 4)");
    assert_eq!(dhcp(&lab, "h1")["server"], "198.51.100.10");
    // RFC 7618 §9, byte for byte, in what the server sent and what the client asked for.
    let packets = said.await_packet("the acknowledgement", |packet| packet.ports() == (67, 68));
    let option = [159, 4, 0, 4, 0x50, 0];
    let has = |packet: &&Captured| packet.payload().windows(6).any(|bytes| bytes == option);
    let with: Vec<_> = packets.iter().filter(has).map(Captured::ports).collect();
    assert_eq!(with, [(67, 68), (68, 67), (67, 68)], "OFFER, REQUEST, ACK");
}

/// PE-ARP rule 74: what is still under way to the old owner finds nobody, until the set has rested; then the other host
/// has it.
#[test]
fn a_set_that_moves_rests_between_its_owners() {
    const REST: Duration = Duration::from_secs(5);
    // One set for each address, and one address is enough.
    let lab = Lab::with(&["--hosts", "2", "--psid", "0,1"]);
    let arguments = lab.arguments("router");
    let pools = &arguments[arguments.iter().position(|word| word == "--dhcp").unwrap() + 1];
    let one = "lease = 60\nrest = 5\n[[shared]]\naddresses = \"198.51.100.2\"\nscheme = [0, 1]\n";
    fs::write(pools, one).unwrap();
    lab.end("h2", Signal::SIGKILL);
    let h2 = lab.arguments("h1").join(" ").replace("h1", "h2").replace("02:00:00:00:02:01", H2);
    let file = h2.split(' ').skip_while(|word| *word != "--lease-file").nth(1).unwrap();
    fs::remove_file(file).unwrap();
    lab.run(&["restart", "router"]).ok();
    lab.run(&["restart", "h1"]).ok();

    // Somebody outside talks to h1, and goes on when it is gone.
    let port = lab.ports("h1")[0].0 + 7;
    let there = lab.inside("h1", || UdpSocket::bind((SHARED, port)).unwrap());
    let outside = lab.inside("inet", || UdpSocket::bind((INET, 7000)).unwrap());
    for socket in [&there, &outside] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    outside.send_to(b"before", (SHARED, port)).unwrap();
    let mut space = [0; 100];
    assert_eq!(there.recv(&mut space).unwrap(), 6);
    let new_owner = Process::start(lab.command("h2", &machine().pearp).args(h2.split(' ')));
    let selects = |status: Value| status["dhcp"]["state"] == "selecting";
    await_true("h2 looks for an offer", || lab.answer_of("h2").is_some_and(selects));
    let arriving = Capture::start(&lab, "h2", "pe0", "udp");
    give_back(&lab, "h1");
    let given_back = Instant::now();
    let mut sent = 0_u64;
    let bound = within(PATIENCE * 2, || {
        outside.send_to(b"to the old owner", (SHARED, port)).unwrap();
        sent += 1;
        (dhcp(&lab, "h2")["state"] == "bound").then(|| given_back.elapsed())
    });
    let rested = bound.unwrap_or_else(|| panic!("h2 gets nothing: {}", new_owner.transcript()));
    assert!(rested >= REST, "after {rested:?}");
    assert_eq!(lease_of(&lab, "h2").expect("it is leased")["ports"], serde_json::json!([[32_768, 65_535]]));
    // Those of the rest ended in the router; a few of the last moments may have found the new owner.
    let dropped = lab.pearp_json("router", &["status"])["drops"]["no_owner"].as_u64().unwrap_or(0);
    let late = arriving.packets().len() as u64;
    assert!(dropped > 0 && late < sent / 10, "{dropped} dropped and {late} late of {sent}");
    // And now it is the new one's.
    let there = lab.inside("h2", || UdpSocket::bind(("0.0.0.0", port)).unwrap());
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    outside.send_to(b"to the new owner", (SHARED, port)).unwrap();
    assert_eq!(there.recv(&mut space).unwrap(), 16);
    assert_eq!(&space[..16], b"to the new owner");
}
