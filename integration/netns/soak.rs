//! Much of the same, for long: `scripts/soak --traffic` runs it.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::support::bulk::{CHUNK, Pair, connect, exchange, receive, send};
use crate::support::lab::{HOSTS, INET, LEGACY, Lab, SHARED};

const GIGABYTE: usize = 10_000 * CHUNK;
/// Nobody waits longer.
const STALL: Duration = Duration::from_secs(1);
/// A datagram and its answer, so often.
const PACE: Duration = Duration::from_millis(10);
/// A new connection, so often: a small set is not used up, as ports in TIME-WAIT are taken over.
const CONNECT_PACE: Duration = Duration::from_millis(50);
/// What a process has after this part of the time it must not exceed later by more than `GROWTH_KIB`.
const WARM_UP: f64 = 0.2;
const GROWTH_KIB: u64 = 1024;

/// Two sharers send a gigabyte each and get one each, at the same time, wherever super-frames end.
#[test]
#[ignore = "takes longer than the others together"]
fn gigabytes_with_and_without_offloads() {
    const PAIRS: [Pair<'_>; 2] = [("h1", "inet", INET), ("h2", "inet", INET)];
    for offload in ["on", "off"] {
        for plain in [None, Some("inet"), Some("h1")] {
            let lab = Lab::alone(&["--offload", offload]);
            if let Some(node) = plain {
                lab.wire_frames(node);
            }
            let begin = Instant::now();
            exchange(&lab, &PAIRS, GIGABYTE);
            let seconds = begin.elapsed().as_secs_f64();
            let plain = plain.map_or(String::new(), |node| format!(", without offloads in {node}"));
            println!("offload {offload}{plain}: 4 × 1 GB, every byte compared, in {seconds:.1} s");
        }
    }
}

/// The longest time between two of something.
struct Gap {
    last: Instant,
    longest: Duration,
}

impl Gap {
    fn new() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO }
    }

    fn note(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }
}

/// Resident memory of the processes, in KiB.
fn memory(lab: &Lab) -> Vec<(&'static str, u64)> {
    let of = |node: &'static str| (node, lab.memory_kib(node, "VmRSS"));
    ["router"].into_iter().chain(HOSTS).map(of).collect()
}

/// Echoes datagrams of one client, until it has sent an empty one.
fn echo(socket: &UdpSocket) {
    let mut space = [0; 100];
    loop {
        let (len, from) = socket.recv_from(&mut space).expect("the client goes on");
        if len == 0 {
            return;
        }
        socket.send_to(&space[..len], from).unwrap();
    }
}

/// Asks every `PACE` until the end; tells how many datagrams were asked and answered, and the longest silence.
fn ask(socket: &UdpSocket, until: Instant) -> (u64, u64, Duration) {
    let (mut gap, mut asked, mut answered) = (Gap::new(), 0_u64, 0_u64);
    socket.set_read_timeout(Some(PACE)).unwrap();
    while Instant::now() < until {
        asked += 1;
        socket.send(&asked.to_be_bytes()).unwrap();
        let next = Instant::now() + PACE;
        let mut space = [0; 100];
        // An answer that comes too late for its turn counts in the next one.
        if socket.recv(&mut space).is_ok() {
            answered += 1;
            gap.note();
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    gap.note();
    socket.send(&[]).unwrap();
    (asked, answered, gap.longest)
}

/// Connects again and again, each time with a greeting and an answer; tells how often, and how long the slowest took.
fn reconnect(lab: &Lab, node: &str, until: Instant) -> (u64, Duration) {
    let listener = lab.inside("inet", || TcpListener::bind((INET, 7000)).unwrap());
    // Who waits for a client that has failed ends, too.
    setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::seconds(10)).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let (stream, _) = listener.accept().unwrap();
                if over.load(Ordering::Acquire) {
                    return;
                }
                receive(&stream, |_| ());
                send(&stream, |sent| sent < CHUNK);
            }
        });
        lab.inside(node, || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while Instant::now() < until {
                let begin = Instant::now();
                let stream = TcpStream::connect((INET, 7000)).expect("the server goes on");
                send(&stream, |sent| sent < CHUNK);
                assert_eq!(receive(&stream, |_| ()), CHUNK);
                slowest = slowest.max(begin.elapsed());
                count += 1;
                thread::sleep((begin + CONNECT_PACE).saturating_duration_since(Instant::now()));
            }
            over.store(true, Ordering::Release);
            // Wakes the server.
            drop(TcpStream::connect((INET, 7000)));
            (count, slowest)
        })
    })
}

