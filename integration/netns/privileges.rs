//! What processes may do while they serve, who may ask them, and that they need no root.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::libc::{IFF_NO_PI, IFF_TAP, IFF_TUN, IFF_VNET_HDR};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::dhcp::POOLS;
use crate::support::dhcpd::DhcpdLab;
use crate::support::lab::{HOSTS, Lab, process_status};
use crate::support::process::run;
use crate::support::requirements::machine;
use crate::support::ssh::{Web, curl};
use crate::support::tap::open_device;
use crate::support::wait::await_true;

/// Nobody in particular.
const NOBODY: u32 = 65534;

/// Asserts that a node has no capability, gets none by any program, and makes no system call but its own.
#[track_caller]
fn assert_bare(pid: u32) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(process_status(pid, set), ["0000000000000000"], "{set} of {pid}");
    }
    assert_eq!(process_status(pid, "NoNewPrivs"), ["1"]);
    // SECCOMP_MODE_FILTER.
    assert_eq!(process_status(pid, "Seccomp"), ["2"]);
    assert_eq!(process_status(pid, "Threads"), ["1"], "each thread has its own privileges");
    assert_eq!(process_status(pid, "Groups").len(), 0);
}

fn pid(lab: &Lab, node: &str) -> u32 {
    lab.pid(node).expect("it runs").unsigned_abs()
}

/// The one child of a host.
#[track_caller]
fn attendant(host: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{host}/task/{host}/children")).expect("it runs");
    let children: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().expect("a number")).collect();
    let [attendant] = children[..] else { panic!("{children:?}") };
    assert_eq!(process_status(attendant, "Name"), ["pearp-attendant"]);
    attendant
}

/// What a process has open.
fn open_files(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}

/// A program that any user can reach.
fn copy_of_pearp(place: &Path) -> PathBuf {
    let copy = place.join("pearp");
    fs::copy(&machine().pearp, &copy).unwrap();
    copy
}

fn open_to_all() -> TempDir {
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    place
}

#[test]
fn nodes_have_no_privileges() {
    let lab = Lab::up();
    let _web = Web::serve(&lab, "inet", 80);
    for node in HOSTS.iter().chain(&["router"]) {
        assert_bare(pid(&lab, node));
    }
    // What takes privileges is done all the same: the hook has given h1 its address, and programs are named.
    let h1 = pid(&lab, "h1");
    let attendant = attendant(h1);
    assert_ne!(process_status(attendant, "CapEff"), ["0000000000000000"]);
    let open = open_files(attendant);
    assert!(open.iter().all(|file| !file.contains("/net/tun") && !file.ends_with(".lock")), "{open:?}");
    let got = run(&mut curl(&lab, "h1", &["--local-port", "3000", "http://203.0.113.80/"])).ok();
    assert_eq!(got, "page of inet\n");
    await_true("the name of the program", || lab.run(&["logs", "h1"]).ok().contains("curl (process "));
    let server = lab.inside("h1", || std::net::TcpListener::bind(("198.51.100.2", 5000)).unwrap());
    let usage = lab.pearp_json("h1", &["ports"]);
    let own = usage["processes"].as_array().unwrap().iter().find(|line| line["pid"] == std::process::id());
    assert!(own.is_some(), "{usage}");
    drop(server);
    // Nothing is left of either.
    lab.end("h1", Signal::SIGTERM);
    await_true("the end of the attendant", || !Path::new(&format!("/proc/{attendant}")).exists());
    assert!(!lab.socket("h1").exists());
}

#[test]
fn a_swarm_and_dhcpd_have_no_privileges() {
    let swarm = Lab::with(&["--hosts", "0", "--swarm", "16", "--psid", "0,12"]);
    assert_bare(pid(&swarm, "swarm"));
    drop(swarm);
    let mut lab = DhcpdLab::up(POOLS);
    await_true("dhcpd without privileges", || process_status(lab.dhcpd.pid(), "Seccomp") == ["2"]);
    assert_bare(lab.dhcpd.pid());
    // It still writes.
    lab.lab.run(&["restart", "h1"]).ok();
    assert!(lab.leases().iter().any(|lease| lease["host_name"] == "h1"));
    lab.dhcpd.signal(Signal::SIGTERM);
    assert_eq!(lab.dhcpd.finish(), Some(0), "{}", lab.dhcpd.transcript());
}

