//! What a router knows about one owner, against everything that it can hear: a table of every state and event.
//!
//! A is the owner of the ports 4096 to 8191 (PSID 1) of the shared address; the packets are for port 5000. B is
//! another host, P an authority. A row is what is known before the event, a column is the event, and a cell is what
//! the rules of docs/protocol.md and RFC 4861 §7.3 make of it:
//!
//! ```text
//!   -             accepted; nothing changes, is sent or is told
//!   !Unsolicited  dropped, and why; nothing changes
//!   STA           what is known now, where it is something else than before: one of
//!     NONE          nothing
//!     INC INC2      INCOMPLETE; INC2 after a failure, so that the next one lasts twice as long
//!     FAIL FORG     FAILED; negative no longer, but the failure is remembered (rule 42)
//!     GAP           an authority said that there is no owner (rule 43)
//!     REA STA DEL   A's binding: REACHABLE, STALE, DELAY
//!     PRO DIS       PROBE for its own sake; PROBE in a dispute, so that A precedes who else claims (rule 53)
//!     PERM          static
//!   STA+2  2:STA  A has PSID 2, too; has PSID 2 only
//!   STA+10s       what A has ends in 10 s
//!   B:STA  b:STA  B has a binding, and the port belongs to B; does not belong to B. P likewise
//!   ?  ?A  ?A5000 RESOLVE by broadcast; to A, for the first port of its set; to A, for another port
//!   >A  >NoOwner  the packet leaves for A; is given up, and why
//!   C  C:BA       B is reported to claim ports of A; A to claim ports of B
//! ```

use super::*;

/// The port of all packets, in A's set.
const PORT: u16 = 5000;

/// What is known before the event.
pub(super) struct Row {
    /// How it is described, as in the tables.
    pub(super) name: &'static str,
    pub(super) enter: fn(&mut Rig),
    /// What A was asked for last, by whatever question: protocol and port.
    pub(super) asked: (u8, u16),
    /// When the next thing happens by itself; where nothing does, a long time; in seconds.
    pub(super) timer: u64,
    /// When the last thing that silence leads to has happened; in seconds.
    pub(super) silence: u64,
}

const fn row(name: &'static str, enter: fn(&mut Rig), timer: u64, silence: u64) -> Row {
    Row { name, enter, asked: (TCP, PORT), timer, silence }
}

const ROWS: [Row; 11] = [
    row("NONE", |_| (), 3600, 3600),
    row("INC", incomplete, 1, 3),
    row("FAIL", failed, 3, 63),
    row("FORG", forgetting, 60, 60),
    row("GAP", gap, 60, 60),
    row("REA", reachable, 45, 3600),
    row("STA", stale, 3600, 3600),
    row("DEL", delay, 5, 8),
    Row { asked: (0, 4096), ..row("PRO", probe, 1, 3) },
    Row { asked: (0, 4096), ..row("DIS b:STA", disputed, 1, 3) },
    row("PERM", permanent, 3600, 3600),
];

fn set() -> [Record; 1] {
    [psid("0,4,1")]
}

fn incomplete(rig: &mut Rig) {
    rig.enqueue(tcp(SHARED, PORT), packet(1)).unwrap();
}

fn failed(rig: &mut Rig) {
    incomplete(rig);
    rig.wait(secs(3));
}

fn forgetting(rig: &mut Rig) {
    failed(rig);
    rig.wait(FAILED_TIME);
}

fn gap(rig: &mut Rig) {
    incomplete(rig);
    rig.hear(&nak(AUTHORITY)).unwrap();
}

fn reachable(rig: &mut Rig) {
    rig.confirm(A, SHARED, &set());
}

fn stale(rig: &mut Rig) {
    rig.hear(&announce(A, SHARED, &set())).unwrap();
}

fn delay(rig: &mut Rig) {
    stale(rig);
    assert_eq!(rig.owner(PORT), Some(A));
}

fn probe(rig: &mut Rig) {
    delay(rig);
    rig.wait(DELAY_FIRST_PROBE_TIME);
}

fn disputed(rig: &mut Rig) {
    reachable(rig);
    rig.hear(&announce(B, SHARED, &set())).unwrap();
}

fn permanent(rig: &mut Rig) {
    rig.engine.insert_static(SHARED, A, &set(), rig.now).unwrap();
}

