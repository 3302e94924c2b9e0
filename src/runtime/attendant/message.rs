//! What a host asks its attendant, and what it is told: a length of four bytes, little-endian, and so many bytes of
//! [postcard](https://postcard.jamesmunns.com). Both ends know the bounds, and neither goes on with a peer that breaks one.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::node::MAX_LEASES;
use crate::runtime::sockets::Owner;

/// The longest question, in bytes. Linux passes no variable of more than 128 KiB to a program (`MAX_ARG_STRLEN`), and
/// three of a hook's variables are lists of ports.
pub(super) const MAX_ASK: usize = 512 << 10;
/// The longest answer, in bytes: each port of each address of a host, and of none, in seven bytes.
pub(super) const MAX_TELL: usize = (MAX_LEASES + 1) * (1 << 16) * 7 + 64;
/// Bytes of the length.
const PREFIX: usize = size_of::<u32>();

/// Local IPv4 addresses and ports of TCP and UDP sockets; unspecified where a socket has no address.
pub type PortsInUse = Vec<(Ipv4Addr, u16)>;

/// Why the lease hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// An address is in use.
    Bound,
    /// It lasts longer, or has other ports.
    Renew,
    /// It is used no longer.
    Deconfig,
}

impl Reason {
    /// The argument of the hook.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Renew => "renew",
            Self::Deconfig => "deconfig",
        }
    }
}

macro_rules! variables {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// A variable that the lease hook may be told, beside `interface`. There are no others.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Variable {
            $(#[doc = $doc] $variant,)*
        }

        impl Variable {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in the hook's environment.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

variables! {
    Addresses "addresses" "All addresses in use.",
    Dns "dns" "Name servers.",
    Domain "domain" "Domain of the lease.",
    Ip "ip" "The address of this call.",
    PortRange "port_range" "Lowest and highest port that the kernel chooses.",
    Ports "ports" "All ports of the address.",
    PrefixLen "prefix_len" "Length of the on-link prefix.",
    ProgramPorts "program_ports" "Those for programs.",
    ReservedPorts "reserved_ports" "Those between lowest and highest that are not for programs.",
    Router "router" "The gateway.",
    ServerId "serverid" "The DHCP server.",
    StackPorts "stack_ports" "Those for the host's own stack.",
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// To run the hook.
    Hook { reason: Reason, variables: Vec<(Variable, String)> },
    /// Which ports are in use.
    Ports { addresses: Vec<Ipv4Addr> },
    /// Who has a port of a protocol.
    Owner { protocol: u8, port: u16 },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Tell {
    /// The hook has ended: its wait status, or why it did not run.
    Hook { reason: Reason, ended: Result<i32, String> },
    /// The ports in use, or why that is not known.
    Ports(Result<PortsInUse, String>),
    /// Whose it is, if that is known.
    Owner { protocol: u8, port: u16, owner: Option<Owner> },
}

/// The bytes of a message; an error where it is longer than `max`.
pub(super) fn encode(message: &impl Serialize, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(message, vec![0; PREFIX]).map_err(io::Error::other)?;
    let len = bytes.len() - PREFIX;
    let short = u32::try_from(len).ok().filter(|_| len <= max);
    let short = short.ok_or_else(|| io::Error::other(format!("a message of {len} bytes is too long")))?;
    bytes[..PREFIX].copy_from_slice(&short.to_le_bytes());
    Ok(bytes)
}

/// Takes the first message off `bytes`, if it is complete.
pub(super) fn decode<T: DeserializeOwned>(bytes: &mut Vec<u8>, max: usize) -> io::Result<Option<T>> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let len = bounded(*prefix, max)?;
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let message = parse(body)?;
    bytes.drain(..PREFIX + len);
    Ok(Some(message))
}

/// Waits for a message; `None` at the end.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read, max: usize) -> io::Result<Option<T>> {
    let mut prefix = [0; PREFIX];
    match from.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut body = vec![0; bounded(prefix, max)?];
    from.read_exact(&mut body)?;
    parse(&body).map(Some)
}

pub(super) fn write(to: &mut impl Write, message: &impl Serialize, max: usize) -> io::Result<()> {
    to.write_all(&encode(message, max)?)
}

fn bounded(prefix: [u8; PREFIX], max: usize) -> io::Result<usize> {
    let len = u32::from_le_bytes(prefix) as usize;
    if len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    Ok(len)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(invalid("a message that goes on behind its end".to_owned())),
        Err(error) => Err(invalid(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks() -> [Ask; 3] {
        let variables =
            Variable::ALL.iter().map(|variable| (*variable, variable.name().to_owned())).collect();
        [
            Ask::Hook { reason: Reason::Bound, variables },
            Ask::Ports { addresses: vec![Ipv4Addr::new(198, 51, 100, 2)] },
            Ask::Owner { protocol: 17, port: 3000 },
        ]
    }

    #[test]
    fn messages_may_come_in_pieces() {
        let bytes: Vec<_> = asks().iter().flat_map(|ask| encode(ask, MAX_ASK).unwrap()).collect();
        let (mut came, mut read_so_far) = (Vec::new(), Vec::new());
        for byte in &bytes {
            came.push(*byte);
            read_so_far.extend(decode::<Ask>(&mut came, MAX_ASK).unwrap());
        }
        assert_eq!((read_so_far.as_slice(), came.len()), (&asks()[..], 0));
        let mut from = &bytes[..];
        for ask in asks() {
            assert_eq!(read(&mut from, MAX_ASK).unwrap(), Some(ask));
        }
        assert_eq!(read::<Ask>(&mut from, MAX_ASK).unwrap(), None, "the end");
    }

    #[test]
    fn what_is_no_message_is_an_error_and_takes_no_memory() {
        let mut long = (MAX_ASK as u32 + 1).to_le_bytes().to_vec();
        assert!(decode::<Ask>(&mut long, MAX_ASK).is_err());
        assert!(read::<Ask>(&mut &long[..], MAX_ASK).is_err());
        let huge = Ask::Hook { reason: Reason::Renew, variables: vec![(Variable::Dns, "x".repeat(MAX_ASK))] };
        assert!(encode(&huge, MAX_ASK).is_err());
        let sound = encode(&asks()[0], MAX_ASK).unwrap();
        for at in 0..sound.len() {
            for value in 0..=u8::MAX {
                let mut bytes = sound.clone();
                bytes[at] = value;
                // Whatever it is taken for, it is no other variable and goes over no end.
                let _ = decode::<Ask>(&mut bytes, MAX_ASK);
            }
            assert_eq!(read::<Ask>(&mut &sound[..at], MAX_ASK).ok().flatten(), None);
        }
        for body in [&[9][..], &[0, 0, 1, 200, 1, 0], &[2, 17, 1, 1]] {
            let mut bytes = [&(body.len() as u32).to_le_bytes(), body].concat();
            assert!(decode::<Ask>(&mut bytes, MAX_ASK).is_err(), "{body:?}");
        }
    }

    #[test]
    fn the_longest_answer_fits() {
        let addresses = 0..=MAX_LEASES as u8;
        let ports = addresses
            .flat_map(|last| (0..=u16::MAX).map(move |port| (Ipv4Addr::new(255, 255, 255, last), port)))
            .collect();
        assert!(encode(&Tell::Ports(Ok(ports)), MAX_TELL).is_ok());
    }
}
