//! Connections to a host that talks to its own echo service, so that no link is needed.

use smoltcp::time::Duration;

use super::*;
use crate::node::support::host_config;
use crate::node::{Host, Node};

const ECHO: u16 = 7680;

struct OneHost {
    host: Option<Host>,
}

impl Service for OneHost {
    fn node(&mut self) -> &mut dyn Node {
        self.host.as_mut().unwrap()
    }

    fn arp(&mut self, _now: Instant) -> serde_json::Value {
        // More than a socket holds.
        serde_json::Value::String("x".repeat(1 << 20))
    }

    fn status(&mut self, _now: Instant) -> serde_json::Value {
        serde_json::json!({ "role": "host" })
    }

    fn host(&mut self) -> Option<&mut Host> {
        self.host.as_mut()
    }

    fn turn(&mut self, _now: Instant) -> anyhow::Result<()> {
        Ok(())
    }

    fn stop(&mut self, _now: Instant) {}
}

/// A client, the other end of its connection, and the node.
struct Bench {
    service: OneHost,
    now: Instant,
    client: Option<UnixStream>,
    connection: Connection,
    received: Vec<u8>,
}

fn bench() -> Bench {
    let mut now = Instant::from_secs(1);
    let config = host_config(smoltcp::wire::EthernetAddress([2, 0, 0, 0, 2, 1]), "0,4,1");
    let mut host = Host::new(config, now).unwrap();
    now += Duration::from_secs(1);
    host.handle_timeout(now);
    host.handle_timeout(now);
    let (client, socket) = UnixStream::pair().unwrap();
    Bench {
        service: OneHost { host: Some(host) },
        now,
        client: Some(client),
        connection: Connection::new(socket),
        received: Vec::new(),
    }
}

impl Bench {
    /// A turn of the loop in which the socket can do everything.
    fn advance(&mut self) -> Progress {
        self.connection.readable = true;
        self.connection.writable = true;
        self.connection.gone |= self.client.is_none();
        self.now += Duration::from_millis(20);
        if let Some(host) = &mut self.service.host {
            host.handle_timeout(self.now);
        }
        let progress = self.connection.advance(&mut self.service, self.now);
        if progress == Progress::Over {
            self.connection.end(&mut self.service, self.now);
            // As the loop does when it drops the connection; the client may have closed first.
            let _ = self.connection.socket.shutdown(Shutdown::Both);
        }
        progress
    }

    fn idle(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        self.service.node().handle_timeout(now);
    }

    fn client(&mut self) -> &mut UnixStream {
        self.client.as_mut().unwrap()
    }

