//! What a host keeps over a restart: its leases in a small file, written beside itself and renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use smoltcp::time::Instant;
use smoltcp::wire::Ipv4Cidr;

use super::journal::directory;
use crate::dhcp::ClientId;
use crate::dhcp::client::ClientLease;
use crate::ports::{Portless, Psid};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Whose leases these are: the client of the first one.
    client: String,
    leases: Vec<StoredLease>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLease {
    iaid: u32,
    address: Ipv4Addr,
    prefix_len: u8,
    /// `a,k,psid`; a whole address has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<String>,
    /// What has no port and goes with it, as `47,residual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    portless: Option<String>,
    gateway: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    server: Ipv4Addr,
    /// Since 1970.
    renew_micros: i64,
    rebind_micros: i64,
    until_micros: i64,
}

/// The lease file of a host.
#[derive(Debug)]
pub struct LeaseFile {
    path: PathBuf,
    client: ClientId,
    /// Wall-clock time of [`Instant::ZERO`], in microseconds since 1970.
    epoch: i64,
}

impl LeaseFile {
    /// A file for the leases of a host whose first client is `client`; it need not be there yet; `epoch` is the wall-clock time of
    /// [`Instant::ZERO`].
    ///
    /// # Errors
    /// Where it could not be written: its directory is missing, or it is a directory.
    pub fn new(path: PathBuf, client: ClientId, epoch: Duration) -> anyhow::Result<Self> {
        let place = directory(&path);
        if !place.is_dir() {
            bail!("the lease file {}: there is no directory {}", path.display(), place.display());
        }
        if path.is_dir() {
            bail!("the lease file {} is a directory: name a file in it", path.display());
        }
        let epoch = i64::try_from(epoch.as_micros()).unwrap_or(i64::MAX);
        Ok(Self { path, client, epoch })
    }

    /// Where it is written anew.
    pub fn directory(&self) -> PathBuf {
        directory(&self.path).to_owned()
    }

