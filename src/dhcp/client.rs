//! The DHCP client: a lease of an address, whole or a port set of it, for a host (PE-ARP §15; RFC 2131 §4.4, RFC 7618).
//!
//! ```text
//!            DISCOVER              REQUEST                ACK            probed
//!   (init) ──────────▶ selecting ──────────▶ requesting ─────▶ probing ─────────▶ bound
//!                                                                 │ conflict        │ T1
//!            REQUEST                 ACK, or no answer            ▼ DECLINE         ▼
//!   (stored) ────────▶ rebooting ───────────────────▶ probing   (init)          renewing ─T2▶ rebinding ─▶ (init)
//! ```
//!
//! [`Client`] is an engine as the others: messages and the time go in, messages and events come out. The caller probes
//! what the client has got ([`Event::Probe`]), uses it, and stops using it when it is told so ([`Event::Lost`]).
//!
//! DEVIATION RFC 2131 §4.4.1: no random wait of 1 to 10 s before the first message (PE-ARP rule 106). DEVIATION
//! RFC 2131 §4.4.5: a renewal is repeated after half of the time that is left even where that is less than a minute,
//! as leases may be short; never sooner than after [`MIN_RETRY`].

mod message;

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use dhcproto::v4::MessageType;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

pub use message::Ignored;
use message::{Answer, Question};

use super::codec::ClientId;
use crate::ports::{Portless, Psid};
use crate::wire::icmp::is_host;
use crate::wire::is_station;

/// RFC 2131 §4.1: the first repetition after 4 s, then after twice as long each time, up to 64 s; 1 s more or less.
const FIRST_RETRY: Duration = Duration::from_secs(4);
const MAX_RETRY: Duration = Duration::from_secs(64);
/// Between two renewals at least.
pub const MIN_RETRY: Duration = Duration::from_secs(4);
/// Requests for what was offered before the client looks for another offer.
const MAX_REQUESTS: u32 = 4;
/// Requests for a stored lease before it is used without an answer, or another one is looked for.
const MAX_REBOOTS: u32 = 2;
/// Unanswered questions before somebody is told.
const SILENT_TRIES: u32 = 2;
/// RFC 2131 §3.1 item 5: the wait after a DECLINE; after a refusal, so that two who disagree do not make a storm.
const DECLINE_WAIT: Duration = Duration::from_secs(10);
/// A set that was declined is not taken for so long: the DECLINE may still be under way, and would end the new lease
/// when it arrives, of which the client would know nothing (the life of a segment in RFC 9293 §3.4.1).
const DECLINED_TIME: Duration = Duration::from_secs(120);
/// The wait after offers that were all of no use: what is offered to this client is nobody else's for a while, and the
/// others need most of the time.
const REFUSED_WAIT: Duration = Duration::from_secs(600);
/// Declined sets that are remembered.
const MAX_DECLINED: usize = 16;
/// What is shorter is no lease that a host can use.
const MIN_LEASE: Duration = Duration::from_secs(10);

/// Of which address a set is wanted, where the host has others already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Any.
    #[default]
    Any,
    /// A further set of this one.
    At(Ipv4Addr),
    /// One that is none of these.
    Besides(Vec<Ipv4Addr>),
}

impl Wish {
    /// Whether an offer is of use. A whole address is no further set of one.
    fn allows(&self, ip: Ipv4Addr, set: Psid) -> bool {
        match self {
            Self::Any => true,
            Self::At(wanted) => ip == *wanted && set != Psid::FULL,
            Self::Besides(others) => !others.contains(&ip),
        }
    }
}

/// Configuration of a client.
#[derive(Clone, Debug)]
pub struct Config {
    /// The link-layer address.
    pub hardware: EthernetAddress,
    /// Which of the host's leases this is (RFC 4361 §6.1).
    pub iaid: u32,
    /// What the host calls itself.
    pub host_name: Option<String>,
    /// Whether it can use a part of an address.
    pub shares: bool,
    /// Of which address.
    pub wish: Wish,
    /// Seed of everything random.
    pub seed: u64,
}

impl Config {
    /// Who the client is to a server: RFC 4361 §6.1, with a DUID of the link-layer address (RFC 8415 §11.4).
    pub fn id(&self) -> ClientId {
        let [a, b, c, d] = self.iaid.to_be_bytes();
        ClientId::new(&[&[255, a, b, c, d, 0, 3, 0, 1][..], self.hardware.as_bytes()].concat())
    }
}

