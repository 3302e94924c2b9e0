//! Configuration files: what is wrong with a TOML file, and in which line.

use core::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use smoltcp::wire::Ipv4Cidr;
use toml::Spanned;

/// What is wrong with a file, and where.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not TOML, or a field that is unknown, missing or of another type; the message has line and field.
    #[error("{}", .0.to_string().trim_end())]
    Toml(Box<toml::de::Error>),
    /// A value that does not fit.
    #[error("line {line}: {field}: {message}")]
    Value {
        /// Where it is, from 1.
        line: usize,
        /// The field, with its table.
        field: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// The text of a file, for the line of a value.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a>(pub(crate) &'a str);

impl Source<'_> {
    pub(crate) fn parse<T: DeserializeOwned>(self) -> Result<T, FileError> {
        toml::from_str(self.0).map_err(|error| FileError::Toml(Box::new(error)))
    }

    pub(crate) fn error<T>(
        self,
        value: &Spanned<T>,
        field: &'static str,
        message: impl Into<String>,
    ) -> FileError {
        let before = self.0.get(..value.span().start).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        FileError::Value { line, field, message: message.into() }
    }

    /// A prefix with room for a router and a host, written at `value`.
    pub(crate) fn prefix<T>(
        self,
        value: &Spanned<T>,
        text: &str,
        field: &'static str,
    ) -> Result<Ipv4Cidr, FileError> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let (address, length) = (address.parse::<Ipv4Addr>().ok()?, length.parse().ok()?);
            (length <= 30).then(|| Ipv4Cidr::new(address, length))
        });
        let prefix = parsed.filter(|prefix| prefix.network() == *prefix);
        prefix.ok_or_else(|| self.error(value, field, "write a prefix of up to 30 bits, as 198.51.100.0/24"))
    }
}
