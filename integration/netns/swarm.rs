//! Thousands of hosts in one process, reached by real programs from outside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::lab::{Lab, SHARED, script, unique_name};
use crate::support::process::{run, run_with_input};
use crate::support::wait::await_true;

/// From the start of the process until every host has its set.
const READY: Duration = Duration::from_secs(2);
/// What counts is how long it takes, not how busy the machine is with other things.
const ATTEMPTS: usize = 3;
/// Resident memory of a swarm, whatever has happened to it.
const MEMORY_KIB: u64 = 300_000;
/// How long a client asks until all hosts have answered.
const REACH: Duration = Duration::from_secs(60);

/// One host, as `pearp status --json` lists it.
#[derive(Clone, Debug)]
struct Host {
    name: String,
    address: Ipv4Addr,
    ports: (u16, u16),
    echo: u16,
    bytes: u16,
}

fn status(lab: &Lab) -> Value {
    lab.pearp_json("swarm", &["status"])
}

fn hosts(lab: &Lab) -> Vec<Host> {
    let status = status(lab);
    assert_eq!((&status["state"], &status["hosts_lost"]), (&json!("bound"), &json!(0)));
    let hosts = status["hosts"].as_array().expect("a list").iter().map(|host| {
        assert_eq!(host["state"], "bound", "{host}");
        let port = |name: &str| u16::try_from(host[name].as_u64().unwrap()).unwrap();
        let ports: Vec<(u16, u16)> = serde_json::from_value(host["ports"].clone()).unwrap();
        let (echo, bytes) = (port("udp_echo_port"), port("tcp_echo_port"));
        assert_eq!((ports[0].0, port("http_port")), (echo, echo), "{host}");
        Host {
            name: host["name"].as_str().unwrap().to_owned(),
            address: host["address"].as_str().unwrap().parse().unwrap(),
            ports: ports[0],
            echo,
            bytes,
        }
    });
    hosts.collect()
}

/// A lab with a swarm that was up in time.
fn up(options: &[&str]) -> Lab {
    let mut times = Vec::new();
    for _ in 0..ATTEMPTS {
        let lab = Lab::alone(&[&["--hosts", "0"], options].concat());
        let ready = Duration::from_millis(status(&lab)["ready_ms"].as_u64().expect("it serves"));
        eprintln!("{options:?}: lab {:?}, swarm {ready:?}", lab.up_took());
        if ready < READY {
            return lab;
        }
        times.push(ready);
    }
    panic!("it took {times:?}");
}

/// curl gets the page of every host, and each is that of the right one.
fn every_page(lab: &Lab, hosts: &[Host]) {
    let begin = Instant::now();
    let urls: String =
        hosts.iter().map(|host| format!("url = http://{}:{}/\n", host.address, host.echo)).collect();
    let options = ["-sS", "--parallel", "--parallel-max", "64", "--max-time", "60", "-K", "-"];
    let pages = run_with_input(lab.command("inet", "curl").args(options), urls.as_bytes()).ok();
    // Two lines each, in any order.
    let mut greetings = BTreeMap::new();
    let mut clients = 0;
    for line in pages.lines() {
        match line.split_once(' ') {
            Some(("you", client)) => {
                assert!(client.starts_with("are 203.0.113.80:"), "{line}");
                clients += 1;
            }
            Some((name, what)) => drop(greetings.insert(name.to_owned(), what.to_owned())),
            None => panic!("{line}"),
        }
    }
    assert_eq!((greetings.len(), clients), (hosts.len(), hosts.len()));
    for host in hosts {
        let expected = format!("{} {}-{}", host.address, host.ports.0, host.ports.1);
        assert!(greetings[&host.name].starts_with(&expected), "{host:?}: {}", greetings[&host.name]);
    }
    eprintln!("{} pages in {:?}", hosts.len(), begin.elapsed());
}

/// Every host sends a datagram back that only it was sent.
fn every_echo(lab: &Lab, hosts: &[Host]) {
    let begin = Instant::now();
    let answered = lab.inside("inet", || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut waiting: BTreeMap<SocketAddrV4, &Host> =
            hosts.iter().map(|host| (SocketAddrV4::new(host.address, host.echo), host)).collect();
        let mut rounds = 0;
        while !waiting.is_empty() && begin.elapsed() < REACH {
            rounds += 1;
            let targets: Vec<_> = waiting.iter().map(|(to, host)| (*to, host.name.clone())).collect();
            // No more at a time than the queues along the way hold.
            for some in targets.chunks(100) {
                for (to, name) in some {
                    socket.send_to(name.as_bytes(), to).unwrap();
                }
                let mut left = some.len();
                let mut space = [0; 100];
                while left > 0 {
                    let Ok((len, from)) = socket.recv_from(&mut space) else { break };
                    let std::net::SocketAddr::V4(from) = from else { panic!("{from}") };
                    // A late answer to an earlier datagram may come, too.
                    if let Some(host) = waiting.remove(&from) {
                        assert_eq!(&space[..len], host.name.as_bytes());
                        left -= 1;
                    }
                }
            }
        }
        assert!(waiting.is_empty(), "{} of {} did not answer", waiting.len(), hosts.len());
        rounds
    });
    eprintln!("{} echoes in {:?}, {answered} rounds", hosts.len(), begin.elapsed());
}