/// What a server gave, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLease {
    /// The address and its on-link prefix.
    pub address: Ipv4Cidr,
    /// The ports; [`Psid::FULL`] where the address is whole.
    pub set: Psid,
    /// What has no port and goes with them (PE-ARP rule 105); of a whole address everything does.
    pub portless: Portless,
    /// The router.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The domain.
    pub domain: Option<String>,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// T1: when to ask the server to renew it.
    pub renew: Instant,
    /// T2: when to ask any server.
    pub rebind: Instant,
    /// When it ends.
    pub until: Instant,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Probe this (PE-ARP rule 102), then call [`Client::probed`].
    Probe(ClientLease),
    /// What is in use may be used longer.
    Renewed(ClientLease),
    /// Stop using it: it has ended, or the server says that it has.
    Lost,
}

/// A message to send from port 68 to port 67.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Link-layer and IP address of a server; `None` for everybody on the link.
    pub to: Option<(EthernetAddress, Ipv4Addr)>,
    /// The source address; unspecified while the client has none.
    pub from: Ipv4Addr,
    /// The UDP payload.
    pub message: Vec<u8>,
}

/// Where a client stands, in the words of RFC 2131 §4.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// It waits before it begins again.
    Init,
    /// It looks for an offer.
    Selecting,
    /// It wants what was offered.
    Requesting,
    /// It asks for what it had before.
    Rebooting,
    /// It has a lease, and the caller looks whether somebody else uses it.
    Probing,
    /// It has a lease.
    Bound,
    /// It asks the server for more time.
    Renewing,
    /// It asks any server for more time.
    Rebinding,
    /// It has given its lease back.
    Released,
}

impl ClientState {
    /// The name in a status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Selecting => "selecting",
            Self::Requesting => "requesting",
            Self::Rebooting => "rebooting",
            Self::Probing => "probing",
            Self::Bound => "bound",
            Self::Renewing => "renewing",
            Self::Rebinding => "rebinding",
            Self::Released => "released",
        }
    }

    /// Whether the lease is in use.
    const fn uses(self) -> bool {
        matches!(self, Self::Bound | Self::Renewing | Self::Rebinding)
    }
}

/// What is wanted, from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    ip: Ipv4Addr,
    set: Psid,
    /// Who offered it.
    server: Option<Ipv4Addr>,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    config: Config,
    state: ClientState,
    wanted: Option<Wanted>,
    lease: Option<ClientLease>,
    /// What was declined, and until when that is remembered.
    declined: VecDeque<(Ipv4Addr, Psid, Instant)>,
    /// The server's link-layer address, or that of a relay; broadcast while it is unknown.
    via: EthernetAddress,
    xid: u32,
    /// When this client began to look for what it has not got yet.
    began: Instant,
    /// When the question that waits for an answer was sent first: a lease lasts from then (RFC 2131 §4.4.1).
    asked: Instant,
    /// How often it was sent.
    tries: u32,
    /// Whether something was offered that is of no use.
    refused: bool,
    /// When the next thing happens by itself.
    due: Option<Instant>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    rng: ChaCha8Rng,
}

impl Client {
    /// A client that begins at once: with what it had before, if `stored` still lasts, otherwise with nothing.
    pub fn new(config: Config, stored: Option<ClientLease>, now: Instant) -> Self {
        let stored = stored.filter(|lease| now < lease.until);
        let mut client = Self {
            state: ClientState::Init,
            wanted: stored.as_ref().map(|lease| Wanted {
                ip: lease.address.address(),
                set: lease.set,
                server: None,
            }),
            lease: stored,
            declined: VecDeque::new(),
            via: EthernetAddress::BROADCAST,
            xid: 0,
            began: now,
            asked: now,
            tries: 0,
            refused: false,
            due: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
        };
        client.enter(if client.lease.is_some() { ClientState::Rebooting } else { ClientState::Init }, now);
        client.handle_timeout(now);
        client
    }

    /// What is wanted from now on, of what is not there yet (PE-ARP rules 103 and 124).
    pub fn set_wish(&mut self, wish: Wish) {
        self.config.wish = wish;
    }

    /// Where it stands.
    pub fn state(&self) -> ClientState {
        self.state
    }

    /// What it has.
    pub fn lease(&self) -> Option<&ClientLease> {
        self.lease.as_ref().filter(|_| self.state.uses())
    }

    /// What it has, or had before and asks for again.
    pub fn kept(&self) -> Option<&ClientLease> {
        self.lease.as_ref()
    }

