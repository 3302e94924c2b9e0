//! A lab of its own for each test, gone with the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::process::{Finished, Process, run, run_with_input};
use super::requirements::{machine, repository};
use super::wait::await_true;

/// The address that the hosts share.
pub(crate) const SHARED: &str = "198.51.100.2";
pub(crate) const LEGACY: &str = "198.51.100.10";
pub(crate) const ROUTER: &str = "198.51.100.1";
/// The server outside.
pub(crate) const INET: &str = "203.0.113.80";
pub(crate) const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// A shared address has these ports for one of its hosts.
pub(crate) type Ranges = Vec<(u16, u16)>;

/// The right to run a lab. Light tests run beside each other; a heavy one, or one that measures time, runs alone,
/// also among several runs of the tests on this machine.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held until dropped")] File);

impl Turn {
    pub(crate) fn beside_others() -> Self {
        let file = Self::file();
        file.lock_shared().expect("a file can be locked");
        Self(file)
    }

    pub(crate) fn alone() -> Self {
        let file = Self::file();
        file.lock().expect("a file can be locked");
        Self(file)
    }

    /// The program itself serves as the lock, so that nothing is left behind.
    fn file() -> File {
        File::open(&machine().pearp).expect("the program can be read")
    }
}

/// A lab that is up; `down` when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    name: String,
    up_took: Duration,
    _turn: Turn,
}

impl Lab {
    /// The lab as it is without options.
    #[track_caller]
    pub(crate) fn up() -> Self {
        Self::with(&[])
    }

    /// A lab with options of `up`.
    #[track_caller]
    pub(crate) fn with(options: &[&str]) -> Self {
        Self::start(options, Turn::beside_others())
    }

    /// The only lab of all tests.
    #[track_caller]
    pub(crate) fn alone(options: &[&str]) -> Self {
        Self::start(options, Turn::alone())
    }

    #[track_caller]
    fn start(options: &[&str], turn: Turn) -> Self {
        let mut lab = Self { name: unique_name(), up_took: Duration::ZERO, _turn: turn };
        let up = lab.run(&[&["up"], options].concat());
        lab.up_took = up.took;
        up.ok();
        lab
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How long `up` took.
    pub(crate) fn up_took(&self) -> Duration {
        self.up_took
    }

    pub(crate) fn netns(&self, node: &str) -> String {
        format!("{}-{node}", self.name)
    }

    /// `netns/lab --name NAME ARGUMENTS`, to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        run(script(&self.name).args(arguments))
    }

    /// `netns/lab exec` with input.
    #[track_caller]
    pub(crate) fn exec_with_input(&self, node: &str, command: &[&str], input: &[u8]) -> Finished {
        run_with_input(script(&self.name).args(["exec", node]).args(command), input)
    }

    /// A command in the namespace of a node, without the lab's script.
    pub(crate) fn command(&self, node: &str, program: impl AsRef<Path>) -> Command {
        let mut command = tool("ip");
        command.args(["netns", "exec", &self.netns(node)]).arg(program.as_ref());
        command
    }

    /// Runs a command in the namespace of a node to its end.
    #[track_caller]
    pub(crate) fn exec(&self, node: &str, command: &[&str]) -> Finished {
        run(self.command(node, command[0]).args(&command[1..]))
    }

    /// Runs `pearp` in the namespace of a node, without any option to find the node.
    #[track_caller]
    pub(crate) fn pearp(&self, node: &str, arguments: &[&str]) -> Finished {
        run(self.command(node, &machine().pearp).args(arguments))
    }

    #[track_caller]
    pub(crate) fn pearp_json(&self, node: &str, arguments: &[&str]) -> Value {
        let text = self.pearp(node, &[arguments, &["--json"]].concat()).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// `netns/lab status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let text = self.run(&["status", "--json"]).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// What `status --json` has of one node.
    #[track_caller]
    pub(crate) fn node(&self, node: &str) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().expect("a list");
        nodes.iter().find(|entry| entry["node"] == node).expect("a node of the lab").clone()
    }

    /// Process id of a node that lives.
    pub(crate) fn pid(&self, node: &str) -> Option<i32> {
        self.node(node)["pid"].as_i64().map(|pid| i32::try_from(pid).expect("process ids are small"))
    }

    /// Sends a signal to a node's process.
    #[track_caller]
    pub(crate) fn signal(&self, node: &str, signal: Signal) {
        let pid = self.pid(node).expect("the node lives");
        kill(Pid::from_raw(pid), signal).expect("a node's process can be signalled");
    }

    /// Ends the process of a node, and waits until it has ended.
    #[track_caller]
    pub(crate) fn end(&self, node: &str, signal: Signal) {
        self.signal(node, signal);
        await_true("the end of the process", || self.pid(node).is_none());
    }

    /// Asserts that every frame that a node has seen ended once.
    #[track_caller]
    pub(crate) fn assert_balanced(&self, node: &str) {
        let counters = &self.pearp_json(node, &["status"])["counters"];
        let count = |name: &str| counters[name].as_u64().expect("a count");
        let ended = count("delivered") + count("forwarded") + count("pending") + count("dropped");
        assert_eq!(count("received") + count("originated"), ended, "{counters}");
    }

