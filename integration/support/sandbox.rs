//! A machine of its own, as far as namespaces go: mounts, processes and network. What is in there can be compared
//! as a whole before and after, whatever else this machine does.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::lab::{Turn, tool};
use super::process::{Finished, Process, run};
use super::requirements::{machine, repository};
use super::wait::await_some;

/// Where the sandbox has the lab's scripts and the program; readable by everybody.
pub(crate) const PLACE: &str = "/run/t";
/// The name of the lab in a sandbox, where there is no other one.
pub(crate) const LAB: &str = "x";

/// The machine's own namespaces come and go meanwhile: the sandbox does without their mounts.
const SET_UP: &str = "set -eu
    ! mountpoint -q /run/netns || umount -R -l /run/netns
    mount -t tmpfs tmpfs /run
    mkdir -p /run/t
    cp -R \"$0\" /run/t/netns
    cp \"$1\" /run/t/pearp
    chmod -R a+rX /run/t
    mount -t tmpfs tmpfs /tmp
    ip link set lo up
    cd /
    echo ready
    exec cat";

/// All that a lab could leave behind. What has ended and is not reaped yet is a matter of the first process. `ps` runs
/// alone, as it would see the commands beside it at one moment or another.
const SNAPSHOT: &str = "processes=$(ps -eo stat=,args=)
    echo \"$processes\" | sed -n '/^Z/!s/^[^ ]* */process /p'
    ls /run/netns 2>/dev/null | sed 's/^/namespace /'
    ip -o link | sed 's/^/link /'
    ip -4 rule | sed 's/^/rule /'
    ip -4 route | sed 's/^/route /'
    find /run /tmp -printf 'file %p %M\\n' | sort
    sed 's/^/mount /' /proc/self/mounts";

/// The sandbox; everything in it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sandbox {
    init: Process,
    /// Process id of its first process.
    pid: String,
    _turn: Turn,
}

impl Sandbox {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let turn = Turn::beside_others();
        let init = Process::start(
            tool("unshare")
                .args([
                    "--mount",
                    "--pid",
                    "--net",
                    "--fork",
                    "--kill-child",
                    "--mount-proc",
                    "sh",
                    "-c",
                    SET_UP,
                ])
                .arg(repository().join("netns"))
                .arg(&machine().pearp),
        );
        init.await_line("ready");
        let children = format!("/proc/{0}/task/{0}/children", init.pid());
        let pid = await_some("the first process of the sandbox", || {
            fs::read_to_string(&children).ok()?.split_whitespace().next().map(str::to_owned)
        });
        Self { init, pid, _turn: turn }
    }

    /// A program in the sandbox.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = tool("nsenter");
        command.args(["--target", &self.pid, "--mount", "--pid", "--net", "--wd=/", "--", program]);
        command.env("PEARP", format!("{PLACE}/pearp"));
        command
    }

    /// A shell script in the sandbox, to its end.
    #[track_caller]
    pub(crate) fn sh(&self, text: &str) -> Finished {
        run(self.command("sh").args(["-c", text]))
    }

    /// The script of the lab [`LAB`].
    pub(crate) fn script(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("/run/t/netns/lab");
        command.args(["--name", LAB]).args(arguments);
        command
    }

    #[track_caller]
    pub(crate) fn lab(&self, arguments: &[&str]) -> Finished {
        run(&mut self.script(arguments))
    }

    /// `status --json` of a lab.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let text = self.lab(&["status", "--json"]).ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Namespaces, links, rules, routes, processes, files and mounts, a line each.
    #[track_caller]
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let text = self.sh(SNAPSHOT).ok();
        text.lines().map(str::to_owned).collect()
    }

    /// Fails unless everything is as it was `before`.
    #[track_caller]
    pub(crate) fn assert_unchanged(&self, before: &[String]) {
        let after = self.snapshot();
        let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        assert!(gone.is_empty() && new.is_empty(), "left behind: {new:#?}, gone: {gone:#?}");
        assert_eq!(after.len(), before.len(), "as often as before");
    }

    /// Whether the sandbox itself is alive.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.init.is_running()
    }
}