    /// Of which address it has something, or is about to have.
    pub fn address(&self) -> Option<Ipv4Addr> {
        let kept = self.lease.as_ref().map(|lease| lease.address.address());
        kept.or_else(|| Some(self.wanted?.ip))
    }

    /// Whether it looks for an offer, or waits before it does so.
    pub fn is_looking(&self) -> bool {
        matches!(self.state, ClientState::Init | ClientState::Selecting)
    }

    /// The link-layer address from which the lease came; unknown while a stored one is used without an answer.
    pub fn via(&self) -> Option<EthernetAddress> {
        Some(self.via).filter(|via| !via.is_broadcast())
    }

    /// Who it is to a server: [`Config::id`].
    pub fn id(&self) -> ClientId {
        self.config.id()
    }

    /// Takes in a message to port 68 of this link-layer address.
    ///
    /// # Errors
    /// It is dropped: see [`Ignored`].
    pub fn handle_message(
        &mut self,
        source: EthernetAddress,
        message: &[u8],
        now: Instant,
    ) -> Result<(), Ignored> {
        let answer = Answer::parse(message, self.xid, self.config.hardware)?;
        if !is_station(source) {
            return Err(Ignored::Format);
        }
        match (self.state, answer.kind) {
            (ClientState::Selecting, MessageType::Offer) => {
                // The first one that is of use: there is no better and no worse set.
                let lease = self.lease_of(&answer, now)?;
                self.declined.retain(|(_, _, until)| now < *until);
                let offered = (lease.address.address(), lease.set);
                if !self.config.wish.allows(offered.0, offered.1) {
                    self.refused = true;
                    return Err(Ignored::Unusable);
                }
                if self.declined.iter().any(|(ip, set, _)| (*ip, *set) == offered) {
                    // The server does not know yet, or never will.
                    self.decline(&lease, now);
                    self.give_up(now, DECLINE_WAIT);
                    return Ok(());
                }
                let server = Some(lease.server);
                self.wanted = Some(Wanted { ip: lease.address.address(), set: lease.set, server });
                self.enter(ClientState::Requesting, now);
                Ok(())
            }
            (
                ClientState::Requesting
                | ClientState::Rebooting
                | ClientState::Renewing
                | ClientState::Rebinding,
                MessageType::Ack,
            ) => {
                let lease = self.lease_of(&answer, now)?;
                let granted = (lease.address.address(), lease.set);
                let wanted = self.wanted.filter(|wanted| (wanted.ip, wanted.set) == granted);
                let chosen = wanted.and_then(|wanted| wanted.server);
                if wanted.is_none() || chosen.is_some_and(|server| server != lease.server) {
                    return Err(Ignored::Unusable);
                }
                self.via = source;
                self.granted(lease, now);
                Ok(())
            }
            (
                ClientState::Requesting
                | ClientState::Rebooting
                | ClientState::Renewing
                | ClientState::Rebinding,
                MessageType::Nak,
            ) => {
                let server = answer.server.ok_or(Ignored::Format)?;
                if self.wanted.and_then(|wanted| wanted.server).is_some_and(|chosen| chosen != server) {
                    return Err(Ignored::Foreign);
                }
                tracing::info!(%server, "the DHCP server refuses what was asked for");
                // What was stored may simply be somebody else's by now.
                let wait = if self.state == ClientState::Rebooting { Duration::ZERO } else { DECLINE_WAIT };
                self.give_up(now, wait);
                Ok(())
            }
            _ => Err(Ignored::Unexpected),
        }
    }

    /// What an answer gives, if a host can use it.
    fn lease_of(&self, answer: &Answer, now: Instant) -> Result<ClientLease, Ignored> {
        let (Some(address), Some(server), Some(lease)) = (answer.address(), answer.server, answer.lease)
        else {
            return Err(Ignored::Format);
        };
        let set = answer.set.unwrap_or(Psid::FULL);
        if !is_host(address.address()) || lease < MIN_LEASE || (set != Psid::FULL && !self.config.shares) {
            return Err(Ignored::Unusable);
        }
        // A lease without end is one of 136 years.
        let rebind = answer.rebind.filter(|rebind| *rebind < lease).unwrap_or(lease - lease / 8);
        let renew = answer.renew.filter(|renew| *renew < rebind).unwrap_or_else(|| (lease / 2).min(rebind));
        let from = self.asked.min(now);
        Ok(ClientLease {
            address,
            set,
            portless: if set == Psid::FULL { Portless::default() } else { answer.portless.clone() },
            gateway: answer.gateway.filter(|gateway| is_host(*gateway) && *gateway != address.address()),
            dns: answer.dns.clone(),
            domain: answer.domain.clone(),
            server,
            renew: from + renew,
            rebind: from + rebind,
            until: from + lease,
        })
    }

