//! A host that the lab knows nothing of.

use std::process::Command;

use tempfile::TempDir;

use super::lab::{Lab, SHARED};
use super::requirements::machine;

/// A host in the LAN's own namespace, with a TAP and a TUN that go with the lab.
pub(crate) struct Intruder<'a> {
    lab: &'a Lab,
    directory: TempDir,
}

impl<'a> Intruder<'a> {
    #[track_caller]
    pub(crate) fn new(lab: &'a Lab) -> Self {
        let devices = "ip tuntap add mode tap x1 && ip link set x1 master lan up && \
                       ip tuntap add mode tun pe9 && ip link set pe9 up";
        lab.exec("lan", &["sh", "-c", devices]).ok();
        Self { lab, directory: TempDir::new().unwrap() }
    }

    /// `pearp host` with this set; `redirect` is for the shell that starts it.
    pub(crate) fn command(&self, set: &str, redirect: &str) -> Command {
        let mut command = self.lab.command("lan", "sh");
        let socket = self.directory.path().join("x1.sock");
        command.arg("-c").arg(format!(
            "exec {pearp} host --name x1 --lan x1 --tun pe9 --mac 02:00:00:00:09:09 --address {SHARED}/24 \
             --gateway 198.51.100.1 {set} --socket {socket} {redirect}",
            pearp = machine().pearp.display(),
            socket = socket.display(),
        ));
        command
    }
}
