//! Values with units.

use smoltcp::time::Duration;
use toml::Spanned;

use super::{Faults, FileFaults};
use crate::config::{FileError, Source};

/// The longest time that a scenario can name, in seconds: a year.
const MAX_SECONDS: f64 = 31_536_000.0;
/// The longest delay of a frame, in milliseconds.
const MAX_DELAY_MILLIS: f64 = 10_000.0;

pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::from_micros((seconds * 1e6).round() as u64)
}

pub(super) fn time(
    source: Source<'_>,
    value: &Spanned<f64>,
    field: &'static str,
) -> Result<Duration, FileError> {
    if !(0.0..=MAX_SECONDS).contains(value.get_ref()) {
        return Err(source.error(value, field, "write seconds, from 0 to a year"));
    }
    Ok(seconds(*value.get_ref()))
}

fn probability(
    source: Source<'_>,
    value: Option<&Spanned<f64>>,
    field: &'static str,
) -> Result<f64, FileError> {
    let Some(value) = value else { return Ok(0.0) };
    if !(0.0..=1.0).contains(value.get_ref()) {
        return Err(source.error(value, field, "write a probability, from 0 to 1"));
    }
    Ok(*value.get_ref())
}

pub(super) fn read_faults(source: Source<'_>, file: &FileFaults) -> Result<Faults, FileError> {
    let mut faults = Faults {
        loss: probability(source, file.loss.as_ref(), "faults.loss")?,
        duplicate: probability(source, file.duplicate.as_ref(), "faults.duplicate")?,
        reorder: probability(source, file.reorder.as_ref(), "faults.reorder")?,
        ..Faults::default()
    };
    if let Some(delay) = &file.delay_ms {
        let [shortest, longest] = *delay.get_ref();
        let valid =
            (0.0..=MAX_DELAY_MILLIS).contains(&shortest) && (shortest..=MAX_DELAY_MILLIS).contains(&longest);
        if !valid {
            let message = "write the shortest and the longest in milliseconds, up to 10000";
            return Err(source.error(delay, "faults.delay_ms", message));
        }
        faults.delay = (seconds(shortest / 1e3), seconds(longest / 1e3));
    }
    Ok(faults)
}
