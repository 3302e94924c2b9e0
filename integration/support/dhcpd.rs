//! A LAN whose router knows nothing of port sets, and `pearp dhcpd` beside it.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::lab::Lab;
use super::process::Process;
use super::requirements::machine;
use super::wait::await_true;

/// The server's own address.
pub(crate) const DHCPD: &str = "198.51.100.5";
/// Its namespace: that of the LAN's bridge, where its TAP is.
pub(crate) const PLACE: &str = "lan";

/// A lab in which the kernel of `router` forwards, and hosts lease from [`DHCPD`].
#[derive(Debug)]
pub(crate) struct DhcpdLab {
    pub(crate) dhcpd: Process,
    pub(crate) lab: Lab,
    arguments: Vec<String>,
    _directory: TempDir,
}

impl DhcpdLab {
    /// `h1` and `h2` are started by the test.
    #[track_caller]
    pub(crate) fn up(pools: &str) -> Self {
        let lab = Lab::with(&["--hosts", "2"]);
        for host in ["h1", "h2"] {
            let arguments = lab.arguments(host);
            let file = arguments.iter().position(|word| word == "--lease-file").expect("it leases");
            lab.end(host, Signal::SIGTERM);
            fs::remove_file(&arguments[file + 1]).expect("it has leased from the lab's router");
        }
        lab.end("router", Signal::SIGTERM);
        let cables =
            [("lan", "02:00:00:00:00:01", "198.51.100.1"), ("wan", "02:00:00:00:01:01", "203.0.113.1")];
        for (bridge, mac, address) in cables {
            let router = lab.netns("router");
            let cable = format!(
                "ip link delete router && ip link add router type veth peer {bridge} address {mac} netns {router} && \
                 ip link set router master {bridge} up"
            );
            lab.exec(bridge, &["sh", "-ec", &cable]).ok();
            let port = format!("ip address add {address}/24 dev {bridge} && ip link set {bridge} up");
            lab.exec("router", &["sh", "-ec", &port]).ok();
        }
        lab.exec("router", &["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]).ok();
        lab.exec(PLACE, &["sh", "-ec", "ip tuntap add mode tap dhcpd && ip link set dhcpd master lan up"])
            .ok();

        let directory = TempDir::new().expect("a directory for leases");
        let file = |name: &str| directory.path().join(name).display().to_string();
        fs::write(file("pools.toml"), pools).expect("a file can be written");
        let address = format!("{DHCPD}/24");
        let words = ["dhcpd", "--lan", "dhcpd", "--mac", "02:00:00:00:00:05", "--address", &address];
        let more =
            ["--gateway", "198.51.100.1", "--dhcp", &file("pools.toml"), "--lease-file", &file("leases")];
        let arguments: Vec<_> = [&words[..], &more].concat().into_iter().map(str::to_owned).collect();
        let dhcpd = start(&lab, &arguments);
        Self { dhcpd, lab, arguments, _directory: directory }
    }

    /// `kill -9`, and a new process.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.dhcpd.signal(Signal::SIGKILL);
        await_true("the end of dhcpd", || !self.dhcpd.is_running());
        self.dhcpd = start(&self.lab, &self.arguments);
    }

    /// `pearp leases --json`.
    #[track_caller]
    pub(crate) fn leases(&self) -> Vec<Value> {
        self.lab.pearp_json(PLACE, &["leases"]).as_array().expect("a list").clone()
    }
}

#[track_caller]
fn start(lab: &Lab, arguments: &[String]) -> Process {
    let dhcpd = Process::start(lab.command(PLACE, &machine().pearp).args(arguments));
    await_true("dhcpd serves", || lab.serves(PLACE));
    dhcpd
}