    fn granted(&mut self, lease: ClientLease, now: Instant) {
        if lease.until <= now {
            return self.give_up(now, Duration::ZERO);
        }
        let renewed = self.state.uses();
        self.lease = Some(lease.clone());
        if renewed {
            self.events.push_back(Event::Renewed(lease));
            self.enter(ClientState::Bound, now);
        } else {
            self.events.push_back(Event::Probe(lease));
            self.enter(ClientState::Probing, now);
        }
    }

    /// What came of [`Event::Probe`]; or, later, that somebody else uses what the client has (RFC 5227 §2.4).
    pub fn probed(&mut self, free: bool, now: Instant) {
        let Some(lease) = self.lease.clone() else { return };
        if self.state == ClientState::Probing && free {
            return self.enter(ClientState::Bound, now);
        }
        if free || !(self.state == ClientState::Probing || self.state.uses()) {
            return;
        }
        self.decline(&lease, now);
        self.give_up(now, DECLINE_WAIT);
    }

    fn decline(&mut self, lease: &ClientLease, now: Instant) {
        let (ip, set) = (lease.address.address(), lease.set);
        self.xid = self.rng.random();
        self.send(
            None,
            Ipv4Addr::UNSPECIFIED,
            Question {
                requested: Some(ip),
                set: Some(set),
                server: Some(lease.server),
                ..self.question(MessageType::Decline, now)
            },
        );
        self.declined.retain(|(other, other_set, _)| (*other, *other_set) != (ip, set));
        if self.declined.len() >= MAX_DECLINED {
            self.declined.pop_front();
        }
        self.declined.push_back((ip, set, now + DECLINED_TIME));
    }

    /// Gives the lease back, of which nothing can be made, and looks for another one later.
    pub fn refuse(&mut self, now: Instant) {
        self.release(now);
        self.wanted = None;
        self.enter(ClientState::Init, now + MAX_RETRY);
    }

    /// Gives the lease back and does nothing more.
    pub fn release(&mut self, now: Instant) {
        let has = self.state.uses() || self.state == ClientState::Probing;
        if let Some(lease) = self.lease.take().filter(|lease| has && now < lease.until) {
            let own = lease.address.address();
            self.xid = self.rng.random();
            self.send(
                Some((self.via, lease.server)),
                own,
                Question {
                    ciaddr: Some(own),
                    set: Some(lease.set),
                    server: Some(lease.server),
                    ..self.question(MessageType::Release, now)
                },
            );
        }
        self.state = ClientState::Released;
        self.due = None;
    }

