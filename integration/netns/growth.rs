//! Hosts that lease more than one set: of one address as their programs need them, and of several addresses.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::capture::Capture;
use crate::support::lab::{INET, Lab, SHARED, contains, ranges};
use crate::support::process::Process;
use crate::support::requirements::machine;
use crate::support::ssh::{Ssh, Web, curl};
use crate::support::wait::{PATIENCE, await_some, await_true};

/// The second address that is shared here.
const SECOND: &str = "198.51.100.3";
/// Ports for programs of a set with 7 bits for ports.
const USABLE: u64 = 112;

fn address<'a>(status: &'a Value, ip: &str) -> &'a Value {
    let addresses = status["addresses"].as_array().expect("a list");
    addresses
        .iter()
        .find(|address| address["address"] == *ip)
        .unwrap_or_else(|| panic!("no {ip} in {status}"))
}

/// The sets that a host has of an address.
fn sets(lab: &Lab, host: &str, ip: &str) -> Vec<Value> {
    let status = lab.pearp_json(host, &["status"]);
    address(&status, ip)["sets"].as_array().expect("a list").clone()
}

fn bound(lab: &Lab, host: &str, ip: &str) -> usize {
    sets(lab, host, ip).iter().filter(|set| set["state"] == "bound").count()
}

/// The leases that the router has given to a host.
fn leases_of(lab: &Lab, host: &str) -> Vec<Value> {
    let leases = lab.pearp_json("router", &["leases"]);
    let of_host = |lease: &&Value| lease["host_name"] == *host && lease["state"] == "bound";
    leases.as_array().expect("a list").iter().filter(of_host).cloned().collect()
}

/// Ends a host, and starts it again with more arguments.
fn restart_with(lab: &Lab, host: &str, more: &[&str]) -> Process {
    let mut arguments = lab.arguments(host);
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    lab.end(host, Signal::SIGKILL);
    start(lab, host, &arguments)
}

fn start(lab: &Lab, host: &str, arguments: &[String]) -> Process {
    let process = Process::start(lab.command(host, &machine().pearp).args(arguments));
    await_true("the host serves", || lab.serves(host));
    process
}

/// nginx with one page, which keeps its connections.
fn nginx(lab: &Lab, node: &str, directory: &Path) -> Process {
    let configuration = directory.join("nginx.conf");
    let place = directory.display();
    fs::write(directory.join("index.html"), "page\n").unwrap();
    let text = format!(
        "daemon off; master_process off; error_log stderr; pid {place}/pid;\n\
         events {{ worker_connections 2048; }}\n\
         http {{ access_log off; keepalive_requests 1000000;\n\
         client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;\n\
         uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
         server {{ listen 8080; root {place}; }} }}\n"
    );
    fs::write(&configuration, text).unwrap();
    let process =
        Process::start(lab.command(node, "nginx").arg("-c").arg(&configuration).arg("-p").arg(directory));
    await_true("nginx serves", || {
        curl(lab, node, &["http://127.0.0.1:8080/"]).output().unwrap().status.success()
    });
    process
}

fn wrk(lab: &Lab, host: &str, connections: usize, seconds: u32) -> Process {
    Process::start(lab.command(host, "wrk").args([
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        "--timeout=10s",
        &format!("http://{INET}:8080/"),
    ]))
}

/// wrk says so where a connection, a read or a write failed.
fn assert_no_errors(mut wrk: Process) {
    assert_eq!(wrk.finish(), Some(0), "{}", wrk.transcript());
    let said = wrk.transcript();
    assert!(said.contains("Requests/sec") && !said.contains("errors") && !said.contains("Non-2xx"), "{said}");
}

/// PE-ARP rule 103: before the set is exhausted there is another one, and no connection fails.
#[test]
fn a_set_that_is_nearly_used_up_grows_under_load() {
    let lab = Lab::with(&["--hosts", "2", "--psid", "0,9"]);
    let pages = tempfile::tempdir().unwrap();
    let _nginx = nginx(&lab, "inet", pages.path());
    let before = lab.ports("h1");
    let out = Capture::start(&lab, "inet", "eth0", "tcp dst port 8080");
    let used = || address(&lab.pearp_json("h1", &["status"]), SHARED)["used"].as_u64();
    // Not quite enough: four fifths are 89. wrk has one port more than connections, to try the server.
    let first = wrk(&lab, "h1", 85, 10);
    await_true("most ports are used", || used() >= Some(85));
    assert_eq!(bound(&lab, "h1", SHARED), 1);
    let second = wrk(&lab, "h1", 10, 8);
    await_true("a second set", || bound(&lab, "h1", SHARED) == 2);
    await_true("it is for programs", || {
        address(&lab.pearp_json("h1", &["status"]), SHARED)["usable"].as_u64() >= Some(2 * USABLE)
    });
    // More than one set has.
    let third = wrk(&lab, "h1", 80, 3);
    await_true("more than one set has", || used() >= Some(175));
    for wrk in [third, second, first] {
        assert_no_errors(wrk);
    }
    assert!(leases_of(&lab, "h1").len() >= 2);
    // Each connection was from a port of the host; many from ports that it did not have before.
    let mine = ranges(&lab.pearp_json("h1", &["status"])["ports"]);
    let seen: Vec<u16> = out.packets().iter().map(|packet| packet.ports().0).collect();
    assert!(seen.len() > 1000 && seen.iter().all(|port| contains(&mine, *port)));
    assert!(seen.iter().any(|port| !contains(&before, *port)));
    // Nobody else has lost any.
    assert_eq!(lab.ports("h2").len(), 1);
    assert!(lab.pearp_json("h1", &["status"])["mapped"].as_array().unwrap().is_empty());
}

