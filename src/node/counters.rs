//! Counters: one for each way a frame can end, and one for each reason of a drop.

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

use super::Verdict;
use crate::dhcp::client::Ignored;
use crate::forward::FragmentRefused;
use crate::neighbor::Refused;
use crate::wire::ipv4::HeaderError;
use crate::wire::pe_arp::ParseError;
use crate::wire::{Frame, Medium, Unkeyed};

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason {
            $($(#[doc = $doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in lists.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header.
    ShortFrame = "short_frame",
    /// Neither IPv4 nor ARP.
    EtherType = "ether_type",
    /// Unicast to another link-layer address, or not for a node of this kind.
    NotOurFrame = "not_our_frame",
    /// IPv4 from a link-layer address that is no host's.
    FrameSource = "frame_source",
    /// ARP that is neither plain ARP for IPv4 nor PE-ARP, or plain ARP with an unknown operation.
    ArpFormat = "arp_format",
    /// PE-ARP of another version.
    PeArpVersion = "pe_arp_version",
    /// PE-ARP with an unknown operation.
    PeArpOperation = "pe_arp_operation",
    /// PE-ARP with an invalid record.
    PeArpRecord = "pe_arp_record",
    /// Ethernet source and ARP sender differ, or are no host's.
    ArpSender = "arp_sender",
    /// An ARP message about an address that no host can have.
    ArpAddress = "arp_address",
    /// An own frame that came back.
    OwnEcho = "own_echo",
    /// PE-ARP on a link without it.
    PeArpNotSpoken = "pe_arp_not_spoken",
    /// A claim to an address that is not on the link.
    OffLinkClaim = "off_link_claim",
    /// An ARP answer that nobody asked for.
    Unsolicited = "unsolicited",
    /// An ARP answer for another host.
    ArpNotForUs = "arp_not_for_us",
    /// A PE-ARP answer without the asked port.
    WithoutAsked = "without_asked",
    /// Plain ARP with a shared address as its sender.
    PlainForShared = "plain_for_shared",
    /// A claim to ports that another host uses.
    ConflictingClaim = "conflicting_claim",
    /// A claim to a shared address that contradicts what the node was told.
    NotLeased = "not_leased",
    /// NAK or authority flag without authority.
    NoAuthority = "no_authority",
    /// SOLICIT-ALL from a host, or too often.
    SolicitAll = "solicit_all",
    /// A bound of the neighbor table was reached.
    TableFull = "table_full",
    /// A PE-ARP message without the records it needs.
    NoRecords = "no_records",
    /// Not IPv4 where IPv4 is expected.
    NotIpv4 = "not_ipv4",
    /// Shorter than it says that it is, or too short to say.
    Truncated = "truncated",
    /// Wrong IPv4 header checksum.
    HeaderChecksum = "header_checksum",
    /// A source address that no host can have.
    MartianSource = "martian_source",
    /// A destination address that is not forwarded to.
    MartianDestination = "martian_destination",
    /// A later fragment for the node itself.
    Fragment = "fragment",
    /// A fragment with bytes that came before, or an exact copy.
    FragmentOverlap = "fragment_overlap",
    /// A fragment of TCP that cuts the header, in front of its flags.
    FragmentTiny = "fragment_tiny",
    /// A fragment that has no place in its datagram.
    FragmentInvalid = "fragment_invalid",
    /// More fragments than are held.
    FragmentLimit = "fragment_limit",
    /// A fragment whose first one did not come in time.
    FragmentTimeout = "fragment_timeout",
    /// An ICMP error about a packet that its receiver did not send.
    ForeignError = "foreign_error",
    /// A source address of another link, or of another host.
    SpoofedAddress = "spoofed_address",
    /// From a port or an identifier of a shared address that is not its sender's.
    SpoofedPort = "spoofed_port",
    /// From a shared address, a fragment whose identification is not of its sender's set.
    SpoofedFragment = "spoofed_fragment",
    /// From a shared address, an ICMP error about a packet that was not for its sender.
    SpoofedError = "spoofed_error",
    /// The TTL ran out.
    TtlExceeded = "ttl_exceeded",
    /// No route.
    NoRoute = "no_route",
    /// Too large for the next link.
    TooBig = "too_big",
    /// Nobody answered for the next hop or port.
    Unreachable = "unreachable",
    /// An authority said that the port has no owner.
    NoOwner = "no_owner",
    /// The port belongs to no PSID of the address.
    UnassignedPort = "unassigned_port",
    /// Too many packets wait for one address.
    PendingFull = "pending_full",
    /// Too many open questions.
    QuestionsFull = "questions_full",
    /// A program used a source port outside the host's set.
    SourcePort = "source_port",
    /// A program used a source address that is not the host's.
    SourceAddress = "source_address",
    /// For an address that is not this node's.
    NotOurAddress = "not_our_address",
    /// For a port outside the host's set.
    NotOurPort = "not_our_port",
    /// A protocol without ports on a shared address.
    Portless = "portless",
    /// An echo reply or request whose identifier belongs to nobody here.
    EchoIdentifier = "echo_identifier",
    /// An echo request that is a fragment, or whose checksum is wrong.
    EchoDamaged = "echo_damaged",
    /// For the node itself, which offers no such service.
    NoService = "no_service",
    /// A DHCP message that makes no sense, or that another than its client sent.
    DhcpInvalid = "dhcp_invalid",
    /// A DHCP answer that this client did not ask for, or cannot use.
    DhcpUnexpected = "dhcp_unexpected",
    /// DHCP messages, offers or leases beyond what one client or link may have.
    DhcpLimit = "dhcp_limit",
    /// The host's own stack has no room.
    StackFull = "stack_full",
    /// For programs, on a host that has none.
    NoPrograms = "no_programs",
    /// A broadcast that many hosts of a swarm would have to look at, too soon after others.
    SwarmLimit = "swarm_limit",
    /// The set is not in use yet, or was lost to another host.
    SetNotHeld = "set_not_held",
    /// The link did not take the frame.
    LinkError = "link_error",
}

impl From<Refused> for DropReason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unreachable => Self::Unreachable,
            Refused::NoOwner => Self::NoOwner,
            Refused::Unassigned => Self::UnassignedPort,
            Refused::PendingFull => Self::PendingFull,
            Refused::QuestionsFull => Self::QuestionsFull,
            Refused::SenderMismatch => Self::ArpSender,
            Refused::BadAddress => Self::ArpAddress,
            Refused::OwnEcho => Self::OwnEcho,
            Refused::NotSpoken => Self::PeArpNotSpoken,
            Refused::OffLink => Self::OffLinkClaim,
            Refused::Unsolicited => Self::Unsolicited,
            Refused::NotForUs => Self::ArpNotForUs,
            Refused::WithoutAsked => Self::WithoutAsked,
            Refused::PlainForShared => Self::PlainForShared,
            Refused::Conflict => Self::ConflictingClaim,
            Refused::NotLeased => Self::NotLeased,
            Refused::NoAuthority => Self::NoAuthority,
            Refused::Solicit => Self::SolicitAll,
            Refused::TableFull => Self::TableFull,
            Refused::NoRecords => Self::NoRecords,
        }
    }
}