fn enter(row: &Row) -> Rig {
    let mut rig = Rig::new(router());
    (row.enter)(&mut rig);
    rig.sent.clear();
    rig.events.clear();
    rig
}

pub(super) type Happen = fn(&mut Rig, &Row) -> Result<(), Refused>;

const EVENTS: [(&str, Happen); 34] = [
    ("packet", |rig, _| packet_for_port(rig)),
    // A's answer, with the same set, with one more PSID, or without the asked port.
    ("REPLY", |rig, row| rig.hear(&answer(A, row.asked, &set()))),
    ("REPLY 1+2", |rig, row| rig.hear(&answer(A, row.asked, &[psid("0,4,1"), psid("0,4,2")]))),
    ("REPLY 2", |rig, row| rig.hear(&answer(A, row.asked, &[psid("0,4,2")]))),
    ("REPLY by B", |rig, row| rig.hear(&answer(B, row.asked, &set()))),
    // An answer to a question about PSID 2 that was not asked.
    ("other REPLY", |rig, _| rig.hear(&answer(A, (TCP, 9000), &[psid("0,4,1"), psid("0,4,2")]))),
    ("other REPLY 2", |rig, _| rig.hear(&answer(A, (TCP, 9000), &[psid("0,4,2")]))),
    ("REPLY by P", |rig, row| rig.hear(&vouch(answer(AUTHORITY, row.asked, &set())))),
    ("ANNOUNCE", |rig, _| rig.hear(&announce(A, SHARED, &set()))),
    ("ANNOUNCE 1+2", |rig, _| rig.hear(&announce(A, SHARED, &[psid("0,4,1"), psid("0,4,2")]))),
    ("ANNOUNCE 2", |rig, _| rig.hear(&announce(A, SHARED, &[psid("0,4,2")]))),
    ("ANNOUNCE ()", |rig, _| rig.hear(&announce(A, SHARED, &[]))),
    ("for 10 s", |rig, _| rig.hear(&announce(A, SHARED, &[lasting(10, psid("0,4,1"))]))),
    ("1 s is over", |rig, _| {
        rig.hear(&announce(A, SHARED, &[lasting(1, psid("0,4,1"))]))?;
        rig.wait(secs(1));
        Ok(())
    }),
    ("RESOLVE", |rig, _| rig.hear(&resolve(A, shared(SHARED), OTHER, 80, &set()))),
    ("RELEASE", |rig, _| rig.hear(&release(A, SHARED, &set()))),
    // B claims A's set, a part of it with the port, and one without.
    ("ANNOUNCE by B", |rig, _| rig.hear(&announce(B, SHARED, &set()))),
    ("of 5000-9000", |rig, _| rig.hear(&announce(B, SHARED, &[range(5000, 9000)]))),
    ("of 8000-9000", |rig, _| rig.hear(&announce(B, SHARED, &[range(8000, 9000)]))),
    // B has PSID 3 and then A's set, too.
    ("B gains it", |rig, _| {
        rig.hear(&announce(B, SHARED, &[psid("0,4,3")]))?;
        rig.hear(&announce(B, SHARED, &[psid("0,4,3"), psid("0,4,1")]))
    }),
    ("RESOLVE by B", |rig, _| rig.hear(&resolve(B, shared(SHARED), OTHER, 80, &set()))),
    ("RELEASE by B", |rig, _| rig.hear(&release(B, SHARED, &set()))),
    ("PROBE by B", |rig, _| rig.hear(&Message::probe(B, shared(SHARED).with_port(0, Some(4096)), &set()))),
    ("question by B", |rig, _| rig.hear(&resolve(B, shared(SHARED), SHARED, PORT, &[]))),
    ("NAK by P", |rig, _| rig.hear(&nak(AUTHORITY))),
    ("NAK by B", |rig, _| rig.hear(&nak(B))),
    // Answers to SOLICIT-ALL.
    ("all: REPLY", |rig, _| solicited(rig, answer_to_all(A))),
    ("all: by B", |rig, _| solicited(rig, answer_to_all(B))),
    ("all: by P", |rig, _| solicited(rig, vouch(answer_to_all(AUTHORITY)))),
    // Plain ARP in the name of the shared address.
    ("plain request", |rig, _| rig.hear_plain(&plain_request(A, SHARED, ROUTER))),
    ("plain reply", |rig, _| rig.hear_plain(&plain(ArpOperation::Reply, (A, SHARED), (ROUTER_MAC, ROUTER)))),
    ("plain by B", |rig, _| rig.hear_plain(&plain(ArpOperation::Reply, (B, SHARED), (ROUTER_MAC, ROUTER)))),
    ("timer", |rig, row| {
        rig.wait(secs(row.timer));
        Ok(())
    }),
    ("silence", |rig, row| {
        rig.wait(secs(row.silence));
        Ok(())
    }),
];

