//! Programs that choose their source port themselves: it is inside the set, or not on the LAN at all.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::ports::parts;
use crate::support::capture::{Capture, Captured, TCP, UDP};
use crate::support::lab::{HOSTS, INET, LEGACY, Lab, SHARED, contains, tool};
use crate::support::process::{Process, run};
use crate::support::ssh::{Ssh, Web, curl};
use crate::support::wait::{PATIENCE, await_true};

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
        let line = logs.lines().find(|line| line.contains(&format!("port={port} ")));
        assert!(line.is_some_and(|line| line.contains("curl (process ")), "{logs}");
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

    let packets = lan.await_packet("the last datagram", |packet| packet.ports().1 == 5354);
    sent_from_its_set(&lab, "h1", &packets);
}

/// A line of what `pearp ports` lists as chosen anew.
#[derive(Debug)]
struct Mapped {
    protocol: String,
    port: u64,
    wire: u16,
    to: String,
    packets: u64,
    pid: Option<u64>,
    name: String,
}

fn mapped(lab: &Lab, host: &str) -> Vec<Mapped> {
    let usage = lab.pearp_json(host, &["ports"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
    let lines = usage["mapped"].as_array().unwrap().iter().map(|line| Mapped {
        protocol: text(&line["protocol"]),
        port: line["port"].as_u64().unwrap(),
        wire: line["mapped"].as_u64().unwrap().try_into().unwrap(),
        to: text(&line["to"]),
        packets: line["packets"].as_u64().unwrap(),
        pid: line["pid"].as_u64(),
        name: text(&line["name"]),
    });
    lines.collect()
}

/// How often a host has given a packet another port.
fn count_mapped(lab: &Lab, host: &str) -> u64 {
    lab.pearp_json(host, &["status"])["counters"]["mapped"].as_u64().unwrap()
}

/// The log of a host names a program, and what to do about it.
#[track_caller]
fn assert_named(lab: &Lab, host: &str, program: &str, remedy: &str) {
    let logs = lab.run(&["logs", host]).ok();
    let named = format!("{program} (process ");
    assert!(logs.lines().any(|line| line.contains(&named) && line.contains(remedy)), "{logs}");
}

/// What a host has sent, which all is from its set.
#[track_caller]
fn sent_from_its_set(lab: &Lab, host: &str, packets: &[Captured]) -> Vec<Captured> {
    let address = lab.node(host)["link_address"].as_str().unwrap().to_owned();
    let shown = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    let own = lab.ports(host);
    let from_host =
        packets.iter().filter(|packet| packet.ethernet.is_some_and(|ends| shown(&ends[6..]) == address));
    let sent: Vec<_> = from_host.filter(|packet| [TCP, UDP].contains(&packet.protocol())).cloned().collect();
    assert!(!sent.is_empty(), "{address} has sent something");
    let ports: Vec<_> = sent.iter().map(|packet| packet.ports().0).collect();
    assert!(ports.iter().all(|port| contains(&own, *port)), "{ports:?}");
    sent
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

/// A resolver at a node, without what would need more of a machine.
pub(crate) fn unbound(lab: &Lab, node: &str, directory: &Path, listen: &str, more: &str) -> Process {
    let config = directory.join(format!("{node}.conf"));
    let text = format!(
        "server:\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n use-syslog: no\n interface: {listen}\n \
         access-control: 0.0.0.0/0 allow\n do-ip6: no\n module-config: \"iterator\"\n \
         do-not-query-localhost: no\n{more}\nremote-control:\n control-enable: no\n"
    );
    fs::write(&config, text).unwrap();
    let server = Process::start(lab.command(node, "unbound").args(["-d", "-c"]).arg(&config));
    server.await_line("start of service");
    server
}

/// A resolver outside for which all names below `lab.` have this address, and no others exist.
fn resolver_outside(lab: &Lab, directory: &Path, address: &str) -> Process {
    let zone = format!(
        " local-zone: \".\" static\n local-zone: \"lab.\" redirect\n local-data: \"lab. 60 IN A {address}\"\n"
    );
    unbound(lab, "inet", directory, &format!("{INET}@53"), &zone)
}

/// A resolver that draws its own source ports, by way of another one outside.
#[test]
fn unbound_works_and_is_named() {
    let lab = Lab::up();
    let directory = tempfile::tempdir().unwrap();
    let _outside = resolver_outside(&lab, directory.path(), "192.0.2.1");
    let forward = "forward-zone:\n name: \".\"\n forward-addr: 203.0.113.80\n";
    let _resolver = unbound(&lab, "h1", directory.path(), "127.0.0.1@5353", forward);
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
    assert!(mapped.iter().any(|leak| leak.name == "unbound"), "{mapped:?}");
    assert_named(&lab, "h1", "unbound", "outgoing-port-permit");
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

/// hping3 counts source ports up from a random one, in packets that it makes itself. It is named although other programs
/// have raw sockets, too, and nobody else is named in its place when it has ended.
#[test]
fn hping_works_and_is_named() {
    let lab = Lab::up();
    let _web = Web::serve(&lab, "inet", 80);
    let stack = parts(&lab, "h1").stack;
    let lan = Capture::start(&lab, "lan", "lan", "tcp or udp");
    let ping = Process::start(lab.command("h1", "ping").args(["-n", INET]));
    ping.await_line("ttl=");
    let hping = |options: &[&str]| {
        run(lab.command("h1", "hping3").args(["-n", "-i", "u100000", "-c", "5"]).args(options).arg(INET)).ok()
    };
    // 100 is outside all sets.
    let said = hping(&["-S", "-s", "100", "-p", "80"]);
    assert_eq!(said.matches("flags=SA").count(), 5, "{said}");
    let said = hping(&["--udp", "-s", "200", "-p", "9"]);
    assert_eq!(said.matches("ICMP Port Unreachable from ip=203.0.113.80").count(), 5, "{said}");

    let mapped = mapped(&lab, "h1");
    for (protocol, first) in [("tcp", 100), ("udp", 200)] {
        for port in first..first + 5 {
            let found = mapped.iter().find(|leak| leak.protocol == protocol && leak.port == port);
            let leak = found.unwrap_or_else(|| panic!("{port} is missing in {mapped:?}"));
            assert!(leak.name == "hping3" && contains(&stack, leak.wire), "{leak:?}");
        }
    }
    let pid = |protocol: &str| mapped.iter().find(|leak| leak.protocol == protocol).and_then(|leak| leak.pid);
    assert_ne!(pid("tcp"), pid("udp"), "the second process is not taken for the first one");
    assert_named(&lab, "h1", "hping3", "give a port of the program part with -s and -k");
    run(&mut curl(&lab, "h1", &["-o", "/dev/null", "--local-port", "300", "http://203.0.113.80/"])).ok();
    assert_named(&lab, "h1", "curl", "port 0");

    let packets = lan.await_packet("the end of curl", |packet| packet.is_fin());
    let sent = sent_from_its_set(&lab, "h1", &packets);
    assert_eq!(sent.iter().filter(|packet| packet.ports().1 == 9).count(), 5);
}

/// Keys for a tunnel of openvpn: ends know each other by the fingerprints of their certificates.
struct Vpn {
    directory: TempDir,
    fingerprints: [String; 2],
}

impl Vpn {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let fingerprints = ["server", "client"].map(|name| {
            let path = |kind: &str| directory.path().join(format!("{name}.{kind}"));
            let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
            let mut make = tool("openssl");
            make.args(["req", "-x509", "-nodes", "-days", "2", "-subj"])
                .arg(format!("/CN={name}"))
                .args(curve);
            run(make.arg("-keyout").arg(path("key")).arg("-out").arg(path("crt"))).ok();
            let mut show = tool("openssl");
            let shown =
                run(show.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(path("crt"))).ok();
            shown.trim().rsplit('=').next().unwrap().to_owned()
        });
        Self { directory, fingerprints }
    }

    fn openvpn(&self, lab: &Lab, node: &str, end: usize, more: &[&str]) -> Process {
        let path = |kind: &str| self.directory.path().join(format!("{}.{kind}", ["server", "client"][end]));
        let mut command = lab.command(node, "openvpn");
        command.args(["--dev", "tun", "--proto", "udp", "--peer-fingerprint", &self.fingerprints[1 - end]]);
        Process::start(command.arg("--cert").arg(path("crt")).arg("--key").arg(path("key")).args(more))
    }

    fn server(&self, lab: &Lab) -> Process {
        let network = ["--topology", "subnet", "--server", "10.8.0.0", "255.255.255.0", "--duplicate-cn"];
        let server = self.openvpn(lab, "inet", 0, &[&network[..], &["--dh", "none"]].concat());
        server.await_line("Initialization Sequence Completed");
        server
    }

    /// A client whose own port is 1194, too, as was the default for long.
    fn client(&self, lab: &Lab, host: &str, more: &[&str]) -> Process {
        self.openvpn(lab, host, 1, &[&["--client", "--remote", INET, "1194"], more].concat())
    }
}

/// Two sharers use the same port of their own at the same time.
#[test]
fn openvpn_works_from_two_sharers_and_is_named() {
    let lab = Lab::up();
    let vpn = Vpn::new();
    let server = vpn.server(&lab);
    let lan = Capture::start(&lab, "lan", "lan", "udp port 1194");
    let clients = ["h1", "h2"].map(|host| (host, vpn.client(&lab, host, &["--bind"])));
    for (host, client) in &clients {
        client.await_line("UDPv4 link local (bound): [AF_INET][undef]:1194");
        client.await_line("Initialization Sequence Completed");
        let mapped = mapped(&lab, host);
        let [leak] = &mapped[..] else { panic!("{mapped:?}") };
        assert_eq!((&*leak.protocol, leak.port, &*leak.to), ("udp", 1194, "203.0.113.80:1194"));
        assert_eq!((&*leak.name, leak.pid), ("openvpn", Some(client.pid().into())));
        assert!(contains(&parts(&lab, host).stack, leak.wire), "{leak:?}");
        let peer = format!("Peer Connection Initiated with [AF_INET]{SHARED}:{}", leak.wire);
        assert!(server.transcript().contains(&peer), "{}", server.transcript());
        assert_named(&lab, host, "openvpn", "set `nobind`");
    }
    // While both are there.
    for (host, _) in &clients {
        let said = lab.exec(host, &["ping", "-n", "-c", "3", "-i", "0.2", "10.8.0.1"]).ok();
        assert!(said.contains(" 3 received"), "{said}");
    }
    // The remedy helps.
    let client = vpn.client(&lab, "h3", &["--nobind"]);
    client.await_line("Initialization Sequence Completed");
    lab.exec("h3", &["ping", "-n", "-c", "1", "10.8.0.1"]).ok();
    assert_eq!(count_mapped(&lab, "h3"), 0);
    for host in HOSTS {
        sent_from_its_set(&lab, host, &lan.packets());
    }
}

/// A browser with a resolver of its own, which draws a source port for each question.
struct Chromium {
    directory: TempDir,
}

impl Chromium {
    /// `ip netns exec` gives it mounts of its own.
    const START: &str = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("resolv.conf"), format!("nameserver {INET}\n")).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The page as the browser has it when everything is loaded.
    fn page(&self, lab: &Lab, host: &str, options: &[&str], url: &str) -> String {
        let home = self.path(host);
        let mut command: Command = lab.command(host, "sh");
        command.args(["-c", Self::START]).arg(self.path("resolv.conf")).arg("chromium");
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]);
        command.arg(format!("--user-data-dir={}", home.display())).env("HOME", &home).args(options).arg(url);
        run(&mut command).ok()
    }
}

