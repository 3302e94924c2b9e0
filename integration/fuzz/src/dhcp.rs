//! A DHCP server under a sequence of messages, restarts, disks that fail, and time.

use std::net::Ipv4Addr;

use arbitrary::Arbitrary;
use dhcproto::v4::{self, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder};
use pearp::dhcp::{Arrival, Config, Event, Lease, LeaseState, Server, ServerLink};
use pearp::ports::Psid;
use pearp::wire::EthernetAddress;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::Ipv4Cidr;

use super::{MACS, damage, pick, steps};

/// Of the server, and of a relay that it serves.
const LINK: usize = 0;

/// 3 sets of one address, 15 of another, two whole addresses, and two reservations.
const CONFIG: &str = r#"
lease = 60
rest = 5
[[shared]]
addresses = "198.51.100.2"
scheme = [0, 2]
[[shared]]
addresses = "198.51.100.3"
scheme = [0, 4]
[[whole]]
addresses = "198.51.100.100-198.51.100.101"
[[reservation]]
link_address = "02:00:00:00:02:01"
address = "198.51.100.3"
port = 443
[[reservation]]
link_address = "02:00:00:00:02:02"
address = "198.51.100.100"
"#;

/// What is otherwise in the file after some of the restarts.
const BEFORE: &str = "scheme = [0, 4]";
const AFTER: &str = "scheme = [0, 5]";

/// Addresses of the pools, the server, outside the pools, of another network, and none.
pub(crate) const ADDRESSES: [[u8; 4]; 8] = [
    [198, 51, 100, 2],
    [198, 51, 100, 3],
    [198, 51, 100, 100],
    [198, 51, 100, 101],
    [198, 51, 100, 1],
    [198, 51, 100, 50],
    [203, 0, 113, 80],
    [0; 4],
];

#[derive(Arbitrary, Debug)]
pub(crate) enum DhcpOption {
    Kind(u8),
    Requested(u8),
    Server(bool),
    Lease(u32),
    Client(u8, u8),
    WantsSet,
    Set {
        offset: u8,
        length: u8,
        bits: u16,
    },
    HostName(Vec<u8>),
    Relay(Vec<u8>),
    Raw(u8, Vec<u8>),
    /// A length that goes beyond the message, if it is the last one.
    Broken(u8, u8),
}

impl DhcpOption {
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        let (code, data) = match self {
            Self::Kind(kind) => (53, vec![pick(&[1, 3, 3, 4, 7, 8, 2, 0], *kind)]),
            Self::Requested(ip) => (50, pick(&ADDRESSES, *ip).to_vec()),
            Self::Server(ours) => (54, ADDRESSES[if *ours { 4 } else { 5 }].to_vec()),
            Self::Lease(seconds) => (51, seconds.to_be_bytes().to_vec()),
            Self::Client(id, length) => (61, vec![id % 4; usize::from(length % 8)]),
            Self::WantsSet => (55, vec![1, 3, 159]),
            Self::Set { offset, length, bits } => {
                let [high, low] = bits.to_be_bytes();
                (159, vec![offset % 17, length % 17, high, low])
            }
            Self::HostName(name) => (12, name.clone()),
            Self::Relay(data) => (82, data.clone()),
            Self::Raw(code, data) => (*code, data.clone()),
            Self::Broken(code, length) => return bytes.extend([*code, *length]),
        };
        let data = &data[..data.len().min(255)];
        bytes.extend([code, data.len() as u8]);
        bytes.extend(data);
    }
}

#[derive(Arbitrary, Debug)]
struct Message {
    source: u8,
    hardware: u8,
    client_address: u8,
    relay: u8,
    broadcast: bool,
    kind: u8,
    options: Vec<DhcpOption>,
    end: bool,
    damage: Option<(u8, u8)>,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0, 0, 0, 0, 7, 0, 0, if self.broadcast { 0x80 } else { 0 }, 0];
        // Mostly none.
        let rarely = |ip: u8| if ip < 64 { pick(&ADDRESSES, ip) } else { [0; 4] };
        bytes.extend(rarely(self.client_address));
        bytes.extend([0; 8]);
        bytes.extend(rarely(self.relay));
        bytes.extend(self.hardware());
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99]);
        DhcpOption::Kind(self.kind).write(&mut bytes);
        for option in &self.options {
            option.write(&mut bytes);
        }
        if self.end {
            bytes.push(255);
        }
        damage(&mut bytes, self.damage);
        bytes
    }

    fn hardware(&self) -> [u8; 6] {
        pick(&MACS, self.hardware)
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    Message(Message),
    Bytes(Vec<u8>),
    Disk { works: bool },
    Restart { changed: bool },
    Wait { millis: u16 },
}