fn packet_for_port(rig: &mut Rig) -> Result<(), Refused> {
    match rig.owner(PORT) {
        Some(hardware) => {
            rig.events.push(Event::Resolved { frame: packet(2), hardware, originated: false });
            Ok(())
        }
        None => rig.enqueue(tcp(SHARED, PORT), packet(2)),
    }
}

fn answer(host: EthernetAddress, (protocol, port): (u8, u16), records: &[Record]) -> Message {
    let asked = shared(SHARED).with_port(protocol, Some(port));
    Message::reply(host, asked, ROUTER_MAC, PeAddress::new(ROUTER), records)
}

fn answer_to_all(host: EthernetAddress) -> Message {
    Message::reply(host, shared(SHARED), ROUTER_MAC, PeAddress::new(ROUTER), &set())
}

fn vouch(message: Message) -> Message {
    but(message, |message| message.authority = true)
}

/// Nobody has PSID 1, for 60 s.
fn nak(host: EthernetAddress) -> Message {
    let asked = shared(SHARED).with_port(TCP, Some(PORT));
    Message::nak(host, asked, ROUTER_MAC, PeAddress::new(ROUTER), range(4096, 8191))
}

fn solicited(rig: &mut Rig, answer: Message) -> Result<(), Refused> {
    rig.engine.solicit_all(SHARED, rig.now);
    rig.settle();
    assert_eq!(rig.take_sent().len(), 1);
    rig.hear(&answer)
}

