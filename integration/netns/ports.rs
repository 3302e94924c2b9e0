//! Source ports: inside the set, or not on the LAN at all.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::capture::{Capture, TCP, UDP};
use crate::support::lab::{INET, LEGACY, Lab, Ranges, SHARED, contains, ranges};
use crate::support::process::{Process, run};
use crate::support::ssh::{Ssh, Web, curl};
use crate::support::wait::PATIENCE;

/// Sets of 128 ports, 16 of them the stack part.
const SMALL_SETS: [&str; 2] = ["--psid", "0,9"];
const SEQUENTIAL: usize = 150;

struct Parts {
    all: Ranges,
    program: Ranges,
    stack: Ranges,
    echo: u16,
}

fn parts(lab: &Lab, host: &str) -> Parts {
    let status = lab.pearp_json(host, &["status"]);
    let echo = status["echo_port"].as_u64().and_then(|port| port.try_into().ok()).expect("an echo service");
    Parts {
        all: ranges(&status["ports"]),
        program: ranges(&status["program_ports"]),
        stack: ranges(&status["stack_ports"]),
        echo,
    }
}

fn count(ranges: &Ranges) -> u32 {
    ranges.iter().map(|(first, last)| u32::from(last - first) + 1).sum()
}

#[test]
fn the_set_is_divided_into_programs_and_stack() {
    let lab = Lab::up();
    let parts = parts(&lab, "h1");
    assert_eq!(parts.all, lab.ports("h1"));
    assert_eq!(parts.program, [(4096, 7679)]);
    assert_eq!(parts.stack, [(7680, 8191)]);
    let range = lab.exec("h1", &["cat", "/proc/sys/net/ipv4/ip_local_port_range"]).ok();
    assert_eq!(range.split_whitespace().collect::<Vec<_>>(), ["4096", "7679"]);
    assert_eq!(lab.exec("h1", &["cat", "/proc/sys/net/ipv4/tcp_tw_reuse"]).ok(), "1\n");
}

#[test]
fn the_stack_uses_its_part_and_programs_theirs() {
    let lab = Lab::up();
    let ssh = Ssh::new();
    let _sshd = ssh.serve(&lab, "inet", 22);
    let _web = Web::serve(&lab, "inet", 80);
    for host in ["h1", "h2"] {
        let parts = parts(&lab, host);
        let lan = Capture::start(&lab, "lan", "lan", "ip");
        let request = b"GET / HTTP/1.0\r\n\r\n";
        let page = lab.exec_with_input(host, &["pearp", "nc", INET, "80"], request).ok();
        assert!(page.starts_with("HTTP/1.") && page.ends_with("page of inet\n"), "{page}");
        run(ssh.client(&lab, host, INET, 22).arg("true")).ok();
        let mac = lab.node(host)["link_address"].clone();
        let packets = lan.await_packet("ssh and its end", |packet| packet.is_fin() && packet.ports().1 == 22);
        let sent: Vec<_> = packets
            .iter()
            .filter(|packet| packet.source().to_string() == SHARED && packet.protocol() == TCP)
            .map(|packet| packet.ports())
            .collect();
        let by_stack: Vec<_> = sent.iter().filter(|(_, to)| *to == 80).collect();
        let by_kernel: Vec<_> = sent.iter().filter(|(_, to)| *to == 22).collect();
        assert!(!by_stack.is_empty() && !by_kernel.is_empty(), "{mac}");
        assert!(by_stack.iter().all(|(from, _)| contains(&parts.stack, *from)), "{by_stack:?}");
        assert!(by_kernel.iter().all(|(from, _)| contains(&parts.program, *from)), "{by_kernel:?}");
    }
}

