//! The own set against everything that another host can say about it: a table as in `matrix`.
//!
//! ```text
//!   UNCL PROB ANN HELD LOST   the phase: unclaimed, probing, announcing, held, lost; EXP, expired
//!   given  own  whole         who gave the set: an operator, so that one probe is enough and it is kept; nobody, so
//!                             that it is probed three times and given up; an operator, and it is a whole address;
//!                             leased: a server
//!   Probe Announce Release    sent by broadcast
//!   ConflictB ReplyR          sent to B, to the router
//!   arp!B  arp?               plain reply to B; plain announcement
//!   Ready disputed lost       events: in use; claimed by another; claimed by another and given up
//!   B:STA                     B is learned as a neighbor
//! ```

use super::matrix::{cell, check, effects, letter, short};
use super::*;

struct Row {
    /// How it is described, as in the table: the phase, and what set it is.
    name: &'static str,
    config: fn() -> Config,
    enter: fn(&mut Rig),
    /// When the last step is over, in milliseconds; where none is due, a long time.
    silence: u64,
}

const fn row(name: &'static str, config: fn() -> Config, enter: fn(&mut Rig), silence: u64) -> Row {
    Row { name, config, enter, silence }
}

/// Nothing is due.
const NEVER: u64 = 3_600_000;
/// A given set is announced 200 ms after its probe, and once more 2 s later.
const PROBING: u64 = 2200;
/// Another set is probed again after 1 to 2 s, twice; 2 s later it is announced.
const PROBING_LONG: u64 = 8000;
const ANNOUNCING: u64 = 2000;
/// A given set is probed again after 60 to 61 s.
const LOST: u64 = 63_200;
const LEASE: u64 = 20_000;

const ROWS: [Row; 17] = [
    row("UNCL given", given, |_| (), NEVER),
    row("PROB given", given, probing, PROBING),
    row("ANN given", given, announcing, ANNOUNCING),
    row("HELD given", given, held, NEVER),
    row("LOST given", given, lost, LOST),
    row("UNCL own", own, |_| (), NEVER),
    row("PROB own", own, probing, PROBING_LONG),
    row("ANN own", own, announcing, ANNOUNCING),
    row("HELD own", own, held, NEVER),
    row("LOST own", own, lost, NEVER),
    row("UNCL whole", whole_host, |_| (), NEVER),
    row("PROB whole", whole_host, probing, PROBING),
    row("ANN whole", whole_host, announcing, ANNOUNCING),
    row("HELD whole", whole_host, held, NEVER),
    row("LOST whole", whole_host, lost, LOST),
    row("HELD leased", leased, held, LEASE),
    row("EXP leased", leased, expired, NEVER),
];

fn given() -> Config {
    sharer(A, "0,4,1")
}

fn own() -> Config {
    let config = given();
    Config { own: vec![OwnSet { authoritative: false, ..config.own[0].clone() }], ..config }
}

/// For 20 s from the start.
fn leased() -> Config {
    let config = given();
    let until = Some(Instant::from_secs(1000) + millis(LEASE));
    Config { own: vec![OwnSet { until, ..config.own[0].clone() }], ..config }
}

/// Until the first probe is sent.
fn probing(rig: &mut Rig) {
    rig.claim_own();
    while rig.engine.own_phase(OwnId::FIRST) != (ClaimPhase::Probing { sent: 1 }) {
        rig.wait(millis(1));
    }
}

/// Until the first announcement is sent.
fn announcing(rig: &mut Rig) {
    rig.claim_own();
    while rig.engine.own_phase(OwnId::FIRST) != (ClaimPhase::Announcing { sent: 1 }) {
        rig.wait(millis(1));
    }
}

fn held(rig: &mut Rig) {
    rig.engine.hold_own(OwnId::FIRST);
}

fn expired(rig: &mut Rig) {
    held(rig);
    rig.wait(millis(LEASE));
}

fn lost(rig: &mut Rig) {
    probing(rig);
    rig.hear(&probe_of(rig, B)).unwrap();
}

