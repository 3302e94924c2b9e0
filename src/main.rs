//! `pearp`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    pearp::cmd::run()
}