#[test]
fn chromium_works_from_two_sharers_and_is_named() {
    const NAMES: usize = 20;
    let lab = Lab::up();
    let chromium = Chromium::new();
    let _resolver = resolver_outside(&lab, chromium.directory.path(), INET);
    let web = Web::serve(&lab, "inet", 80);
    // A script on each name writes the name, so that the page shows that each was found.
    web.add("name.js", b"document.write('from ' + new URL(document.currentScript.src).hostname + '. ')");
    let page: String =
        (0..NAMES).map(|name| format!("<script src=http://n{name}.lab/name.js></script>\n")).collect();
    web.add("names.html", page.as_bytes());
    let complete = |page: &str| (0..NAMES).all(|name| page.contains(&format!("from n{name}.lab. ")));
    let lan = Capture::start(&lab, "lan", "lan", "tcp or udp");
    for host in ["h1", "h2"] {
        let page = chromium.page(&lab, host, &[], "http://www.lab/names.html");
        assert!(complete(&page), "{page}");
        // It could have asked the system's resolver where its own had no answer.
        let asked: Vec<_> =
            mapped(&lab, host).into_iter().filter(|leak| leak.to == format!("{INET}:53")).collect();
        let answered = asked.iter().filter(|leak| leak.packets >= 2).count();
        assert!(answered >= NAMES, "{asked:?}");
        assert!(asked.iter().all(|leak| ["chromium", ""].contains(&&*leak.name)), "{asked:?}");
        assert_named(&lab, host, "chromium", "--disable-features=AsyncDns");
        assert_eq!(lab.pearp_json(host, &["status"])["drops"].get("source_port"), None);
        let is_open = || lan.packets().iter().any(|packet| packet.ports().1 == 80);
        await_true("the page in the capture", is_open);
        let stack = parts(&lab, host).stack;
        let sent = sent_from_its_set(&lab, host, &lan.packets());
        let by_stack =
            sent.iter().filter(|packet| packet.ports().1 == 53 && contains(&stack, packet.ports().0));
        assert!(by_stack.count() >= NAMES, "{sent:?}");
    }
    // The remedy helps.
    let page = chromium.page(&lab, "h3", &["--disable-features=AsyncDns"], "http://www.lab/names.html");
    assert!(complete(&page), "{page}");
    assert_eq!(count_mapped(&lab, "h3"), 0);
    sent_from_its_set(&lab, "h3", &lan.packets());
}