fn enter(row: &Row) -> Rig {
    let mut rig = Rig::unclaimed((row.config)());
    (row.enter)(&mut rig);
    rig.sent.clear();
    rig.events.clear();
    rig
}

fn own_set(rig: &Rig) -> OwnSet {
    rig.engine.config().own[0].clone()
}

/// The own address, as another host would claim it.
fn address(rig: &Rig) -> PeAddress {
    let own = own_set(rig);
    PeAddress { shared: own.shared, ..PeAddress::new(own.ip) }
}

fn probe_of(rig: &Rig, host: EthernetAddress) -> Message {
    Message::probe(host, address(rig).with_port(0, Some(5000)), &[range(5000, 9000)])
}

fn claim(rig: &Rig) -> Message {
    Message::announce(B, address(rig).with_port(0, Some(5000)), &[range(5000, 9000)])
}

fn conflict(rig: &Rig, to: EthernetAddress) -> Message {
    Message::conflict(B, address(rig).with_port(0, Some(5000)), to, &[range(5000, 9000)])
}

fn question(ip: Ipv4Addr, port: u16) -> Message {
    resolve(ROUTER_MAC, PeAddress::new(ROUTER), ip, port, &[])
}

/// An address that neither the hosts nor the router have.
const THIRD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

type Happen = fn(&mut Rig, &Row) -> Result<(), Refused>;

const EVENTS: [(&str, Happen); 23] = [
    ("timer", |rig, _| {
        let due = rig.engine.poll_timeout();
        rig.wait(due.map_or(millis(NEVER), |at| at - rig.now));
        Ok(())
    }),
    ("silence", |rig, row| {
        rig.wait(millis(row.silence));
        Ok(())
    }),
    ("PROBE", |rig, _| rig.hear(&probe_of(rig, B))),
    // For another part of a shared address; for another address than a whole one.
    ("other PROBE", |rig, _| {
        let ip = if own_set(rig).shared { SHARED } else { THIRD };
        rig.hear(&Message::probe(B, shared(ip).with_port(0, Some(8192)), &[psid("0,4,2")]))
    }),
    ("CONFLICT", |rig, _| rig.hear(&conflict(rig, A))),
    ("CONFLICT to C", |rig, _| rig.hear(&conflict(rig, C))),
    ("ANNOUNCE", |rig, _| rig.hear(&claim(rig))),
    ("twice", |rig, _| {
        let _ = rig.hear(&claim(rig));
        rig.wait(millis(100));
        rig.hear(&claim(rig))
    }),
    ("RESOLVE by B", |rig, _| rig.hear(&resolve(B, address(rig), THIRD, 80, &[range(5000, 9000)]))),
    ("RESOLVE", |rig, _| rig.hear(&question(own_set(rig).ip, 5000))),
    ("other RESOLVE", |rig, _| {
        let own = own_set(rig);
        rig.hear(&question(if own.shared { SHARED } else { THIRD }, 9000))
    }),
    ("SOLICIT-ALL", |rig, _| {
        let question = Message::solicit_all(ROUTER_MAC, PeAddress::new(ROUTER), own_set(rig).ip);
        let result = rig.hear(&question);
        rig.wait(secs(1));
        result
    }),
    ("by a host", |rig, _| {
        let question = Message::solicit_all(B, PeAddress::new(ROUTER), own_set(rig).ip);
        rig.hear(&but(question, |message| message.sender.router = false))
    }),
    ("claim_own", |rig, _| {
        rig.claim_own();
        Ok(())
    }),
    // A claim that begins anew while a router waits for an answer.
    ("amid SOLICIT-ALL", |rig, _| {
        rig.hear(&Message::solicit_all(ROUTER_MAC, PeAddress::new(ROUTER), own_set(rig).ip))?;
        rig.claim_own();
        rig.wait(millis(199));
        // What it asks for itself does not matter here.
        rig.sent.retain(
            |(_, output)| matches!(output, Output::Pe { message, .. } if message.kind() == Kind::Reply),
        );
        Ok(())
    }),
    ("renew", |rig, _| {
        rig.engine.renew_own(OwnId::FIRST, rig.now + millis(LEASE), rig.now);
        rig.settle();
        Ok(())
    }),
    ("release_own", |rig, _| {
        rig.engine.release_own(OwnId::FIRST);
        rig.settle();
        Ok(())
    }),
    ("plain request", |rig, _| rig.hear_plain(&plain_request(B, THIRD, own_set(rig).ip))),
    ("from 0.0.0.0", |rig, _| rig.hear_plain(&plain_request(B, Ipv4Addr::UNSPECIFIED, own_set(rig).ip))),
    // Plain ARP in the name of the own address: an announcement, a question, an answer to another host, and again.
    ("plain announce", |rig, _| {
        let ip = own_set(rig).ip;
        rig.hear_plain(&plain_request(B, ip, ip))
    }),
    ("plain question", |rig, _| rig.hear_plain(&plain_request(B, own_set(rig).ip, ROUTER))),
    ("plain reply", |rig, _| rig.hear_plain(&plain_claim(rig))),
    ("twice plain", |rig, _| {
        let _ = rig.hear_plain(&plain_claim(rig));
        rig.hear_plain(&plain_claim(rig))
    }),
];

