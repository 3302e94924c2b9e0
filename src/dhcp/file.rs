//! The configuration as a TOML file, and what makes it a sound one.

use core::net::Ipv4Addr;

use serde::Deserialize;
use smoltcp::time::Duration;
use smoltcp::wire::EthernetAddress;
use toml::Spanned;

use super::codec::{ClientId, MAX_PROTOCOLS};
use super::pool::{Pool, PoolKind, Reservation, Who};
use super::server::{Config, ServerLink};
use crate::config::{FileError, Source};
use crate::ports::{Portless, Psid, Scheme};
use crate::wire::is_station;

/// Leases that there can be at a time: the memory that a server needs is bounded by its configuration.
const MAX_SLOTS: u64 = 1 << 18;
/// Name servers that fit one option (RFC 2132 §3.8) with room for others.
const MAX_DNS: usize = 8;
/// Longest domain name (RFC 1035 §2.3.4).
const MAX_DOMAIN: usize = 253;
/// Times, in seconds: from a minute to a year, and up to a day.
const LEASE_TIMES: core::ops::RangeInclusive<u64> = 60..=31_536_000;
const REST_TIMES: core::ops::RangeInclusive<u64> = 0..=86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    lease: Option<Spanned<u64>>,
    rest: Option<Spanned<u64>>,
    quarantine: Option<Spanned<u64>>,
    dns: Option<Spanned<Vec<Ipv4Addr>>>,
    domain: Option<Spanned<String>>,
    #[serde(default)]
    shared: Vec<FilePool>,
    #[serde(default)]
    whole: Vec<FilePool>,
    #[serde(default)]
    reservation: Vec<FileReservation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePool {
    addresses: Spanned<String>,
    scheme: Option<Spanned<[u8; 2]>>,
    network: Option<Spanned<String>>,
    router: Option<Spanned<Ipv4Addr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileReservation {
    client: Option<Spanned<String>>,
    link_address: Option<Spanned<String>>,
    address: Spanned<Ipv4Addr>,
    psid: Option<Spanned<u16>>,
    port: Option<Spanned<u16>>,
    portless: Option<Spanned<Vec<u8>>>,
    residual: Option<Spanned<bool>>,
}

fn time(
    source: Source<'_>,
    value: Option<&Spanned<u64>>,
    field: &'static str,
    range: core::ops::RangeInclusive<u64>,
    default: u64,
) -> Result<Duration, FileError> {
    let Some(value) = value else { return Ok(Duration::from_secs(default)) };
    if !range.contains(value.get_ref()) {
        let message = format!("write seconds, from {} to {}", range.start(), range.end());
        return Err(source.error(value, field, message));
    }
    Ok(Duration::from_secs(*value.get_ref()))
}

fn range(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

/// What a reservation has that has no port.
fn portless(source: Source<'_>, file: &FileReservation) -> Result<Portless, FileError> {
    let residual = file.residual.as_ref().is_some_and(|residual| *residual.get_ref());
    let Some(list) = &file.portless else {
        return Ok(Portless::new([], residual).unwrap_or_default());
    };
    let wrong = |message: String| source.error(list, "reservation.portless", message);
    let protocols = list.get_ref();
    let portless =
        Portless::new(protocols.iter().copied(), residual).map_err(|error| wrong(error.to_string()))?;
    let different = portless.protocols().count();
    if different != protocols.len() {
        return Err(wrong("names an IP protocol twice".to_owned()));
    }
    if different > MAX_PROTOCOLS {
        return Err(wrong(format!("write at most {MAX_PROTOCOLS} IP protocols: `residual` has the rest")));
    }
    Ok(portless)
}

impl Config {
    /// Reads a configuration for a server on these links.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn parse(text: &str, links: Vec<ServerLink>, seed: u64) -> Result<Self, FileError> {
        let source = Source(text);
        let file: File = source.parse()?;
        let mut config = Self {
            links,
            pools: Vec::new(),
            reservations: Vec::new(),
            lease: time(source, file.lease.as_ref(), "lease", LEASE_TIMES, 3600)?,
            rest: time(source, file.rest.as_ref(), "rest", REST_TIMES, 240)?,
            quarantine: time(source, file.quarantine.as_ref(), "quarantine", REST_TIMES, 3600)?,
            dns: Vec::new(),
            domain: None,
            seed,
        };
        if let Some(dns) = file.dns {
            if dns.get_ref().len() > MAX_DNS {
                return Err(source.error(&dns, "dns", format!("write at most {MAX_DNS} addresses")));
            }
            config.dns = dns.into_inner();
        }
        if let Some(domain) = file.domain {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            let text = domain.get_ref();
            if !(1..=MAX_DOMAIN).contains(&text.len()) || !text.bytes().all(valid) {
                return Err(source.error(&domain, "domain", "write a domain name, as lab.example"));
            }
            config.domain = Some(domain.into_inner());
        }
        for pool in &file.shared {
            config.add_shared(source, pool)?;
        }
        for pool in &file.whole {
            if let Some(scheme) = &pool.scheme {
                return Err(source.error(scheme, "whole.scheme", "goes with [[shared]] only"));
            }
            config.add_pool(source, pool, PoolKind::Whole)?;
        }
        for reservation in &file.reservation {
            let sound = config.reservation(source, reservation)?;
            let overlaps = |other: &Reservation| other.ip == sound.ip && other.set.intersects(sound.set);
            if config.reservations.iter().any(overlaps) {
                let message = "has ports that another reservation has";
                return Err(source.error(&reservation.address, "reservation.address", message));
            }
            config.check_portless(source, reservation, &sound)?;
            config.reservations.push(sound);
        }
        Ok(config)
    }

    fn add_shared(&mut self, source: Source<'_>, pool: &FilePool) -> Result<(), FileError> {
        let Some(scheme) = &pool.scheme else {
            return Err(source.error(
                &pool.addresses,
                "shared.scheme",
                "is missing: write [A, K], as [0, 4]",
            ));
        };
        let [offset, length] = *scheme.get_ref();
        let valid = Scheme::new(offset, length)
            .map_err(|error| source.error(scheme, "shared.scheme", error.to_string()))?;
        if valid.first_user_psid().is_none() {
            let message = "every set has ports below 1024, which belong to nobody: write [0, 4] or [6, 6]";
            return Err(source.error(scheme, "shared.scheme", message));
        }
        self.add_pool(source, pool, PoolKind::Shared(valid))
    }

    fn add_pool(&mut self, source: Source<'_>, pool: &FilePool, kind: PoolKind) -> Result<(), FileError> {
        let [addresses, network, router] = match kind {
            PoolKind::Shared(_) => ["shared.addresses", "shared.network", "shared.router"],
            PoolKind::Whole => ["whole.addresses", "whole.network", "whole.router"],
        };
        let wrong = |message: &str| source.error(&pool.addresses, addresses, message);
        let (first, last) = range(pool.addresses.get_ref())
            .ok_or_else(|| wrong("write ADDRESS or FIRST-LAST, as 198.51.100.2-198.51.100.9"))?;
        let link = self.links.iter().find(|link| link.address.contains_addr(&first));
        let prefix = match (&pool.network, link) {
            (Some(text), _) => source.prefix(text, text.get_ref(), network)?,
            (None, Some(link)) => link.address.network(),
            (None, None) => {
                return Err(wrong("is not on the LAN: for a network behind a relay, write `network` too"));
            }
        };
        let on_link = link.filter(|link| link.address.network() == prefix);
        let router = match (&pool.router, on_link.and_then(|link| link.router)) {
            (Some(given), _) if prefix.contains_addr(given.get_ref()) => *given.get_ref(),
            (Some(given), _) => return Err(source.error(given, router, "is not in the network of the pool")),
            (None, Some(router)) => router,
            (None, None) => return Err(wrong("needs `router`, the router that its clients are told of")),
        };
        let pool = Pool { network: prefix, router, first, last, kind };
        let is_in = |ip: Ipv4Addr| pool.has_address(ip);
        if !prefix.contains_addr(&first) || !prefix.contains_addr(&last) {
            return Err(wrong("is not all in one network"));
        }
        if is_in(prefix.address()) || prefix.broadcast().is_some_and(is_in) {
            return Err(wrong("has an address that is no host's in its network"));
        }
        if is_in(router) || self.own_addresses().any(is_in) {
            return Err(wrong("has the own address of a router, or of this server"));
        }
        if self.pools.iter().any(|other| other.first <= pool.last && pool.first <= other.last) {
            return Err(wrong("overlaps another pool"));
        }
        let slots: u64 = self.pools.iter().map(Pool::size).sum();
        if slots + pool.size() > MAX_SLOTS {
            return Err(wrong(&format!("makes more than {MAX_SLOTS} leases possible")));
        }
        self.pools.push(pool);
        Ok(())
    }

    fn reservation(&self, source: Source<'_>, file: &FileReservation) -> Result<Reservation, FileError> {
        let ip = *file.address.get_ref();
        let wrong = |message: &str| source.error(&file.address, "reservation.address", message);
        let who = match (&file.client, &file.link_address) {
            (Some(client), None) => {
                let parsed: Result<ClientId, String> = client.get_ref().parse();
                Who::Client(parsed.map_err(|message| source.error(client, "reservation.client", message))?)
            }
            (None, Some(text)) => {
                let parsed: Option<EthernetAddress> = text.get_ref().parse().ok();
                let valid = parsed.filter(|address| is_station(*address));
                let message = "write the address of one host, as 02:00:00:00:02:01";
                let error = || source.error(text, "reservation.link_address", message);
                Who::Hardware(valid.ok_or_else(error)?)
            }
            _ => return Err(wrong("write either `client` or `link_address` with it")),
        };
        let pool = self.pools.iter().find(|pool| pool.has_address(ip));
        let scheme = pool.and_then(|pool| match pool.kind {
            PoolKind::Shared(scheme) => Some(scheme),
            PoolKind::Whole => None,
        });
        let set = match (&file.psid, &file.port, scheme) {
            (Some(psid), None, Some(scheme)) => Psid::new(scheme, *psid.get_ref())
                .map_err(|error| source.error(psid, "reservation.psid", error.to_string()))?,
            (None, Some(port), Some(scheme)) => {
                let set = Psid::single(*port.get_ref());
                let given = scheme.covers(set.value())
                    && scheme.first_user_psid().is_some_and(|first| scheme.psid_of(set.value()) >= first);
                if given || set.value() == 0 {
                    let message = "is in a set that the pool gives, or 0: reserve that set, or another port";
                    return Err(source.error(port, "reservation.port", message));
                }
                set
            }
            (None, None, None) => Psid::FULL,
            (Some(_), Some(_), _) => return Err(wrong("write `psid` or `port` with it, not both")),
            (None, None, Some(_)) => return Err(wrong("is shared: write `psid` or `port` with it")),
            (_, _, None) => return Err(wrong("is of no [[shared]] pool, so that it has no sets")),
        };
        if self.own_addresses().any(|own| own == ip) {
            return Err(wrong("is the own address of a router, or of this server"));
        }
        if pool.is_none() {
            match self.links.iter().find(|link| link.address.contains_addr(&ip)) {
                None => return Err(wrong("is not on the LAN and in no pool")),
                Some(link) if link.router.is_none() => {
                    return Err(wrong(
                        "is in no pool, which would say the `router` that its client is told of",
                    ));
                }
                Some(_) => {}
            }
        }
        let portless = portless(source, file)?;
        if set == Psid::FULL && !portless.is_empty() {
            return Err(wrong("is whole, so that its client has everything that has no port, too"));
        }
        Ok(Reservation { who, ip, set, portless })
    }

    /// PE-ARP rule 66: what has no port has one owner at an address.
    fn check_portless(
        &self,
        source: Source<'_>,
        file: &FileReservation,
        sound: &Reservation,
    ) -> Result<(), FileError> {
        let others = || self.reservations.iter().filter(|other| other.ip == sound.ip);
        let twice =
            |protocol: &u8| others().any(|other| other.portless.protocols().any(|one| one == *protocol));
        if let (Some(list), Some(protocol)) = (&file.portless, sound.portless.protocols().find(twice)) {
            let message = format!("IP protocol {protocol} of this address is another reservation's");
            return Err(source.error(list, "reservation.portless", message));
        }
        if let Some(residual) = &file.residual
            && sound.portless.is_residual()
            && others().any(|other| other.portless.is_residual())
        {
            let message = "another reservation of this address has it: only one can";
            return Err(source.error(residual, "reservation.residual", message));
        }
        Ok(())
    }

    /// What the server and the routers of its links have.
    fn own_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.links.iter().flat_map(|link| [Some(link.address.address()), link.router]).flatten()
    }
}