struct World {
    server: Server,
    disk: Vec<Lease>,
    disk_works: bool,
    /// What clients were told that they have.
    held: Vec<Lease>,
    now: Instant,
}

fn server(disk: &[Lease], changed: bool, now: Instant) -> Server {
    let text = if changed { CONFIG.replace(BEFORE, AFTER) } else { CONFIG.to_owned() };
    let address: Ipv4Cidr = "198.51.100.1/24".parse().expect("a valid address");
    let link = ServerLink { link: LINK, address, router: Some(address.address()) };
    let config = Config::parse(&text, vec![link], 1).expect("a valid file");
    Server::new(config, disk.to_vec(), now)
}

/// A server under a sequence of steps: no two leases overlap, and nothing is said before it is stored.
pub(crate) fn run(data: &[u8]) {
    let now = Instant::from_secs(1);
    let mut world =
        World { server: server(&[], false, now), disk: Vec::new(), disk_works: true, held: Vec::new(), now };
    for step in steps::<Step>(data) {
        match step {
            Step::Message(message) => {
                // Mostly the client itself.
                let source =
                    if message.source < 224 { message.hardware() } else { pick(&MACS, message.source) };
                world.hear(source, &message.bytes());
            }
            Step::Bytes(bytes) => world.hear(MACS[1], &bytes),
            Step::Disk { works } => world.disk_works = works,
            Step::Restart { changed } => world.server = server(&world.disk, changed, world.now),
            Step::Wait { millis } => {
                world.now += Duration::from_millis(millis.into());
                world.server.handle_timeout(world.now);
                assert!(world.server.poll_timeout().is_none_or(|at| at > world.now));
            }
        }
        world.drain();
        world.give_back();
    }
}

impl World {
    fn hear(&mut self, source: [u8; 6], bytes: &[u8]) {
        let arrival = Arrival { link: LINK, source: EthernetAddress(source) };
        // Why it is refused does not matter here.
        let _ = self.server.handle_message(arrival, bytes, self.now);
    }

    fn drain(&mut self) {
        loop {
            let mut commits = false;
            while let Some(event) = self.server.poll_event() {
                let Event::Commit(lease) = event else { continue };
                commits = true;
                if self.disk_works {
                    self.disk.retain(|other| (other.ip, other.set) != (lease.ip, lease.set));
                    self.disk.push(lease);
                }
            }
            if !commits {
                break;
            }
            self.server.committed(self.disk_works, self.now);
        }
        while let Some(reply) = self.server.poll_transmit() {
            let message = v4::Message::decode(&mut Decoder::new(&reply.message)).expect("a message");
            let options = message.opts();
            let lasts = options.contains(OptionCode::AddressLeaseTime);
            if options.msg_type() == Some(MessageType::Ack) && lasts {
                let psid = match options.get(OptionCode::from(159)) {
                    Some(v4::DhcpOption::Unknown(option)) => <[u8; 4]>::try_from(option.data()).ok(),
                    _ => None,
                };
                let set = psid.map_or(Ok(Psid::FULL), |[offset, length, high, low]| {
                    Psid::from_left_aligned(offset, length, u16::from_be_bytes([high, low]))
                });
                self.told(message.yiaddr(), set.expect("a valid PSID"));
            }
        }
    }

    /// A client was told that it has a lease.
    fn told(&mut self, ip: Ipv4Addr, set: Psid) {
        assert_ne!(ip, Ipv4Addr::from(ADDRESSES[4]), "the server's own address");
        let stored = |lease: &&Lease| lease.ip == ip && lease.set == set;
        let lease = self.disk.iter().find(stored).expect("said after it was stored").clone();
        assert_eq!(lease.state, LeaseState::Bound);
        self.held.retain(|held| self.now < held.until);
        for held in &self.held {
            let apart = held.ip != ip || !held.set.intersects(set);
            assert!(apart || held.client == lease.client, "{held:?} and {lease:?}");
        }
        self.held.retain(|held| (held.ip, held.set) != (ip, set));
        self.held.push(lease);
    }

    /// What a client gave back it no longer has.
    fn give_back(&mut self) {
        for lease in self.server.leases() {
            if matches!(lease.state, LeaseState::Released | LeaseState::Quarantined) {
                let same = |held: &Lease| (held.ip, held.set) == (lease.ip, lease.set);
                self.held.retain(|held| !(same(held) && held.client == lease.client));
            }
        }
    }
}
