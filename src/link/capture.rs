//! A wrapper that records every frame of a link in a pcap file.

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, PcapError};
use smoltcp::time::Instant;

use super::{Link, Offloads};
use crate::wire::{Frame, Medium};

/// Bytes recorded of a frame: all.
const SNAPLEN: u32 = 65_549;

/// A link and the file in which its frames are recorded.
#[derive(Debug)]
pub struct Capture<L, W: Write> {
    link: L,
    writer: Option<PcapWriter<W>>,
    /// The wall-clock time, since 1970, of the caller's time 0.
    epoch: Duration,
}

impl<L: Link, W: Write> Capture<L, W> {
    /// Records the frames of `link` to `file`; the caller's time 0 was at `epoch` since 1970.
    ///
    /// # Errors
    /// Where the file header cannot be written.
    pub fn new(link: L, file: W, epoch: Duration) -> io::Result<Self> {
        let datalink = match link.medium() {
            Medium::Ethernet => DataLink::ETHERNET,
            Medium::Ip => DataLink::RAW,
        };
        let header = PcapHeader { snaplen: SNAPLEN, datalink, ..PcapHeader::default() };
        let writer = PcapWriter::with_header(file, header).map_err(into_io)?;
        Ok(Self { link, writer: Some(writer), epoch })
    }

    fn record(&mut self, frame: &Frame, now: Instant) {
        let Some(writer) = &mut self.writer else { return };
        let at = self.epoch + Duration::from_micros(now.total_micros().max(0) as u64);
        let packet = PcapPacket::new(at, frame.len() as u32, frame.bytes());
        if let Err(error) = writer.write_packet(&packet) {
            // A full disk must not stop the traffic.
            tracing::error!(%error, "capture ended: cannot write; free space and restart to capture again");
            self.writer = None;
        }
    }
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

impl<L: Link, W: Write> Link for Capture<L, W> {
    fn medium(&self) -> Medium {
        self.link.medium()
    }

    fn offloads(&self) -> Offloads {
        self.link.offloads()
    }

    fn receive(&mut self, frame: &mut Frame, now: Instant) -> io::Result<()> {
        self.link.receive(frame, now)?;
        self.record(frame, now);
        Ok(())
    }

    fn send(&mut self, frame: &Frame, now: Instant) -> io::Result<()> {
        self.link.send(frame, now)?;
        self.record(frame, now);
        Ok(())
    }

    fn fd(&self) -> Option<RawFd> {
        self.link.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::MemoryLink;
    use pcap_file::pcap::PcapReader;

    #[test]
    fn both_directions_are_recorded_and_pass() {
        let (link, mut peer) = MemoryLink::pair(Medium::Ethernet, Offloads::default());
        let mut file = Vec::new();
        let mut capture = Capture::new(link, &mut file, Duration::from_secs(1000)).unwrap();
        let (sent, answered) = (Frame::from_ethernet(&[1; 60]), Frame::from_ethernet(&[2; 99]));
        capture.send(&sent, Instant::from_micros(5)).unwrap();
        let mut frame = Frame::buffer();
        peer.receive(&mut frame, Instant::ZERO).unwrap();
        assert_eq!(frame.bytes(), sent.bytes());
        peer.send(&answered, Instant::ZERO).unwrap();
        capture.receive(&mut frame, Instant::from_secs(1)).unwrap();
        assert_eq!(capture.receive(&mut frame, Instant::ZERO).unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let mut reader = PcapReader::new(&file[..]).unwrap();
        let mut next = || reader.next_packet().map(|packet| packet.unwrap().into_owned());
        let one = next().unwrap();
        assert_eq!((one.timestamp, &one.data[..]), (Duration::from_micros(1_000_000_005), sent.bytes()));
        let two = next().unwrap();
        assert_eq!((two.timestamp, &two.data[..]), (Duration::from_secs(1001), answered.bytes()));
        assert!(next().is_none());
    }
}