/// What is exhausted fails where it is, and says so; others have their own.
#[test]
fn a_host_without_ports_starves_nobody_else() {
    let lab = Lab::with(&["--hosts", "2", "--psid", "0,9"]);
    let host = restart_with(&lab, "h1", &["--grow", "off"]);
    let listener = lab.inside("inet", || TcpListener::bind((INET, 9000)).unwrap());
    let mut accepted = Vec::new();
    let mut connections = Vec::new();
    let error = loop {
        match lab.inside("h1", || TcpStream::connect((INET, 9000))) {
            Ok(connection) => connections.push(connection),
            Err(error) => break error,
        }
        accepted.push(listener.accept().unwrap());
    };
    assert_eq!(connections.len(), USABLE as usize);
    assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    host.await_line("every port of this host's set is in use");
    assert_eq!((bound(&lab, "h1", SHARED), leases_of(&lab, "h1").len()), (1, 1));
    // The other one is not disturbed, and what there is goes on.
    let _web = Web::serve(&lab, "inet", 80);
    curl_page(&lab, "h2", &[]);
    drop(connections);
    await_true("ports are free again", || {
        curl(&lab, "h1", &[&format!("http://{INET}/")]).output().unwrap().status.success()
    });
}

fn curl_page(lab: &Lab, host: &str, more: &[&str]) {
    let url = format!("http://{INET}/");
    let page = curl(lab, host, &[more, &[&url]].concat()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&page.stdout), "page of inet\n", "{page:?}");
}

/// What a host grew by is its own after it was killed, with what goes on there.
#[test]
fn a_further_set_is_kept_over_kill_9() {
    let lab = Lab::with(&["--hosts", "1", "--psid", "0,9"]);
    let arguments = lab.arguments("h1");
    let listener = lab.inside("inet", || TcpListener::bind((INET, 9000)).unwrap());
    let connect = || lab.inside("h1", || TcpStream::connect((INET, 9000)).unwrap());
    let mut connections: Vec<_> = (0..100).map(|_| (connect(), listener.accept().unwrap().0)).collect();
    await_true("a second set", || bound(&lab, "h1", SHARED) == 2);
    let (first, both) = (lab.ports("h1"), lab.pearp_json("h1", &["status"])["ports"].clone());
    assert_eq!(first.len() + 1, both.as_array().unwrap().len().max(2), "{both}");
    // One from each, at least.
    await_true("a connection from the second set", || {
        let (there, here) = (connect(), listener.accept().unwrap().0);
        let port = there.local_addr().unwrap().port();
        connections.push((there, here));
        !contains(&first, port)
    });
    lab.end("h1", Signal::SIGKILL);
    let _host = start(&lab, "h1", &arguments);
    await_true("both sets", || bound(&lab, "h1", SHARED) == 2);
    assert_eq!(lab.pearp_json("h1", &["status"])["ports"], both);
    for (there, here) in &mut connections {
        use std::io::{Read, Write};
        there.write_all(b"still there").unwrap();
        here.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut space = [0; 11];
        here.read_exact(&mut space).unwrap();
        assert_eq!(&space, b"still there");
    }
}

/// A lab in which h1 may have ports of two addresses.
fn two_addresses() -> (Lab, Process) {
    let lab = Lab::with(&["--hosts", "2", "--psid", "0,4"]);
    let arguments = lab.arguments("router");
    let pools = &arguments[arguments.iter().position(|word| word == "--dhcp").unwrap() + 1];
    let text = fs::read_to_string(pools).unwrap();
    let shared = text.replace("addresses = \"198.51.100.2\"", "addresses = \"198.51.100.2-198.51.100.3\"");
    assert_ne!(shared, text, "the pool of the lab has one address");
    fs::write(pools, shared).unwrap();
    lab.run(&["restart", "router"]).ok();
    let host = restart_with(&lab, "h1", &["--addresses", "2"]);
    await_true("two addresses", || {
        lab.pearp_json("h1", &["status"])["addresses"].as_array().unwrap().len() == 2
    });
    await_true("both in use", || bound(&lab, "h1", SHARED) == 1 && bound(&lab, "h1", SECOND) == 1);
    await_true("both are the kernel's", || {
        let addresses = lab.exec("h1", &["ip", "-4", "-o", "address"]).ok();
        [SHARED, SECOND].iter().all(|ip| addresses.contains(&format!("{ip}/32")))
    });
    (lab, host)
}

