//! The loop that moves frames between links and a node.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;
use smoltcp::time::Instant;

use super::attendant::Attendant;
use super::clock::Clock;
use super::control::{Asked, Connection, ControlSocket, Progress};
use super::links::{BATCH, BATCH_BYTES, IoMode, Links};
use crate::link::{Job, Link};
use crate::node::{Host, LinkId, Node, Verdict};
use crate::wire::Frame;

/// While two peers talk, that is frames come by different links within this time, the loop looks for the next one
/// instead of sleeping: a process that slept is awake 16 to 46 µs late. On 2 CPUs without other work this takes a
/// quarter off the median of request and response by a router; 50 µs are less than the way to the peer and back, so
/// that they only cost. A stream in one direction has nobody who waits for the next frame, and is not looked for.
const SPIN: smoltcp::time::Duration = smoltcp::time::Duration::from_micros(200);
/// Whoever else wants this CPU goes first at each look. Where they keep it for longer than the loop would look at all,
/// looking costs more than it gains, and for so long the loop sleeps like everybody else.
const SHARED_PAUSE: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(10);
/// Events per wake-up.
const EVENTS: usize = 256;
/// Frames that wait for [`Service::seen`], and for how long: TCP sends a segment again after a second (RFC 6298 §2), and does
/// not notice this.
const MAX_HELD: usize = 64;
const MAX_HOLD: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(200);
/// Control connections at a time; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 300;

/// What only a process has: a node with links, an answer to commands, a life cycle.
pub trait Service {
    /// The node.
    fn node(&mut self) -> &mut dyn Node;

    /// The ARP table, for `pearp arp`.
    fn arp(&mut self, now: Instant) -> serde_json::Value;

    /// Identity and counters, for `pearp status`.
    fn status(&mut self, now: Instant) -> serde_json::Value;

    /// The leases, for `pearp leases`, where the service gives some.
    fn leases(&mut self, _now: Instant) -> Option<serde_json::Value> {
        None
    }

    /// What the node would do with a packet, for `pearp explain`.
    ///
    /// # Errors
    /// Where the request makes no sense here.
    fn explain(&mut self, _asked: &Asked, _now: Instant) -> Result<serde_json::Value, String> {
        Err("this node explains nothing: ask a router or a host".to_owned())
    }

    /// The host, where the service is one: it has sockets.
    fn host(&mut self) -> Option<&mut Host>;

    /// Called when the node has taken a frame, before anybody hears what it has to say about it. With a number, what comes
    /// of the frame waits until [`Service::seen`] is as high, but not for long.
    fn taken(&mut self, _now: Instant) -> Option<u64> {
        None
    }

    /// How far the service has seen what it wanted to see of frames.
    fn seen(&self) -> u64 {
        u64::MAX
    }

    /// The process that does for this one what takes privileges, if there is one.
    fn attendant(&mut self) -> Option<&mut Attendant> {
        None
    }

    /// Called once per turn of the loop, and when a child process has ended.
    ///
    /// # Errors
    /// Ends the process.
    fn turn(&mut self, now: Instant) -> anyhow::Result<()>;

    /// The process is about to end in order: a last word on the links.
    fn stop(&mut self, now: Instant);
}

/// A frame that waits until the service has seen what it wants to see.
struct Held {
    number: u64,
    until: Instant,
    link: LinkId,
    frame: Frame,
}

enum Source {
    Link(LinkId),
    Attendant,
    Listener,
    Signals,
    Connection(Connection),
}

/// Whether the next frame is worth looking for.
#[derive(Debug)]
struct Spin {
    /// The last frame that was forwarded: whence, and when.
    last: Option<(LinkId, Instant)>,
    until: Instant,
    /// Others want the CPU.
    paused_until: Instant,
}

impl Spin {
    const fn new() -> Self {
        Self { last: None, until: Instant::ZERO, paused_until: Instant::ZERO }
    }

    fn looks(&self, now: Instant) -> bool {
        now < self.until && now >= self.paused_until
    }

    /// A frame was forwarded: its answer may be as close behind as this one was behind what it answers.
    fn forwarded(&mut self, link: LinkId, now: Instant) {
        if self.last.is_some_and(|(other, at)| other != link && now < at + SPIN) {
            self.until = now + SPIN;
        }
        self.last = Some((link, now));
    }

    /// The loop has looked once.
    fn looked(&mut self, before: Instant, now: Instant) {
        if now >= before + SPIN {
            self.paused_until = now + SHARED_PAUSE;
        }
    }
}

/// The loop. Edge-triggered: a link stays in `ready` until it has nothing more to read.
pub struct EventLoop<S> {
    service: S,
    links: Links,
    clock: Clock,
    poll: Poll,
    sources: Slab<Source>,
    control: ControlSocket,
    signals: Signals,
    ready: VecDeque<LinkId>,
    buffer: Frame,
    accepting: bool,
    /// A control connection has more to do at once.
    busy: bool,
    spin: Spin,
    held: VecDeque<Held>,
}

