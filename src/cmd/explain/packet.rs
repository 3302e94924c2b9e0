//! A packet as a person writes it, and its bytes.

use std::net::Ipv4Addr;
use std::str::FromStr;

use smoltcp::wire::{Icmpv4Packet, IpProtocol, Ipv4Packet};

use super::super::output::TRANSPORTS;
use crate::wire::{DCCP, ESP, GRE, ICMP, SCTP, TCP, UDP, UDP_LITE, ipv4};

/// The longest packet.
const MAX_LEN: usize = 65_535;
/// Bytes of an IPv4 header.
const HEADER: usize = 20;
/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// Headers of an IPv4 packet; what is behind them is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet(Vec<u8>);

impl Packet {
    /// As much as decides where it goes: all of it but a long tail of zeros is needed by nobody.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn source(&self) -> Ipv4Addr {
        Ipv4Packet::new_unchecked(&self.0[..]).src_addr()
    }
}

/// `ADDRESS` or `ADDRESS:NUMBER`.
fn end(text: &str) -> Result<(Ipv4Addr, Option<u32>), String> {
    let (address, number) = match text.split_once(':') {
        Some((address, number)) => (address, Some(number)),
        None => (text, None),
    };
    let address = address.parse().map_err(|_| format!("`{address}` is not an IPv4 address"))?;
    let parse = |number: &str| match number.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    };
    let number =
        number.map(|text| parse(text).map_err(|_| format!("`{text}` is not a number"))).transpose()?;
    Ok((address, number))
}

fn port(of: &str, number: Option<u32>) -> Result<u16, String> {
    let number = number.ok_or_else(|| format!("{of} has no port: write ADDRESS:PORT"))?;
    u16::try_from(number).map_err(|_| format!("{number} is above 65535"))
}

fn none(of: &str, number: Option<u32>) -> Result<(), String> {
    number.map_or(Ok(()), |number| Err(format!("{of} has no number: leave :{number} out")))
}

impl FromStr for Packet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, about) = match text.split_once(" about ") {
            Some((text, about)) => (text, Some(about.parse::<Self>()?)),
            None => (text, None),
        };
        let words: Vec<_> = text.split_whitespace().collect();
        let [name, rest @ ..] = &words[..] else { return Err("a packet begins with a protocol".to_owned()) };
        let (kind, rest) = match rest {
            [kind, rest @ ..] if *name == "icmp" => (Some(*kind), rest),
            _ => (None, rest),
        };
        let [from, ">", to, options @ ..] = rest else {
            return Err(format!(
                "write `{name} SOURCE > DESTINATION`, for example `tcp 203.0.113.80:443 > 198.51.100.2:5001`"
            ));
        };
        let (source, destination) = (end(from)?, end(to)?);
        let (protocol, payload) = match (kind, about) {
            (Some(kind), about) => (ICMP, icmp(kind, (from, source), (to, destination), about)?),
            (None, None) => transport(name, (from, source), (to, destination))?,
            (None, Some(_)) => {
                return Err("only an ICMP error is about a packet: begin with `icmp TYPE/CODE`".to_owned());
            }
        };
        let mut bytes = ipv4::packet(source.0, destination.0, IpProtocol::from(protocol), payload.len());
        bytes[HEADER..].copy_from_slice(&payload);
        options_of(bytes, options).map(Self)
    }
}

type End<'a> = (&'a str, (Ipv4Addr, Option<u32>));

fn transport(
    name: &str,
    (from, source): End<'_>,
    (to, destination): End<'_>,
) -> Result<(u8, Vec<u8>), String> {
    let transport = TRANSPORTS.iter().find(|(transport, _)| *transport == name).map(|(_, number)| *number);
    let protocol = match (transport, name) {
        (Some(transport), _) => transport,
        (None, "ping" | "pong") => ICMP,
        (None, "esp") => ESP,
        (None, "gre") => GRE,
        (None, number) => number.parse().map_err(|_| {
            format!(
                "`{number}` is no protocol: write tcp, udp, udplite, dccp, sctp, ping, pong, icmp, esp, gre, or a number"
            )
        })?,
    };
    let payload = match protocol {
        TCP | UDP | UDP_LITE | DCCP | SCTP => {
            let ports = [port(from, source.1)?.to_be_bytes(), port(to, destination.1)?.to_be_bytes()];
            let mut bytes = ports.concat();
            bytes.resize(if protocol == TCP { 20 } else { 8 }, 0);
            bytes
        }
        ICMP if name == "ping" => {
            none(to, destination.1)?;
            echo(ECHO_REQUEST, port(from, source.1)?)
        }
        ICMP if name == "pong" => {
            none(from, source.1)?;
            echo(ECHO_REPLY, port(to, destination.1)?)
        }
        ICMP => return Err("write `ping`, `pong` or `icmp TYPE/CODE`".to_owned()),
        ESP => {
            none(from, source.1)?;
            let spi = destination.1.ok_or("ESP has an SPI: write `esp SOURCE > DESTINATION:SPI`")?;
            [spi.to_be_bytes(), [0; 4]].concat()
        }
        GRE => {
            none(from, source.1)?;
            match destination.1 {
                Some(key) => [&[0x20, 0, 8, 0][..], &key.to_be_bytes()].concat(),
                None => vec![0, 0, 8, 0],
            }
        }
        _ => {
            none(from, source.1)?;
            none(to, destination.1)?;
            vec![0; 8]
        }
    };
    Ok((protocol, payload))
}

fn echo(kind: u8, identifier: u16) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 1];
    let mut message = Icmpv4Packet::new_unchecked(&mut bytes[..]);
    message.set_echo_ident(identifier);
    message.fill_checksum();
    bytes
}

