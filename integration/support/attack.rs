//! A lab under attack: a victim whose ssh session goes on all the while, and what the router counts, logs and needs.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::lab::{Lab, SHARED};
use super::process::Process;
use super::ssh::{Session, Ssh};
use super::wait::{await_some, await_true};

/// Who shares the address with the liar, and is not to notice.
pub(crate) const VICTIM: &str = "h2";
pub(crate) const VICTIM_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];

/// Between two lines of the victim's session.
const BEAT: Duration = Duration::from_millis(200);
/// Between two lines of one kind in the log of the router (PE-ARP rule 113).
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest that a line may take, there and back: a few retransmissions of TCP on a machine that is busy.
const LONGEST_GAP: Duration = Duration::from_secs(2);
/// What an attack may add to the memory of the router, in KiB, unless a test says otherwise.
pub(crate) const GROWTH: u64 = 8 << 10;

/// The lab, before and while it is attacked.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    /// The port of the victim's sshd.
    pub(crate) port: u16,
    /// The port of its client outside.
    pub(crate) peer: u16,
    beats: Heart,
    memory: u64,
    begin: Instant,
    _sshd: Process,
    _ssh: Ssh,
}

impl Scene {
    #[track_caller]
    pub(crate) fn new(lab: Lab) -> Self {
        let ssh = Ssh::new();
        let ports = lab.ports(VICTIM).into_iter().flat_map(|(first, last)| first..=last).nth(22);
        let port = ports.expect("a host has more than a few ports");
        let sshd = ssh.serve(&lab, VICTIM, port);
        // A flood is to reach the router, and not only its queue.
        lab.exec("lan", &["ip", "link", "set", "router", "txqueuelen", "20000"]).ok();
        lab.exec("wan", &["ip", "link", "set", "router", "txqueuelen", "20000"]).ok();
        let session = ssh.session(&lab, "inet", SHARED, port);
        let (_, peer) = session.peer();
        let memory = lab.memory_kib("router", "VmRSS");
        let beats = Heart::start(session);
        Self { lab, port, peer, beats, memory, begin: Instant::now(), _sshd: sshd, _ssh: ssh }
    }

    /// How often a node has dropped a frame for this reason.
    #[track_caller]
    pub(crate) fn drops(&self, node: &str, reason: &str) -> u64 {
        self.lab.pearp_json(node, &["status"])["drops"][reason].as_u64().unwrap_or(0)
    }

    /// Does something that makes a node drop exactly so many frames for this reason.
    #[track_caller]
    pub(crate) fn dropped(&self, node: &str, reason: &str, attack: impl FnOnce() -> u64) {
        let before = self.drops(node, reason);
        let sent = attack();
        await_true(&format!("{sent} more drops of {reason} at {node}"), || {
            self.drops(node, reason) >= before + sent
        });
        assert_eq!(self.drops(node, reason), before + sent, "{node}: {reason}");
    }

    /// Lines in the log of the router that name this reason.
    #[track_caller]
    fn lines(&self, reason: &str) -> Vec<String> {
        let log = self.lab.run(&["logs", "router"]).ok();
        let reason = format!("reason=\"{reason}\"");
        log.lines().filter(|line| line.contains(&reason)).map(str::to_owned).collect()
    }

    /// The log of the router says who did what, and no more than one line of the kind in a second (PE-ARP rule 113).
    #[track_caller]
    pub(crate) fn logged(&self, reason: &str, words: &[&str]) {
        let says = |line: &String| words.iter().all(|word| line.contains(word));
        await_some(&format!("a line with {reason} and {words:?}"), || {
            self.lines(reason).iter().any(says).then_some(())
        });
        let (count, seconds) = (self.lines(reason).len() as u64, self.begin.elapsed().as_secs());
        assert!(count <= seconds + 1, "{count} lines of {reason} in {seconds} s");
    }

    /// Waits until whoever does something next has a line of its own.
    pub(crate) fn until_lines_are_due() {
        thread::sleep(REPORT_INTERVAL);
    }

    /// Who owns what, as a node sees it, without ages.
    #[track_caller]
    pub(crate) fn owners(&self, node: &str) -> Vec<[serde_json::Value; 3]> {
        let table = self.lab.pearp_json(node, &["arp"]);
        let lines = table.as_array().expect("a list").iter();
        let mut owners: Vec<_> =
            lines.map(|line| ["address", "ports", "link_address"].map(|name| line[name].clone())).collect();
        owners.sort_by_key(|owner| format!("{owner:?}"));
        owners
    }

    /// What the router needs more than before, in KiB.
    #[track_caller]
    pub(crate) fn growth(&self) -> u64 {
        self.lab.memory_kib("router", "VmRSS").saturating_sub(self.memory)
    }

    /// The victim's session has gone on, the router has counted everything once and needs not much more memory.
    #[track_caller]
    pub(crate) fn finish(self, what: &str) {
        self.finish_within(what, GROWTH);
    }

    #[track_caller]
    pub(crate) fn finish_within(self, what: &str, growth: u64) {
        let grown = self.growth();
        self.lab.assert_balanced("router");
        let Beats { count, mean, worst } = self.beats.stop();
        println!("{what}: {count} lines, mean {mean:?}, worst {worst:?}; {grown} KiB more memory");
        assert!(count > 0 && worst < LONGEST_GAP, "{what}: a line took {worst:?}");
        assert!(grown <= growth, "{what}: {grown} KiB more memory");
    }
}

/// What came of a session.
#[derive(Clone, Copy, Debug)]
struct Beats {
    count: u32,
    mean: Duration,
    worst: Duration,
}

/// A session that sends a line now and then, which must come back.
#[derive(Debug)]
struct Heart {
    stop: Sender<()>,
    worker: JoinHandle<Beats>,
}

impl Heart {
    fn start(mut session: Session) -> Self {
        let (stop, stopped) = mpsc::channel();
        let worker = thread::spawn(move || {
            let (mut count, mut sum, mut worst) = (0, Duration::ZERO, Duration::ZERO);
            loop {
                let begin = Instant::now();
                session.echo(&format!("line {count} of the victim."));
                let took = begin.elapsed();
                (count, sum, worst) = (count + 1, sum + took, worst.max(took));
                if stopped.recv_timeout(BEAT) != Err(RecvTimeoutError::Timeout) {
                    session.finish();
                    return Beats { count, mean: sum / count, worst };
                }
            }
        });
        Self { stop, worker }
    }

    #[track_caller]
    fn stop(self) -> Beats {
        drop(self.stop);
        self.worker.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    }
}
