//! The lease file: one line per change of a lease, only ever appended to, with a checksum in front.
//!
//! ```text
//! pearp leases 1
//! 1f3a09c2 {"address":"198.51.100.2","set":"0,4,3","client":"01:02:00:00:00:02:01",…}
//! ```
//!
//! The last line of an address and set is what counts now. The last line of each client that had it before is its
//! history: it tells from when until when ([`read_holdings`], `pearp who`). A line that was being written when the power
//! failed is cut off; nobody was told of its lease. When most lines are outdated, the file is written anew beside itself,
//! without what renewals have outdated and without history that is older than [`HISTORY`], and renamed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use smoltcp::time::Instant;

use crate::dhcp::{Lease, LeaseState};
use crate::ports::Psid;
use crate::wire::written;

const HEADER: &str = "pearp leases 1\n";
/// Bytes of a checksum in hexadecimal, and the space behind it.
const CHECKSUM: usize = 9;
/// Outdated lines before the file is written anew, beside as many as there are leases.
const SPARE_LINES: usize = 1024;
/// How long it is kept who had what.
const HISTORY: Duration = Duration::from_secs(366 * 86_400);
/// Between two log lines about a file that cannot be written.
const COMPLAIN_AGAIN: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    address: Ipv4Addr,
    /// `a,k,psid`; a whole address has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set: Option<String>,
    client: String,
    link_address: String,
    state: String,
    /// Since 1970, as the others.
    until_micros: i64,
    since_micros: i64,
    held_until_micros: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_name: Option<String>,
}

impl Stored {
    fn of(lease: &Lease, epoch: i64) -> Self {
        Self {
            address: lease.ip,
            set: (lease.set != Psid::FULL).then(|| lease.set.to_string()),
            client: lease.client.to_string(),
            link_address: written(lease.hardware),
            state: lease.state.name().to_owned(),
            until_micros: epoch.saturating_add(lease.until.total_micros()),
            since_micros: epoch.saturating_add(lease.since.total_micros()),
            held_until_micros: epoch.saturating_add(lease.held_until.total_micros()),
            host_name: lease.host_name.clone(),
        }
    }

    /// What is the same in all lines of one time that a client had a slot.
    fn holding(&self) -> (Ipv4Addr, Option<&str>, &str, i64) {
        (self.address, self.set.as_deref(), &self.client, self.since_micros)
    }

    fn into_lease(self, epoch: i64) -> Option<Lease> {
        let instant = |micros: i64| Instant::from_micros(micros.saturating_sub(epoch));
        Some(Lease {
            client: self.client.parse().ok()?,
            hardware: self.link_address.parse().ok()?,
            ip: self.address,
            set: self.set.map_or(Some(Psid::FULL), |set| set.parse().ok())?,
            state: LeaseState::from_name(&self.state)?,
            until: instant(self.until_micros),
            since: instant(self.since_micros),
            held_until: instant(self.held_until_micros),
            host_name: self.host_name,
        })
    }
}

fn line(stored: &Stored, out: &mut Vec<u8>) -> io::Result<()> {
    let json = serde_json::to_string(stored)?;
    writeln!(out, "{:08x} {json}", crc32fast::hash(json.as_bytes()))
}

/// What a line says, if its checksum is right.
fn stored(line: &[u8]) -> Option<Stored> {
    let (checksum, json) = line.split_at_checked(CHECKSUM)?;
    let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn parse(line: &[u8], epoch: i64) -> Option<Lease> {
    stored(line)?.into_lease(epoch)
}

/// That somebody had an address and set for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The address.
    pub address: Ipv4Addr,
    /// The ports; [`Psid::FULL`] where the address is whole.
    pub set: Psid,
    /// The client identifier.
    pub client: String,
    /// The link-layer address.
    pub link_address: String,
    /// What the client called itself.
    pub host_name: Option<String>,
    /// From when, in microseconds since 1970.
    pub from: i64,
    /// Until when: what is over, or what has been promised.
    pub until: i64,
}

impl Holding {
    fn of(stored: Stored) -> Option<Self> {
        Some(Self {
            address: stored.address,
            set: stored.set.map_or(Some(Psid::FULL), |set| set.parse().ok())?,
            client: stored.client,
            link_address: stored.link_address,
            host_name: stored.host_name,
            from: stored.since_micros,
            until: stored.held_until_micros,
        })
    }
}

