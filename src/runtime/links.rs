//! The links of a node, and the one place where super-frames are cut.

use std::io;
use std::os::fd::RawFd;

use smoltcp::time::Instant;

use crate::link::Link;
use crate::node::LinkId;
use crate::wire::{Frame, Segments};

/// Links in the order of [`LinkId`].
pub(super) struct Links {
    links: Vec<Box<dyn Link>>,
    /// A segment on its way.
    segment: Frame,
}

impl Links {
    pub(super) fn new(links: Vec<Box<dyn Link>>) -> Self {
        Self { links, segment: Frame::buffer() }
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn fd(&self, LinkId(index): LinkId) -> Option<RawFd> {
        self.links[index].fd()
    }

    pub(super) fn receive(
        &mut self,
        LinkId(index): LinkId,
        frame: &mut Frame,
        now: Instant,
    ) -> io::Result<()> {
        self.links[index].receive(frame, now)
    }

    /// Sends a frame whole where the link takes it so, else in frames of wire size. An error is the first of those:
    /// the others have been sent, as a receiver is better off with them.
    pub(super) fn send(&mut self, LinkId(index): LinkId, frame: &Frame, now: Instant) -> io::Result<()> {
        let link = &mut self.links[index];
        if link.offloads().take(frame.offload) {
            return link.send(frame, now);
        }
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut segments = Segments::of(frame, link.medium()).map_err(invalid)?;
        let mut result = Ok(());
        while segments.next_into(&mut self.segment) {
            let sent = link.send(&self.segment, now);
            result = result.and(sent);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{MemoryLink, Offloads};
    use crate::wire::{Checksum, Gso, GsoKind, Medium, Offload};

    /// A datagram of three.
    fn super_frame() -> Frame {
        #[rustfmt::skip]
        let mut frame = Frame::from_packet(&[
            0x45, 0, 0, 33, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2,
            0x10, 0, 0, 53, 0, 13, 0, 0, 1, 2, 3, 4, 5,
        ]);
        frame.offload = Offload {
            checksum: Some(Checksum { start: 20, offset: 6 }),
            gso: Some(Gso { kind: GsoKind::Udp, size: 2, header_len: 28 }),
        };
        frame
    }

    /// What arrives of a frame that a link with these offloads is given.
    fn arriving(offloads: Offloads, frame: &Frame) -> (io::Result<()>, Vec<(usize, Offload)>) {
        let (link, mut peer) = MemoryLink::pair(Medium::Ip, offloads);
        let mut links = Links::new(vec![Box::new(link)]);
        let sent = links.send(LinkId(0), frame, Instant::ZERO);
        let mut received = Vec::new();
        let mut frame = Frame::buffer();
        while peer.receive(&mut frame, Instant::ZERO).is_ok() {
            received.push((frame.len(), frame.offload));
        }
        (sent, received)
    }

    #[test]
    fn a_super_frame_is_cut_where_a_link_cannot_take_it() {
        let frame = super_frame();
        let all = Offloads { checksum: true, tcp: true, ecn: true, udp: true };
        let (sent, whole) = arriving(all, &frame);
        assert_eq!((sent.unwrap(), whole), ((), vec![(33, frame.offload)]));
        for offloads in [Offloads::default(), Offloads { udp: false, ..all }] {
            let (sent, cut) = arriving(offloads, &frame);
            assert_eq!(
                (sent.unwrap(), cut),
                ((), [30, 30, 29].map(|len| (len, Offload::default())).to_vec())
            );
        }
    }

    #[test]
    fn one_that_cannot_be_cut_is_an_error() {
        let mut frame = super_frame();
        frame.bytes_mut()[9] = 6;
        let (sent, received) = arriving(Offloads::default(), &frame);
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(received.is_empty());
    }
}