    /// What the host had before, by IAID. A file that cannot be understood is no reason not to start: the server knows.
    pub fn load(&self) -> Vec<(u32, ClientLease)> {
        let shown = self.path.display();
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!("cannot read the lease file {shown}, and begin without: {error}");
                return Vec::new();
            }
        };
        let stored = serde_json::from_str::<Stored>(&text).ok();
        let own = stored.filter(|stored| stored.client == self.client.to_string());
        let leases: Option<Vec<_>> =
            own.and_then(|stored| stored.leases.into_iter().map(|lease| self.lease(lease)).collect());
        leases.unwrap_or_else(|| {
            tracing::warn!("the lease file {shown} has no leases of this host, and is not used");
            Vec::new()
        })
    }

    fn lease(&self, stored: StoredLease) -> Option<(u32, ClientLease)> {
        let instant = |micros: i64| Instant::from_micros(micros.saturating_sub(self.epoch));
        if stored.prefix_len > 32 {
            return None;
        }
        let lease = ClientLease {
            address: Ipv4Cidr::new(stored.address, stored.prefix_len),
            set: stored.set.map_or(Some(Psid::FULL), |set| set.parse().ok())?,
            portless: stored.portless.map_or(Some(Portless::default()), |text| text.parse().ok())?,
            gateway: stored.gateway,
            dns: stored.dns,
            domain: stored.domain,
            server: stored.server,
            renew: instant(stored.renew_micros),
            rebind: instant(stored.rebind_micros),
            until: instant(stored.until_micros),
        };
        Some((stored.iaid, lease))
    }

    /// Keeps these leases in place of what was kept.
    ///
    /// # Errors
    /// Where the file cannot be written; what was kept before is still there.
    pub fn store(&self, leases: &[(u32, ClientLease)]) -> anyhow::Result<()> {
        let result = match leases {
            [] => match fs::remove_file(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            },
            leases => self.write(leases),
        };
        result.with_context(|| format!("cannot write the lease file {}", self.path.display()))
    }

    fn write(&self, leases: &[(u32, ClientLease)]) -> io::Result<()> {
        let micros = |at: Instant| self.epoch.saturating_add(at.total_micros());
        let stored = |(iaid, lease): &(u32, ClientLease)| StoredLease {
            iaid: *iaid,
            address: lease.address.address(),
            prefix_len: lease.address.prefix_len(),
            set: (lease.set != Psid::FULL).then(|| lease.set.to_string()),
            portless: (!lease.portless.is_empty()).then(|| lease.portless.to_string()),
            gateway: lease.gateway,
            dns: lease.dns.clone(),
            domain: lease.domain.clone(),
            server: lease.server,
            renew_micros: micros(lease.renew),
            rebind_micros: micros(lease.rebind),
            until_micros: micros(lease.until),
        };
        let leases = leases.iter().map(stored).collect();
        let stored = Stored { client: self.client.to_string(), leases };
        let mut file = tempfile::NamedTempFile::new_in(directory(&self.path))?;
        serde_json::to_writer(&mut file, &stored)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(directory(&self.path))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use smoltcp::wire::EthernetAddress;

    const EPOCH: Duration = Duration::from_secs(1_700_000_000);

    fn file(path: &Path, last: u8, epoch: Duration) -> LeaseFile {
        let client = ClientId::of_hardware(EthernetAddress([2, 0, 0, 0, 0, last]));
        LeaseFile::new(path.to_owned(), client, epoch).unwrap()
    }

    fn lease(set: &str) -> ClientLease {
        ClientLease {
            address: "198.51.100.2/24".parse().unwrap(),
            set: set.parse().unwrap(),
            portless: Portless::default(),
            gateway: Some(Ipv4Addr::new(198, 51, 100, 1)),
            dns: vec![Ipv4Addr::new(198, 51, 100, 1)],
            domain: Some("lab.example".to_owned()),
            server: Ipv4Addr::new(198, 51, 100, 1),
            renew: Instant::from_secs(1800),
            rebind: Instant::from_secs(3150),
            until: Instant::from_secs(3600),
        }
    }

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lease");
        for set in ["0,4,3", "0,0,0"] {
            assert_eq!(file(&path, 1, EPOCH).load(), []);
            let more = ClientLease { portless: "41,47,residual".parse().unwrap(), ..lease("6,8,1") };
            let written = [(0, lease(set)), (7, more)];
            file(&path, 1, EPOCH).store(&[(0, lease("6,8,52"))]).unwrap();
            file(&path, 1, EPOCH).store(&written).unwrap();
            // A minute later, by the wall clock.
            let mut read = file(&path, 1, EPOCH + Duration::from_secs(60)).load();
            for (_, lease) in &mut read {
                for at in [&mut lease.renew, &mut lease.rebind, &mut lease.until] {
                    *at += smoltcp::time::Duration::from_secs(60);
                }
            }
            assert_eq!(read, written);
            assert_eq!(file(&path, 2, EPOCH).load(), [], "of another host");
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing is left behind");
            for _ in 0..2 {
                file(&path, 1, EPOCH).store(&[]).unwrap();
            }
        }
    }

    #[test]
    fn what_is_no_lease_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lease");
        let file = file(&path, 1, EPOCH);
        file.store(&[(0, lease("0,4,3"))]).unwrap();
        let sound = fs::read(&path).unwrap();
        for length in 0..sound.len() - 2 {
            fs::write(&path, &sound[..length]).unwrap();
            assert_eq!(file.load(), [], "{length} bytes");
        }
        fs::write(&path, &sound).unwrap();
        assert_eq!(file.load().len(), 1);
        let text = String::from_utf8(sound).unwrap();
        assert!(!text.contains("portless"), "as before there was such a thing");
        let with =
            |value: &str| text.replace("\"gateway\"", &format!("\"portless\":\"{value}\",\"gateway\""));
        for (value, leases) in [("47", 1), ("6", 0), ("", 0), ("0", 0)] {
            fs::write(&path, with(value)).unwrap();
            assert_eq!(file.load().len(), leases, "{value}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let place = tempfile::tempdir().unwrap();
        let client = || ClientId::of_hardware(EthernetAddress([2, 0, 0, 0, 0, 1]));
        let missing = place.path().join("missing/lease");
        let error = LeaseFile::new(missing, client(), EPOCH).unwrap_err().to_string();
        assert!(error.contains("there is no directory"), "{error}");
        let error = LeaseFile::new(place.path().to_owned(), client(), EPOCH).unwrap_err().to_string();
        assert!(error.contains("is a directory"), "{error}");
    }
}
