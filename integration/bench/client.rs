//! The end that asks and measures.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{PACE, PACED, SILENCE, SMALL, ask, pattern};

/// A path that is silent for as long as this is broken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Datagrams after the first one, and the pause before every one of them, in which processors fall asleep again.
const LATER: usize = 9;
const PAUSE: Duration = Duration::from_millis(20);

fn dial(server: SocketAddr, what: u8) -> anyhow::Result<TcpStream> {
    let mut connection = TcpStream::connect_timeout(&server, PATIENCE)
        .with_context(|| format!("cannot connect to {server}: does `meter serve` run there?"))?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(&[what])?;
    Ok(connection)
}

fn open_datagrams(server: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// The value that a part of the samples does not exceed.
fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len());
    micros(sorted[at - 1])
}

pub(crate) fn latency(server: SocketAddr, seconds: f64) -> anyhow::Result<Value> {
    let mut connection = dial(server, ask::ECHO)?;
    let mut byte = [0];
    let mut exchange = || -> io::Result<Duration> {
        let sent = Instant::now();
        connection.write_all(&byte)?;
        connection.read_exact(&mut byte)?;
        Ok(sent.elapsed())
    };
    for _ in 0..100 {
        exchange()?;
    }
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut samples = Vec::new();
    while Instant::now() < end {
        samples.push(exchange()?);
    }
    ensure!(!samples.is_empty(), "{seconds} s are too short");
    samples.sort_unstable();
    Ok(json!({
        "exchanges": samples.len(),
        "p50_us": quantile(&samples, 0.5),
        "p99_us": quantile(&samples, 0.99),
    }))
}

pub(crate) fn connect(server: SocketAddr, seconds: f64) -> anyhow::Result<Value> {
    let closer = SocketAddr::new(server.ip(), server.port() + 1);
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    let mut count = 0u64;
    while Instant::now() < end {
        let mut connection =
            TcpStream::connect_timeout(&closer, PATIENCE).with_context(|| format!("connection {count}"))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        ensure!(connection.read(&mut [0])? == 0, "{closer} should close at once");
        count += 1;
    }
    Ok(json!({ "connections": count, "per_second": count as f64 / begin.elapsed().as_secs_f64() }))
}

pub(crate) fn flood(server: SocketAddr, seconds: f64) -> anyhow::Result<Value> {
    let mut connection = dial(server, ask::FLOOD)?;
    let mut port = [0; 2];
    connection.read_exact(&mut port)?;
    let socket = open_datagrams(SocketAddr::new(server.ip(), u16::from_be_bytes(port)))?;
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    let mut sent = 0u64;
    loop {
        let now = Instant::now();
        if now >= end {
            break;
        }
        // A full queue refuses some: they are not sent.
        if socket.send(&[0; SMALL]).is_ok() {
            sent += 1;
        }
    }
    let offered = sent as f64 / begin.elapsed().as_secs_f64();
    connection.set_read_timeout(Some(PATIENCE + SILENCE))?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    let counted: Value = serde_json::from_str(&line).context("the server did not say what arrived")?;
    let received = counted["received"].as_u64().unwrap_or(0);
    let took = counted["seconds"].as_f64().unwrap_or(0.0);
    ensure!(received > 1 && took > 0.0, "nothing arrived of {sent} datagrams");
    Ok(json!({
        "sent": sent,
        "received": received,
        "offered_pps": offered,
        "received_pps": received as f64 / took,
        "lost": 1.0 - received as f64 / sent as f64,
    }))
}

pub(crate) fn first(servers: &[SocketAddr]) -> anyhow::Result<Value> {
    let exchange = |socket: &UdpSocket| -> anyhow::Result<Duration> {
        thread::sleep(PAUSE);
        let sent = Instant::now();
        socket.send(b"first")?;
        socket.recv(&mut [0; 64]).with_context(|| format!("no answer from {:?}", socket.peer_addr()))?;
        Ok(sent.elapsed())
    };
    // All first ones at once, before anything else makes these servers known.
    let mut firsts = Vec::new();
    for server in servers {
        let socket = open_datagrams(*server)?;
        let first = exchange(&socket)?;
        firsts.push((socket, first));
    }
    let mut shown = Vec::new();
    for (socket, first) in firsts {
        let mut later = (0..LATER).map(|_| exchange(&socket)).collect::<anyhow::Result<Vec<_>>>()?;
        later.sort_unstable();
        let usual = quantile(&later, 0.5);
        shown.push(json!({
            "server": socket.peer_addr()?,
            "first_us": micros(first),
            "later_us": usual,
            "added_us": micros(first) - usual,
        }));
    }
    Ok(shown.into())
}

pub(crate) fn gap(server: SocketAddr, seconds: u8) -> anyhow::Result<Value> {
    let datagrams = thread::spawn(move || datagram_gap(server, seconds));
    let transfer = transfer_gap(server, Duration::from_secs(seconds.into()));
    let Ok(datagrams) = datagrams.join() else { bail!("the UDP stream's thread ended by a panic") };
    let (udp_gap, lost) = datagrams.context("the UDP stream")?;
    // A transfer that breaks is a result, too.
    let (tcp_gap, bytes, broken) = match transfer {
        Ok((gap, bytes)) => (Some(gap.as_secs_f64()), bytes, None),
        Err(error) => (None, 0, Some(format!("{error:#}"))),
    };
    Ok(json!({
        "tcp_gap_s": tcp_gap,
        "tcp_bytes": bytes,
        "tcp_broken": broken,
        "udp_gap_s": udp_gap.as_secs_f64(),
        "udp_lost": lost,
    }))
}

/// The longest silence of a transfer, and how many bytes came, each of them the right one.
fn transfer_gap(server: SocketAddr, time: Duration) -> anyhow::Result<(Duration, u64)> {
    let mut connection = dial(server, ask::STREAM)?;
    let begin = Instant::now();
    let mut buffer = vec![0; 128 << 10];
    let (mut position, mut last, mut longest) = (0, begin, Duration::ZERO);
    while begin.elapsed() < time {
        let length = connection.read(&mut buffer).context("the transfer broke")?;
        ensure!(length > 0, "the server ended the transfer");
        let now = Instant::now();
        longest = longest.max(now - last);
        last = now;
        for byte in &buffer[..length] {
            ensure!(*byte == pattern(position), "byte {position} is wrong");
            position += 1;
        }
    }
    Ok((longest, position))
}

/// The longest silence of a paced stream, and how many datagrams did not come.
fn datagram_gap(server: SocketAddr, seconds: u8) -> anyhow::Result<(Duration, u64)> {
    let socket = open_datagrams(server)?;
    socket.send(&[PACED, seconds])?;
    let mut buffer = [0; 64];
    socket.recv(&mut buffer).context("the stream did not begin")?;
    let begin = Instant::now();
    let time = Duration::from_secs(seconds.into());
    let (mut last, mut longest, mut count) = (begin, Duration::ZERO, 1u64);
    let expected = time.as_millis() as u64 / PACE.as_millis() as u64;
    socket.set_read_timeout(Some(SILENCE))?;
    while begin.elapsed() < time + SILENCE && count < expected {
        if socket.recv(&mut buffer).is_ok() {
            let now = Instant::now();
            longest = longest.max(now - last);
            last = now;
            count += 1;
        }
    }
    // A stream that never came back has been silent to its end.
    longest = longest.max((begin + time).saturating_duration_since(last));
    Ok((longest, expected - count))
}