    /// When [`Client::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Asks again, renews, ends.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.due.is_some_and(|due| due <= now) {
            self.proceed(now);
        }
    }

    fn proceed(&mut self, now: Instant) {
        match self.state {
            ClientState::Init => {
                self.began = now;
                self.enter(ClientState::Selecting, now);
            }
            ClientState::Selecting if self.refused => self.enter(ClientState::Init, now + REFUSED_WAIT),
            ClientState::Selecting => {
                if self.tries == SILENT_TRIES {
                    tracing::warn!("no DHCP server has offered anything yet; asking on");
                }
                self.ask(now);
            }
            ClientState::Requesting if self.tries >= MAX_REQUESTS => self.give_up(now, Duration::ZERO),
            ClientState::Rebooting if self.tries >= MAX_REBOOTS => match self.lease.clone() {
                // RFC 2131 §3.2 item 4: it still lasts, although no server is there.
                Some(lease) if now < lease.until => {
                    self.events.push_back(Event::Probe(lease));
                    self.enter(ClientState::Probing, now);
                }
                Some(_) | None => self.give_up(now, Duration::ZERO),
            },
            ClientState::Requesting | ClientState::Rebooting => self.ask(now),
            ClientState::Probing | ClientState::Bound | ClientState::Renewing | ClientState::Rebinding => {
                let Some(lease) = &self.lease else { return self.give_up(now, Duration::ZERO) };
                if now >= lease.until {
                    tracing::warn!(address = %lease.address, set = %lease.set, "the lease has ended");
                    self.give_up(now, Duration::ZERO);
                } else if self.state == ClientState::Probing {
                    self.due = Some(lease.until);
                } else if now >= lease.rebind && self.state != ClientState::Rebinding {
                    self.enter(ClientState::Rebinding, now);
                } else if now >= lease.renew && self.state == ClientState::Bound {
                    self.enter(ClientState::Renewing, now);
                } else {
                    self.ask(now);
                }
            }
            ClientState::Released => self.due = None,
        }
    }

    /// Nothing is left of a lease, or of the wish for one.
    fn give_up(&mut self, now: Instant, wait: Duration) {
        if self.state.uses() || self.state == ClientState::Probing {
            self.events.push_back(Event::Lost);
        }
        (self.lease, self.wanted) = (None, None);
        self.enter(ClientState::Init, now + wait);
    }

    fn enter(&mut self, state: ClientState, at: Instant) {
        self.state = state;
        (self.tries, self.refused) = (0, false);
        match state {
            ClientState::Selecting => {
                self.wanted = None;
                self.begin_question(at);
            }
            ClientState::Requesting | ClientState::Rebooting => self.begin_question(at),
            ClientState::Renewing | ClientState::Rebinding => {
                // Any server may answer.
                self.wanted = self.wanted.map(|wanted| Wanted { server: None, ..wanted });
                self.begin_question(at);
            }
            ClientState::Init => self.due = Some(at),
            ClientState::Probing => self.due = self.lease.as_ref().map(|lease| lease.until),
            // What began at once is renewed at once: a stored lease may be past T1.
            ClientState::Bound => self.due = self.lease.as_ref().map(|lease| lease.renew.max(at)),
            ClientState::Released => self.due = None,
        }
    }

    fn begin_question(&mut self, now: Instant) {
        // RFC 2131 §4.4.1: an offer and the request for it have the same xid.
        if self.state != ClientState::Requesting {
            self.xid = self.rng.random();
        }
        self.asked = now;
        self.ask(now);
    }

    /// Sends the question of this state, once more.
    fn ask(&mut self, now: Instant) {
        self.tries += 1;
        let wanted = self.wanted;
        let in_use = self.lease.as_ref().map(|lease| lease.address.address());
        let (kind, mut to, mut from) = (MessageType::Request, None, Ipv4Addr::UNSPECIFIED);
        let mut question = Question {
            requested: wanted.map(|wanted| wanted.ip),
            set: wanted.map(|wanted| wanted.set),
            server: wanted.and_then(|wanted| wanted.server),
            ..self.question(kind, now)
        };
        match self.state {
            ClientState::Selecting => {
                question.kind = MessageType::Discover;
                if let Wish::At(ip) = self.config.wish {
                    question.requested = Some(ip);
                }
            }
            ClientState::Renewing | ClientState::Rebinding => {
                (question.requested, question.ciaddr) = (None, in_use);
                from = in_use.unwrap_or(from);
                if let (ClientState::Renewing, Some(lease)) = (self.state, &self.lease) {
                    to = self.via().map(|via| (via, lease.server));
                }
            }
            _ => {}
        }
        self.send(to, from, question);
        self.due = Some(now + self.retry(now));
    }

    /// How long an answer is waited for.
    fn retry(&mut self, now: Instant) -> Duration {
        let backoff = || (FIRST_RETRY * 2_u32.pow(self.tries.saturating_sub(1).min(10))).min(MAX_RETRY);
        let jitter = Duration::from_millis(self.rng.random_range(0..2000));
        match (self.state, &self.lease) {
            // RFC 2131 §4.4.5.
            (ClientState::Renewing, Some(lease)) => half(lease.rebind, now),
            (ClientState::Rebinding, Some(lease)) => half(lease.until, now),
            _ => backoff() + jitter - Duration::from_secs(1),
        }
    }

    fn question(&self, kind: MessageType, now: Instant) -> Question {
        Question {
            kind,
            xid: self.xid,
            elapsed: now - self.began,
            ciaddr: None,
            requested: None,
            set: None,
            server: None,
        }
    }

    fn send(&mut self, to: Option<(EthernetAddress, Ipv4Addr)>, from: Ipv4Addr, question: Question) {
        tracing::debug!(kind = ?question.kind, state = self.state.name(), "DHCP out");
        self.transmits.push_back(Transmit { to, from, message: question.to_bytes(&self.config) });
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// Half of the time until `end`, and never beyond it.
fn half(end: Instant, now: Instant) -> Duration {
    let left = if now < end { end - now } else { Duration::ZERO };
    (left / 2).max(MIN_RETRY).min(left.max(Duration::from_millis(1)))
}