impl From<Ignored> for DropReason {
    fn from(ignored: Ignored) -> Self {
        match ignored {
            Ignored::Format => Self::DhcpInvalid,
            Ignored::Foreign | Ignored::Unexpected | Ignored::Unusable => Self::DhcpUnexpected,
        }
    }
}

impl From<ParseError> for DropReason {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Truncated => Self::Truncated,
            ParseError::Format => Self::ArpFormat,
            ParseError::Version(_) => Self::PeArpVersion,
            ParseError::Operation(_) => Self::PeArpOperation,
            ParseError::Record(_) => Self::PeArpRecord,
        }
    }
}

impl From<HeaderError> for DropReason {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Truncated => Self::Truncated,
            HeaderError::Version => Self::NotIpv4,
            HeaderError::Checksum => Self::HeaderChecksum,
        }
    }
}

impl From<FragmentRefused> for DropReason {
    fn from(refused: FragmentRefused) -> Self {
        match refused {
            FragmentRefused::Overlap => Self::FragmentOverlap,
            FragmentRefused::Tiny => Self::FragmentTiny,
            FragmentRefused::BeyondEnd | FragmentRefused::Malformed => Self::FragmentInvalid,
            FragmentRefused::TooManyPieces | FragmentRefused::Full => Self::FragmentLimit,
        }
    }
}