fn plain_claim(rig: &Rig) -> ArpRepr {
    plain(ArpOperation::Reply, (B, own_set(rig).ip), (C, THIRD))
}

const TABLES: [&str; 9] = [
    "
              | timer                   | silence
  UNCL given  | -                       | -
  PROB given  | ANN Announce Ready      | HELD Announce Announce Ready
  ANN given   | HELD Announce           | HELD Announce
  HELD given  | -                       | -
  LOST given  | PROB Probe              | HELD Probe Announce Announce Ready
  UNCL own    | -                       | -
  PROB own    | Probe                   | HELD Probe Probe Announce Announce Ready
  ANN own     | HELD Announce           | HELD Announce
  HELD own    | -                       | -
  LOST own    | -                       | -
  UNCL whole  | -                       | -
  PROB whole  | ANN arp? Announce Ready | HELD arp? Announce arp? Announce Ready
  ANN whole   | HELD arp? Announce      | HELD arp? Announce
  HELD whole  | -                       | -
  LOST whole  | PROB arp? Probe         | HELD arp? Probe arp? Announce arp? Announce Ready
  HELD leased | EXP Expired             | EXP Expired
  EXP leased  | -                       | -
",
    "
              | PROBE     | CONFLICT     | ANNOUNCE                               | twice
  UNCL given  | -         | !Unsolicited | UNCL B:STA                             | UNCL B:STA
  PROB given  | LOST lost | LOST lost    | LOST B:STA lost !Conflict              | LOST B:STA lost
  ANN given   | ConflictB | !Unsolicited | ANN B:STA Announce disputed !Conflict  | ANN B:STA Announce disputed !Conflict
  HELD given  | ConflictB | !Unsolicited | HELD B:STA Announce disputed !Conflict | HELD B:STA Announce disputed !Conflict
  LOST given  | -         | !Unsolicited | LOST B:STA                             | LOST B:STA
  UNCL own    | -         | !Unsolicited | UNCL B:STA                             | UNCL B:STA
  PROB own    | LOST lost | LOST lost    | LOST B:STA lost !Conflict              | LOST B:STA lost
  ANN own     | ConflictB | !Unsolicited | ANN B:STA Announce disputed !Conflict  | LOST B:STA Announce Release disputed lost !Conflict
  HELD own    | ConflictB | !Unsolicited | HELD B:STA Announce disputed !Conflict | LOST B:STA Announce Release disputed lost !Conflict
  LOST own    | -         | !Unsolicited | LOST B:STA                             | LOST B:STA
  UNCL whole  | -         | !Unsolicited | UNCL B:STA                             | UNCL B:STA
  PROB whole  | LOST lost | LOST lost    | LOST B:STA lost !Conflict              | LOST B:STA lost
  ANN whole   | ConflictB | !Unsolicited | Announce disputed !Conflict            | Announce disputed !Conflict
  HELD whole  | ConflictB | !Unsolicited | Announce disputed !Conflict            | Announce disputed !Conflict
  LOST whole  | -         | !Unsolicited | LOST B:STA                             | LOST B:STA
  HELD leased | ConflictB | !Unsolicited | HELD B:STA Announce disputed !Conflict | HELD B:STA Announce disputed !Conflict
  EXP leased  | -         | !Unsolicited | EXP B:STA                              | EXP B:STA
",
    "
              | RESOLVE by B                | RESOLVE | SOLICIT-ALL             | claim_own       | release_own
  UNCL given  | -                           | -       | -                       | PROB Probe      | -
  PROB given  | LOST lost !Conflict         | -       | ANN Announce Ready      | Probe           | UNCL
  ANN given   | Announce disputed !Conflict | ReplyR  | ReplyR                  | PROB Probe      | UNCL Release
  HELD given  | Announce disputed !Conflict | ReplyR  | ReplyR                  | PROB Probe      | UNCL Release
  LOST given  | -                           | -       | -                       | PROB Probe      | UNCL
  UNCL own    | -                           | -       | -                       | PROB            | -
  PROB own    | LOST lost !Conflict         | -       | -                       | -               | UNCL
  ANN own     | Announce disputed !Conflict | ReplyR  | ReplyR                  | PROB            | UNCL Release
  HELD own    | Announce disputed !Conflict | ReplyR  | ReplyR                  | PROB            | UNCL Release
  LOST own    | -                           | -       | -                       | PROB            | UNCL
  UNCL whole  | -                           | -       | -                       | PROB arp? Probe | -
  PROB whole  | LOST lost !Conflict         | -       | ANN arp? Announce Ready | arp? Probe      | UNCL
  ANN whole   | Announce disputed !Conflict | ReplyR  | ReplyR                  | PROB arp? Probe | UNCL Release
  HELD whole  | Announce disputed !Conflict | ReplyR  | ReplyR                  | PROB arp? Probe | UNCL Release
  LOST whole  | -                           | -       | -                       | PROB arp? Probe | UNCL
  HELD leased | Announce disputed !Conflict | ReplyR  | ReplyR                  | PROB Probe      | UNCL Release
  EXP leased  | -                           | -       | -                       | Expired         | UNCL
",
    "
              | amid SOLICIT-ALL | plain request    | from 0.0.0.0
  UNCL given  | PROB             | -                | -
  PROB given  | -                | -                | -
  ANN given   | PROB             | -                | -
  HELD given  | PROB             | -                | -
  LOST given  | PROB             | -                | -
  UNCL own    | PROB             | -                | -
  PROB own    | -                | -                | -
  ANN own     | PROB             | -                | -
  HELD own    | PROB             | -                | -
  LOST own    | PROB             | -                | -
  UNCL whole  | PROB             | -                | -
  PROB whole  | -                | -                | -
  ANN whole   | PROB             | ANN B:STA arp!B  | arp!B
  HELD whole  | PROB             | HELD B:STA arp!B | arp!B
  LOST whole  | PROB             | -                | -
  HELD leased | PROB             | -                | -
  EXP leased  | Expired          | -                | -
",
    "
              | plain announce
  UNCL given  | !PlainForShared
  PROB given  | !PlainForShared
  ANN given   | !PlainForShared
  HELD given  | !PlainForShared
  LOST given  | !PlainForShared
  UNCL own    | !PlainForShared
  PROB own    | !PlainForShared
  ANN own     | !PlainForShared
  HELD own    | !PlainForShared
  LOST own    | !PlainForShared
  UNCL whole  | -
  PROB whole  | LOST lost !Conflict
  ANN whole   | Announce arp? disputed !Conflict
  HELD whole  | Announce arp? disputed !Conflict
  LOST whole  | -
  HELD leased | !PlainForShared
  EXP leased  | !PlainForShared
",
    "
              | plain question                   | plain reply
  UNCL given  | !PlainForShared                  | !PlainForShared
  PROB given  | !PlainForShared                  | !PlainForShared
  ANN given   | !PlainForShared                  | !PlainForShared
  HELD given  | !PlainForShared                  | !PlainForShared
  LOST given  | !PlainForShared                  | !PlainForShared
  UNCL own    | !PlainForShared                  | !PlainForShared
  PROB own    | !PlainForShared                  | !PlainForShared
  ANN own     | !PlainForShared                  | !PlainForShared
  HELD own    | !PlainForShared                  | !PlainForShared
  LOST own    | !PlainForShared                  | !PlainForShared
  UNCL whole  | -                                | !Unsolicited
  PROB whole  | LOST lost !Conflict              | LOST lost !Conflict
  ANN whole   | Announce arp? disputed !Conflict | Announce arp? disputed !Conflict
  HELD whole  | Announce arp? disputed !Conflict | Announce arp? disputed !Conflict
  LOST whole  | -                                | !Unsolicited
  HELD leased | !PlainForShared                  | !PlainForShared
  EXP leased  | !PlainForShared                  | !PlainForShared
",
    "
              | twice plain
  UNCL given  | !PlainForShared
  PROB given  | !PlainForShared
  ANN given   | !PlainForShared
  HELD given  | !PlainForShared
  LOST given  | !PlainForShared
  UNCL own    | !PlainForShared
  PROB own    | !PlainForShared
  ANN own     | !PlainForShared
  HELD own    | !PlainForShared
  LOST own    | !PlainForShared
  UNCL whole  | !Unsolicited
  PROB whole  | LOST lost !Unsolicited
  ANN whole   | Announce arp? disputed !Conflict
  HELD whole  | Announce arp? disputed !Conflict
  LOST whole  | !Unsolicited
  HELD leased | !PlainForShared
  EXP leased  | !PlainForShared
",
    "
              | renew
  UNCL given  | -
  PROB given  | -
  ANN given   | -
  HELD given  | Announce
  LOST given  | -
  UNCL own    | -
  PROB own    | -
  ANN own     | -
  HELD own    | Announce
  LOST own    | -
  UNCL whole  | -
  PROB whole  | -
  ANN whole   | -
  HELD whole  | arp? Announce
  LOST whole  | -
  HELD leased | Announce
  EXP leased  | PROB Probe
",
    "
              | other PROBE | CONFLICT to C | other RESOLVE | by a host
  any         | -           | !NotForUs     | -             | !Solicit
",
];