#[test]
fn the_echo_service_answers_from_the_stack_part() {
    let lab = Lab::up();
    let parts = parts(&lab, "h1");
    assert!(contains(&parts.stack, parts.echo));
    let text = b"port enhanced";
    for client in ["inet", "legacy", "h2", "h1"] {
        let mut stream = lab.inside(client, || TcpStream::connect((SHARED, parts.echo)).unwrap());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text).unwrap();
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, text, "{client}");

        let socket = lab.inside(client, || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(text, (SHARED, parts.echo)).unwrap();
        let (len, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..len], from.port()), (&text[..], parts.echo), "{client}");
    }
    // By `pearp nc`, so from one stack to another one.
    let port = parts.echo.to_string();
    let said = lab.exec_with_input("h3", &["pearp", "nc", SHARED, &port], b"from stack to stack\n").ok();
    assert_eq!(said, "from stack to stack\n");
}

#[test]
fn a_small_set_serves_many_connections_in_sequence() {
    let lab = Lab::with(&SMALL_SETS);
    let parts = parts(&lab, "h1");
    assert_eq!((count(&parts.program), count(&parts.stack)), (112, 16));
    let _web = Web::serve(&lab, "inet", 80);
    let lan = Capture::start(&lab, "lan", "lan", "tcp port 80");
    // A shell in the namespace, as it is the connections that shall be many, not the namespaces entered.
    let script = format!(
        "for i in $(seq {SEQUENTIAL}); do curl -q -sS --noproxy '*' --max-time 30 -o /dev/null \
         -w '%{{local_port}}\\n' http://{INET}/ || echo failed; done"
    );
    let said = lab.exec("h1", &["sh", "-c", &script]).ok();
    let used: Vec<u16> = said.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("{said}"))).collect();
    assert_eq!(used.len(), SEQUENTIAL);
    assert!(used.iter().all(|port| contains(&parts.program, *port)), "{used:?}");
    let last = *used.last().unwrap();
    let packets = lan.await_packet("the last connection", |packet| packet.ports().0 == last);
    let from_h1 = packets.iter().filter(|packet| packet.source().to_string() == SHARED);
    assert!(from_h1.map(|packet| packet.ports().0).all(|port| contains(&parts.program, port)));
}

#[test]
fn a_small_stack_part_serves_many_connections_in_sequence() {
    let lab = Lab::with(&SMALL_SETS);
    let port = parts(&lab, "h2").echo.to_string();
    // More than the stack part has ports.
    for round in 0..40 {
        let text = format!("round {round}\n");
        let said = lab.exec_with_input("h1", &["pearp", "nc", SHARED, &port], text.as_bytes()).ok();
        assert_eq!(said, text);
    }
}

