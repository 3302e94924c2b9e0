//! Looks which ports programs use, in a thread of its own: with many sockets that takes milliseconds, and no packet should
//! wait for so long.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread;

use anyhow::{Context, bail};

use super::sockets::{Socket, SocketKind, read_tables};

/// Local IPv4 addresses and ports of TCP and UDP sockets; unspecified where a socket has no address.
pub type PortsInUse = Vec<(Ipv4Addr, u16)>;

/// The thread; it ends with this.
#[derive(Debug)]
pub struct PortWatch {
    asks: SyncSender<()>,
    answers: Receiver<io::Result<PortsInUse>>,
    asked: bool,
}

impl PortWatch {
    /// Starts the thread, which looks at the network namespace that this one is in.
    ///
    /// # Errors
    /// Where there can be no more threads.
    pub fn start() -> anyhow::Result<Self> {
        let (asks, asked) = mpsc::sync_channel::<()>(1);
        let (answer, answers) = mpsc::channel();
        let look = move || {
            while asked.recv().is_ok() {
                let sockets = read_tables(Path::new("/proc"));
                if answer.send(sockets.map(|sockets| ports_of(&sockets))).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().name("port-watch".to_owned()).spawn(look).context("cannot start a thread")?;
        Ok(Self { asks, answers, asked: false })
    }

    /// What was found since the last call; asks for it where nobody has, so that the next call has it.
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn poll(&mut self) -> anyhow::Result<Option<PortsInUse>> {
        match self.answers.try_recv() {
            Ok(answer) => {
                self.asked = false;
                Ok(Some(answer.context("cannot read the sockets of /proc")?))
            }
            Err(TryRecvError::Disconnected) => bail!("the thread that watches the ports has ended"),
            Err(TryRecvError::Empty) => {
                if !self.asked {
                    // There is room for one, and the thread has taken the last one.
                    self.asked = self.asks.try_send(()).is_ok();
                }
                Ok(None)
            }
        }
    }
}

fn ports_of(sockets: &[Socket]) -> PortsInUse {
    let port = |socket: &Socket| match (socket.kind, socket.local) {
        (SocketKind::Tcp | SocketKind::Udp, (IpAddr::V4(ip), port)) => Some((ip, port)),
        // One for IPv6 serves IPv4, too.
        (SocketKind::Tcp | SocketKind::Udp, (ip, port)) if ip.is_unspecified() => {
            Some((Ipv4Addr::UNSPECIFIED, port))
        }
        _ => None,
    };
    let mut ports: Vec<_> = sockets.iter().filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::time::{Duration, Instant};

    #[test]
    fn a_look_finds_the_own_sockets() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut watch = PortWatch::start().unwrap();
        for _ in 0..2 {
            let deadline = Instant::now() + Duration::from_secs(30);
            let ports = loop {
                assert!(Instant::now() < deadline, "no answer");
                if let Some(ports) = watch.poll().unwrap() {
                    break ports;
                }
                thread::yield_now();
            };
            assert!(ports.contains(&(Ipv4Addr::LOCALHOST, tcp.local_addr().unwrap().port())));
            assert!(ports.contains(&(Ipv4Addr::UNSPECIFIED, udp.local_addr().unwrap().port())));
            assert!(ports.is_sorted());
        }
    }
}
