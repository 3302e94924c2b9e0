//! OpenSSH and a web server inside namespaces, with keys and configuration of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::lab::{Lab, tool};
use super::process::{Process, run};
use super::requirements::{find, machine};
use super::wait::await_true;

/// `ip netns exec` gives each sshd mounts of its own: a /run with the directory that sshd wants, and a root account
/// that is not locked. Nothing of that is seen outside.
const START_SSHD: &str = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && \
    sed 's/^root:[^:]*:/root:*:/' /etc/shadow >/run/shadow && chmod 600 /run/shadow && \
    mount --bind /run/shadow /etc/shadow && exec \"$0\" -D -e -f \"$1\"";

/// Keys and configuration for all nodes of a test.
#[derive(Debug)]
pub(crate) struct Ssh {
    directory: TempDir,
    options: Vec<String>,
}

impl Ssh {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("a directory for keys");
        let key = directory.path().join("key");
        run(tool("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).ok();
        fs::copy(key.with_extension("pub"), directory.path().join("authorized_keys"))
            .expect("keys can be copied");
        let settings = [
            format!("IdentityFile={}", key.display()),
            "IdentitiesOnly=yes".to_owned(),
            "UserKnownHostsFile=/dev/null".to_owned(),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "StrictHostKeyChecking=no".to_owned(),
            "BatchMode=yes".to_owned(),
            "LogLevel=ERROR".to_owned(),
            "ConnectTimeout=30".to_owned(),
            "User=root".to_owned(),
        ];
        let mut options = vec!["-F".to_owned(), "none".to_owned()];
        for setting in settings {
            options.extend(["-o".to_owned(), setting]);
        }
        Self { directory, options }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// sshd at a port of a node; listens when this returns.
    #[track_caller]
    pub(crate) fn serve(&self, lab: &Lab, node: &str, port: u16) -> Process {
        let config = self.path(&format!("sshd-{node}-{port}.conf"));
        let text = format!(
            "Port {port}\nListenAddress 0.0.0.0\nHostKey {key}\nAuthorizedKeysFile {authorized}\nPidFile none\n\
             UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\nUseDNS no\n\
             LogLevel VERBOSE\nMaxStartups 500\nMaxSessions 500\nPrintMotd no\nPermitUserRC no\n\
             Subsystem sftp internal-sftp\n",
            key = self.path("key").display(),
            authorized = self.path("authorized_keys").display(),
        );
        fs::write(&config, text).expect("a configuration can be written");
        let sshd = find("sshd", &machine().path).expect("looked for before");
        let process = Process::start(lab.command(node, "sh").arg("-c").arg(START_SSHD).arg(sshd).arg(config));
        process.await_line("Server listening on");
        process
    }

    /// ssh from a node to an address and port.
    pub(crate) fn client(&self, lab: &Lab, node: &str, to: &str, port: u16) -> Command {
        let mut command = lab.command(node, "ssh");
        command.args(&self.options).args(["-T", "-p", &port.to_string(), to]);
        command
    }

    /// scp or sftp from a node, without its last arguments.
    pub(crate) fn copier(&self, lab: &Lab, node: &str, program: &str, port: u16) -> Command {
        let mut command = lab.command(node, program);
        command.args(&self.options).args(["-q", "-P", &port.to_string()]);
        command
    }

    /// A session that shows `SSH_CONNECTION` of the server and then echoes lines.
    #[track_caller]
    pub(crate) fn session(&self, lab: &Lab, node: &str, to: &str, port: u16) -> Session {
        let process =
            Process::start(self.client(lab, node, to, port).arg("echo \"peer $SSH_CONNECTION\"; exec cat"));
        Session { process }
    }
}

/// A live ssh session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) process: Process,
}

impl Session {
    /// Address and port of the client as the server sees it.
    #[track_caller]
    pub(crate) fn peer(&self) -> (String, u16) {
        let line = self.process.await_line("peer ");
        let mut words = line.split_whitespace().skip(1);
        let address = words.next().expect("an address").to_owned();
        (address, words.next().expect("a port").parse().expect("a port"))
    }

    /// Sends a line, which must come back.
    #[track_caller]
    pub(crate) fn echo(&mut self, line: &str) {
        self.process.send_line(line);
        assert_eq!(self.process.await_line(line), line);
    }

    /// Ends the session as its user would.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        assert_eq!(self.process.finish(), Some(0), "{}", self.process.transcript());
    }
}

/// busybox httpd at a port of a node: `/` has the node's name, `/cgi-bin/peer` the client's address and port.
#[derive(Debug)]
pub(crate) struct Web {
    _process: Process,
    directory: TempDir,
}

impl Web {
    #[track_caller]
    pub(crate) fn serve(lab: &Lab, node: &str, port: u16) -> Self {
        let directory = TempDir::new().expect("a directory for pages");
        fs::write(directory.path().join("index.html"), format!("page of {node}\n")).expect("a page");
        let programs = directory.path().join("cgi-bin");
        fs::create_dir(&programs).expect("a directory for programs");
        executable(
            &programs.join("peer"),
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s %s\\n' \"$REMOTE_ADDR\" \"$REMOTE_PORT\"\n",
        );
        let mut process = Process::start(
            lab.command(node, "busybox")
                .args(["httpd", "-f", "-p", &format!("0.0.0.0:{port}"), "-h"])
                .arg(directory.path()),
        );
        await_true("a listening web server", || {
            assert!(process.is_running(), "httpd ended: {}", process.transcript());
            listens(lab, node, port)
        });
        Self { _process: process, directory }
    }

    /// One more program, a shell script, below `/cgi-bin/`; what it writes is the page.
    pub(crate) fn add_program(&self, name: &str, script: &str) {
        let text = format!("#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n{script}\n");
        executable(&self.directory.path().join("cgi-bin").join(name), &text);
    }

    /// One more page.
    pub(crate) fn add(&self, name: &str, content: &[u8]) {
        fs::write(self.directory.path().join(name), content).expect("a page");
    }
}

/// Whether something listens at a TCP port of a node.
#[track_caller]
fn listens(lab: &Lab, node: &str, port: u16) -> bool {
    !lab.exec(node, &["ss", "-Hltn", &format!("sport = :{port}")]).ok().is_empty()
}

/// Writes a script.
pub(crate) fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a script can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("and made executable");
}

/// curl from a node, quiet and without the user's own settings.
pub(crate) fn curl(lab: &Lab, node: &str, arguments: &[&str]) -> Command {
    let mut command = lab.command(node, "curl");
    command.args(["-q", "-sS", "--noproxy", "*", "--max-time", "30"]).args(arguments);
    command
}