/// The attendant of a host without a hook has no more than it takes to read /proc.
#[test]
fn an_attendant_without_a_hook_only_sees() {
    let lab = Lab::up();
    let mut arguments = lab.arguments("h1");
    let at = arguments.iter().position(|word| word == "--hook").unwrap();
    arguments.drain(at..at + 2);
    lab.end("h1", Signal::SIGTERM);
    let mut host =
        crate::support::process::Process::start(lab.command("h1", &machine().pearp).args(&arguments));
    await_true("the host", || lab.serves("h1"));
    assert_bare(host.pid());
    let attendant = attendant(host.pid());
    // CAP_DAC_READ_SEARCH (2) and CAP_SYS_PTRACE (19).
    assert_eq!(process_status(attendant, "CapEff"), ["0000000000080004"]);
    assert_eq!(process_status(attendant, "CapBnd"), ["0000000000000000"]);
    let _web = Web::serve(&lab, "inet", 80);
    run(&mut curl(&lab, "h1", &["--local-port", "3000", "http://203.0.113.80/"])).ok();
    host.await_line("curl (process ");
    host.signal(Signal::SIGTERM);
    assert_eq!(host.finish(), Some(0), "{}", host.transcript());
    assert!(!Path::new(&format!("/proc/{attendant}")).exists(), "it has been waited for");
}

