//! `pearp sim`: a network in memory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use crate::sim::{self, Report, Scenario};

const EXAMPLES: &str = "Examples:
  pearp sim integration/sim/scenarios/lossy.toml --seed 7 --pcap lossy.pcap
  pearp sim integration/sim/scenarios/lossy.toml --seeds 1000

The same scenario and seed give the same frames, byte for byte. Where an invariant breaks, the run ends with it, the
command that plays it again, and status 1.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SimArgs {
    /// What is on the links, what goes wrong and what is sent: a TOML file
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// Seed of all random choices; the first one with --seeds
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Play this many seeds, one after the other
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Record every frame of all segments in this pcap file
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    pcap: Option<PathBuf>,
}

pub(super) fn run(args: &SimArgs) -> anyhow::Result<()> {
    let path = args.scenario.display();
    let text =
        fs::read_to_string(&args.scenario).with_context(|| format!("cannot read the scenario {path}"))?;
    let scenario = Scenario::parse(&text).with_context(|| format!("{path} is no scenario"))?;
    let mut summary = Summary::default();
    for seed in (args.seed..=u64::MAX).take(usize::try_from(args.seeds)?) {
        let play = || sim::run(&scenario, seed, args.pcap.is_some());
        // Over many seeds the logs of nodes tell nothing: a failing one is played again by itself.
        let many = args.seeds > 1;
        let report = if many {
            tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), play)
        } else {
            play()
        };
        if let (Some(file), Some(bytes)) = (&args.pcap, &report.pcap) {
            fs::write(file, bytes).with_context(|| format!("cannot write the capture {}", file.display()))?;
        }
        if let Some(violation) = &report.violation {
            let at = report.end;
            bail!("seed {seed}, at {at}: {violation}\nto play it again: pearp sim {path} --seed {seed}");
        }
        summary.add(&report);
    }
    summary.write(&mut io::stdout().lock(), &format!("{path}: {}", scenario.about))?;
    Ok(())
}

/// The sums over all seeds.
#[derive(Default)]
struct Summary {
    seeds: u64,
    frames: u64,
    sent: u64,
    delivered: u64,
    answered: u64,
    dropped: BTreeMap<&'static str, u64>,
    capture_hash: u64,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.frames += report.frames;
        self.sent += report.sent;
        self.delivered += report.delivered;
        self.answered += report.answered;
        for (reason, count) in &report.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        // Of one seed it is the hash itself.
        self.capture_hash = self.capture_hash.rotate_left(1) ^ report.capture_hash;
    }

    fn write(&self, out: &mut impl Write, title: &str) -> io::Result<()> {
        writeln!(out, "{title}")?;
        writeln!(out, "seeds           {}", self.seeds)?;
        writeln!(out, "frames          {}", self.frames)?;
        writeln!(out, "datagrams sent  {}", self.sent)?;
        writeln!(out, "delivered       {}", self.delivered)?;
        writeln!(out, "answered        {}", self.answered)?;
        for (reason, count) in &self.dropped {
            writeln!(out, "dropped         {count} {reason}")?;
        }
        writeln!(out, "capture hash    {:016x}", self.capture_hash)
    }
}