fn describe(rig: &Rig) -> String {
    let phase = match rig.engine.own_phase(OwnId::FIRST) {
        ClaimPhase::Unclaimed => "UNCL",
        ClaimPhase::Probing { .. } => "PROB",
        ClaimPhase::Announcing { .. } => "ANN",
        ClaimPhase::Held => "HELD",
        ClaimPhase::Lost => "LOST",
        ClaimPhase::Expired => "EXP",
    };
    let others = rig.engine.entries(rig.now);
    let others = others.iter().filter_map(|entry| Some((letter(entry.hardware?), short(entry.state))));
    others.fold(phase.to_owned(), |text, (host, state)| format!("{text} {host}:{state}"))
}

/// Rules 1, 3, 41 and 54 to 58.
#[test]
fn every_event_in_every_phase() {
    for row in &ROWS {
        assert_eq!(row.name.split_once(' ').map(|(phase, _)| phase), Some(&*describe(&enter(row))));
    }
    check(&TABLES, &ROWS.map(|row| row.name), &EVENTS.map(|(name, _)| name), |row, event| {
        let row = &ROWS[row];
        let mut rig = enter(row);
        let before = describe(&rig);
        let result = EVENTS[event].1(&mut rig, row);
        let effects = effects(&mut rig, 0, 0);
        cell(&before, &describe(&rig), effects, result)
    });
}
