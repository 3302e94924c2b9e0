//! That a sandbox holds. Privileges belong to a process, so each case is this program once more, with the name of the case
//! as its argument; one that fails panics, and says why.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what has passed"
)]

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use pearp::runtime::{Sandbox, SandboxMode};

/// A case, and the signal that ends it, if one does.
type Case = (&'static str, fn(&Path), Option<i32>);

const CASES: [Case; 6] = [
    ("a_node_opens_connects_and_runs_nothing", node, None),
    ("a_node_without_files_opens_none", without_files, None),
    ("a_lease_file_is_written_anew", lease_file, None),
    ("the_control_socket_is_removed", control_socket, None),
    ("what_is_not_for_a_node_kills_it_where_that_is_wanted", killed, Some(nix::libc::SIGSYS)),
    ("a_child_can_be_killed_and_nobody_else", child, None),
];

fn main() -> ExitCode {
    let argument = env::args().nth(1);
    if let Some((_, case, _)) = CASES.iter().find(|(name, ..)| Some(*name) == argument.as_deref()) {
        case(Path::new(&env::args().nth(2).expect("the case has a directory")));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, _, signal) in
        CASES.iter().filter(|(name, ..)| argument.as_deref().is_none_or(|part| name.contains(part)))
    {
        let place = tempfile::tempdir().expect("a directory");
        let status =
            Command::new(env::current_exe().expect("a program")).arg(name).arg(place.path()).status();
        let status = status.expect("a program can be run");
        let sound = status.signal() == *signal && (signal.is_some() || status.success());
        println!("test {name} ... {}", if sound { "ok".to_owned() } else { format!("FAILED: {status}") });
        passed += u32::from(sound);
        failed += u32::from(!sound);
    }
    ExitCode::from(u8::from(failed > 0 || passed == 0))
}

/// A sandbox with a control socket in `control`, and files in `files`.
fn enter(place: &Path, mode: SandboxMode, with_files: bool, child: Option<u32>) {
    let [control, files] = ["control", "files"].map(|name| place.join(name));
    for directory in [&control, &files] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(files.join("old"), "old").unwrap();
    let files = if with_files { vec![files] } else { Vec::new() };
    Sandbox { mode, control, files, child }.enter().unwrap();
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: std::io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

fn node(place: &Path) {
    let listener = UnixListener::bind(place.join("socket")).unwrap();
    let client = UnixStream::connect(place.join("socket")).unwrap();
    enter(place, SandboxMode::On, true, None);
    refused(Command::new("/bin/true").spawn());
    refused(thread::Builder::new().spawn(|| ()));
    refused(UdpSocket::bind("127.0.0.1:0"));
    refused(UnixStream::connect(place.join("socket")));
    refused(fs::metadata("/proc/self/ns/net").and_then(|_| fs::read("/etc/hostname")));
    refused(File::create(place.join("other")));
    refused(fs::write(place.join("control/other"), "x"));
    refused(fs::create_dir(place.join("files/directory")));
    refused(fs::hard_link(place.join("files/old"), place.join("files/new")));
    refused(fs::remove_file(place.join("socket")));
    // Clients are served as before.
    let (mut served, _) = listener.accept().unwrap();
    served.set_nonblocking(false).unwrap_err();
    assert_eq!(fcntl(&served, FcntlArg::F_GETPIPE_SZ), Err(Errno::EPERM));
    assert!(fcntl(&served, FcntlArg::F_GETFL).is_ok());
    served.write_all(b"hello").unwrap();
    drop(client);
}

fn without_files(place: &Path) {
    enter(place, SandboxMode::On, false, None);
    refused(File::open(place.join("files/old")));
    refused(File::open("/dev/null"));
}

fn lease_file(place: &Path) {
    enter(place, SandboxMode::Kill, true, None);
    let files = place.join("files");
    let mut file = tempfile::NamedTempFile::new_in(&files).unwrap();
    file.write_all(b"new").unwrap();
    file.as_file().sync_all().unwrap();
    file.as_file().try_lock().unwrap();
    file.as_file().set_len(2).unwrap();
    file.persist(files.join("old")).unwrap();
    File::open(&files).unwrap().sync_all().unwrap();
    assert_eq!(fs::read(files.join("old")).unwrap(), b"ne");
    fs::remove_file(files.join("old")).unwrap();
}

fn control_socket(place: &Path) {
    fs::create_dir(place.join("control")).unwrap();
    let socket = pearp::runtime::ControlSocket::bind(&place.join("control/node.sock")).unwrap();
    enter(place, SandboxMode::Kill, false, None);
    drop(socket);
}

fn killed(place: &Path) {
    enter(place, SandboxMode::Kill, false, None);
    let file = File::open("/etc/hostname");
    panic!("it lives: {file:?}");
}

fn child(place: &Path) {
    // They end with this process if nobody ends them before.
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped());
    let mut own = command.spawn().unwrap();
    let mut other = command.spawn().unwrap();
    enter(place, SandboxMode::On, false, Some(own.id()));
    own.kill().unwrap();
    own.wait().unwrap();
    refused(other.kill());
    drop(other.stdin.take());
    other.wait().unwrap();
}