/// The lines that are the last ones of their client, in the order of the file.
fn last_lines(bytes: &[u8]) -> Vec<(&[u8], Stored)> {
    let mut lines: Vec<Option<(&[u8], Stored)>> = Vec::new();
    let mut last: BTreeMap<(Ipv4Addr, Option<String>), usize> = BTreeMap::new();
    for line in bytes.split(|byte| *byte == b'\n').skip(1) {
        let Some(stored) = stored(line) else { continue };
        let before = last.insert((stored.address, stored.set.clone()), lines.len());
        if let Some(place) = before.and_then(|at| lines.get_mut(at))
            && place.as_ref().is_some_and(|(_, before)| before.holding() == stored.holding())
        {
            *place = None;
        }
        lines.push(Some((line, stored)));
    }
    lines.into_iter().flatten().collect()
}

/// Who had what, from the oldest line of a lease file to the newest. A server may have it open meanwhile.
///
/// # Errors
/// Where the file cannot be read, or is no lease file.
pub fn read_holdings(path: &Path) -> anyhow::Result<Vec<Holding>> {
    let shown = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read the lease file {shown}"))?;
    if !bytes.starts_with(HEADER.as_bytes()) {
        bail!("{shown} is no lease file");
    }
    let holdings = last_lines(&bytes).into_iter().filter_map(|(_, stored)| Holding::of(stored));
    Ok(holdings.filter(|holding| holding.from < holding.until).collect())
}

/// The lease file, open and locked.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Wall-clock time of [`Instant::ZERO`], in microseconds since 1970.
    epoch: i64,
    /// Bytes that are known to be sound.
    len: u64,
    lines: usize,
    /// How many lines there may be before the file is written anew.
    max_lines: usize,
    /// What the disk has is not known: after an error of fsync the kernel takes what was lost for written.
    suspect: bool,
    /// When the last complaint was made.
    complained: Option<Instant>,
}

impl Journal {
    /// Opens a lease file, or makes one; and the leases in it. `epoch` is the wall-clock time of [`Instant::ZERO`].
    ///
    /// # Errors
    /// Where the file cannot be used, is in use, is none of these, or is damaged before its end.
    pub fn open(path: &Path, epoch: Duration) -> anyhow::Result<(Self, Vec<Lease>)> {
        let shown = path.display();
        let epoch = i64::try_from(epoch.as_micros()).unwrap_or(i64::MAX);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot open the lease file {shown}"))?;
        if file.try_lock().is_err() {
            bail!("the lease file {shown} is in use: end the other router, or name another file");
        }
        let bytes = fs::read(path).with_context(|| format!("cannot read the lease file {shown}"))?;
        let mut journal = Self {
            file,
            path: path.to_owned(),
            epoch,
            len: 0,
            lines: 0,
            max_lines: SPARE_LINES,
            suspect: false,
            complained: None,
        };
        let leases = journal.load(&bytes)?;
        if journal.len == 0 {
            journal
                .file
                .write_all_at(HEADER.as_bytes(), 0)
                .and_then(|()| journal.file.set_len(HEADER.len() as u64))
                .with_context(|| format!("cannot write the lease file {shown}"))?;
            journal.len = HEADER.len() as u64;
        } else if journal.len < bytes.len() as u64 {
            tracing::warn!(file = %shown, bytes = bytes.len() as u64 - journal.len,
                "the last line of the lease file was not complete and is cut off: nobody was told of that lease");
            journal
                .file
                .set_len(journal.len)
                .with_context(|| format!("cannot repair the lease file {shown}"))?;
        }
        journal
            .file
            .sync_all()
            .and_then(|()| sync_directory(path))
            .with_context(|| format!("cannot write the lease file {shown}"))?;
        journal.max_lines = 2 * leases.len() + SPARE_LINES;
        Ok((journal, leases))
    }

