//! Source ports: those that the kernel and the stack choose.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use crate::support::capture::{Capture, TCP};
use crate::support::lab::{INET, Lab, Ranges, SHARED, contains, ranges};
use crate::support::process::run;
use crate::support::ssh::{Ssh, Web};
use crate::support::wait::PATIENCE;

/// Sets of 128 ports, 16 of them the stack part.
const SMALL_SETS: [&str; 2] = ["--psid", "0,9"];
const SEQUENTIAL: usize = 150;

pub(crate) struct Parts {
    all: Ranges,
    program: Ranges,
    pub(crate) stack: Ranges,
    echo: u16,
}

pub(crate) fn parts(lab: &Lab, host: &str) -> Parts {
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