#[test]
fn a_source_port_outside_the_set_never_reaches_the_lan() {
    let lab = Lab::with(&["--leaks", "reject"]);
    let _inside = Web::serve(&lab, "legacy", 80);
    let _outside = Web::serve(&lab, "inet", 80);
    let lan = Capture::start(&lab, "lan", "lan", "tcp or udp");
    let stack_port = parts(&lab, "h1").stack[0].1;
    let mut dropped = 0;
    // 3000 is nobody's, 9000 is h2's, the last one is of the own stack.
    for (port, to) in [(3000, INET), (9000, LEGACY), (stack_port, INET)] {
        let local = port.to_string();
        let url = format!("http://{to}/");
        let tried = run(&mut curl(&lab, "h1", &["--local-port", &local, &url]));
        // 7: no connection; at once, by an error and not by a timeout.
        tried.fails_with(7, &[]);
        assert!(tried.took < Duration::from_secs(5), "{tried:?}");
        dropped += 1;
        assert_eq!(lab.pearp_json("h1", &["status"])["drops"]["source_port"], dropped);
        let logs = lab.run(&["logs", "h1"]).ok();
        assert!(logs.lines().any(|line| line.contains(&format!("port={port} "))), "{logs}");
    }
    let verbose = run(&mut curl(&lab, "h1", &["-v", "--local-port", "3001", "http://203.0.113.80/"]));
    verbose.fails_with(7, &["No route to host"]);

    // UDP gets the same error.
    let socket = lab.inside("h1", || UdpSocket::bind((SHARED, 3000)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect((INET, 53)).unwrap();
    socket.send(b"leak").unwrap();
    let error = socket.recv(&mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{error}");

    run(&mut curl(&lab, "h1", &["http://203.0.113.80/"])).ok();
    let packets = lan.await_packet("an allowed connection", |packet| packet.is_fin());
    let own = lab.ports("h1");
    let leaked: Vec<_> = packets
        .iter()
        .filter(|packet| [TCP, UDP].contains(&packet.protocol()) && packet.source().to_string() == SHARED)
        .filter(|packet| !contains(&own, packet.ports().0) || packet.ports().0 == stack_port)
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

/// By default such programs work all the same, from a port of the stack part, and it is known who they are.
#[test]
fn a_source_port_outside_the_set_is_mapped() {
    let lab = Lab::up();
    let _inside = Web::serve(&lab, "legacy", 80);
    let _outside = Web::serve(&lab, "inet", 80);
    let other = lab.ports("h2")[0].0 + 80;
    let _sharer = Web::serve(&lab, "h2", other);
    let parts = parts(&lab, "h1");
    let lan = Capture::start(&lab, "lan", "lan", "tcp or udp");
    let sharer = format!("{SHARED}:{other}");
    for (port, to, page) in [
        (3000, INET, "inet"),
        (9000, LEGACY, "legacy"),
        (3001, &*sharer, "h2"),
        (parts.stack[0].1, INET, "inet"),
    ] {
        let local = port.to_string();
        let url = format!("http://{to}/");
        let got = run(&mut curl(&lab, "h1", &["--local-port", &local, &url])).ok();
        assert_eq!(got, format!("page of {page}\n"), "{port}");
        let logs = lab.run(&["logs", "h1"]).ok();
        let line = logs
            .lines()
            .find(|line| line.contains(&format!("port={port} ")))
            .unwrap_or_else(|| panic!("{logs}"));
        assert!(line.contains("curl (process ") && line.contains("port 0"), "{line}");
    }
    // 100 kB there and back by a mapped port, and a datagram that finds its way back.
    let large = vec![b'x'; 100_000];
    let socket = lab.inside("inet", || UdpSocket::bind((INET, 5353)).unwrap());
    let asking = lab.inside("h1", || UdpSocket::bind((SHARED, 2000)).unwrap());
    for socket in [&socket, &asking] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut space = [0; 2000];
    for chunk in large.chunks(1400) {
        asking.send_to(chunk, (INET, 5353)).unwrap();
        let (len, from) = socket.recv_from(&mut space).unwrap();
        assert!(contains(&parts.stack, from.port()) && len == chunk.len(), "{from}");
        socket.send_to(&space[..len], from).unwrap();
        assert_eq!(asking.recv(&mut space).unwrap(), chunk.len());
    }
    // Nobody listens: the error comes back to the program.
    asking.connect((INET, 5354)).unwrap();
    asking.send(b"?").unwrap();
    assert_eq!(asking.recv(&mut space).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);

    let usage = lab.pearp_json("h1", &["ports"]);
    let mapped = usage["mapped"].as_array().unwrap();
    let udp = mapped.iter().find(|line| line["port"] == 2000).unwrap_or_else(|| panic!("{usage}"));
    assert_eq!((&udp["protocol"], &udp["to"]), (&"udp".into(), &"203.0.113.80:5353".into()));
    assert!(udp["packets"].as_u64() > Some(100), "{udp}");
    let status = lab.pearp_json("h1", &["status"]);
    assert!(status["counters"]["mapped"].as_u64() > Some(80), "{status}");
    assert_eq!(status["drops"].get("source_port"), None);
    let shown = lab.pearp("h1", &["ports"]).ok();
    assert!(shown.contains("Mapped to") && shown.contains("203.0.113.80:5353"), "{shown}");

    let own = lab.ports("h1");
    let packets = lan.await_packet("the last datagram", |packet| packet.ports().1 == 5354);
    let mut from_h1 = packets
        .iter()
        .filter(|packet| packet.ethernet.is_some_and(|addresses| addresses[6..] == [2, 0, 0, 0, 2, 1]));
    assert!(from_h1.all(|packet| contains(&own, packet.ports().0)), "nothing leaves from another port");
}

/// The ports that `pearp ports` lists as chosen anew, with their programs.
fn mapped(lab: &Lab, host: &str) -> Vec<(u64, String)> {
    let usage = lab.pearp_json(host, &["ports"]);
    let mapped = usage["mapped"].as_array().unwrap().iter();
    mapped
        .map(|line| (line["port"].as_u64().unwrap(), line["name"].as_str().unwrap_or("").to_owned()))
        .collect()
}

/// A DNS question for the address of `name.lab`.
fn dns_question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [name, "lab"] {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// A resolver that draws its own source ports, by way of another one outside.
#[test]
fn unbound_works_and_is_named() {
    let lab = Lab::up();
    let directory = tempfile::tempdir().unwrap();
    let start = |node: &str, listen: &str, more: &str| {
        let config = directory.path().join(format!("{node}.conf"));
        let text = format!(
            "server:\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n use-syslog: no\n interface: {listen}\n \
             access-control: 0.0.0.0/0 allow\n do-ip6: no\n module-config: \"iterator\"\n \
             do-not-query-localhost: no\n{more}\nremote-control:\n control-enable: no\n"
        );
        std::fs::write(&config, text).unwrap();
        let server = Process::start(lab.command(node, "unbound").args(["-d", "-c"]).arg(&config));
        server.await_line("start of service");
        server
    };
    let zone = " local-zone: \"lab.\" redirect\n local-data: \"lab. 60 IN A 192.0.2.1\"\n";
    let _outside = start("inet", "203.0.113.80@53", zone);
    let _resolver =
        start("h1", "127.0.0.1@5353", "forward-zone:\n name: \".\"\n forward-addr: 203.0.113.80\n");
    let socket = lab.inside("h1", || UdpSocket::bind("127.0.0.1:0").unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect("127.0.0.1:5353").unwrap();
    let mut answer = [0; 512];
    // Of 64,512 ports that it draws from, 3,584 are in the set.
    for number in 0..20 {
        socket.send(&dns_question(&format!("name{number}"))).unwrap();
        let len = socket.recv(&mut answer).unwrap();
        assert_eq!((answer[3] & 0xF, &answer[len - 4..len]), (0, &[192, 0, 2, 1][..]), "name{number}");
    }
    let mapped = mapped(&lab, "h1");
    assert!(mapped.iter().any(|(_, name)| name == "unbound"), "{mapped:?}");
    let logs = lab.run(&["logs", "h1"]).ok();
    assert!(logs.contains("unbound (process ") && logs.contains("outgoing-port-permit"), "{logs}");
}

/// Programs that make their packets by hand.
#[test]
fn nmap_and_mtr_work() {
    let lab = Lab::up();
    let _web = Web::serve(&lab, "inet", 80);
    let scan = lab.exec("h1", &["nmap", "-n", "-Pn", "-sS", "-p", "80,81", INET]).ok();
    assert!(scan.contains("80/tcp open") && scan.contains("81/tcp closed"), "{scan}");
    let names = mapped(&lab, "h1");
    assert!(!names.is_empty(), "{scan}");
    for option in ["-u", "-T"] {
        let report = lab.exec("h2", &["mtr", "-n", "-r", "-c", "2", "-P", "80", option, INET]).ok();
        let hops: Vec<_> = report.lines().filter(|line| line.contains(".|--")).collect();
        assert!(hops.len() == 2 && hops[0].contains("198.51.100.1") && hops[1].contains(INET), "{report}");
        assert!(hops.iter().all(|hop| hop.contains(" 0.0%")), "{report}");
    }
    let status = lab.pearp_json("h1", &["status"]);
    assert_eq!(status["drops"].get("source_port"), None, "{status}");
}