/// `PEARP_SOAK_MINUTES` of streams at full speed, datagrams, and new connections.
#[test]
#[ignore = "takes longer than the others together"]
fn traffic_for_minutes() {
    const PAIRS: [Pair<'_>; 4] =
        [("h1", "inet", INET), ("h2", "inet", INET), ("h3", "legacy", LEGACY), ("h2", "h1", SHARED)];
    let minutes: f64 =
        std::env::var("PEARP_SOAK_MINUTES").map_or(10.0, |text| text.parse().expect("a number"));
    let lab = Lab::alone(&[]);
    let begin = Instant::now();
    let time = Duration::from_secs_f64(minutes * 60.0);
    let end = begin + time;
    let streams = connect(&lab, &PAIRS);
    let server = lab.inside("inet", || UdpSocket::bind((INET, 6000)).unwrap());
    server.set_read_timeout(Some(STALL * 10)).unwrap();
    let client = lab.inside("h3", || {
        let socket = UdpSocket::bind((SHARED, 0)).unwrap();
        socket.connect((INET, 6000)).unwrap();
        socket
    });

    thread::scope(|scope| {
        let mut ways = Vec::new();
        for (pair, ends) in PAIRS.iter().zip(&streams) {
            for (number, stream) in ends.iter().enumerate() {
                scope.spawn(move || send(stream, |_| Instant::now() < end));
                let way = if number == 0 {
                    format!("{} to {}", pair.1, pair.0)
                } else {
                    format!("{} to {}", pair.0, pair.1)
                };
                let receiver = scope.spawn(move || {
                    let mut gap = Gap::new();
                    (receive(stream, |_| gap.note()), gap.longest)
                });
                ways.push((way, receiver));
            }
        }
        scope.spawn(|| echo(&server));
        let asked = scope.spawn(|| ask(&client, end));
        let connected = scope.spawn(|| reconnect(&lab, "h1", end));

        thread::sleep(time.mul_f64(WARM_UP));
        let before = memory(&lab);
        let mut most = before.clone();
        while Instant::now() < end {
            thread::sleep(Duration::from_secs(1));
            for (most, now) in most.iter_mut().zip(memory(&lab)) {
                most.1 = most.1.max(now.1);
            }
        }

        println!("{minutes} min:");
        let mut stalls = Vec::new();
        for (way, receiver) in ways {
            let (bytes, longest) = receiver.join().unwrap();
            println!("  {way}: {:.1} GB, every byte compared; longest pause {longest:?}", bytes as f64 / 1e9);
            stalls.push((way, longest));
        }
        let (sent, answered, silence) = asked.join().unwrap();
        println!("  h3: {answered} of {sent} datagrams answered; longest silence {silence:?}");
        stalls.push(("datagrams".to_owned(), silence));
        let (connections, slowest) = connected.join().unwrap();
        println!("  h1: {connections} connections; slowest with 200 kB {slowest:?}");
        stalls.push(("connections".to_owned(), slowest));
        for ((node, before), (_, most)) in before.iter().zip(&most) {
            println!("  {node}: {before} KiB of memory after the first fifth, at most {most} KiB later");
        }
        stalls.retain(|(_, longest)| *longest > STALL);
        assert!(stalls.is_empty(), "longer than {STALL:?}: {stalls:?}");
        let grown = before.iter().zip(&most).any(|(before, most)| most.1 > before.1 + GROWTH_KIB);
        assert!(!grown, "memory grew: {before:?}, {most:?}");
    });
    lab.assert_balanced("router");
}