const TABLES: [&str; 8] = [
    "
            | packet       | REPLY        | REPLY 1+2      | REPLY by B   | other REPLY    | other REPLY 2
  NONE      | INC ?        | !Unsolicited | !Unsolicited   | !Unsolicited | !Unsolicited   | !Unsolicited
  INC       | -            | REA >A       | REA+2 >A       | NONE B:REA >B| !Unsolicited   | !Unsolicited
  FAIL      | !Unreachable | !Unsolicited | !Unsolicited   | !Unsolicited | !Unsolicited   | !Unsolicited
  FORG      | INC2 ?       | !Unsolicited | !Unsolicited   | !Unsolicited | !Unsolicited   | !Unsolicited
  GAP       | !NoOwner     | !Unsolicited | !Unsolicited   | !Unsolicited | !Unsolicited   | !Unsolicited
  REA       | >A           | !Unsolicited | !Unsolicited   | !Unsolicited | !Unsolicited   | !Unsolicited
  STA       | DEL >A       | !Unsolicited | !Unsolicited   | !Unsolicited | !Unsolicited   | !Unsolicited
  DEL       | >A           | !Unsolicited | !Unsolicited   | !Unsolicited | !Unsolicited   | !Unsolicited
  PRO       | >A           | REA          | REA+2          | !Unsolicited | REA+2          | !Unsolicited
  DIS b:STA | >A           | REA b:STA    | REA+2 b:STA    | !Unsolicited | REA+2 b:STA    | !Unsolicited
  PERM      | >A           | !Unsolicited | !Unsolicited   | !Unsolicited | !Unsolicited   | !Unsolicited
",
    "
            | ANNOUNCE | ANNOUNCE 1+2  | ANNOUNCE 2       | ANNOUNCE ()  | for 10 s        | 1 s is over
  NONE      | STA      | STA+2         | NONE 2:STA       | -            | STA+10s         | -
  INC       | DEL >A   | DEL+2 >A      | INC 2:STA        | -            | DEL+10s >A      | NONE >A
  FAIL      | STA      | STA+2         | FAIL 2:STA       | -            | STA+10s         | NONE
  FORG      | STA      | STA+2         | FORG 2:STA       | -            | STA+10s         | NONE
  GAP       | STA      | STA+2         | GAP 2:STA        | -            | STA+10s         | NONE
  REA       | -        | STA+2         | NONE 2:STA       | NONE         | REA+10s         | NONE
  STA       | -        | STA+2         | NONE 2:STA       | NONE         | STA+10s         | NONE
  DEL       | -        | STA+2         | NONE 2:STA       | NONE         | DEL+10s         | NONE
  PRO       | -        | STA+2         | NONE 2:STA       | NONE         | PRO+10s         | NONE
  DIS b:STA | -        | DIS+2 b:STA   | NONE 2:STA B:STA | NONE B:STA   | DIS+10s b:STA   | NONE B:STA
  PERM      | -        | -             | -                | -            | -               | -
",
    "
            | ANNOUNCE by B      | of 5000-9000       | of 8000-9000           | RESOLVE by B       | RELEASE by B
  NONE      | NONE B:STA         | NONE B:STA         | NONE b:STA             | NONE B:STA         | -
  INC       | NONE B:DEL >B      | NONE B:DEL >B      | INC b:STA              | NONE B:DEL >B      | -
  FAIL      | NONE B:STA         | NONE B:STA         | NONE b:STA             | NONE B:STA         | -
  FORG      | NONE B:STA         | NONE B:STA         | NONE b:STA             | NONE B:STA         | -
  GAP       | NONE B:STA         | NONE B:STA         | NONE b:STA             | NONE B:STA         | -
  REA       | DIS b:STA ?A C     | DIS b:STA ?A5000 C | DIS b:STA ?A8000 C     | DIS b:STA ?A C     | -
  STA       | STA B:STA C        | STA B:STA C        | STA b:STA C            | STA B:STA C        | -
  DEL       | DEL B:STA C        | DEL B:STA C        | DEL b:STA C            | DEL B:STA C        | -
  PRO       | PRO B:STA C        | PRO B:STA C        | PRO b:STA C            | PRO B:STA C        | -
  DIS b:STA | C                  | C                  | C                      | C                  | DIS
  PERM      | PERM b:STA C       | PERM b:STA C       | PERM b:STA C           | PERM b:STA C       | -
",
    "
            | RESOLVE      | RELEASE      | NAK by P      | REPLY by P     | B gains it
  NONE      | STA          | -            | !Unsolicited  | !Unsolicited   | NONE B:STA
  INC       | DEL >A       | -            | GAP >NoOwner  | NONE P:REA >P  | NONE B:DEL >B
  FAIL      | STA          | -            | !Unsolicited  | !Unsolicited   | NONE B:STA
  FORG      | STA          | -            | !Unsolicited  | !Unsolicited   | NONE B:STA
  GAP       | STA          | -            | !Unsolicited  | !Unsolicited   | NONE B:STA
  REA       | -            | NONE         | !Unsolicited  | !Unsolicited   | DIS b:STA ?A C
  STA       | -            | NONE         | !Unsolicited  | !Unsolicited   | STA B:STA C
  DEL       | -            | NONE         | !Unsolicited  | !Unsolicited   | DEL B:STA C
  PRO       | -            | NONE         | !Unsolicited  | !Unsolicited   | PRO B:STA C
  DIS b:STA | -            | NONE B:STA   | !Unsolicited  | !Unsolicited   | C
  PERM      | -            | -            | !Unsolicited  | !Unsolicited   | PERM b:STA C
",
    "
            | all: REPLY   | all: by B          | all: by P
  NONE      | REA          | NONE B:REA         | NONE P:REA
  INC       | REA >A       | NONE B:REA >B      | NONE P:REA >P
  FAIL      | REA          | NONE B:REA         | NONE P:REA
  FORG      | REA          | NONE B:REA         | NONE P:REA
  GAP       | REA          | NONE B:REA         | NONE P:REA
  REA       | -            | DIS b:REA ?A C     | REA p:REA
  STA       | REA          | STA B:REA C        | STA p:REA
  DEL       | REA          | DEL B:REA C        | DEL p:REA
  PRO       | REA          | PRO B:REA C        | PRO p:REA
  DIS b:STA | REA b:STA    | DIS b:REA C        | DIS b:STA p:REA
  PERM      | -            | PERM b:REA C       | PERM p:REA
",
    "
            | timer  | silence
  NONE      | -      | -
  INC       | ?      | FAIL ? ? >Unreachable
  FAIL      | FORG   | NONE
  FORG      | NONE   | NONE
  GAP       | NONE   | NONE
  REA       | STA    | NONE
  STA       | NONE   | NONE
  DEL       | PRO ?A | NONE ?A ?A ?A
  PRO       | ?A     | NONE ?A ?A
  DIS b:STA | ?A     | NONE B:STA ?A ?A
  PERM      | -      | -
",
    "
            | REPLY 2       | NAK by B       | PROBE by B    | question by B
  any       | !WithoutAsked | !NoAuthority   | -             | -
",
    "
            | plain request    | plain reply      | plain by B
  any       | !PlainForShared  | !PlainForShared  | !PlainForShared
",
];

