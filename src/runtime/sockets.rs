//! The sockets of this network namespace, and whose they are, as /proc tells (proc(5), `/proc/net/tcp`).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What there is to read, in the order in which it is listed. Sockets for IPv6 serve IPv4, too.
const TABLES: [(&str, SocketKind); 8] = [
    ("tcp", SocketKind::Tcp),
    ("tcp6", SocketKind::Tcp),
    ("udp", SocketKind::Udp),
    ("udp6", SocketKind::Udp),
    ("icmp", SocketKind::Icmp),
    ("icmp6", SocketKind::Icmp),
    ("raw", SocketKind::Raw),
    ("raw6", SocketKind::Raw),
];
/// Where fields are in a line: local and remote address, state, inode.
const LOCAL: usize = 1;
const REMOTE: usize = 2;
const STATE: usize = 3;
const INODE: usize = 9;
/// States, as the kernel numbers them (`include/net/tcp_states.h`); UDP knows the first and the last.
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketKind {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo; the port is the identifier.
    Icmp,
    /// Any protocol; the port is its number.
    Raw,
}

impl SocketKind {
    /// The name in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Raw => "raw",
        }
    }
}

/// What a socket does with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketState {
    /// It waits for whoever comes.
    Listening,
    /// It talks to one peer, or did until now.
    Connected,
    /// Nobody has it any more, and late segments may still come.
    TimeWait,
}

impl SocketState {
    /// The name in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Connected => "connected",
            Self::TimeWait => "time_wait",
        }
    }
}

/// A process that has a socket open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// Its name: the first 15 bytes.
    pub name: String,
}

/// A socket with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// What it speaks.
    pub kind: SocketKind,
    /// Its own address and port.
    pub local: (IpAddr, u16),
    /// Its peer's.
    pub remote: (IpAddr, u16),
    /// What it does.
    pub state: SocketState,
    /// The first process that has it open; none in TIME-WAIT, nor without the right to see.
    pub owner: Option<Owner>,
    inode: u64,
}