    /// Reads what is there; false at the end.
    fn read(&mut self) -> bool {
        let mut space = vec![0; 1 << 16];
        loop {
            match self.client().read(&mut space) {
                Ok(0) => return false,
                Ok(len) => self.received.extend_from_slice(&space[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn ask(&mut self, request: &[u8]) -> Answer {
        self.client().write_all(request).unwrap();
        for _ in 0..100 {
            let over = self.advance() == Progress::Over;
            self.read();
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.received.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            assert!(!over, "no answer");
        }
        panic!("no answer in 100 turns");
    }

    fn connect(&mut self, port: u16, with: &[u8]) -> Answer {
        let request = Request::Connect { address: [198, 51, 100, 2].into(), port };
        let mut line = serde_json::to_vec(&request).unwrap();
        line.push(b'\n');
        line.extend_from_slice(with);
        self.ask(&line)
    }

    fn ports_used(&self) -> usize {
        self.service.host.as_ref().unwrap().stack_use().0
    }
}

#[test]
fn one_request_one_answer() {
    let mut bench = bench();
    let answer = bench.ask(b"{\"command\":\"status\"}\n");
    assert_eq!(answer, Answer::Ok(serde_json::json!({ "role": "host" })));
    assert!(!bench.read(), "then the node closes");
}

#[test]
fn a_long_answer_is_written_as_the_client_reads() {
    let mut bench = bench();
    let Answer::Ok(value) = bench.ask(b"{\"command\":\"arp\"}\n") else { panic!("refused") };
    assert_eq!(value.as_str().unwrap().len(), 1 << 20);
}

#[test]
fn a_request_may_come_in_pieces() {
    let mut bench = bench();
    for piece in [&b"{\"comm"[..], b"and\":\"sta"] {
        bench.client().write_all(piece).unwrap();
        assert_eq!(bench.advance(), Progress::Waiting);
    }
    assert!(matches!(bench.ask(b"tus\"}\n"), Answer::Ok(_)));
}

#[test]
fn bad_requests_are_explained() {
    for (request, said) in [
        (&b"{\"command\":\"reboot\"}\n"[..], "bad request: unknown variant `reboot`"),
        (b"status\n", "bad request"),
        (&[b' '; MAX_REQUEST], "request too long"),
    ] {
        let Answer::Error(text) = bench().ask(request) else { panic!("accepted") };
        assert!(text.starts_with(said), "{text}");
    }
    let mut router = bench();
    router.service.host = None;
    let Answer::Error(text) = router.connect(ECHO, b"") else { panic!("accepted") };
    assert!(text.contains("router"), "{text}");
}

#[test]
fn a_refused_connection_is_said_so() {
    let mut bench = bench();
    let Answer::Error(text) = bench.connect(8000, b"") else { panic!("connected") };
    assert!(text.contains("refused"), "{text}");
    assert_eq!(bench.ports_used(), 1, "no port is kept");
}

#[test]
fn a_huge_paste_comes_back_whole_after_a_half_close() {
    let mut bench = bench();
    // The first bytes come with the request.
    assert!(matches!(bench.connect(ECHO, b"first "), Answer::Ok(_)));
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut left = &data[..];
    let mut open = true;
    for turn in 0.. {
        assert!(turn < 2000, "{} bytes came back", bench.received.len());
        while !left.is_empty() {
            match bench.client().write(left) {
                Ok(len) => left = &left[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        if left.is_empty() && open {
            bench.client().shutdown(Shutdown::Write).unwrap();
            open = false;
        }
        let over = bench.advance() == Progress::Over;
        bench.read();
        if over {
            break;
        }
    }
    assert!(!bench.read(), "the end comes after the last byte");
    assert_eq!(bench.received.len(), 6 + data.len());
    assert!(bench.received[..6] == *b"first " && bench.received[6..] == data);
    bench.idle(Duration::from_secs(11));
    assert_eq!(bench.ports_used(), 1);
}

#[test]
fn a_client_that_vanishes_takes_its_stream_with_it() {
    for says in [&b""[..], b"last words"] {
        let mut bench = bench();
        assert!(matches!(bench.connect(ECHO, says), Answer::Ok(_)));
        assert_eq!(bench.ports_used(), 2);
        bench.client = None;
        let over = (0..10).any(|_| bench.advance() == Progress::Over);
        assert!(over, "its connection ends");
        bench.idle(Duration::from_secs(31));
        assert_eq!(bench.ports_used(), 1);
    }
}

#[test]
fn a_client_that_vanishes_before_its_answer() {
    let mut bench = bench();
    bench.client().write_all(b"{\"command\":").unwrap();
    assert_eq!(bench.advance(), Progress::Waiting);
    bench.client = None;
    assert_eq!(bench.advance(), Progress::Over);
}

#[test]
fn the_socket_is_for_its_owner_only() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("run/control/node.sock");
    let socket = ControlSocket::bind(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap()) & 0o022), (0o600, 0), "whatever the umask is");
    let error = ControlSocket::bind(&path).unwrap_err().to_string();
    assert!(error.contains("another node answers"), "{error}");
    drop(socket);
    assert!(!path.exists());
    // As a node leaves it that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let again = ControlSocket::bind(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    drop(again);
}