/// curl, UDP and netcat reach every host, and the swarm stays small.
fn is_reached(lab: &Lab, hosts: &[Host]) {
    every_page(lab, hosts);
    every_echo(lab, hosts);
    for host in [&hosts[0], &hosts[hosts.len() / 2], &hosts[hosts.len() - 1]] {
        let (address, port) = (host.address.to_string(), host.bytes.to_string());
        let netcat = ["-q", "1", "-w", "10", &address, &port];
        let echoed = run_with_input(lab.command("inet", "nc").args(netcat), b"as it is\n").ok();
        assert_eq!(echoed, "as it is\n", "{host:?}");
    }
    lab.assert_balanced("swarm");
    // The largest resident set so far.
    let peak = lab.memory_kib("swarm", "VmHWM");
    eprintln!("{} hosts: {peak} KiB", hosts.len());
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

#[test]
fn four_thousand_hosts_share_one_address() {
    let lab = up(&["--swarm", "4000", "--psid", "0,12"]);
    let hosts = hosts(&lab);
    assert_eq!(hosts.len(), 4000);
    assert!(hosts.iter().all(|host| host.address.to_string() == SHARED));
    assert_eq!((hosts[0].ports, hosts[3999].ports), ((1024, 1039), (65_008, 65_023)));
    is_reached(&lab, &hosts);
    // The router forgets everything and asks once for them all.
    lab.run(&["restart", "router"]).ok();
    let known = || {
        let table = lab.pearp_json("router", &["arp"]);
        let owned = |line: &&Value| line["address"] == SHARED && !line["link_address"].is_null();
        table.as_array().unwrap().iter().filter(owned).count()
    };
    // A busy machine loses some of so many answers.
    await_true("the router knows most hosts again", || known() > 3000);
    every_echo(&lab, &hosts);
    assert_eq!(known(), 4000);
}

#[test]
fn a_slash_24_of_hosts_on_a_slash_28() {
    let lab = up(&["--swarm", "256", "--psid", "0,5"]);
    let hosts = hosts(&lab);
    assert_eq!(hosts.len(), 256);
    // 31 on each of nine addresses.
    assert!(hosts.iter().all(|host| host.address.octets()[3] < 16), "198.51.100.0/28");
    is_reached(&lab, &hosts);
}

/// `scripts/soak --swarm` runs it.
#[test]
#[ignore = "takes longer than the others together"]
fn a_slash_20_of_hosts_on_a_slash_24() {
    let lab = up(&["--swarm", "4096", "--psid", "0,5"]);
    let hosts = hosts(&lab);
    assert_eq!(hosts.len(), 4096);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(180) {
        is_reached(&lab, &hosts);
    }
}

#[test]
fn a_swarm_beside_hosts_with_programs() {
    let lab = Lab::with(&["--hosts", "2", "--swarm", "20"]);
    let swarm = hosts(&lab);
    // The sets that h1 and h2 have not; the last nine are on the next address.
    assert_eq!((swarm[0].ports, swarm[0].address.to_string()), ((12_288, 16_383), SHARED.to_owned()));
    assert_eq!((swarm[19].ports.0, swarm[19].address.to_string()), (28_672, "198.51.100.3".to_owned()));
    for client in ["h1", "legacy", "inet"] {
        for host in [&swarm[0], &swarm[19]] {
            let url = format!("http://{}:{}/", host.address, host.echo);
            let page = run(lab.command(client, "curl").args(["-sS", "--max-time", "20", &url])).ok();
            assert!(page.starts_with(&format!("{} {} ", host.name, host.address)), "{client}: {page}");
        }
    }
    let status = lab.status();
    let node = status["nodes"].as_array().unwrap().iter().find(|node| node["node"] == "swarm").unwrap();
    assert_eq!((&node["hosts"], &node["link_address"]), (&json!(20), &json!("02:00:00:10:00:01")));
    let table = lab.run(&["status"]).ok();
    assert!(table.contains("20 hosts: s1 198.51.100.2 psid 3 ... s20 198.51.100.3 psid 7"), "{table}");
    let shown = lab.pearp("swarm", &["status"]).ok();
    assert!(shown.contains("and 10 more") && shown.lines().count() < 60, "{shown}");
    lab.pearp("swarm", &["nc", "203.0.113.80", "80"]).fails_in_one_line(1, &["opens no connections"]);
    lab.run(&["restart", "swarm"]).ok();
    assert_eq!(hosts(&lab).len(), 20);
    let twice = lab.run(&["up", "--hosts", "2", "--swarm", "21"]);
    twice.fails_in_one_line(1, &["is up with --hosts 2 --swarm 20 --psid 0,4 --offload on"]);
}

#[test]
fn a_swarm_that_does_not_fit_is_refused() {
    let name = unique_name();
    let lab = |arguments: &[&str]| run(script(&name).args(arguments));
    lab(&["up", "--swarm", "x"]).fails_in_one_line(2, &["--swarm wants a number"]);
    lab(&["up", "--swarm", "20000"]).fails_in_one_line(2, &["one process takes 16384 hosts"]);
    lab(&["up", "--swarm", "4000"]).fails_in_one_line(2, &["--hosts 3 --swarm 4000: with --psid 0,4"]);
}
