//! `pearp psid`: what a PSID stands for.

use std::io::{self, Write};

use clap::Args;

use crate::ports::Psid;

const EXAMPLES: &str = "Examples:
  pearp psid 0,4,1       4096-8191: the first set of the lab
  pearp psid 6,8,0x34    63 ranges: the example of RFC 7597, appendix A";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PsidArgs {
    /// Offset bits, PSID bits, PSID (RFC 7597 §5.1)
    #[arg(value_name = "A,K,PSID")]
    psid: Psid,
}

pub(super) fn run(args: &PsidArgs) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for range in args.psid.ranges() {
        // `first-last` also for a single port, so that scripts need one form only.
        writeln!(out, "{}-{}", range.first(), range.last())?;
    }
    Ok(())
}
