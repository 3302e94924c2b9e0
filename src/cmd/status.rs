//! `pearp status`: identity, port set, counters.

use std::io::{self, Write};

use clap::Args;
use serde_json::Value;

use super::output::print_json;
use super::{Node, client};
use crate::runtime::Request;

const EXAMPLES: &str = "Examples:
  ip netns exec lab-h1 pearp status
  ip netns exec lab-h1 pearp status --json | jq .drops";

/// Hosts of a swarm that are shown.
const MAX_ITEMS: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    node: Node,
    /// Print JSON; `counters` has every count, `drops` those of dropped frames by reason
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let (value, _) = client::ask(&args.node, &Request::Status)?;
    let mut out = io::stdout().lock();
    if args.json {
        print_json(&mut out, &value)?;
    } else {
        print(&mut out, &value, 0)?;
    }
    Ok(())
}

fn print(out: &mut impl Write, value: &Value, depth: usize) -> io::Result<()> {
    let Value::Object(fields) = value else { return writeln!(out, "{}", inline(value)) };
    for (name, value) in fields {
        let indent = depth * 2;
        match value {
            Value::Array(items) if items.len() > MAX_ITEMS && items.iter().all(Value::is_object) => {
                writeln!(out, "{:indent$}{name}", "")?;
                for item in &items[..MAX_ITEMS] {
                    writeln!(out, "{:indent$}  {}", "", inline(item))?;
                }
                let more = items.len() - MAX_ITEMS;
                writeln!(out, "{:indent$}  and {more} more, which --json shows", "")?;
            }
            Value::Object(inner) if !inner.is_empty() => {
                writeln!(out, "{:indent$}{name}", "")?;
                print(out, value, depth + 1)?;
            }
            _ => writeln!(out, "{:indent$}{name:<16} {}", "", inline(value))?,
        }
    }
    Ok(())
}

fn inline(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => match range(value) {
            Some(range) => range,
            None if items.is_empty() => "-".to_owned(),
            None => items.iter().map(inline).collect::<Vec<_>>().join(", "),
        },
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        Value::Object(fields) => {
            let shown = fields.iter().map(|(name, value)| format!("{name} {}", inline(value)));
            shown.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// `[lo, hi]` as `lo-hi`.
fn range(value: &Value) -> Option<String> {
    let [first, last] = value.as_array()?.get(..)? else { return None };
    Some(format!("{}-{}", first.as_u64()?, last.as_u64()?))
}