/// Programs that let the kernel choose.
#[test]
fn ordinary_programs_need_no_other_ports() {
    let lab = Lab::up();
    let directory = TempDir::new().unwrap();
    let _resolver = resolver_outside(&lab, directory.path(), INET);
    let _web = Web::serve(&lab, "inet", 80);
    let ssh = Ssh::new();
    let _sshd = ssh.serve(&lab, "inet", 22);
    let lan = Capture::start(&lab, "lan", "lan", "tcp or udp");
    for host in ["h1", "h2"] {
        assert_eq!(run(&mut curl(&lab, host, &["http://203.0.113.80/"])).ok(), "page of inet\n");
        run(ssh.client(&lab, host, INET, 22).arg("true")).ok();
        for transport in ["+notcp", "+tcp"] {
            let answer =
                lab.exec(host, &["dig", &format!("@{INET}"), transport, "+short", "www.lab", "A"]).ok();
            assert_eq!(answer, format!("{INET}\n"));
        }
        assert_eq!(count_mapped(&lab, host), 0);
        assert_eq!(mapped(&lab, host).len(), 0);
        assert_eq!(lab.pearp_json(host, &["status"])["drops"].get("source_port"), None);
        let sent = sent_from_its_set(&lab, host, &lan.packets());
        assert!(
            [22, 53, 80].iter().all(|port| sent.iter().any(|packet| packet.ports().1 == *port)),
            "{sent:?}"
        );
    }
}

