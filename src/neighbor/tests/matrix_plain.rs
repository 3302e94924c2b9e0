//! What a router knows about the one owner of an address that is not known to be shared, against plain ARP and what
//! PE-ARP adds to it: a table as in `matrix`, with
//!
//! ```text
//!   STA   STA+     A's binding, made by plain ARP; by PE-ARP
//!   arp?  arp?A    plain request by broadcast; to A
//!   arp!A          plain reply to A
//! ```

use super::matrix::{Happen, Row, letter, run, short};
use super::*;

const fn row(name: &'static str, enter: fn(&mut Rig), timer: u64, silence: u64) -> Row {
    Row { name, enter, asked: (TCP, 80), timer, silence }
}

const ROWS: [Row; 9] = [
    row("NONE", |_| (), 3600, 3600),
    row("INC", incomplete, 1, 3),
    row("REA", reachable, 45, 3600),
    row("STA", stale, 3600, 3600),
    row("DEL", delay, 5, 8),
    row("PRO", probe, 1, 3),
    row("DIS b:STA+", disputed, 1, 3),
    row("REA+", told, 45, 3600),
    Row { asked: (0, 0), ..row("PRO+", told_probe, 1, 3) },
];

fn incomplete(rig: &mut Rig) {
    rig.enqueue(tcp(OTHER, 80), packet(1)).unwrap();
}

fn reachable(rig: &mut Rig) {
    incomplete(rig);
    rig.hear_plain(&plain_reply_of(A)).unwrap();
}

fn stale(rig: &mut Rig) {
    rig.hear_plain(&plain_request(A, OTHER, ROUTER)).unwrap();
}

fn delay(rig: &mut Rig) {
    stale(rig);
    assert_eq!(rig.next_hop(tcp(OTHER, 80)), Some(A));
}

fn probe(rig: &mut Rig) {
    delay(rig);
    rig.wait(DELAY_FIRST_PROBE_TIME);
}

fn disputed(rig: &mut Rig) {
    reachable(rig);
    rig.hear(&whole(B)).unwrap();
}

fn told(rig: &mut Rig) {
    incomplete(rig);
    rig.hear(&answer(A, (TCP, 80))).unwrap();
}

fn told_probe(rig: &mut Rig) {
    rig.hear(&whole(A)).unwrap();
    assert_eq!(rig.next_hop(tcp(OTHER, 80)), Some(A));
    rig.wait(DELAY_FIRST_PROBE_TIME);
}

fn plain_reply_of(host: EthernetAddress) -> ArpRepr {
    plain(ArpOperation::Reply, (host, OTHER), (ROUTER_MAC, ROUTER))
}

/// A host that nobody asks for.
const THIRD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

fn overheard_reply(host: EthernetAddress) -> ArpRepr {
    plain(ArpOperation::Reply, (host, OTHER), (C, THIRD))
}

fn answer(host: EthernetAddress, (protocol, port): (u8, u16)) -> Message {
    let asked = PeAddress::new(OTHER).with_port(protocol, Some(port));
    Message::reply(host, asked, ROUTER_MAC, PeAddress::new(ROUTER), &[full()])
}

/// The host claims the whole address.
fn whole(host: EthernetAddress) -> Message {
    Message::announce(host, PeAddress::new(OTHER).with_port(0, Some(0)), &[full()])
}

/// The host claims a part of it, and says that it is shared.
fn part(host: EthernetAddress) -> Message {
    announce(host, OTHER, &[psid("0,4,0")])
}

const EVENTS: [(&str, Happen); 18] = [
    ("packet", |rig, _| match rig.next_hop(tcp(OTHER, 80)) {
        Some(hardware) => {
            rig.events.push(Event::Resolved { frame: packet(2), hardware, originated: false });
            Ok(())
        }
        None => rig.enqueue(tcp(OTHER, 80), packet(2)),
    }),
    ("reply", |rig, _| rig.hear_plain(&plain_reply_of(A))),
    ("reply by B", |rig, _| rig.hear_plain(&plain_reply_of(B))),
    ("reply to C", |rig, _| rig.hear_plain(&overheard_reply(A))),
    ("by B to C", |rig, _| rig.hear_plain(&overheard_reply(B))),
    ("request", |rig, _| rig.hear_plain(&plain_request(A, OTHER, ROUTER))),
    ("request by B", |rig, _| rig.hear_plain(&plain_request(B, OTHER, ROUTER))),
    ("request for C", |rig, _| rig.hear_plain(&plain_request(A, OTHER, THIRD))),
    ("by B for C", |rig, _| rig.hear_plain(&plain_request(B, OTHER, THIRD))),
    ("from 0.0.0.0", |rig, _| rig.hear_plain(&plain_request(A, Ipv4Addr::UNSPECIFIED, ROUTER))),
    ("REPLY", |rig, row| rig.hear(&answer(A, row.asked))),
    ("ANNOUNCE", |rig, _| rig.hear(&whole(A))),
    ("ANNOUNCE by B", |rig, _| rig.hear(&whole(B))),
    ("of a part", |rig, _| rig.hear(&part(A))),
    ("of a part by B", |rig, _| rig.hear(&part(B))),
    ("RELEASE", |rig, _| {
        rig.hear(&Message::release(A, PeAddress::new(OTHER).with_port(0, Some(0)), &[full()]))
    }),
    ("timer", |rig, row| {
        rig.wait(secs(row.timer));
        Ok(())
    }),
    ("silence", |rig, row| {
        rig.wait(secs(row.silence));
        Ok(())
    }),
];