/// Three letters for a state of [`Entry`].
pub(super) fn short(state: &str) -> String {
    state.chars().take(if state == "permanent" { 4 } else { 3 }).collect::<String>().to_uppercase()
}

pub(super) fn letter(host: EthernetAddress) -> &'static str {
    match host {
        A => "A",
        B => "B",
        AUTHORITY => "P",
        ROUTER_MAC => "R",
        EthernetAddress::BROADCAST => "",
        other => panic!("who is {other}?"),
    }
}

/// What is known, in the notation of the tables. Some of it shows only in what the engine does next, so that this
/// is the end of the rig.
fn describe(mut rig: Rig) -> String {
    let entries = rig.engine.entries(rig.now);
    let owner = rig.owner(PORT);
    let of = |host| entries.iter().filter(move |entry| entry.hardware == Some(host));
    let a_holds = |text: &str| of(A).any(|entry| entry.claim == psid(text).claim);
    let ends = rig.engine.table.find(SHARED, A).and_then(|id| {
        let binding = rig.engine.table.binding(id)?;
        Some((binding.records[0].until? - rig.now).secs())
    });
    let mut others = String::new();
    for host in [B, AUTHORITY] {
        if let Some(entry) = of(host).next() {
            let name = letter(host);
            let name = if owner == Some(host) { name.to_owned() } else { name.to_lowercase() };
            others += &format!(" {name}:{}", short(entry.state));
        }
    }
    let state_of_a = of(A).next().map(|entry| entry.state);
    let state = match state_of_a {
        Some("probe") if a_holds("0,4,1") => {
            // A newcomer waits for A in a dispute, and precedes it in any other PROBE.
            rig.hear(&announce(C, SHARED, &set())).unwrap();
            if rig.owner(PORT) == Some(A) { "DIS".to_owned() } else { "PRO".to_owned() }
        }
        Some(state) if a_holds("0,4,1") => short(state),
        Some(_) | None => block(&mut rig, &entries),
    };
    let second = match state_of_a {
        Some(state) if a_holds("0,4,2") && !a_holds("0,4,1") => format!(" 2:{}", short(state)),
        Some(_) if a_holds("0,4,2") => "+2".to_owned(),
        Some(_) | None => String::new(),
    };
    let ends = ends.map_or(String::new(), |seconds| format!("+{seconds}s"));
    format!("{state}{second}{ends}{others}")
}

/// What is known of the block where A does not hold it.
fn block(rig: &mut Rig, entries: &[Entry]) -> String {
    let listed = entries.iter().find(|entry| entry.hardware.is_none()).map(|entry| entry.state);
    if listed == Some("failed") {
        return "FAIL".to_owned();
    }
    if rig.enqueue(tcp(SHARED, PORT), packet(3)) == Err(Refused::NoOwner) {
        return "GAP".to_owned();
    }
    // A second failure lasts longer than a first one: 6 s.
    rig.wait(secs(3) + FAILED_TIME + millis(1));
    let doubled = rig.enqueue(tcp(SHARED, PORT), packet(4)) == Err(Refused::Unreachable);
    let name = match (listed, doubled) {
        (Some(_), false) => "INC",
        (Some(_), true) => "INC2",
        (None, false) => "NONE",
        (None, true) => "FORG",
    };
    name.to_owned()
}

