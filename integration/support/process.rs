//! Programs: run to their end with a deadline, or in the background until dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{PATIENCE, within};

/// The bound for a program that is expected to end.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// For the output of a program that has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a program left when it had ended.
#[derive(Debug)]
pub(crate) struct Finished {
    #[expect(dead_code, reason = "shown where an assertion fails")]
    shown: String,
    /// Exit status; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Finished {
    /// The standard output of a program that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// A program that failed with this code and one line on standard error, which has all these words.
    #[track_caller]
    pub(crate) fn fails_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing: {self:#?}");
        }
    }

    /// As [`Self::fails_with`], in one line.
    #[track_caller]
    pub(crate) fn fails_in_one_line(&self, code: i32, words: &[&str]) {
        self.fails_with(code, words);
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
    }
}

/// Runs a program to its end, without input.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    run_with_input(command, b"")
}

/// Runs a program to its end with this standard input.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Finished {
    let begin = Instant::now();
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    let mut stdin = child.stdin.take().expect("is piped");
    let input = input.to_vec();
    // A program may end without having read everything.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().expect("is piped"));
    let stderr = collect(child.stderr.take().expect("is piped"));
    let Some(status) = within(RUN_LIMIT, || child.try_wait().expect("it is our child")) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{shown} has not ended after {RUN_LIMIT:?}");
    };
    let took = begin.elapsed();
    // Whatever the program started in the background must not hold its output.
    let text = |output: Receiver<String>| {
        output.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{shown} has ended, but not its output"))
    };
    Finished { code: status.code(), stdout: text(stdout), stderr: text(stderr), took, shown: shown.clone() }
}

fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// A program in the background; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    shown: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    transcript: Arc<Mutex<String>>,
}

impl Process {
    /// Starts a program, with pipes at its standard input, output and error.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
        let (sender, lines) = mpsc::channel();
        let transcript = Arc::default();
        follow(child.stdout.take().expect("is piped"), sender.clone(), Arc::clone(&transcript));
        follow(child.stderr.take().expect("is piped"), sender, Arc::clone(&transcript));
        Self { shown, stdin: child.stdin.take(), child, lines, transcript }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far, standard output and error.
    pub(crate) fn transcript(&self) -> String {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line of output with `word` in it; lines before it are skipped.
    #[track_caller]
    pub(crate) fn await_line(&self, word: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(word) => return line,
                Ok(_) => {}
                Err(reason) => {
                    let why = match reason {
                        RecvTimeoutError::Timeout => "did not write",
                        RecvTimeoutError::Disconnected => "ended before it wrote",
                    };
                    panic!("{} {why} `{word}`, only:\n{}", self.shown, self.transcript());
                }
            }
        }
    }

    /// Writes a line to its standard input.
    #[track_caller]
    pub(crate) fn send_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("is open until `finish`");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} does not read: {error}", self.shown));
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().expect("process ids are small"));
        kill(pid, signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.shown));
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Closes its standard input and waits for its end; the exit code. All that it has written is in the transcript then.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> Option<i32> {
        self.stdin = None;
        let Some(status) = within(PATIENCE, || self.child.try_wait().expect("it is our child")) else {
            panic!("{} does not end:\n{}", self.shown, self.transcript());
        };
        // Unless something that it started holds its output still.
        let deadline = Instant::now() + LAST_WORDS;
        while self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        status.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(pipe: impl Read + Send + 'static, lines: mpsc::Sender<String>, transcript: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            {
                let mut transcript = transcript.lock().unwrap_or_else(PoisonError::into_inner);
                transcript.push_str(&line);
                transcript.push('\n');
            }
            let _ = lines.send(line);
        }
    });
}
