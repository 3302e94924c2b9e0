//! The links of a node, and the one place where super-frames are cut.
//!
//! Where the kernel has io_uring, frames of devices are read and written many at a time: [`Links::ask`] for frames,
//! [`Links::queue`] those that leave, and [`Links::run`] does all of it in one system call.

use core::str::FromStr;
use std::io;
use std::mem;
use std::os::fd::RawFd;

use smoltcp::time::Instant;

use crate::link::{Job, Link, Ring, RingPort};
use crate::node::LinkId;
use crate::wire::{Frame, Segments};

/// Frames taken from all links in one turn, and those that may wait to be written.
pub(super) const BATCH: usize = 64;
/// Bytes taken from a link in one turn, unless they come in frames larger than those of the turn before. Four
/// super-frames stay in a cache until they are written.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// How frames are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMode {
    /// By io_uring, where the kernel has it.
    Auto,
    /// One system call for each frame.
    Single,
}

impl FromStr for IoMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "single" => Ok(Self::Single),
            other => Err(format!("`{other}` is neither `auto` nor `single`")),
        }
    }
}

/// Links in the order of [`LinkId`].
pub(super) struct Links {
    links: Vec<Box<dyn Link>>,
    /// A segment on its way.
    segment: Frame,
    batches: Option<Batches>,
}

struct Batches {
    ring: Ring,
    /// How the ring reads and writes each link, if it does.
    ports: Vec<Option<RingPort>>,
    /// How many frames to ask each link for.
    appetite: Vec<usize>,
    inbox: Vec<Job>,
    asked: usize,
    outbox: Vec<Job>,
    queued: usize,
}

impl Batches {
    fn new(links: &[Box<dyn Link>]) -> Option<Self> {
        let ports: Vec<_> = links.iter().map(|link| link.ring_port()).collect();
        if ports.iter().all(Option::is_none) {
            return None;
        }
        let ring = Ring::new()
            .inspect_err(|error| tracing::info!(%error, "no io_uring: one system call for each frame"))
            .ok()?;
        let jobs = || (0..BATCH).map(|_| Job::idle()).collect();
        Some(Self {
            ring,
            appetite: vec![1; ports.len()],
            ports,
            inbox: jobs(),
            asked: 0,
            outbox: jobs(),
            queued: 0,
        })
    }

    /// After a turn: a link that gave all that was asked for may have more, and is asked for twice as much. One that
    /// gave less is empty, and is asked for what it gave and one more, which tells that it is empty again.
    fn learn(&mut self) {
        let mut jobs = &self.inbox[..self.asked];
        while let Some(first) = jobs.first() {
            let link = first.link();
            let count = jobs.iter().take_while(|job| job.link() == link).count();
            let (of_link, others) = jobs.split_at(count);
            let came = || of_link.iter().filter(|job| job.result().is_ok());
            let (frames, bytes) = (came().count(), came().map(|job| job.frame.len()).sum::<usize>());
            let wanted = if frames == count { 2 * frames } else { frames + 1 };
            let size = bytes.checked_div(frames).unwrap_or(0).max(1);
            self.appetite[link.0] = wanted.min(BATCH).min(BATCH_BYTES / size).max(1);
            jobs = others;
        }
    }
}

impl Links {
    pub(super) fn new(links: Vec<Box<dyn Link>>, mode: IoMode) -> Self {
        let batches = if mode == IoMode::Auto { Batches::new(&links) } else { None };
        Self { links, segment: Frame::buffer(), batches }
    }

    /// Asks for frames of a link, where `left` links, with this one, have not yet been asked. False where the link
    /// is to be read by [`Links::receive`].
    pub(super) fn ask(&mut self, link: LinkId, left: usize) -> bool {
        let Some(batches) = &mut self.batches else { return false };
        let Some(port) = batches.ports[link.0] else { return false };
        let share = ((BATCH - batches.asked) / left).max(1);
        let count = batches.appetite[link.0].min(share).min(BATCH - batches.asked);
        for job in &mut batches.inbox[batches.asked..][..count] {
            job.set(link, port);
        }
        batches.asked += count;
        true
    }

    /// Whether [`Links::queue`] takes a frame: then it leaves with the next [`Links::run`]. Otherwise it is to be
    /// given to [`Links::send`].
    pub(super) fn queues(&self, link: LinkId, frame: &Frame) -> bool {
        let Some(batches) = &self.batches else { return false };
        batches.ports[link.0].is_some() && self.links[link.0].offloads().take(frame.offload)
    }

    /// Whether the queue has no more room.
    pub(super) fn full(&self) -> bool {
        self.batches.as_ref().is_some_and(|batches| batches.queued == BATCH)
    }

    /// Whether frames wait to be written.
    pub(super) fn waiting(&self) -> bool {
        self.batches.as_ref().is_some_and(|batches| batches.queued > 0)
    }

    /// Takes a frame in exchange for an unused buffer.
    pub(super) fn queue(&mut self, link: LinkId, frame: &mut Frame) {
        let Some(batches) = &mut self.batches else { return };
        let (Some(port), Some(job)) = (batches.ports[link.0], batches.outbox.get_mut(batches.queued)) else {
            return;
        };
        job.set(link, port);
        mem::swap(&mut job.frame, frame);
        batches.queued += 1;
    }

    /// Writes what is queued, and then reads what was asked for. Returns what was written.
    pub(super) fn run(&mut self) -> &[Job] {
        let Some(batches) = &mut self.batches else { return &[] };
        let queued = mem::take(&mut batches.queued);
        batches.ring.run(&mut batches.outbox[..queued], &mut batches.inbox[..batches.asked]);
        batches.learn();
        &batches.outbox[..queued]
    }