#[test]
fn a_host_goes_on_without_its_attendant() {
    let lab = Lab::up();
    let _web = Web::serve(&lab, "inet", 80);
    let host = pid(&lab, "h1");
    let attendant = attendant(host);
    kill(Pid::from_raw(attendant.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let said = "the attendant of this host has ended (signal: 9 (SIGKILL))";
    await_true("a line about it", || lab.run(&["logs", "h1"]).ok().contains(said));
    let told = lab.run(&["logs", "h1"]).ok();
    assert!(
        told.lines().any(|line| line.contains(said) && line.contains(&format!("pid={attendant}"))),
        "{told}"
    );
    assert!(!Path::new(&format!("/proc/{attendant}")).exists(), "it is no zombie");
    let page =
        |options: &[&str]| run(&mut curl(&lab, "h1", &[options, &["http://203.0.113.80/"]].concat())).ok();
    for _ in 0..3 {
        assert_eq!(page(&[]), "page of inet\n");
    }
    // Ports outside the set work as well. Nobody can say whose they are, and nothing waits for that.
    assert_eq!(page(&["--local-port", "3000"]), "page of inet\n");
    await_true("a line about the leak", || lab.run(&["logs", "h1"]).ok().contains("program=\"unknown\""));
    assert_eq!(pid(&lab, "h1"), host);
    assert_eq!(lab.run(&["logs", "h1"]).ok().matches("the attendant of this host").count(), 1);
    lab.run(&["restart", "h1"]).ok();
    assert_ne!(self::attendant(pid(&lab, "h1")), attendant);
}

/// The control socket is for who runs the node, and a command says so.
#[test]
fn others_may_not_ask() {
    let lab = Lab::up();
    let place = open_to_all();
    let pearp = copy_of_pearp(place.path());
    for node in ["h1", "router"] {
        assert_eq!(fs::metadata(lab.socket(node)).unwrap().mode() & 0o777, 0o600);
        let user = NOBODY.to_string();
        let mut command = lab.command(node, "setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(&pearp).arg("status");
        let socket = lab.socket(node).display().to_string();
        run(&mut command)
            .fails_in_one_line(1, &["no permission to use", &socket, "run as the user who runs"]);
    }
}

/// A process that was started with descriptors 3 and 4; killed when dropped.
struct Launched(Child);

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `pearp` at a node, as a user without any privilege, with these files as descriptors 3 and 4.
fn launch(lab: &Lab, node: &str, pearp: &Path, files: [File; 2], log: File, arguments: &[String]) -> Command {
    let user = NOBODY.to_string();
    let [three, four] = files;
    let mut command = lab.command(node, "sh");
    command.args(["-c", "exec \"$@\" 3<&0 4<&1 5>&2 </dev/null >&2", "sh"]);
    command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
    command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(pearp).args(arguments);
    command.stdin(Stdio::from(three)).stdout(Stdio::from(four)).stderr(Stdio::from(log));
    command
}

#[test]
fn a_router_with_open_devices_runs_as_any_user() {
    for (offload, header) in [("on", IFF_VNET_HDR), ("off", 0)] {
        let lab = Lab::with(&["--static", "--offload", offload]);
        let _web = Web::serve(&lab, "inet", 80);
        let place = open_to_all();
        let own = place.path().join("own");
        fs::create_dir(&own).unwrap();
        std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
        let socket = own.join("router.sock");
        let log = place.path().join("log");
        let named = lab.arguments("router");
        lab.end("router", Signal::SIGTERM);
        let devices =
            ["lan", "wan"].map(|bridge| open_device(&lab, bridge, "router", IFF_TAP | IFF_NO_PI | header));
        let by_number = |word: String| {
            let word = word.replace(&format!("{}:router,", lab.netns("lan")), "fd:3,");
            word.replace(&format!("{}:router,", lab.netns("wan")), "fd:4,")
        };
        let mut arguments: Vec<_> = named.into_iter().map(by_number).collect();
        arguments.extend(["--socket".to_owned(), socket.display().to_string()]);
        let pearp = copy_of_pearp(place.path());
        let file = File::create(&log).unwrap();
        let router = Launched(launch(&lab, "router", &pearp, devices, file, &arguments).spawn().unwrap());
        let told = || fs::read_to_string(&log).unwrap();
        await_true("the router", || told().contains("router serves"));

        assert_eq!(run(&mut curl(&lab, "h1", &["http://203.0.113.80/"])).ok(), "page of inet\n");
        let pid = router.0.id();
        let user = NOBODY.to_string();
        assert_eq!(process_status(pid, "Uid"), vec![user.clone(); 4], "{}", told());
        assert_eq!(process_status(pid, "Gid"), vec![user; 4]);
        assert_bare(pid);
        let socket = socket.to_str().unwrap();
        let status = lab.pearp_json("router", &["status", "--socket", socket]);
        assert!(status["counters"]["forwarded"].as_u64() > Some(5), "{status}");
        let shown = if offload == "on" { "checksum" } else { "off" };
        assert!(status["links"][0]["offload"].as_str().unwrap().contains(shown), "{status}");

        kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGTERM).unwrap();
        await_true("its last word", || told().contains("router ended"));
        assert!(fs::read_dir(&own).unwrap().next().is_none(), "its socket goes with it");
    }
}

/// Its programs have the address already: the hook has been called by root, as a lease script would be.
#[test]
fn a_host_with_open_devices_runs_as_any_user() {
    let lab = Lab::with(&["--static"]);
    let _web = Web::serve(&lab, "inet", 80);
    let place = open_to_all();
    let own = place.path().join("own");
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let socket = own.join("h1.sock").display().to_string();
    let mut arguments = lab.arguments("h1");
    lab.end("h1", Signal::SIGTERM);
    let hook = arguments.iter().position(|word| word == "--hook").unwrap();
    arguments.drain(hook..hook + 2);
    let lan = format!("{}:h1", lab.netns("lan"));
    for (device, descriptor) in [(&*lan, "fd:3"), ("pe0", "fd:4")] {
        let word = arguments.iter_mut().find(|word| *word == device).unwrap();
        *word = descriptor.to_owned();
    }
    arguments.extend(["--socket".to_owned(), socket.clone()]);
    // What root has opened for it is not only devices: standard error is its log.
    arguments.extend(["--ready-fd".to_owned(), "5".to_owned()]);
    let flags = IFF_NO_PI | IFF_VNET_HDR;
    let devices =
        [open_device(&lab, "lan", "h1", IFF_TAP | flags), open_device(&lab, "h1", "pe0", IFF_TUN | flags)];
    let pearp = copy_of_pearp(place.path());
    let log = place.path().join("log");
    let file = File::create(&log).unwrap();
    let host = Launched(launch(&lab, "h1", &pearp, devices, file, &arguments).spawn().unwrap());
    let told = || fs::read_to_string(&log).unwrap();
    await_true("the host", || told().contains("host serves") && told().contains("ready h1\n"));
    assert_eq!(run(&mut curl(&lab, "h1", &["http://203.0.113.80/"])).ok(), "page of inet\n");
    assert_bare(host.0.id());
    let attendant = attendant(host.0.id());
    assert_eq!(process_status(attendant, "CapEff"), ["0000000000000000"]);
    assert_eq!(process_status(attendant, "Uid")[0], NOBODY.to_string());
    assert_eq!(lab.pearp_json("h1", &["status", "--socket", &socket])["state"], "bound");
}

#[test]
fn descriptors_that_are_no_such_device_are_said_so() {
    let lab = Lab::up();
    let place = open_to_all();
    let pearp = copy_of_pearp(place.path());
    lab.exec("legacy", &["sh", "-ec", "ip tuntap add mode tun tun9; ip tuntap add mode tap tap9"]).ok();
    let device = |name, flags| open_device(&lab, "legacy", name, flags | IFF_NO_PI);
    let router = |fd: &str, file: File, more: &[&str]| {
        let link = format!("{fd},address=198.51.100.1/24,mac=02:00:00:00:00:01");
        let arguments: Vec<_> =
            [&["router", "--lan", &link], more].concat().into_iter().map(str::to_owned).collect();
        let log = place.path().join("log");
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let mut command =
            launch(&lab, "legacy", &pearp, [file, null], File::create(&log).unwrap(), &arguments);
        assert_eq!(command.status().unwrap().code(), Some(1));
        let said = fs::read_to_string(&log).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    let null = || File::open("/dev/null").unwrap();
    for (said, words) in [
        (router("fd:9", null(), &[]), ["descriptor 9 is not open", "leave it open"]),
        (router("fd:3", null(), &[]), ["descriptor 3 is not attached to a TUN or TAP", "TUNSETIFF"]),
        (router("fd:3", device("tun9", IFF_TUN | IFF_VNET_HDR), &[]), ["`tun9`", "a tap is wanted"]),
        (router("fd:3", device("tap9", IFF_TAP), &[]), ["IFF_VNET_HDR", "--offload off"]),
        (
            router("fd:3", null(), &["--outside", "fd:3,address=203.0.113.1/24,mac=02:00:00:00:01:01"]),
            ["fd:3 is given twice", "its own"],
        ),
    ] {
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    }
}
