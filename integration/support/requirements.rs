//! What the tests need. Where something is missing they fail and say what: a test that did not run has not passed.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Program and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("bridge", "iproute2"),
    ("busybox", "busybox"),
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("dhclient", "isc-dhcp-client"),
    ("dhcpcd", "dhcpcd-base"),
    ("dhcpd", "isc-dhcp-server"),
    ("dig", "bind9-dnsutils"),
    ("ethtool", "ethtool"),
    ("flock", "util-linux"),
    ("hping3", "hping3"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("mtr", "mtr-tiny"),
    ("nc", "netcat-openbsd"),
    ("nginx", "nginx-light"),
    ("nmap", "nmap"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("openvpn", "openvpn"),
    ("ping", "iputils-ping"),
    ("prlimit", "util-linux"),
    ("ps", "procps"),
    ("scp", "openssh-client"),
    ("setpriv", "util-linux"),
    ("sftp", "openssh-client"),
    ("ss", "iproute2"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("tcpdump", "tcpdump"),
    ("tracepath", "iputils-tracepath"),
    ("traceroute", "traceroute"),
    ("tshark", "tshark"),
    ("unbound", "unbound"),
    ("unshare", "util-linux"),
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
    ("wrk", "wrk"),
];

/// Where tools are that are for root only, whatever PATH says.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// The program under test.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The release build of `pearp`.
    pub(crate) pearp: PathBuf,
    /// The PATH for every command.
    pub(crate) path: String,
}

/// The machine, if it has all that the tests need; else the test fails.
#[track_caller]
pub(crate) fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Result<Machine, String>> = OnceLock::new();
    match MACHINE.get_or_init(look) {
        Ok(machine) => machine,
        Err(missing) => panic!("cannot test here: {missing}"),
    }
}

/// The root of this repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn look() -> Result<Machine, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("network namespaces need root: run the tests as root, e.g. by scripts/test".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("/dev/net/tun is missing: mkdir -p /dev/net && mknod /dev/net/tun c 10 200".to_owned());
    }
    let path = format!("{}:{ROOT_PATH}", env::var("PATH").unwrap_or_default());
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, _)| find(tool, &path).is_none()).collect();
    if !missing.is_empty() {
        let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        return Err(format!("missing {}: apt-get install {}", tools.join(", "), packages.join(" ")));
    }
    let pearp = env::var_os("PEARP").map_or_else(release_build, PathBuf::from);
    let pearp = pearp.canonicalize().map_err(|_| {
        format!("{} is missing: cargo build --release, or set PEARP to the program", pearp.display())
    })?;
    Ok(Machine { pearp, path })
}

fn release_build() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    target.join("release/pearp")
}

/// Where PATH has a tool.
pub(crate) fn find(tool: &str, path: &str) -> Option<PathBuf> {
    path.split(':').map(|directory| Path::new(directory).join(tool)).find(|file| file.is_file())
}

/// Every tool that the tests use.
pub(crate) fn tools() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().map(|(tool, _)| *tool)
}
