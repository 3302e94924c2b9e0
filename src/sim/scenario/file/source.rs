//! The text of a file: values with units, and where they are.

use core::net::Ipv4Addr;

use smoltcp::time::Duration;
use smoltcp::wire::Ipv4Cidr;
use toml::Spanned;

use super::{Faults, FileFaults, ScenarioError};

/// The longest time that a scenario can name, in seconds: a year.
const MAX_SECONDS: f64 = 31_536_000.0;
/// The longest delay of a frame, in milliseconds.
const MAX_DELAY_MILLIS: f64 = 10_000.0;

/// The text, for the line of a value.
#[derive(Clone, Copy)]
pub(super) struct Source<'a>(pub(super) &'a str);

pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::from_micros((seconds * 1e6).round() as u64)
}

impl Source<'_> {
    pub(super) fn error<T>(
        self,
        value: &Spanned<T>,
        field: &'static str,
        message: impl Into<String>,
    ) -> ScenarioError {
        let before = self.0.get(..value.span().start).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        ScenarioError::Value { line, field, message: message.into() }
    }

    pub(super) fn time(self, value: &Spanned<f64>, field: &'static str) -> Result<Duration, ScenarioError> {
        if !(0.0..=MAX_SECONDS).contains(value.get_ref()) {
            return Err(self.error(value, field, "write seconds, from 0 to a year"));
        }
        Ok(seconds(*value.get_ref()))
    }

    fn probability(self, value: Option<&Spanned<f64>>, field: &'static str) -> Result<f64, ScenarioError> {
        let Some(value) = value else { return Ok(0.0) };
        if !(0.0..=1.0).contains(value.get_ref()) {
            return Err(self.error(value, field, "write a probability, from 0 to 1"));
        }
        Ok(*value.get_ref())
    }

    /// A prefix, written at `value`.
    pub(super) fn prefix<T>(
        self,
        value: &Spanned<T>,
        text: &str,
        field: &'static str,
    ) -> Result<Ipv4Cidr, ScenarioError> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let (address, length) = (address.parse::<Ipv4Addr>().ok()?, length.parse().ok()?);
            (length <= 30).then(|| Ipv4Cidr::new(address, length))
        });
        let prefix = parsed.filter(|prefix| prefix.network() == *prefix);
        prefix.ok_or_else(|| self.error(value, field, "write a prefix of up to 30 bits, as 192.0.2.0/24"))
    }

    pub(super) fn faults(self, file: &FileFaults) -> Result<Faults, ScenarioError> {
        let mut faults = Faults {
            loss: self.probability(file.loss.as_ref(), "faults.loss")?,
            duplicate: self.probability(file.duplicate.as_ref(), "faults.duplicate")?,
            reorder: self.probability(file.reorder.as_ref(), "faults.reorder")?,
            ..Faults::default()
        };
        if let Some(delay) = &file.delay_ms {
            let [shortest, longest] = *delay.get_ref();
            let valid = (0.0..=MAX_DELAY_MILLIS).contains(&shortest)
                && (shortest..=MAX_DELAY_MILLIS).contains(&longest);
            if !valid {
                let message = "write the shortest and the longest in milliseconds, up to 10000";
                return Err(self.error(delay, "faults.delay_ms", message));
            }
            faults.delay = (seconds(shortest / 1e3), seconds(longest / 1e3));
        }
        Ok(faults)
    }
}