impl From<Unkeyed> for DropReason {
    fn from(unkeyed: Unkeyed) -> Self {
        match unkeyed {
            Unkeyed::Truncated => Self::Truncated,
            Unkeyed::Fragment => Self::Fragment,
            Unkeyed::ForeignError => Self::ForeignError,
        }
    }
}

/// What became of frames. `received + originated = delivered + forwarded + pending + Σ drops`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken in from links.
    pub received: u64,
    /// IP packets that the node made itself: ICMP, its own stack.
    pub originated: u64,
    /// Frames for the node itself, ARP included.
    pub delivered: u64,
    /// Frames and packets that left by a link.
    pub forwarded: u64,
    /// Packets that wait for an answer now.
    pub pending: u64,
    /// Packets of programs that got another source port on the way out, of those that were forwarded, wait or were
    /// dropped later.
    pub mapped: u64,
    /// ARP and PE-ARP messages sent.
    pub arp_sent: u64,
    /// Those that their link did not take.
    pub arp_lost: u64,
    drops: Drops,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl Counters {
    /// Counts the end of a frame, or its wait.
    pub(super) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Forward(_) => self.forwarded += 1,
            Verdict::Delivered => self.delivered += 1,
            Verdict::Pending => self.pending += 1,
            Verdict::Dropped(reason) => self.drops.0[reason as usize] += 1,
        }
    }

    /// Counts the end of a wait.
    pub(super) fn count_resolved(&mut self, verdict: Verdict) {
        self.pending -= 1;
        self.count(verdict);
    }

    /// A frame that had been counted as sent did not leave by a link of this medium.
    pub(super) fn send_failed(&mut self, medium: Medium, frame: &Frame) {
        let arp = medium == Medium::Ethernet
            && EthernetFrame::new_checked(frame.bytes())
                .is_ok_and(|ethernet| ethernet.ethertype() == EthernetProtocol::Arp);
        if arp {
            self.arp_sent -= 1;
            self.arp_lost += 1;
        } else {
            self.forwarded -= 1;
            self.drops.0[DropReason::LinkError as usize] += 1;
        }
    }

    /// Adds what another node has counted between two moments.
    pub(super) fn add_change(&mut self, before: &Self, after: &Self) {
        let add =
            |sum: &mut u64, before: u64, after: u64| *sum = sum.wrapping_add(after.wrapping_sub(before));
        add(&mut self.received, before.received, after.received);
        add(&mut self.originated, before.originated, after.originated);
        add(&mut self.delivered, before.delivered, after.delivered);
        add(&mut self.forwarded, before.forwarded, after.forwarded);
        // Waits end, too; so may what was counted as sent.
        add(&mut self.pending, before.pending, after.pending);
        add(&mut self.mapped, before.mapped, after.mapped);
        add(&mut self.arp_sent, before.arp_sent, after.arp_sent);
        add(&mut self.arp_lost, before.arp_lost, after.arp_lost);
        for ((sum, before), after) in self.drops.0.iter_mut().zip(before.drops.0).zip(after.drops.0) {
            add(sum, before, after);
        }
    }

    /// How often frames were dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize]
    }

    /// The reasons that occurred, with their counts.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.dropped(*reason))).filter(|(_, count)| *count > 0)
    }

    /// Whether every frame ended exactly once.
    pub fn is_balanced(&self) -> bool {
        let ended = self.delivered + self.forwarded + self.pending + self.drops.0.iter().sum::<u64>();
        self.received + self.originated == ended
    }
}

/// Whether a frame with this destination concerns a node with link-layer address `own`.
pub(super) fn is_for(destination: EthernetAddress, own: EthernetAddress) -> bool {
    destination == own || destination.is_broadcast() || destination.is_multicast()
}
