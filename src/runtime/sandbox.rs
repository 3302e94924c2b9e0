//! What a node process gives up once everything is open: capabilities, the file system, most system calls. docs/security.md
//! says what is left, and why.

use core::str::FromStr;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, make_bitflags,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::unistd::AccessFlags;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// The rights of Landlock that are asked for (Linux 6.10); a kernel with fewer has those that it knows.
const LANDLOCK: ABI = ABI::V5;

/// How often to look whether a thread that has ended is gone, which takes the kernel a moment longer than joining it, and how
/// long to wait between two looks.
const MAX_THREAD_LOOKS: u32 = 1000;
const THREAD_LOOK: Duration = Duration::from_millis(1);

/// System calls that a node makes whatever it is. Everything else is refused.
const ALWAYS: &[libc::c_long] = &[
    // Frames, connections, the log; by io_uring as far as `Ring` lets it.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_io_uring_enter,
    // To wait.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Clocks, where the kernel cannot be spared the call; randomness.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Signals, and the end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The control socket is removed.
    libc::SYS_unlinkat,
];

/// Calls that only some architectures have beside those.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[libc::c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_time, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_HERE: &[libc::c_long] = &[];

/// Calls for a file that is written anew beside itself and renamed, and for one that grows.
const FILES: &[libc::c_long] = &[
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_renameat2,
];

#[cfg(target_arch = "x86_64")]
const FILES_HERE: &[libc::c_long] = &[libc::SYS_open, libc::SYS_rename, libc::SYS_renameat];
#[cfg(target_arch = "aarch64")]
const FILES_HERE: &[libc::c_long] = &[libc::SYS_renameat];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FILES_HERE: &[libc::c_long] = &[];

/// What fcntl does for a node.
const FCNTL: [libc::c_int; 5] =
    [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC];

/// Whether a node gives up what it does not need, and what happens when it wants it after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxMode {
    /// It does. A system call that is not for it fails with EPERM.
    On,
    /// It does. A system call that is not for it ends it, so that tests see it.
    Kill,
    /// It keeps everything.
    Off,
}

impl FromStr for SandboxMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "kill" => Ok(Self::Kill),
            "off" => Ok(Self::Off),
            other => Err(format!("`{other}` is neither `on`, nor `kill`, nor `off`")),
        }
    }
}

/// What a node still needs when everything is open.
#[derive(Debug)]
pub struct Sandbox {
    /// What is to be given up.
    pub mode: SandboxMode,
    /// The directory of its control socket, which is removed at the end.
    pub control: PathBuf,
    /// Directories in which it writes files anew.
    pub files: Vec<PathBuf>,
    /// A child that it may have to kill.
    pub child: Option<u32>,
}

impl Sandbox {
    /// Gives up everything else, for good.
    ///
    /// # Errors
    /// Where something that this kernel has cannot be given up, or the process has other threads, which would keep it.
    pub fn enter(&self) -> anyhow::Result<()> {
        if self.mode == SandboxMode::Off {
            tracing::warn!("no privilege is dropped, as --sandbox off says");
            return Ok(());
        }
        let mut threads = count_threads()?;
        for _ in 0..MAX_THREAD_LOOKS {
            if threads == 1 {
                break;
            }
            thread::sleep(THREAD_LOOK);
            threads = count_threads()?;
        }
        if threads != 1 {
            bail!("privileges belong to a thread, and there are {threads}");
        }
        drop_capabilities(&CapsHashSet::new()).context("cannot drop the capabilities")?;
        prctl::set_no_new_privs().context("cannot forgo new privileges")?;
        for path in &self.files {
            // Until now, nobody asked whose it is.
            if nix::unistd::access(path, AccessFlags::W_OK) == Err(Errno::EACCES) {
                bail!(
                    "{} cannot be written without privileges: give it to the user who runs this, or name a file in \
                     another directory",
                    path.display()
                );
            }
        }
        let landlock = self
            .restrict_files()
            .context("cannot restrict the file system; --sandbox off leaves that out")?;
        let seccomp = self
            .restrict_calls()
            .context("cannot restrict the system calls; --sandbox off leaves that out")?;
        tracing::debug!(landlock, seccomp, "privileges are dropped");
        Ok(())
    }

    fn restrict_files(&self) -> anyhow::Result<bool> {
        let write = make_bitflags!(AccessFs::{
            ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
        });
        let control: BitFlags<AccessFs> = AccessFs::RemoveFile.into();
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .create()?;
        let places = self.files.iter().map(|path| (path, write)).chain([(&self.control, control)]);
        for (path, rights) in places {
            let place = PathFd::new(path).with_context(|| format!("cannot open {}", path.display()))?;
            rules = rules.add_rule(PathBeneath::new(place, rights))?;
        }
        let enforced = rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced;
        if !enforced {
            tracing::info!(
                "this kernel has no Landlock: files are as far away as their owners and modes say"
            );
        }
        Ok(enforced)
    }