/// What was sent and told, in the notation of the tables, where packets are for `port`, and A is asked for `first`.
pub(super) fn effects(rig: &mut Rig, port: u16, first: u16) -> Vec<String> {
    let mut effects = Vec::new();
    for (_, output) in rig.take_sent() {
        effects.push(match output {
            Output::Pe { destination, message } if message.kind() == Kind::Resolve => {
                let usual = if destination.is_broadcast() { port } else { first };
                let port = message.target.port.filter(|port| *port != usual);
                format!("?{}{}", letter(destination), port.map_or(String::new(), |port| port.to_string()))
            }
            Output::Pe { destination, message } => format!("{:?}{}", message.kind(), letter(destination)),
            Output::Arp { destination, message } => {
                let ArpRepr::EthernetIpv4 { operation, .. } = message else { panic!("{message:?}") };
                let mark = if operation == ArpOperation::Request { "?" } else { "!" };
                format!("arp{mark}{}", letter(destination))
            }
        });
    }
    for event in core::mem::take(&mut rig.events) {
        effects.push(match event {
            Event::Ready { .. } => "Ready".to_owned(),
            Event::Expired { .. } => "Expired".to_owned(),
            Event::OwnConflict { lost: false, .. } => "disputed".to_owned(),
            Event::OwnConflict { lost: true, .. } => "lost".to_owned(),
            Event::Resolved { hardware, .. } => format!(">{}", letter(hardware)),
            Event::Undeliverable { reason, .. } => format!(">{reason:?}"),
            Event::Conflict { incumbent: A, newcomer: B, .. } => "C".to_owned(),
            Event::Conflict { incumbent, newcomer, .. } => {
                format!("C:{}{}", letter(incumbent), letter(newcomer))
            }
        });
    }
    effects
}

/// The cell as it is: nothing but what changed.
pub(super) fn cell(
    before: &str,
    after: &str,
    mut effects: Vec<String>,
    result: Result<(), Refused>,
) -> String {
    if after != before {
        effects.insert(0, after.to_owned());
    }
    if let Err(refused) = result {
        effects.push(format!("!{refused:?}"));
    }
    if effects.is_empty() { "-".to_owned() } else { effects.join(" ") }
}

/// Runs each pair of a row and a column once and compares it with its one cell in the tables. The row `any` stands
/// for all rows.
pub(super) fn check(
    tables: &[&str],
    rows: &[&str],
    columns: &[&str],
    outcome: impl Fn(usize, usize) -> String,
) {
    let fields = |line: &str| -> Vec<String> {
        line.split('|').map(|field| field.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let mut expected = std::collections::BTreeMap::new();
    for table in tables {
        let mut lines = table.lines().filter(|line| line.contains('|')).map(fields);
        let header = lines.next().expect("a table has a header");
        for line in lines {
            assert_eq!(line.len(), header.len(), "{line:?}");
            for row in rows.iter().filter(|row| line[0] == **row || line[0] == "any") {
                for (column, cell) in header.iter().zip(&line).skip(1) {
                    let twice = expected.insert((*row, column.clone()), cell.clone());
                    assert_eq!(twice, None, "two cells for {row} × {column}");
                }
            }
        }
    }
    assert_eq!(expected.len(), rows.len() * columns.len(), "a cell of a row or column that does not exist");
    let mut wrong = Vec::new();
    for (r, row) in rows.iter().enumerate() {
        for (c, column) in columns.iter().enumerate() {
            let cell = expected.get(&(*row, (*column).to_owned()));
            let cell = cell.unwrap_or_else(|| panic!("no cell for {row} × {column}"));
            let outcome = outcome(r, c);
            if *cell != outcome {
                wrong.push(format!("{row} × {column}: expected {cell}, found {outcome}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cells:\n{}", wrong.len(), expected.len(), wrong.join("\n"));
}

/// Runs [`check`] with the effects on packets for `port`, where A is asked for `first`.
pub(super) fn run(
    tables: &[&str],
    rows: &[Row],
    events: &[(&str, Happen)],
    (port, first): (u16, u16),
    describe: fn(Rig) -> String,
) {
    for row in rows {
        assert_eq!(describe(enter(row)), row.name);
    }
    let names: Vec<_> = rows.iter().map(|row| row.name).collect();
    let columns: Vec<_> = events.iter().map(|(name, _)| *name).collect();
    check(tables, &names, &columns, |row, event| {
        let row = &rows[row];
        let mut rig = enter(row);
        let result = events[event].1(&mut rig, row);
        let effects = effects(&mut rig, port, first);
        cell(row.name, &describe(rig), effects, result)
    });
}

/// Rules 14 to 34, 36 to 45 and 51 to 54.
#[test]
fn every_event_in_every_state() {
    run(&TABLES, &ROWS, &EVENTS, (PORT, 4096), describe);
}