/// An address as `0200A8C0:1F90`: words in the byte order of the machine.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<[u8; 4]>> = (0..ip.len() / 8)
        .map(|word| u32::from_str_radix(ip.get(8 * word..8 * word + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let ip = match words?.as_slice() {
        [word] if ip.len() == 8 => IpAddr::V4(Ipv4Addr::from(*word)),
        words @ [_, _, _, _] if ip.len() == 32 => {
            let bytes = <[u8; 16]>::try_from(words.concat()).ok()?;
            // A socket for both serves IPv4 under such an address.
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

fn socket(kind: SocketKind, line: &str) -> Option<Socket> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (local, remote) = (address(fields.get(LOCAL)?)?, address(fields.get(REMOTE)?)?);
    let state = match u8::from_str_radix(fields.get(STATE)?, 16).ok()? {
        LISTEN => SocketState::Listening,
        TIME_WAIT => SocketState::TimeWait,
        // UDP without a peer takes what comes.
        state if state != ESTABLISHED && kind != SocketKind::Tcp => SocketState::Listening,
        _ => SocketState::Connected,
    };
    let inode = fields.get(INODE)?.parse().ok()?;
    // A socket of TCP that has not been given a port yet.
    (local.1 != 0).then_some(Socket { kind, local, remote, state, owner: None, inode })
}

/// Reads all sockets with a port of the network namespace of this thread, and whose they are; `proc` is `/proc`.
///
/// # Errors
/// Where a table cannot be read; one that this kernel does not have is left out.
pub fn read_sockets(proc: &Path) -> io::Result<Vec<Socket>> {
    let mut sockets = read_tables(proc)?;
    let owners = owners(proc, &sockets);
    for socket in &mut sockets {
        socket.owner = owners.get(&socket.inode).cloned();
    }
    Ok(sockets)
}

/// The same without their owners, which takes a fraction of the time.
pub(super) fn read_tables(proc: &Path) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for (table, kind) in TABLES {
        // `/proc/net` is that of the first thread.
        let text = match fs::read_to_string(proc.join("thread-self/net").join(table)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        sockets.extend(text.lines().skip(1).filter_map(|line| socket(kind, line)));
    }
    Ok(sockets)
}

/// Who has which of these sockets open. Processes that end meanwhile, and those of other users, are left out.
fn owners(proc: &Path, sockets: &[Socket]) -> HashMap<u64, Owner> {
    let mut owners: HashMap<u64, Owner> = HashMap::new();
    let wanted: std::collections::HashSet<_> =
        sockets.iter().map(|socket| socket.inode).filter(|inode| *inode != 0).collect();
    if wanted.is_empty() {
        return owners;
    }
    let Ok(processes) = fs::read_dir(proc) else { return owners };
    let pid = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<u32>().ok();
    for pid in processes.filter_map(pid) {
        let directory = proc.join(pid.to_string());
        let Ok(descriptors) = fs::read_dir(directory.join("fd")) else { continue };
        let mut name = None;
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'));
            let Some(inode) = inode.and_then(|inode| inode.parse().ok()) else { continue };
            if !wanted.contains(&inode) {
                continue;
            }
            let name = name.get_or_insert_with(|| {
                let name = fs::read_to_string(directory.join("comm")).unwrap_or_default();
                name.trim_end().to_owned()
            });
            // Of several, the one that was there first.
            let owner = Owner { pid, name: name.clone() };
            let known = owners.entry(inode).or_insert_with(|| owner.clone());
            if owner < *known {
                *known = owner;
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn lines_of_proc() {
        let line = "   0: 0264330A:1F90 506F00CB:0016 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1";
        let parsed = socket(SocketKind::Tcp, line).unwrap();
        let bytes = |word: u32| IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes()));
        assert_eq!((parsed.local, parsed.remote), ((bytes(0x0264_330A), 8080), (bytes(0x506F_00CB), 22)));
        assert_eq!((parsed.state, parsed.inode), (SocketState::Connected, 4711));
        for (state, expected) in [("0A", SocketState::Listening), ("06", SocketState::TimeWait)] {
            let line = line.replace(" 01 ", &format!(" {state} "));
            assert_eq!(socket(SocketKind::Tcp, &line).unwrap().state, expected);
        }
        // UDP without and with a peer.
        assert_eq!(
            socket(SocketKind::Udp, &line.replace(" 01 ", " 07 ")).unwrap().state,
            SocketState::Listening
        );
        assert_eq!(socket(SocketKind::Udp, line).unwrap().state, SocketState::Connected);
        let mapped = line.replace("0264330A", "0000000000000000FFFF00000264330A");
        // Of a machine with this byte order.
        if cfg!(target_endian = "little") {
            assert_eq!(socket(SocketKind::Tcp, &mapped).unwrap().local, parsed.local);
        }
        for damage in
            ["", "x", &line[..40], &line.replace("1F90", "0000"), &line.replace("0264330A", "02643")]
        {
            assert_eq!(socket(SocketKind::Tcp, damage), None, "{damage}");
        }
    }

    #[test]
    fn sockets_of_this_process_are_found_with_their_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let both = UdpSocket::bind("[::]:0").unwrap();
        let sockets = read_sockets(Path::new("/proc")).unwrap();
        let find = |kind, port, state| {
            sockets
                .iter()
                .find(|socket| socket.kind == kind && socket.local.1 == port && socket.state == state)
                .unwrap_or_else(|| panic!("{kind:?} {port}: {sockets:?}"))
        };
        let me = std::process::id();
        let port = |address: std::net::SocketAddr| address.port();
        let found = [
            find(SocketKind::Tcp, port(listener.local_addr().unwrap()), SocketState::Listening),
            find(SocketKind::Tcp, port(stream.local_addr().unwrap()), SocketState::Connected),
            find(SocketKind::Udp, port(both.local_addr().unwrap()), SocketState::Listening),
        ];
        assert!(found.iter().all(|socket| socket.owner.as_ref().is_some_and(|owner| owner.pid == me)));
    }
}