/// Two programs of one host have an address each: they choose it by binding it.
#[test]
fn two_programs_with_an_address_each() {
    let (lab, mut host) = two_addresses();
    let status = lab.pearp_json("h1", &["status"]);
    assert_eq!(address(&status, SHARED)["ports"], address(&status, SECOND)["ports"], "one choice fits both");
    // ssh from the one, and curl from the other, at the same time.
    let ssh = Ssh::new();
    let _sshd = ssh.serve(&lab, "inet", 22);
    let _web = Web::serve(&lab, "inet", 80);
    let mut session = ssh.session(&lab, "h1", INET, 22);
    let (peer, _) = session.peer();
    assert_eq!(peer.to_string(), SHARED, "without a choice it is the first one");
    for (own, more) in
        [(SECOND, &["--interface", SECOND][..]), (SHARED, &["--interface", SHARED]), (SHARED, &[])]
    {
        let url = format!("http://{INET}/cgi-bin/peer");
        let said = curl(&lab, "h1", &[more, &[&url]].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let (ip, port) = said.trim().split_once(' ').unwrap_or_else(|| panic!("{said}"));
        assert_eq!(ip, own);
        assert!(contains(&ranges(&address(&status, own)["program_ports"]), port.parse().unwrap()), "{said}");
    }
    session.echo("meanwhile");
    let shown = lab.pearp_json("h1", &["ports", "--address", SHARED]);
    assert_eq!((&shown["address"], &shown["connected"]), (&SHARED.into(), &1.into()), "{shown}");
    let shown = lab.pearp_json("h1", &["ports", "--address", SECOND]);
    assert_eq!((&shown["address"], &shown["connected"]), (&SECOND.into(), &0.into()), "{shown}");
    lab.pearp("h1", &["ports", "--address", "198.51.100.4"]).fails_in_one_line(
        1,
        &["198.51.100.4 is no address of this host: it has 198.51.100.2, 198.51.100.3"],
    );
    // From outside, and from another sharer, each is reached at its own.
    let port = ranges(&address(&status, SHARED)["ports"])[0].0 + 80;
    let serve = |ip: &str| {
        let ip: Ipv4Addr = ip.parse().unwrap();
        lab.inside("h1", move || TcpListener::bind((ip, port)).unwrap())
    };
    let listeners = [(SHARED, serve(SHARED)), (SECOND, serve(SECOND))];
    for (ip, listener) in &listeners {
        for from in ["inet", "h2"] {
            let there = lab.inside(from, || {
                TcpStream::connect_timeout(&format!("{ip}:{port}").parse().unwrap(), PATIENCE).unwrap()
            });
            let (here, _) = listener.accept().unwrap();
            assert_eq!(here.local_addr().unwrap().ip().to_string(), *ip);
            drop(there);
        }
        // And from the host itself, by the other address.
        let other = if *ip == SHARED { SECOND } else { SHARED };
        let url = format!("telnet://{ip}:{port}");
        let mut child = Process::start(&mut curl(&lab, "h1", &["--interface", other, &url]));
        let (here, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), other);
        drop(here);
        child.finish();
    }
    session.echo("still here");
    // Killed and started again it has both, and the session goes on.
    let before = leases_of(&lab, "h1");
    assert_eq!(before.len(), 2);
    let arguments =
        lab.arguments("h2").join(" ").replace("h2", "h1").replace("02:00:00:00:02:02", "02:00:00:00:02:01");
    let mut arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    arguments.extend(["--addresses".to_owned(), "2".to_owned()]);
    host.signal(Signal::SIGKILL);
    host.finish();
    let host = start(&lab, "h1", &arguments);
    await_true("both in use", || bound(&lab, "h1", SHARED) == 1 && bound(&lab, "h1", SECOND) == 1);
    session.echo("after a restart");
    session.finish();
    let same = |lease: &Value| (lease["address"].clone(), lease["ports"].clone());
    assert_eq!(
        leases_of(&lab, "h1").iter().map(same).collect::<Vec<_>>(),
        before.iter().map(same).collect::<Vec<_>>()
    );
    // The kernel keeps nothing of an address that is lost.
    drop(host);
    arguments.truncate(arguments.len() - 2);
    let _host = start(&lab, "h1", &arguments);
    await_some("the second address is gone", || {
        let shown = [
            lab.exec("h1", &["ip", "-4", "-o", "address"]).ok(),
            lab.exec("h1", &["ip", "-4", "rule"]).ok(),
            lab.exec("h1", &["ip", "-4", "route", "show", "table", "200"]).ok(),
        ]
        .concat();
        (!shown.contains(SECOND) && shown.contains(SHARED)).then_some(())
    });
}