fn icmp(
    kind: &str,
    (from, source): End<'_>,
    (to, destination): End<'_>,
    about: Option<Packet>,
) -> Result<Vec<u8>, String> {
    none(from, source.1)?;
    none(to, destination.1)?;
    let number = |text: &str| text.parse::<u8>().map_err(|_| format!("`{kind}` is not TYPE/CODE, like 3/4"));
    let (kind, code) = match kind.split_once('/') {
        Some((kind, code)) => (number(kind)?, number(code)?),
        None => (number(kind)?, 0),
    };
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 0, 0];
    bytes.extend(about.iter().flat_map(|about| about.bytes().iter().take(HEADER + ICMP_HEADER)));
    Icmpv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
    Ok(bytes)
}

fn options_of(mut bytes: Vec<u8>, options: &[&str]) -> Result<Vec<u8>, String> {
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    packet.set_dont_frag(false);
    let mut len = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut number = || {
            let text = options.next().ok_or_else(|| format!("`{option}` wants a number"))?;
            text.parse::<u16>().map_err(|_| format!("`{text}` is not a number"))
        };
        match *option {
            "df" => packet.set_dont_frag(true),
            "ttl" => {
                let ttl = number()?;
                packet.set_hop_limit(
                    u8::try_from(ttl).map_err(|_| format!("a TTL is at most 255, not {ttl}"))?,
                );
            }
            "len" => len = Some(usize::from(number()?)),
            other => return Err(format!("`{other}` is neither `ttl N`, `len N`, `df` nor `about PACKET`")),
        }
    }
    if let Some(len) = len {
        if len < bytes.len() || len > MAX_LEN {
            return Err(format!("such a packet has from {} to {MAX_LEN} bytes", bytes.len()));
        }
        bytes.resize(len, 0);
    }
    let total = bytes.len() as u16;
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    packet.set_total_len(total);
    packet.fill_checksum();
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FlowKey, FlowKind};

    fn key(text: &str) -> FlowKey {
        let packet: Packet = text.parse().unwrap();
        FlowKey::of(&ipv4::check(packet.bytes()).unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_is_what_a_node_reads() {
        for (name, number) in
            [("tcp", TCP), ("udp", UDP), ("udplite", UDP_LITE), ("dccp", DCCP), ("sctp", SCTP)]
        {
            let key = key(&format!("{name} 203.0.113.80:443 > 198.51.100.2:5001"));
            assert_eq!((key.protocol, key.source, key.destination), (number, Some(443), Some(5001)));
        }
        let ping = key("ping 198.51.100.2:5001 > 203.0.113.80");
        assert_eq!((ping.kind, ping.source), (FlowKind::EchoRequest, Some(5001)));
        let pong = key("pong 203.0.113.80 > 198.51.100.2:5001");
        assert_eq!((pong.kind, pong.destination), (FlowKind::EchoReply, Some(5001)));
        assert_eq!(key("esp 203.0.113.80 > 198.51.100.2:0x12341389").destination, Some(5001));
        assert_eq!(key("gre 203.0.113.80 > 198.51.100.2:5001").destination, Some(5001));
        assert_eq!(key("gre 203.0.113.80 > 198.51.100.2").kind, FlowKind::Portless);
        assert_eq!(key("41 203.0.113.80 > 198.51.100.2").protocol, 41);
        let error = key("icmp 3/4 203.0.113.1 > 198.51.100.2 about udp 198.51.100.2:5001 > 203.0.113.80:53");
        assert_eq!(
            (error.kind, error.destination, error.source),
            (FlowKind::IcmpError, Some(5001), Some(53))
        );
    }

    #[test]
    fn what_decides_besides() {
        let packet: Packet = "udp 203.0.113.80:53 > 198.51.100.2:5001 ttl 1 len 1500 df".parse().unwrap();
        let view = ipv4::check(packet.bytes()).unwrap();
        assert_eq!((view.hop_limit(), view.total_len(), view.dont_frag()), (1, 1500, true));
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, error) in [
            ("", "begins with a protocol"),
            ("tcp 1.2.3.4:5", "write `tcp SOURCE > DESTINATION`"),
            ("tcp 1.2.3.4 > 1.2.3.5:1", "1.2.3.4 has no port"),
            ("tcp 1.2.3.4:70000 > 1.2.3.5:1", "above 65535"),
            ("tcp 1.2.3:1 > 1.2.3.5:1", "`1.2.3` is not an IPv4 address"),
            ("tpc 1.2.3.4:1 > 1.2.3.5:1", "`tpc` is no protocol"),
            ("47 1.2.3.4:1 > 1.2.3.5", "has no number"),
            ("esp 1.2.3.4 > 1.2.3.5", "ESP has an SPI"),
            ("icmp x 1.2.3.4 > 1.2.3.5", "not TYPE/CODE"),
            ("udp 1.2.3.4:1 > 1.2.3.5:1 ttl", "`ttl` wants a number"),
            ("udp 1.2.3.4:1 > 1.2.3.5:1 ttl 256", "at most 255"),
            ("udp 1.2.3.4:1 > 1.2.3.5:1 len 20", "from 28 to 65535"),
            ("udp 1.2.3.4:1 > 1.2.3.5:1 now", "neither `ttl N`"),
            ("udp 1.2.3.4:1 > 1.2.3.5:1 about udp 1.2.3.4:1 > 1.2.3.5:1", "only an ICMP error"),
        ] {
            let found = text.parse::<Packet>().unwrap_err();
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
