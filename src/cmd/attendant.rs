//! `pearp attendant`, which `pearp host` starts for itself.

use std::path::PathBuf;

use clap::Args;

use crate::runtime::{HookCommand, attend};

#[derive(Debug, Args)]
pub(super) struct AttendantArgs {
    /// The lease hook of the host
    #[arg(long, value_name = "PATH", requires = "interface")]
    hook: Option<PathBuf>,
    /// The TUN of the host
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
}

pub(super) fn run(args: AttendantArgs) -> anyhow::Result<()> {
    attend(args.hook.zip(args.interface).map(|(path, interface)| HookCommand { path, interface }))
}