/// The policy for who wants to know: each program hears at once why it gets no answer.
#[test]
fn rejected_programs_get_an_error_and_are_named() {
    let lab = Lab::with(&["--leaks", "reject"]);
    let _web = Web::serve(&lab, "inet", 80);
    let lan = Capture::start(&lab, "lan", "lan", "tcp or udp");
    let said = lab.exec("h1", &["hping3", "-n", "-S", "-s", "100", "-p", "80", "-c", "1", INET]).ok();
    assert!(
        said.contains(&format!("ICMP Packet filtered from ip={SHARED}")) && !said.contains("flags="),
        "{said}"
    );
    let dropped = || lab.pearp_json("h1", &["status"])["drops"]["source_port"].as_u64();
    assert_eq!(dropped(), Some(1));
    assert_named(&lab, "h1", "hping3", "give a port of the program part with -s and -k");

    let vpn = Vpn::new();
    let client = vpn.client(&lab, "h1", &["--bind"]);
    client.await_line("read UDPv4 [EHOSTUNREACH]: No route to host");
    assert!(dropped() >= Some(2));
    assert_named(&lab, "h1", "openvpn", "set `nobind`");
    assert_eq!((count_mapped(&lab, "h1"), mapped(&lab, "h1").len()), (0, 0));

    run(&mut curl(&lab, "h1", &["http://203.0.113.80/"])).ok();
    let packets = lan.await_packet("an allowed connection", |packet| packet.is_fin());
    sent_from_its_set(&lab, "h1", &packets);
}
