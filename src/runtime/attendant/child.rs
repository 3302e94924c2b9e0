//! The attendant itself: a process that answers one host, and ends with it.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail};
use nix::sys::prctl;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::look::{Owners, ports_in_use};
use super::message::{Ask, MAX_ASK, MAX_TELL, Reason, Tell, Variable, read, write};
use super::{ATTENDANT_NAME, MAX_QUESTIONS};
use crate::runtime::sandbox;

/// The lease hook, as it was given when the attendant was started. No question changes it.
#[derive(Clone, Debug)]
pub struct HookCommand {
    /// The script.
    pub path: PathBuf,
    /// What it is told as `interface`.
    pub interface: String,
}

/// Serves the host that started this process with a socket as standard input, until that ends.
///
/// # Errors
/// Where standard input is no such socket, or the host asks for what there is not.
pub fn attend(hook: Option<HookCommand>) -> anyhow::Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().context("standard input is closed")?;
    let socket = UnixStream::from(stdin);
    if socket.peer_addr().is_err() {
        bail!("a host starts its attendant itself: run `pearp host`");
    }
    let nothing = fs::File::open("/dev/null").context("cannot open /dev/null")?;
    nix::unistd::dup2_stdin(&nothing).context("cannot give up standard input")?;
    drop(nothing);
    close_others(socket.as_raw_fd())?;
    // A name only.
    let _ = prctl::set_name(ATTENDANT_NAME);
    // Signals to all processes of a terminal or a lab are for the host, and its end is this one's. The hook does not
    // inherit handlers.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    if hook.is_none() {
        sandbox::keep_for_proc()?;
    }
    serve(socket, hook)
}

/// Answers until the host ends; the threads are left to the end of the process.
pub(super) fn serve(mut socket: UnixStream, hook: Option<HookCommand>) -> anyhow::Result<()> {
    let answers = Arc::new(Mutex::new(socket.try_clone()?));
    let (hooks, calls) = mpsc::sync_channel(MAX_QUESTIONS);
    let (looks, questions) = mpsc::sync_channel(MAX_QUESTIONS);
    // Each in a thread of its own: a hook takes as long as it likes.
    spawn("hook", &answers, calls, move |call| Some(run_hook(hook.as_ref(), call)))?;
    let mut owners = Owners::default();
    spawn("proc", &answers, questions, move |ask| look(ask, &mut owners))?;
    while let Some(ask) = read(&mut socket, MAX_ASK)? {
        match ask {
            Ask::Hook { reason, variables } => hand_over(&hooks, (reason, variables))?,
            Ask::Ports { .. } | Ask::Owner { .. } => hand_over(&looks, ask)?,
        }
    }
    Ok(())
}

fn hand_over<T>(to: &SyncSender<T>, work: T) -> anyhow::Result<()> {
    if to.try_send(work).is_err() {
        bail!("the host asks for more than {MAX_QUESTIONS} things at a time");
    }
    Ok(())
}

fn spawn<T: Send + 'static>(
    name: &str,
    answers: &Arc<Mutex<UnixStream>>,
    work: Receiver<T>,
    mut answer: impl FnMut(T) -> Option<Tell> + Send + 'static,
) -> anyhow::Result<()> {
    let answers = Arc::clone(answers);
    let serve = move || {
        for told in work.iter().filter_map(&mut answer) {
            let mut to = answers.lock().unwrap_or_else(PoisonError::into_inner);
            if write(&mut *to, &told, MAX_TELL).is_err() {
                // The host has ended, or will never hear of this: the first thread hears of the end.
                let _ = to.shutdown(Shutdown::Both);
                break;
            }
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(serve).context("cannot start a thread")?;
    Ok(())
}

fn look(ask: Ask, owners: &mut Owners) -> Option<Tell> {
    match ask {
        Ask::Ports { addresses } => {
            Some(Tell::Ports(ports_in_use(&addresses).map_err(|error| error.to_string())))
        }
        Ask::Owner { protocol, port } => {
            let owner = owners.find(protocol, port, Instant::now());
            Some(Tell::Owner { protocol, port, owner })
        }
        Ask::Hook { .. } => None,
    }
}

fn run_hook(hook: Option<&HookCommand>, (reason, variables): (Reason, Vec<(Variable, String)>)) -> Tell {
    let run = || {
        let hook = hook.ok_or("there is no lease hook")?;
        if variables.iter().any(|(_, value)| value.contains('\0')) {
            return Err("a variable of the lease hook has a zero byte".to_owned());
        }
        let status = Command::new(&hook.path)
            .arg(reason.name())
            .env("interface", &hook.interface)
            .envs(variables.iter().map(|(variable, value)| (variable.name(), value)))
            .stdin(Stdio::null())
            .status();
        status.map(ExitStatusExt::into_raw).map_err(|error| {
            format!("cannot run the lease hook {}: {error}; is it executable?", hook.path.display())
        })
    };
    Tell::Hook { reason, ended: run() }
}

/// Closes what the host has open and has not opened for its attendant: others may wait for the end of it.
fn close_others(socket: RawFd) -> anyhow::Result<()> {
    let numbers = |path: &Path| -> io::Result<Vec<RawFd>> {
        Ok(fs::read_dir(path)?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect())
    };
    let open = numbers(Path::new("/proc/self/fd")).context("cannot read /proc/self/fd")?;
    for fd in open.into_iter().filter(|fd| *fd > 2 && *fd != socket) {
        // The one by which the directory was read is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}
