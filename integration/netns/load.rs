//! More than one at a time: logins and bulk transfers.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::lab::{HOSTS, INET, Lab, SHARED, contains, tool};
use crate::support::process::{Process, run};
use crate::support::ssh::Ssh;
use crate::support::wait::within;

const LOGINS_PER_HOST: usize = 20;
const MEGABYTES: u64 = 100;
/// On a machine that is busy with other things.
const TRANSFER_LIMIT: Duration = Duration::from_secs(300);

#[test]
fn sixty_concurrent_logins() {
    let lab = Lab::alone(&[]);
    let ssh = Ssh::new();
    let _sshd = ssh.serve(&lab, "inet", 22);
    let sessions: Vec<_> = HOSTS
        .iter()
        .flat_map(|host| (0..LOGINS_PER_HOST).map(move |_| host))
        .map(|host| (host, ssh.session(&lab, host, INET, 22)))
        .collect();
    let mut seen = BTreeSet::new();
    // None has ended yet when the last one is seen.
    for (host, session) in &sessions {
        let (address, port) = session.peer();
        assert_eq!(address, SHARED);
        assert!(contains(&lab.ports(host), port), "{host} uses {port}");
        seen.insert(port);
    }
    assert_eq!(seen.len(), HOSTS.len() * LOGINS_PER_HOST, "every login has a port of its own");
    for (_, session) in sessions {
        session.finish();
    }
}

#[test]
fn a_hundred_megabytes_from_two_sharers_at_once() {
    let lab = Lab::alone(&[]);
    let ssh = Ssh::new();
    let _sshd = ssh.serve(&lab, "inet", 22);
    let files = TempDir::new().unwrap();
    let path = |name: &str| files.path().join(name);
    let transfers = ["h1", "h2"].map(|host| {
        let mut random = File::open("/dev/urandom").unwrap().take(MEGABYTES << 20);
        io::copy(&mut random, &mut File::create(path(host)).unwrap()).unwrap();
        let remote = format!("{INET}:{}", path(&format!("{host}.copy")).display());
        (host, Process::start(ssh.copier(&lab, host, "scp", 22).arg(path(host)).arg(remote)))
    });
    for (host, mut transfer) in transfers {
        within(TRANSFER_LIMIT, || (!transfer.is_running()).then_some(()));
        assert_eq!(transfer.finish(), Some(0), "{}", transfer.transcript());
        let copy = format!("{host}.copy");
        assert_eq!(fs::metadata(path(&copy)).unwrap().len(), MEGABYTES << 20);
        assert_eq!(hash(&path(host)), hash(&path(&copy)), "{host}");
    }
}

fn hash(path: &std::path::Path) -> String {
    let sum = run(tool("sha256sum").stdin(Stdio::null()).arg(path)).ok();
    sum.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn sftp_both_ways_between_sharers() {
    let lab = Lab::up();
    let ssh = Ssh::new();
    let port = lab.ports("h2")[0].0 + 22;
    let _sshd = ssh.serve(&lab, "h2", port);
    let files = TempDir::new().unwrap();
    let path = |name: &str| files.path().join(name);
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    File::create(path("sent")).unwrap().write_all(&content).unwrap();
    let batch = format!("put {0}/sent {0}/there\nget {0}/there {0}/back\n", files.path().display());
    fs::write(path("batch"), batch).unwrap();
    run(ssh.copier(&lab, "h1", "sftp", port).arg("-b").arg(path("batch")).arg(SHARED)).ok();
    assert_eq!(fs::read(path("back")).unwrap(), content);
}
