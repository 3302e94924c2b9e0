//! The end that serves.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use super::{PACE, PACED, SILENCE, SMALL, ask, pattern};

/// Bytes that a socket may hold: what is measured is the path, not how often this program gets a processor.
const RECEIVE_BUFFER: usize = 8 << 20;

pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)?;
    let closer = TcpListener::bind((address.ip(), address.port() + 1))?;
    let datagrams = UdpSocket::bind(address)?;
    thread::spawn(move || {
        for connection in closer.incoming() {
            // The server closes first, so that the client's port is free again at once.
            drop(connection);
        }
    });
    thread::spawn(move || answer_datagrams(&datagrams));
    for connection in listener.incoming() {
        let connection = connection?;
        // A client that goes away ends its connection, not the server.
        thread::spawn(move || attend(connection));
    }
    Ok(())
}

fn attend(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut what = [0];
    connection.read_exact(&mut what)?;
    match what[0] {
        ask::ECHO => loop {
            connection.read_exact(&mut what)?;
            connection.write_all(&what)?;
        },
        ask::FLOOD => count_flood(&mut connection),
        ask::STREAM => {
            let mut at = 0;
            let mut buffer = vec![0; 128 << 10];
            loop {
                for byte in &mut buffer {
                    *byte = pattern(at);
                    at += 1;
                }
                connection.write_all(&buffer)?;
            }
        }
        _ => Ok(()),
    }
}

fn count_flood(connection: &mut TcpStream) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    connection.write_all(&socket.local_addr()?.port().to_be_bytes())?;

    let mut buffer = [0; SMALL];
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut count, mut begin, mut end) = (0u64, Instant::now(), Instant::now());
    while let Ok(SMALL) = socket.recv(&mut buffer) {
        // Reading the clock is cheap beside receiving.
        end = Instant::now();
        if count == 0 {
            begin = end;
            socket.set_read_timeout(Some(SILENCE))?;
        }
        count += 1;
    }
    let shown = json!({ "received": count, "seconds": (end - begin).as_secs_f64() });
    writeln!(connection, "{shown}")
}

fn answer_datagrams(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error of an earlier answer is no reason to end.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        match buffer[..length] {
            [PACED, seconds] => {
                let socket = socket.try_clone()?;
                thread::spawn(move || send_paced(&socket, client, Duration::from_secs(seconds.into())));
            }
            ref datagram => drop(socket.send_to(datagram, client)),
        }
    }
}

/// Numbered datagrams at an even pace.
fn send_paced(socket: &UdpSocket, client: SocketAddr, time: Duration) {
    let begin = Instant::now();
    let mut number = 0u32;
    loop {
        let due = PACE * number;
        if due >= time {
            return;
        }
        thread::sleep(due.saturating_sub(begin.elapsed()));
        drop(socket.send_to(&number.to_be_bytes(), client));
        number += 1;
    }
}
