//! How answers are printed.

use std::io::{self, Write};

use serde_json::Value;

use crate::ports::Psid;
use crate::wire::{DCCP, SCTP, TCP, UDP, UDP_LITE};

/// Ranges listed of one set. A PSID can stand for 32,767; `psid` names it whole.
const MAX_RANGES: usize = 1024;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}

/// The IP protocols with ports, as commands call them.
pub(super) const TRANSPORTS: [(&str, u8); 5] =
    [("tcp", TCP), ("udp", UDP), ("udplite", UDP_LITE), ("dccp", DCCP), ("sctp", SCTP)];

/// Pretty-printed JSON.
pub(super) fn print_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Columns as wide as they need to be.
pub(super) fn print_table<const COLUMNS: usize>(
    out: &mut impl Write,
    head: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> io::Result<()> {
    let rows: Vec<_> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
    let widths: [usize; COLUMNS] =
        core::array::from_fn(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0));
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// The ranges of a PSID, and whether there are more of them than are listed.
pub(super) fn ranges(psid: Psid) -> (Vec<(u16, u16)>, bool) {
    let listed = psid.ranges().take(MAX_RANGES).map(|range| (range.first(), range.last()));
    (listed.collect(), psid.ranges().nth(MAX_RANGES).is_some())
}

/// As [`ranges`], of a lease; none where the address is whole.
pub(super) fn leased_ranges(set: Psid) -> (Vec<(u16, u16)>, bool) {
    if set == Psid::FULL { Default::default() } else { ranges(set) }
}

/// Ranges of ports in a cell; `psid` names them all where there are several, and some may not be listed.
pub(super) fn shown_ports(ports: &[(u16, u16)], psid: Option<&str>, truncated: bool) -> String {
    match ports {
        [] => "all".to_owned(),
        [(first, last)] if first == last => first.to_string(),
        [(first, last)] => format!("{first}-{last}"),
        [(first, last), more @ ..] => {
            let psid = psid.unwrap_or("?");
            let more = if truncated { "many" } else { &more.len().to_string() };
            format!("psid {psid}: {first}-{last} and {more} more")
        }
    }
}