    /// Writes what is queued. Returns what was written.
    pub(super) fn flush(&mut self) -> &[Job] {
        let Some(batches) = &mut self.batches else { return &[] };
        let queued = mem::take(&mut batches.queued);
        batches.ring.run(&mut batches.outbox[..queued], &mut []);
        &batches.outbox[..queued]
    }

    /// Hands out what was read, one frame after the other, in exchange for the buffer: the link, and whether it had
    /// a frame. `None` after the last.
    pub(super) fn take(&mut self, number: usize, frame: &mut Frame) -> Option<(LinkId, io::Result<()>)> {
        let batches = self.batches.as_mut()?;
        let Some(job) = batches.inbox[..batches.asked].get_mut(number) else {
            batches.asked = 0;
            return None;
        };
        mem::swap(&mut job.frame, frame);
        Some((job.link(), job.result()))
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
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

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
        let mut links = Links::new(vec![Box::new(link)], IoMode::Auto);
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

    /// A link that a ring may read and write.
    struct Wire(UnixDatagram);

    impl Link for Wire {
        fn medium(&self) -> Medium {
            Medium::Ip
        }

        fn offloads(&self) -> Offloads {
            Offloads::default()
        }

        fn receive(&mut self, _frame: &mut Frame, _now: Instant) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn send(&mut self, frame: &Frame, _now: Instant) -> io::Result<()> {
            self.0.send(frame.bytes()).map(drop)
        }

        fn fd(&self) -> Option<RawFd> {
            Some(self.0.as_raw_fd())
        }

        fn ring_port(&self) -> Option<RingPort> {
            Some(RingPort::plain(self.0.as_raw_fd(), Medium::Ip))
        }
    }

    /// What one turn reads of both links: link and first byte.
    fn turn(links: &mut Links, buffer: &mut Frame) -> (Vec<(usize, u8)>, Vec<usize>) {
        assert!(links.ask(LinkId(0), 2) && links.ask(LinkId(1), 1));
        assert_eq!(links.run().len(), 0);
        let (mut came, mut empty) = (Vec::new(), Vec::new());
        let mut number = 0;
        while let Some((link, result)) = links.take(number, buffer) {
            number += 1;
            match result {
                Ok(()) => came.push((link.0, buffer.bytes()[0])),
                Err(_) => empty.push(link.0),
            }
        }
        (came, empty)
    }

    #[test]
    fn a_link_is_asked_for_what_it_is_likely_to_have() {
        let (wires, peers): (Vec<_>, Vec<_>) = (0..2).map(|_| UnixDatagram::pair().unwrap()).unzip();
        let wires = wires.into_iter().map(|wire| Box::new(Wire(wire)) as Box<dyn Link>).collect();
        let mut links = Links::new(wires, IoMode::Auto);
        let mut buffer = Frame::buffer();
        assert!(links.batches.is_some(), "the tests want a kernel that lets them use io_uring");
        for number in 0..8 {
            peers[0].send(&[number; 30]).unwrap();
        }
        assert_eq!(turn(&mut links, &mut buffer), (vec![(0, 0)], vec![1]));
        assert_eq!(turn(&mut links, &mut buffer), (vec![(0, 1), (0, 2)], vec![1]));
        assert_eq!(turn(&mut links, &mut buffer), ((3..7).map(|n| (0, n)).collect(), vec![1]));
        let (came, empty) = turn(&mut links, &mut buffer);
        assert_eq!((came, empty), (vec![(0, 7)], [vec![0; 7], vec![1]].concat()));
        // One frame, and another question that tells that there is none.
        peers[0].send(&[8]).unwrap();
        peers[1].send(&[9]).unwrap();
        assert_eq!(turn(&mut links, &mut buffer), (vec![(0, 8), (1, 9)], vec![0]));
        // Few large frames instead of many.
        for size in [60_000_usize; 10] {
            peers[1].set_nonblocking(true).unwrap();
            let _ = peers[1].send(&vec![1; size]);
            turn(&mut links, &mut buffer);
        }
        assert!(links.batches.as_ref().unwrap().appetite[1] <= BATCH_BYTES / 60_000);
    }

    #[test]
    fn what_is_queued_leaves_at_once_and_in_order() {
        let (wire, peer) = UnixDatagram::pair().unwrap();
        let mut links = Links::new(vec![Box::new(Wire(wire))], IoMode::Auto);
        let mut frame = Frame::from_packet(&[1; 30]);
        assert!(links.queues(LinkId(0), &frame), "the tests want a kernel that lets them use io_uring");
        assert!(!links.queues(LinkId(0), &super_frame()), "it is to be cut");
        assert!(!links.waiting());
        links.queue(LinkId(0), &mut frame);
        links.queue(LinkId(0), &mut Frame::from_packet(&[2; 20]));
        assert!(links.waiting() && !links.full());
        assert!(links.flush().iter().all(|job| job.result().is_ok()));
        assert!(!links.waiting());
        let mut space = [0; 40];
        assert_eq!((peer.recv(&mut space).unwrap(), space[0]), (30, 1));
        assert_eq!((peer.recv(&mut space).unwrap(), space[0]), (20, 2));
        for _ in 0..BATCH {
            assert!(!links.full());
            links.queue(LinkId(0), &mut Frame::from_packet(&[3; 20]));
        }
        assert!(links.full());
        drop(peer);
        assert_eq!(links.flush().iter().filter(|job| job.result().is_err()).count(), BATCH);
    }
}