impl<S: Service> EventLoop<S> {
    /// A loop over the links of `service`, in the order of [`LinkId`].
    ///
    /// # Errors
    /// Where the system refuses to watch a descriptor.
    pub fn new(
        service: S,
        links: Vec<Box<dyn Link>>,
        control: ControlSocket,
        clock: Clock,
        mode: IoMode,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new().context("cannot make an event queue")?;
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).context("cannot watch signals")?;
        let mut this = Self {
            service,
            ready: (0..links.len()).map(LinkId).collect(),
            links: Links::new(links, mode),
            clock,
            poll,
            sources: Slab::new(),
            control,
            signals,
            buffer: Frame::buffer(),
            accepting: true,
            busy: false,
            spin: Spin::new(),
            held: VecDeque::new(),
        };
        for link in (0..this.links.len()).map(LinkId) {
            if let Some(fd) = this.links.fd(link) {
                let token = Token(this.sources.insert(Source::Link(link)));
                this.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
            }
        }
        let token = Token(this.sources.insert(Source::Signals));
        this.poll.registry().register(&mut this.signals, token, Interest::READABLE)?;
        if let Some(attendant) = this.service.attendant() {
            let token = Token(this.sources.insert(Source::Attendant));
            let interest = Interest::READABLE | Interest::WRITABLE;
            this.poll.registry().register(attendant.source(), token, interest)?;
        }
        let token = Token(this.sources.insert(Source::Listener));
        this.poll.registry().register(&mut this.control.listener, token, Interest::READABLE)?;
        Ok(this)
    }

    /// Runs until a signal ends it.
    ///
    /// # Errors
    /// Where the event queue fails or the service gives up.
    pub fn run(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = self.clock.now();
            let timeout = self.timeout(now);
            let look = self.spin.looks(now) && self.ready.is_empty();
            if look {
                // Whoever has something to do on this CPU, perhaps the peer, goes first.
                thread::yield_now();
            }
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result.context("the event queue failed")?,
            }
            let before = now;
            let now = self.clock.now();
            if look {
                self.spin.looked(before, now);
            }
            let mut stop = false;
            for event in &events {
                stop |= self.on_event(event);
            }
            if stop {
                self.release(now, true);
                self.flush();
                self.service.stop(now);
                self.transmit(now);
                return Ok(());
            }
            self.read_links(now);
            if self.service.node().poll_timeout(now).is_some_and(|at| at <= now) {
                self.service.node().handle_timeout(now);
            }
            self.service.turn(now)?;
            self.release(now, false);
            self.advance_connections(now);
            self.transmit(now);
        }
    }

    fn timeout(&mut self, now: Instant) -> Option<Duration> {
        if self.busy || !self.ready.is_empty() || self.spin.looks(now) {
            return Some(Duration::ZERO);
        }
        let held = self.held.front().map(|held| held.until);
        let at = [self.service.node().poll_timeout(now), held].into_iter().flatten().min()?;
        let micros = (at.total_micros() - now.total_micros()).max(0);
        // epoll counts in milliseconds, and mio rounds up.
        Some(Duration::from_micros(micros as u64))
    }

    /// Notes what an event is about; true where the process is to end.
    fn on_event(&mut self, event: &Event) -> bool {
        match self.sources.get_mut(event.token().0) {
            Some(Source::Link(link)) => {
                let link = *link;
                if !self.ready.contains(&link) {
                    self.ready.push_back(link);
                }
            }
            Some(Source::Connection(connection)) => connection.on_event(event),
            Some(Source::Listener) => self.accepting = true,
            Some(Source::Attendant) => {
                if let Some(attendant) = self.service.attendant() {
                    attendant.on_event(event);
                }
            }
            Some(Source::Signals) => {
                // SIGCHLD only wakes the loop: the service looks after its children each turn.
                return self.signals.pending().any(|signal| signal != SIGCHLD);
            }
            None => {}
        }
        false
    }

    /// Takes a batch of frames from each link that may have some, and writes what is to leave.
    fn read_links(&mut self, now: Instant) {
        for left in (1..=self.ready.len()).rev() {
            if let Some(link) = self.ready.pop_front()
                && (self.links.ask(link, left) || self.read_link(link, now))
            {
                self.ready.push_back(link);
            }
        }
        // Another one is the first to be asked the next time.
        self.ready.rotate_left(1.min(self.ready.len()));
        let written = self.links.run();
        report(written, self.service.node());
        let mut number = 0;
        while let Some((link, result)) = self.links.take(number, &mut self.buffer) {
            number += 1;
            match result {
                Ok(()) => self.handle_frame(link, now),
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(link = link.0, %error, "cannot read");
                    }
                    self.ready.retain(|ready| *ready != link);
                }
            }
        }
        // What is queued leaves with the next reads, but not later than that.
        if self.ready.is_empty() {
            self.flush();
        }
    }

    /// Takes frames from a link, one system call for each; true where there may be more.
    fn read_link(&mut self, link: LinkId, now: Instant) -> bool {
        let mut bytes = 0;
        for _ in 0..BATCH {
            match self.links.receive(link, &mut self.buffer, now) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // A device that is down (EIO) wakes the loop again when it is up.
                    tracing::debug!(link = link.0, %error, "cannot read");
                    return false;
                }
            }
            bytes += self.buffer.len();
            self.handle_frame(link, now);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        true
    }

    /// The frame in the buffer came by a link.
    fn handle_frame(&mut self, link: LinkId, now: Instant) {
        let verdict = self.service.node().handle_frame(link, &mut self.buffer, now);
        let number = self.service.taken(now).filter(|number| self.service.seen() < *number);
        if let Some(number) = number.filter(|_| self.held.len() < MAX_HELD) {
            let until = now + MAX_HOLD;
            if let Verdict::Forward(link) = verdict {
                let frame = mem::replace(&mut self.buffer, Frame::buffer());
                self.held.push_back(Held { number, until, link, frame });
            }
            while self.held.len() < MAX_HELD
                && let Some((link, frame)) = self.service.node().poll_transmit(now)
            {
                self.held.push_back(Held { number, until, link, frame });
            }
            return;
        }
        if let Verdict::Forward(out) = verdict {
            if self.links.queues(out, &self.buffer) {
                if self.links.full() {
                    self.flush();
                }
                self.links.queue(out, &mut self.buffer);
            } else {
                self.flush();
                if let Err(error) = self.links.send(out, &self.buffer, now) {
                    tracing::trace!(link = out.0, %error, "frame not taken");
                    self.service.node().send_failed(out, &self.buffer);
                }
            }
            self.spin.forwarded(link, now);
        }
        self.transmit(now);
    }

    /// Sends what has waited long enough, or all of it.
    fn release(&mut self, now: Instant, all: bool) {
        let seen = self.service.seen();
        let due = |held: &Held| all || held.number <= seen || held.until <= now;
        while self.held.front().is_some_and(due)
            && let Some(held) = self.held.pop_front()
        {
            self.flush();
            self.send(held.link, &held.frame, now);
        }
    }

    fn send(&mut self, link: LinkId, frame: &Frame, now: Instant) {
        if let Err(error) = self.links.send(link, frame, now) {
            tracing::trace!(link = link.0, %error, "frame not taken");
            self.service.node().send_failed(link, frame);
        }
    }

    /// Writes what is queued.
    fn flush(&mut self) {
        if self.links.waiting() {
            let written = self.links.flush();
            report(written, self.service.node());
        }
    }

    fn transmit(&mut self, now: Instant) {
        while let Some((link, frame)) = self.service.node().poll_transmit(now) {
            // Frames leave in order.
            self.flush();
            self.send(link, &frame, now);
        }
    }

    fn advance_connections(&mut self, now: Instant) {
        while self.accepting && self.sources.len() < MAX_CONNECTIONS {
            match self.control.listener.accept() {
                Ok((socket, _)) => self.accept(socket),
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::warn!(%error, "cannot accept a control connection");
                    }
                    self.accepting = false;
                }
            }
        }
        self.busy = false;
        let mut over = Vec::new();
        for (token, source) in &mut self.sources {
            let Source::Connection(connection) = source else { continue };
            match connection.advance(&mut self.service, now) {
                Progress::Waiting => {}
                Progress::Busy => self.busy = true,
                Progress::Over => over.push(token),
            }
        }
        for token in over {
            // Clients may wait for its place in the listen queue.
            (self.accepting, self.busy) = (true, true);
            if let Source::Connection(mut connection) = self.sources.remove(token) {
                connection.end(&mut self.service, now);
                // Closing the descriptor ends the registration, too.
                let _ = self.poll.registry().deregister(&mut connection.socket);
            }
        }
    }

    fn accept(&mut self, socket: mio::net::UnixStream) {
        let entry = self.sources.vacant_entry();
        let mut connection = Connection::new(socket);
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().register(&mut connection.socket, Token(entry.key()), interest) {
            Ok(()) => drop(entry.insert(Source::Connection(connection))),
            Err(error) => tracing::warn!(%error, "cannot watch a control connection"),
        }
    }
}