    /// A line of `/proc/PID/status` of a node's process, in KiB.
    #[track_caller]
    pub(crate) fn memory_kib(&self, node: &str, line: &str) -> u64 {
        let pid = self.pid(node).expect("it runs").unsigned_abs();
        process_status(pid, line)[0].parse().expect("a count")
    }

    /// What the lab runs as a node, to be run again by a test itself.
    pub(crate) fn arguments(&self, node: &str) -> Vec<String> {
        let pid = self.pid(node).expect("it runs");
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
        let mut words: Vec<_> = line.split_terminator('\0').skip(1).map(str::to_owned).collect();
        let at = words.iter().position(|word| word == "--ready-fd").expect("the lab waits for it");
        words.drain(at..at + 2);
        words
    }

    /// Ends the process of a node and runs it again with other arguments; from now on it belongs to the test.
    #[track_caller]
    pub(crate) fn run_again(&self, node: &str, change: impl FnOnce(&mut Vec<String>)) -> Process {
        let mut arguments = self.arguments(node);
        change(&mut arguments);
        self.end(node, Signal::SIGTERM);
        let process = Process::start(self.command(node, &machine().pearp).args(arguments));
        await_true("a node that serves", || self.serves(node));
        process
    }

    /// The router again, with more options.
    #[track_caller]
    pub(crate) fn router_with(&self, options: &[&str]) -> Process {
        self.run_again("router", |arguments| {
            arguments.extend(options.iter().map(|option| (*option).to_owned()));
        })
    }

    /// Sets something of the kernel in the namespace of a node.
    #[track_caller]
    pub(crate) fn set_kernel(&self, node: &str, setting: &str, value: &str) {
        let script = "echo \"$1\" >\"/proc/sys/net/ipv4/$0\"";
        self.exec(node, &["sh", "-c", script, setting, value]).ok();
    }

    /// What a node says of itself; nothing where it does not answer yet.
    pub(crate) fn answer_of(&self, node: &str) -> Option<Value> {
        serde_json::from_str(&self.pearp(node, &["status", "--json"]).stdout).ok()
    }

    /// Whether a node answers, and a host has its set.
    pub(crate) fn serves(&self, node: &str) -> bool {
        let serves = |status: Value| {
            status["role"] == "router" || status["role"] == "dhcpd" || status["state"] == "bound"
        };
        self.answer_of(node).is_some_and(serves)
    }

    /// Makes the kernel of a node that has programs send and expect what is on the wire: no frames that are larger, no checksums
    /// that a device would fill in.
    #[track_caller]
    pub(crate) fn wire_frames(&self, node: &str) {
        let settings = ["tso", "gso", "gro", "tx", "rx"].iter().flat_map(|name| [*name, "off"]);
        let device = if HOSTS.contains(&node) { "pe0" } else { "eth0" };
        run(self.command(node, "ethtool").args(["-K", device]).args(settings)).ok();
    }

    /// The ports that the lab gave to a host.
    pub(crate) fn ports(&self, node: &str) -> Ranges {
        ranges(&self.node(node)["ports"])
    }

    /// The control socket of a node.
    pub(crate) fn socket(&self, node: &str) -> PathBuf {
        Path::new("/run/pearp/control").join(format!("{}.sock", self.netns(node)))
    }

    /// Does something, such as opening sockets, in the network namespace of a node.
    pub(crate) fn inside<T: Send>(&self, node: &str, work: impl FnOnce() -> T + Send) -> T {
        let netns =
            File::open(Path::new("/run/netns").join(self.netns(node))).expect("the node has a namespace");
        // A namespace belongs to a thread, and this one ends here.
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET).expect("root may enter namespaces");
                work()
            });
            worker.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in HOSTS.iter().chain(&["router"]) {
                let logs = script(&self.name).args(["logs", node]).output();
                let text =
                    logs.map(|logs| String::from_utf8_lossy(&logs.stdout).into_owned()).unwrap_or_default();
                eprintln!("--- log of {node}\n{text}");
            }
        }
        match script(&self.name).arg("down").output() {
            Ok(output) if output.status.success() => {}
            other => eprintln!("cannot take lab {} down: {other:?}", self.name),
        }
    }
}

/// The lab's script for the lab NAME.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new(repository().join("netns/lab"));
    environment(&mut command).args(["--name", name]);
    command
}

/// A program in the initial namespace.
pub(crate) fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    environment(&mut command);
    command
}

fn environment(command: &mut Command) -> &mut Command {
    let machine = machine();
    command
        .env("PATH", &machine.path)
        .env("PEARP", &machine.pearp)
        .env_remove("PEARP_RUN")
        .env("LC_ALL", "C");
    // A node that wants what it has given up does not get away with an error.
    command.env("PEARP_SANDBOX", "kill")
}

/// A name that no other lab has.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    format!("t-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What `/proc/PID/status` has of a process in a line.
#[track_caller]
pub(crate) fn process_status(pid: u32, line: &str) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let words = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    words.expect("it has such a line").split_whitespace().map(str::to_owned).collect()
}

/// `[[lo, hi], …]` of JSON.
pub(crate) fn ranges(value: &Value) -> Ranges {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value} are no ports"))
}

/// Whether a port is in one of the ranges.
pub(crate) fn contains(ranges: &Ranges, port: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
}