    fn load(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Lease>> {
        let shown = self.path.display();
        // Also a header that was being written.
        if HEADER.as_bytes().starts_with(bytes) && bytes.len() < HEADER.len() {
            return Ok(Vec::new());
        }
        let Some(mut rest) = bytes.strip_prefix(HEADER.as_bytes()) else {
            bail!("{shown} is no lease file: name another one with --lease-file");
        };
        self.len = HEADER.len() as u64;
        let mut leases = BTreeMap::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            match parse(line, self.epoch) {
                Some(lease) => drop(leases.insert((lease.ip, lease.set), lease)),
                None if after.is_empty() => break,
                None => bail!(
                    "line {} of the lease file {shown} is damaged, and sound ones follow: put a copy of the file in \
                     its place, or delete the line and with it that lease",
                    self.lines + 2
                ),
            }
            self.lines += 1;
            self.len += line.len() as u64 + 1;
            rest = after;
        }
        Ok(leases.into_values().collect())
    }

    /// Where it is written anew.
    pub fn directory(&self) -> PathBuf {
        directory(&self.path).to_owned()
    }

    /// Puts changed leases on the disk; `all` are all of them as they are now. True when they are there.
    pub fn store<'a>(
        &mut self,
        changed: &[Lease],
        all: impl Iterator<Item = &'a Lease> + Clone,
        now: Instant,
    ) -> bool {
        let result = self.try_store(changed, all, now);
        match (&result, self.complained) {
            (Ok(()), Some(_)) => {
                tracing::info!(file = %self.path.display(), "the lease file can be written again");
                self.complained = None;
            }
            (Err(error), complained) if complained.is_none_or(|at| now >= at + COMPLAIN_AGAIN) => {
                tracing::error!(file = %self.path.display(), %error,
                    "the lease file cannot be written, and until it can no lease is given: free space on its file \
                     system, or make it writable");
                self.complained = Some(now);
            }
            _ => {}
        }
        result.is_ok()
    }

    fn try_store<'a>(
        &mut self,
        changed: &[Lease],
        all: impl Iterator<Item = &'a Lease> + Clone,
        now: Instant,
    ) -> io::Result<()> {
        if self.suspect {
            return self.rewrite(all, now);
        }
        if self.lines + changed.len() > self.max_lines {
            match self.rewrite(all, now) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(file = %self.path.display(), %error, "the lease file cannot be made shorter");
                    self.max_lines = 2 * (self.lines + changed.len());
                }
            }
        }
        let mut bytes = Vec::new();
        for lease in changed {
            line(&Stored::of(lease, self.epoch), &mut bytes)?;
        }
        if let Err(error) = self.file.write_all_at(&bytes, self.len) {
            // A part may have been written. What cannot be cut off now is written over by the next line, or cut off
            // as incomplete.
            self.suspect = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        self.file.sync_data().inspect_err(|_| self.suspect = true)?;
        self.len += bytes.len() as u64;
        self.lines += changed.len();
        Ok(())
    }

    /// Writes a file with one line per lease in place of this one.
    fn rewrite<'a>(&mut self, all: impl Iterator<Item = &'a Lease>, now: Instant) -> io::Result<()> {
        let mut bytes = HEADER.as_bytes().to_vec();
        let mut lines = 0;
        let mut before = vec![0; usize::try_from(self.len).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut before, 0)?;
        let oldest = self.epoch.saturating_add(now.total_micros()).saturating_sub(HISTORY.as_micros() as i64);
        // What is only offered is not written; who had it before is.
        let all = all.filter(|lease| lease.state != LeaseState::Offered);
        let all: Vec<_> = all.map(|lease| Stored::of(lease, self.epoch)).collect();
        let current: BTreeSet<_> = all.iter().map(Stored::holding).collect();
        for (line, stored) in last_lines(&before) {
            let held = stored.since_micros < stored.held_until_micros && stored.held_until_micros >= oldest;
            if held && !current.contains(&stored.holding()) {
                bytes.extend(line);
                bytes.push(b'\n');
                lines += 1;
            }
        }
        for stored in &all {
            line(stored, &mut bytes)?;
            lines += 1;
        }
        let mut file = tempfile::NamedTempFile::new_in(directory(&self.path))?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.as_file().try_lock()?;
        self.file = file.persist(&self.path)?;
        (self.len, self.lines, self.max_lines) = (bytes.len() as u64, lines, 2 * lines + SPARE_LINES);
        // Without this the old file may come back after a power failure.
        self.suspect = true;
        sync_directory(&self.path)?;
        self.suspect = false;
        Ok(())
    }
}

pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::ClientId;
    use smoltcp::wire::EthernetAddress;

    const EPOCH: Duration = Duration::from_secs(1_700_000_000);

    fn lease(number: u32) -> Lease {
        let [.., high, low] = number.to_be_bytes();
        let hardware = EthernetAddress([2, 0, 0, 0, high, low]);
        Lease {
            client: ClientId::of_hardware(hardware),
            hardware,
            ip: Ipv4Addr::from(0x0A00_0000 + number / 15),
            set: Psid::new("0,4".parse().unwrap(), 1 + (number % 15) as u16).unwrap(),
            state: LeaseState::Bound,
            until: Instant::from_secs(3600 + i64::from(number)),
            since: Instant::ZERO,
            held_until: Instant::from_secs(3600 + i64::from(number)),
            host_name: number.is_multiple_of(2).then(|| format!("h{number}")),
        }
    }

    fn store(journal: &mut Journal, changed: &[Lease], all: &[Lease]) -> bool {
        journal.store(changed, all.iter(), Instant::ZERO)
    }

    #[test]
    fn leases_are_read_as_they_were_written() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("leases");
        let mut whole = lease(3);
        whole.set = Psid::FULL;
        let (mut journal, leases) = Journal::open(&path, EPOCH).unwrap();
        assert!(leases.is_empty());
        let error = Journal::open(&path, EPOCH).unwrap_err();
        assert!(error.to_string().contains("is in use"), "{error}");
        assert!(store(&mut journal, &[lease(1), lease(2)], &[]));
        let released = Lease { state: LeaseState::Released, ..lease(1) };
        assert!(store(&mut journal, &[released.clone(), whole.clone()], &[]));
        drop(journal);
        // A minute later, by the wall clock.
        let (_, mut leases) = Journal::open(&path, EPOCH + Duration::from_secs(60)).unwrap();
        for at in
            leases.iter_mut().flat_map(|lease| [&mut lease.until, &mut lease.since, &mut lease.held_until])
        {
            *at += smoltcp::time::Duration::from_secs(60);
        }
        let mut expected = vec![released, lease(2), whole];
        expected.sort_by_key(|lease| (lease.ip, lease.set));
        assert_eq!(leases, expected);
    }

    #[test]
    fn a_line_that_was_being_written_is_cut_off() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("leases");
        let (mut journal, _) = Journal::open(&path, EPOCH).unwrap();
        assert!(store(&mut journal, &[lease(1)], &[]));
        let sound = fs::read(&path).unwrap();
        assert!(store(&mut journal, &[lease(2)], &[]));
        drop(journal);
        let longer = fs::read(&path).unwrap();
        for len in 0..longer.len() {
            fs::write(&path, &longer[..len]).unwrap();
            let (_, leases) = Journal::open(&path, EPOCH).unwrap();
            assert_eq!(leases.len(), usize::from(len >= sound.len()), "{len} bytes");
            if len >= sound.len() {
                assert_eq!(fs::read(&path).unwrap(), sound, "{len} bytes");
            }
        }
        // Bytes that never reached the disk.
        let mut zeros = longer.clone();
        zeros[sound.len() + 3..].fill(0);
        fs::write(&path, &zeros).unwrap();
        assert_eq!(Journal::open(&path, EPOCH).unwrap().1.len(), 1);
    }

    #[test]
    fn damage_is_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("leases");
        let (mut journal, _) = Journal::open(&path, EPOCH).unwrap();
        assert!(store(&mut journal, &[lease(1), lease(2)], &[]));
        drop(journal);
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEADER.len() + 20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = Journal::open(&path, EPOCH).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("delete the line"), "{error}");
        for foreign in ["lease = 3600\n", "p", "pearp leases 2\n"] {
            fs::write(&path, foreign).unwrap();
            let result = Journal::open(&path, EPOCH);
            assert_eq!(result.is_ok(), foreign == "p", "{foreign}");
            assert_eq!(fs::read_to_string(&path).unwrap() == foreign, foreign != "p", "it is left alone");
        }
    }

    #[test]
    fn a_file_with_outdated_lines_is_written_anew() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("leases");
        let (mut journal, _) = Journal::open(&path, EPOCH).unwrap();
        let all: Vec<_> = (0..10).map(lease).collect();
        for round in 0..1000 {
            assert!(store(&mut journal, &all[..(round % 10) + 1], &all));
        }
        assert!(journal.lines <= SPARE_LINES + 2 * all.len());
        let error = Journal::open(&path, EPOCH).unwrap_err();
        assert!(error.to_string().contains("is in use"), "the new one is locked, too: {error}");
        drop(journal);
        assert_eq!(Journal::open(&path, EPOCH).unwrap().1.len(), 10);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_full_disk_is_survived() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("leases");
        let (mut journal, _) = Journal::open(&path, EPOCH).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut journal.file, full);
        assert!(!store(&mut journal, &[lease(1)], &[lease(1)]));
        assert!(journal.complained.is_some());
        journal.file = good;
        assert!(store(&mut journal, &[lease(2)], &[lease(2)]));
        assert!(journal.complained.is_none());
        drop(journal);
        assert_eq!(Journal::open(&path, EPOCH).unwrap().1, [lease(2)]);
    }

    /// Three clients have a set one after the other; the second one renews it many times.
    #[test]
    fn who_had_what_outlives_the_rewriting() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("leases");
        let (mut journal, _) = Journal::open(&path, EPOCH).unwrap();
        let at = Instant::from_secs;
        let held = |number: u32, from: i64, until: i64, state| Lease {
            client: lease(number).client,
            hardware: lease(number).hardware,
            state,
            until: at(until),
            since: at(from),
            held_until: at(until),
            ..lease(0)
        };
        let bound = LeaseState::Bound;
        let rest = Lease { until: at(740), ..held(1, 0, 500, LeaseState::Released) };
        let mut line = |changed: Lease, now| {
            let all = [changed.clone(), lease(7)];
            assert!(journal.store(&[changed], all.iter(), at(now)));
            journal.lines
        };
        line(held(1, 0, 600, bound), 0);
        line(rest, 500);
        for renewal in 0..3000 {
            line(held(2, 1000, 2000 + renewal, bound), 1000 + renewal);
        }
        // Offered to somebody who never asked for it, and declined.
        line(held(4, 6000, 6000, LeaseState::Quarantined), 6000);
        let lines = line(held(3, 7000, 8000, bound), 7000);
        assert!(lines < 1500, "{lines} lines");
        let found: Vec<_> = read_holdings(&path)
            .unwrap()
            .into_iter()
            .filter(|holding| holding.set == lease(0).set && holding.address == lease(0).ip)
            .map(|holding| {
                let seconds = |micros: i64| micros / 1_000_000 - EPOCH.as_secs() as i64;
                (holding.link_address, seconds(holding.from), seconds(holding.until))
            })
            .collect();
        let mac = |number| format!("02:00:00:00:00:0{number}");
        assert_eq!(found, [(mac(1), 0, 500), (mac(2), 1000, 4999), (mac(3), 7000, 8000)]);
        // While the set is offered to somebody, what the last one had is not forgotten.
        let offered = held(5, 8100, 8100, LeaseState::Offered);
        for round in 0..2000 {
            let all = [offered.clone(), Lease { until: at(9000 + round), ..lease(7) }];
            assert!(journal.store(&all[1..], all.iter(), at(8100)));
        }
        assert!(journal.lines < 1500, "{} lines", journal.lines);
        let left = read_holdings(&path).unwrap();
        assert!(left.iter().any(|holding| holding.link_address == mac(3)), "{left:?}");
        let mut line = |changed: Lease, now| {
            let all = [changed.clone(), lease(7)];
            assert!(journal.store(&[changed], all.iter(), at(now)));
        };
        // What is older than a year goes.
        let year = 366 * 86_400;
        for renewal in 0..2000 {
            line(held(3, 7000, year + 2000 + renewal, bound), year + 1000 + renewal);
        }
        let left = read_holdings(&path).unwrap();
        let old = left.iter().filter(|holding| holding.link_address == mac(1)).count();
        assert_eq!(old, 0, "{left:?}");
        assert!(left.iter().any(|holding| holding.link_address == mac(2)));
    }

    #[test]
    fn ten_thousand_leases_load_within_a_second() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("leases");
        let (mut journal, _) = Journal::open(&path, EPOCH).unwrap();
        let all: Vec<_> = (0..10_000).map(lease).collect();
        assert!(store(&mut journal, &all, &all));
        drop(journal);
        let begin = std::time::Instant::now();
        let (_, leases) = Journal::open(&path, EPOCH).unwrap();
        let took = begin.elapsed();
        assert_eq!(leases.len(), all.len());
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
