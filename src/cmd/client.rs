//! The client's side of the control socket.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use serde_json::Value;

use super::Node;
use crate::runtime::{Answer, Request, control_path};

/// Asks the node; the result, and the connection for what follows.
pub(super) fn ask(node: &Node, request: &Request) -> anyhow::Result<(Value, BufReader<UnixStream>)> {
    let path = node.socket.clone().unwrap_or_else(control_path);
    let mut socket = UnixStream::connect(&path).map_err(|error| {
        let shown = path.display();
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow::anyhow!(
                "no node answers on {shown}: run this in a node's network namespace \
                 (`ip netns exec lab-h1 pearp …`), or name its socket with --socket"
            ),
            ErrorKind::PermissionDenied => {
                anyhow::anyhow!("no permission to use {shown}: run as the user who runs the node")
            }
            _ => anyhow::Error::new(error).context(format!("cannot reach the node on {shown}")),
        }
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    socket.write_all(&line).context("the node went away")?;
    let mut reader = BufReader::new(socket);
    let mut answer = String::new();
    reader.read_line(&mut answer).context("the node went away")?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Ok(value)) => Ok((value, reader)),
        Ok(Answer::Error(text)) => bail!("{text}"),
        Err(_) => bail!("the node ended without an answer"),
    }
}