const TABLES: [&str; 4] = [
    "
             | packet     | reply      | reply by B        | reply to C   | by B to C
  NONE       | INC ? arp? | STA        | NONE B:STA        | !Unsolicited | !Unsolicited
  INC        | -          | REA >A     | NONE B:REA >B     | !Unsolicited | !Unsolicited
  REA        | >A         | -          | DIS b:STA arp?A C | -            | DIS b:STA arp?A C
  STA        | DEL >A     | -          | STA B:STA C       | -            | STA B:STA C
  DEL        | >A         | -          | DEL B:STA C       | -            | DEL B:STA C
  PRO        | >A         | REA        | PRO B:STA C       | -            | PRO B:STA C
  DIS b:STA+ | >A         | REA b:STA+ | -                 | -            | -
  REA+       | >A         | -          | DIS+ b:STA ?A C   | -            | DIS+ b:STA ?A C
  PRO+       | >A         | -          | PRO+ B:STA C      | -            | PRO+ B:STA C
",
    "
             | request      | request by B            | request for C | by B for C        | from 0.0.0.0
  NONE       | STA arp!A    | NONE B:STA arp!B        | -             | -                 | arp!A
  INC        | DEL arp!A >A | NONE B:DEL arp!B >B     | -             | -                 | arp!A
  REA        | arp!A        | DIS b:STA arp?A arp!B C | -             | DIS b:STA arp?A C | arp!A
  STA        | arp!A        | STA B:STA arp!B C       | -             | STA B:STA C       | arp!A
  DEL        | arp!A        | DEL B:STA arp!B C       | -             | DEL B:STA C       | arp!A
  PRO        | arp!A        | PRO B:STA arp!B C       | -             | PRO B:STA C       | arp!A
  DIS b:STA+ | arp!A        | arp!B                   | -             | -                 | arp!A
  REA+       | arp!A        | DIS+ b:STA ?A arp!B C   | -             | DIS+ b:STA ?A C   | arp!A
  PRO+       | arp!A        | PRO+ B:STA arp!B C      | -             | PRO+ B:STA C      | arp!A
",
    "
             | REPLY        | ANNOUNCE    | ANNOUNCE by B      | of a part        | of a part by B   | RELEASE
  NONE       | !Unsolicited | STA+        | NONE B:STA+        | STA+             | NONE B:STA+      | -
  INC        | REA+ >A      | DEL+ >A     | NONE B:DEL+ >B     | DEL+ >A          | NONE B:DEL+ >B   | -
  REA        | REA+         | REA+        | DIS b:STA+ arp?A C | STA+             | NONE B:STA+      | NONE
  STA        | !Unsolicited | STA+        | STA B:STA+ C       | STA+             | NONE B:STA+      | NONE
  DEL        | !Unsolicited | DEL+        | DEL B:STA+ C       | STA+             | NONE B:STA+      | NONE
  PRO        | !Unsolicited | PRO+        | PRO B:STA+ C       | STA+             | NONE B:STA+      | NONE
  DIS b:STA+ | REA+ b:STA+  | DIS+ b:STA+ | C                  | STA+ b:STA+ C:BA | NONE B:STA+      | NONE B:STA+
  REA+       | !Unsolicited | -           | DIS+ b:STA+ ?A C   | STA+             | DIS+ b:STA+ ?A C | NONE
  PRO+       | REA+         | -           | PRO+ B:STA+ C      | STA+             | PRO+ B:STA+ C    | NONE
",
    "
             | timer     | silence
  NONE       | -         | -
  INC        | ? arp?    | FAIL ? arp? ? arp? >Unreachable
  REA        | STA       | NONE
  STA        | NONE      | NONE
  DEL        | PRO arp?A | NONE arp?A arp?A arp?A
  PRO        | arp?A     | NONE arp?A arp?A
  DIS b:STA+ | arp?A     | NONE B:STA+ arp?A arp?A
  REA+       | STA+      | NONE
  PRO+       | ?A        | NONE ?A ?A
",
];

/// What is known, in the notation of the tables; the end of the rig.
fn describe(mut rig: Rig) -> String {
    let entries = rig.engine.entries(rig.now);
    let owner = rig.next_hop(tcp(OTHER, 80));
    let known = |host| {
        let entry = entries.iter().find(|entry| entry.hardware == Some(host))?;
        Some((short(entry.state), if entry.source == "arp" { "" } else { "+" }))
    };
    let other = known(B).map_or(String::new(), |(state, source)| {
        let name = if owner == Some(B) { letter(B).to_owned() } else { letter(B).to_lowercase() };
        format!(" {name}:{state}{source}")
    });
    let state = match known(A) {
        Some((state, source)) if state == "PRO" => {
            // A newcomer waits for A in a dispute, and precedes it in any other PROBE.
            rig.hear(&whole(C)).unwrap();
            let stands = rig.next_hop(tcp(OTHER, 80)) == Some(A);
            format!("{}{source}", if stands { "DIS" } else { "PRO" })
        }
        Some((state, source)) => format!("{state}{source}"),
        None => match entries.iter().find(|entry| entry.hardware.is_none()) {
            Some(entry) if entry.state == "failed" => "FAIL".to_owned(),
            Some(entry) => short(entry.state),
            None => "NONE".to_owned(),
        },
    };
    format!("{state}{other}")
}

/// Rules 20, 25 to 27, 31, 34, 40 and 53.
#[test]
fn every_event_in_every_state() {
    run(&TABLES, &ROWS, &EVENTS, (80, 0), describe);
}