    fn restrict_calls(&self) -> anyhow::Result<bool> {
        let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
            tracing::info!("system calls are not restricted on this architecture");
            return Ok(false);
        };
        let filter: BpfProgram = self.filter(arch)?.try_into()?;
        match seccompiler::apply_filter_all_threads(&filter) {
            Err(seccompiler::Error::Seccomp(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
                tracing::info!("this kernel has no seccomp filters: system calls are not restricted");
                Ok(false)
            }
            result => Ok(result.map(|()| true)?),
        }
    }

    fn filter(&self, arch: TargetArch) -> anyhow::Result<SeccompFilter> {
        let mut calls = [ALWAYS, ALWAYS_HERE].concat();
        if !self.files.is_empty() {
            calls.extend([FILES, FILES_HERE].concat());
        }
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            calls.into_iter().map(|call| (call, vec![])).collect();
        let only = |argument, comparison, value: u64| {
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value)?;
            Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(vec![condition])?])
        };
        // F_SETOWN would have the kernel send signals.
        let flags = FCNTL.iter().map(|command| only(1, SeccompCmpOp::Eq, *command as u64));
        rules.insert(libc::SYS_fcntl, flags.collect::<Result<Vec<_>, _>>()?.concat());
        // Nothing that is written becomes code.
        let no_code = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
        rules.insert(libc::SYS_mmap, only(2, no_code.clone(), 0)?);
        rules.insert(libc::SYS_mprotect, only(2, no_code, 0)?);
        // abort() kills its own process.
        rules.insert(libc::SYS_tgkill, only(0, SeccompCmpOp::Eq, std::process::id().into())?);
        if let Some(child) = self.child {
            rules.insert(libc::SYS_kill, only(0, SeccompCmpOp::Eq, child.into())?);
        }
        let refuse = match self.mode {
            SandboxMode::Kill => SeccompAction::KillProcess,
            SandboxMode::On | SandboxMode::Off => SeccompAction::Errno(libc::EPERM as u32),
        };
        Ok(SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?)
    }
}

fn count_threads() -> anyhow::Result<usize> {
    let threads = fs::read_dir("/proc/self/task").context("cannot count the threads: is /proc mounted?")?;
    Ok(threads.count())
}

/// Keeps what it takes to see whose sockets are whose, and nothing else. To be called before there are threads.
///
/// # Errors
/// Where something cannot be given up.
pub(super) fn keep_for_proc() -> anyhow::Result<()> {
    let proc = CapsHashSet::from([Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH]);
    drop_capabilities(&proc).context("cannot drop capabilities")?;
    prctl::set_no_new_privs().context("cannot forgo new privileges")
}

/// Drops supplementary groups and all capabilities of this thread but these, where it has them.
fn drop_capabilities(keep: &CapsHashSet) -> anyhow::Result<()> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let effective = caps::read(None, CapSet::Effective)?;
    if effective.contains(&Capability::CAP_SETGID) {
        // A user namespace may forbid it.
        if let Err(error) = nix::unistd::setgroups(&[]) {
            tracing::debug!(%error, "supplementary groups are kept");
        }
    }
    // Without this capability the bounding set is of no use either: nothing that is run gets more than this process has.
    if effective.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding)?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let left = permitted.intersection(keep).copied().collect();
    caps::set(None, CapSet::Effective, &left)?;
    caps::set(None, CapSet::Permitted, &left)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(files: &[&str], child: Option<u32>) -> SeccompFilter {
        let files = files.iter().map(PathBuf::from).collect();
        let sandbox = Sandbox { mode: SandboxMode::On, control: "/".into(), files, child };
        sandbox.filter(std::env::consts::ARCH.try_into().unwrap()).unwrap()
    }

    #[test]
    fn filters_are_as_narrow_as_the_node() {
        let whole = filter(&["/"], Some(7));
        let sizes = [&filter(&[], None), &filter(&[], Some(7)), &filter(&["/"], None), &whole]
            .map(|filter| BpfProgram::try_from(filter.clone()).unwrap().len());
        assert!(sizes[0] < sizes[1] && sizes[1] < sizes[2] && sizes[2] < sizes[3], "{sizes:?}");
        // Of these no node has any.
        let shown = format!("{whole:?}");
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_socket,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_ioctl,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_register,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_process_vm_writev,
        ] {
            assert!(
                !shown.contains(&format!("{{{call}: ")) && !shown.contains(&format!(", {call}: ")),
                "{call}"
            );
        }
    }

    #[test]
    fn a_process_with_threads_keeps_what_it_has() {
        let sandbox =
            Sandbox { mode: SandboxMode::Kill, control: "/".into(), files: Vec::new(), child: None };
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || ended.recv());
        let error = sandbox.enter().unwrap_err().to_string();
        assert!(error.contains("privileges belong to a thread"), "{error}");
        drop(end);
        assert!(other.join().unwrap().is_err(), "it was there all the time");
        assert!(Sandbox { mode: SandboxMode::Off, ..sandbox }.enter().is_ok());
    }
}