/// Tells the node what a link did not take.
fn report(written: &[Job], node: &mut dyn Node) {
    for job in written {
        if let Err(error) = job.result() {
            tracing::trace!(link = job.link().0, %error, "frame not taken");
            node.send_failed(job.link(), &job.frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{MemoryLink, Offloads};
    use crate::node::support::host_config;
    use crate::wire::Medium;

    #[test]
    fn the_loop_looks_for_an_answer_while_nobody_else_wants_the_cpu() {
        let at = Instant::from_micros;
        let mut spin = Spin::new();
        for micros in [1000, 1010, 1020] {
            spin.forwarded(LinkId(0), at(micros));
            assert!(!spin.looks(at(micros)), "a stream in one direction");
        }
        spin.forwarded(LinkId(1), at(1220));
        assert!(!spin.looks(at(1220)), "that was long ago");
        spin.forwarded(LinkId(0), at(1300));
        assert!(spin.looks(at(1300)) && spin.looks(at(1499)) && !spin.looks(at(1500)));
        spin.looked(at(1300), at(1499));
        assert!(spin.looks(at(1499)));
        spin.looked(at(1300), at(1500));
        spin.forwarded(LinkId(1), at(1502));
        assert!(!spin.looks(at(1502)), "the CPU is shared");
        spin.forwarded(LinkId(0), at(11_450));
        spin.forwarded(LinkId(1), at(11_501));
        assert!(spin.looks(at(11_501)));
    }

    /// A host that rejects, whose service asks about each leak.
    struct Watcher {
        host: Host,
        asked: u64,
        seen: u64,
    }

    impl Service for Watcher {
        fn node(&mut self) -> &mut dyn Node {
            &mut self.host
        }

        fn arp(&mut self, _now: Instant) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn status(&mut self, _now: Instant) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn host(&mut self) -> Option<&mut Host> {
            Some(&mut self.host)
        }

        fn taken(&mut self, _now: Instant) -> Option<u64> {
            self.host.poll_leak()?;
            self.asked += 1;
            Some(self.asked)
        }

        fn seen(&self) -> u64 {
            self.seen
        }

        fn turn(&mut self, _now: Instant) -> anyhow::Result<()> {
            Ok(())
        }

        fn stop(&mut self, _now: Instant) {}
    }

    #[test]
    fn what_a_program_is_told_waits_until_its_name_is_known() {
        let mut now = Instant::from_secs(1);
        let hardware = smoltcp::wire::EthernetAddress([2, 0, 0, 0, 2, 1]);
        let mut host = Host::new(host_config(hardware, "0,4,1"), now).unwrap();
        now += smoltcp::time::Duration::from_secs(10);
        while host.poll_timeout(now).is_some_and(|at| at <= now) {
            host.handle_timeout(now);
        }
        while host.poll_transmit(now).is_some() {}
        let place = tempfile::tempdir().unwrap();
        let control = ControlSocket::bind(&place.path().join("sock")).unwrap();
        let (lan, _lan) = MemoryLink::pair(Medium::Ethernet, Offloads::default());
        let (tun, mut programs) = MemoryLink::pair(Medium::Ip, Offloads::default());
        let links: Vec<Box<dyn Link>> = vec![Box::new(lan), Box::new(tun)];
        let service = Watcher { host, asked: 0, seen: 0 };
        let mut this = EventLoop::new(service, links, control, Clock::start(), IoMode::Single).unwrap();
        let mut told = Frame::buffer();
        let mut leak = |this: &mut EventLoop<Watcher>, now| {
            // From port 3000, which is not in the set.
            #[rustfmt::skip]
            let mut packet = [
                0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 2, 203, 0, 113, 80,
                0x0B, 0xB8, 0, 53, 0, 8, 0, 0,
            ];
            smoltcp::wire::Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
            programs.send(&Frame::from_packet(&packet), now).unwrap();
            this.read_link(LinkId(1), now);
            programs.receive(&mut told, now).is_ok()
        };
        assert!(!leak(&mut this, now) && this.service.asked == 1, "it waits");
        this.release(now, false);
        assert_eq!(this.held.len(), 1);
        this.service.seen = 1;
        this.release(now, false);
        assert_eq!(this.held.len(), 0);
        // The first error is here now, and the second one waits.
        assert!(leak(&mut this, now) && this.service.asked == 2);
        this.ready.clear();
        assert!(this.timeout(now).is_some_and(|left| left <= Duration::from_micros(MAX_HOLD.total_micros())));
        this.release(now + MAX_HOLD - smoltcp::time::Duration::from_micros(1), false);
        assert_eq!(this.held.len(), 1);
        this.release(now + MAX_HOLD, false);
        assert_eq!(this.held.len(), 0, "nobody answers");
        // Nobody is asked, as where there is no attendant.
        this.service.seen = u64::MAX;
        assert!(leak(&mut this, now), "that of before");
        assert_eq!(this.held.len(), 0);
    }
}
