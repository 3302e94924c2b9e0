//! Where a node's control socket is: found from the network namespace, so that no command needs an option.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const RUN_VARIABLE: &str = "PEARP_RUN";
const RUN_DIR: &str = "/run/pearp";
const NETNS_DIR: &str = "/run/netns";
const OWN_NETNS: &str = "/proc/self/ns/net";

/// The control socket of this network namespace: `$PEARP_RUN/control/NETNS.sock`, by default under `/run/pearp`;
/// NETNS is the name that `ip netns` gives the namespace, or `default`.
pub fn control_path() -> PathBuf {
    let run = std::env::var_os(RUN_VARIABLE).map_or_else(|| PathBuf::from(RUN_DIR), PathBuf::from);
    let name = netns_name(Path::new(NETNS_DIR)).unwrap_or_else(|| "default".to_owned());
    run.join("control").join(format!("{name}.sock"))
}

/// The name under which `directory` has the own namespace (as `ip netns identify` finds it).
fn netns_name(directory: &Path) -> Option<String> {
    let own = fs::metadata(OWN_NETNS).ok()?;
    let same = |path: &Path| {
        fs::metadata(path).is_ok_and(|other| other.dev() == own.dev() && other.ino() == own.ino())
    };
    let entries = fs::read_dir(directory).ok()?;
    entries.flatten().find(|entry| same(&entry.path()))?.file_name().into_string().ok()
}
