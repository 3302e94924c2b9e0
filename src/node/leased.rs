//! A host whose address and port set come by DHCP: a client, and a [`Host`] while there is a lease.
//!
//! ```text
//!   client: ACK ──▶ host: PROBE, ANNOUNCE ──▶ client: bound ──▶ … renewed …
//!                        conflict ──▶ client: DECLINE          end, NAK, conflict ──▶ no host
//! ```

use std::collections::VecDeque;

use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket};

use super::counters::is_for;
use super::host::{LAN, TUN};
use super::{
    Counters, DropReason, EchoPort, Host, HostConfig, HostLinks, HostOptions, LinkId, Node, Verdict,
};
use crate::dhcp::client::{self, Client, ClientLease, ClientState};
use crate::neighbor::Entry;
use crate::ports::PortSet;
use crate::wire::{Frame, Medium, ipv4};

pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;

/// Configuration of a host that has nothing yet.
#[derive(Clone, Debug)]
pub struct LeasedConfig {
    /// What it is. A DHCP server on the link is one more authority.
    pub options: HostOptions,
    /// The client. Its link-layer address is the host's.
    pub client: client::Config,
    /// What the client had before.
    pub stored: Option<ClientLease>,
}

/// What has happened to the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// It is in use.
    Bound(ClientLease),
    /// It lasts longer.
    Renewed(ClientLease),
    /// It is used no longer.
    Lost,
}

/// A host and its client.
#[derive(Debug)]
pub struct LeasedHost {
    config: LeasedConfig,
    client: Client,
    host: Option<Host>,
    /// While there is no host, which otherwise counts.
    counters: Counters,
    /// Messages of the client, and the last words of a host.
    transmits: VecDeque<(LinkId, Frame)>,
    events: VecDeque<LeaseEvent>,
}

/// The UDP payload of a DHCP packet that has lost its Ethernet header.
pub(super) fn dhcp_message(frame: &mut Frame) -> Result<&[u8], DropReason> {
    // A kernel leaves the checksum to its device.
    frame.complete_checksum();
    let packet = ipv4::check(frame.bytes())?;
    if packet.more_frags() {
        return Err(DropReason::DhcpInvalid);
    }
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let udp = UdpPacket::new_checked(packet.payload()).map_err(|_| DropReason::Truncated)?;
    if udp.verify_checksum(&from, &to) { Ok(udp.payload()) } else { Err(DropReason::DhcpInvalid) }
}

/// Whether an IPv4 packet, whole or the first fragment, is UDP to this port.
pub(super) fn is_udp_to(packet: &Ipv4Packet<&[u8]>, port: u16) -> bool {
    packet.version() == 4
        && packet.next_header() == IpProtocol::Udp
        && packet.frag_offset() == 0
        && UdpPacket::new_checked(packet.payload()).is_ok_and(|udp| udp.dst_port() == port)
}

impl LeasedHost {
    /// A host that has begun to ask for a lease.
    pub fn new(config: LeasedConfig, now: Instant) -> Self {
        let client = Client::new(config.client.clone(), config.stored.clone(), now);
        let (counters, transmits, events) = (Counters::default(), VecDeque::new(), VecDeque::new());
        let mut this = Self { config, client, host: None, counters, transmits, events };
        this.sync(now);
        this
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The host, while there is one: from the probe of its set on.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The host, to use its sockets; afterwards [`Node::poll_transmit`] has what they send.
    pub fn host_mut(&mut self) -> Option<&mut Host> {
        self.host.as_mut()
    }

    /// What has happened to the lease.
    pub fn poll_event(&mut self) -> Option<LeaseEvent> {
        self.events.pop_front()
    }

    /// Gives the lease back and ends.
    pub fn release(&mut self, now: Instant) {
        self.client.release(now);
        self.end_host(now);
        self.sync(now);
    }

    /// Whether a frame from the LAN is for the client: to port 68, which belongs to nobody (PE-ARP rule 100).
    fn is_dhcp(&self, frame: &Frame) -> bool {
        let Ok(ethernet) = EthernetFrame::new_checked(frame.bytes()) else { return false };
        ethernet.ethertype() == EthernetProtocol::Ipv4
            && is_for(ethernet.dst_addr(), self.config.options.hardware)
            && Ipv4Packet::new_checked(ethernet.payload()).is_ok_and(|packet| is_udp_to(&packet, CLIENT_PORT))
    }

    fn receive_dhcp(&mut self, frame: &mut Frame, now: Instant) -> Result<Verdict, DropReason> {
        let source = EthernetFrame::new_unchecked(frame.bytes()).src_addr();
        if source == self.config.options.hardware {
            return Err(DropReason::OwnEcho);
        }
        frame.pop_ethernet_header();
        let message = dhcp_message(frame)?;
        self.client.handle_message(source, message, now)?;
        Ok(Verdict::Delivered)
    }

    /// Does what the client and the host want of each other.
    fn sync(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.client.poll_event() {
                match event {
                    client::Event::Probe(lease) => self.begin_host(&lease, now),
                    client::Event::Renewed(lease) => {
                        if let Some(host) = &mut self.host {
                            host.renew(lease.until - now, now);
                        }
                        self.events.push_back(LeaseEvent::Renewed(lease));
                    }
                    client::Event::Lost => {
                        self.end_host(now);
                        self.events.push_back(LeaseEvent::Lost);
                    }
                }
                continue;
            }
            let Some(host) = &mut self.host else { break };
            if let Some(owner) = host.take_lost() {
                tracing::warn!(%owner, set = %host.set(), "the leased set is in use by another host");
                self.client.probed(false, now);
            } else if self.client.state() == ClientState::Probing && host.phase().holds() {
                self.client.probed(true, now);
                self.events.extend(self.client.lease().cloned().map(LeaseEvent::Bound));
            } else {
                break;
            }
        }
        while let Some(client::Transmit { to, from, message }) = self.client.poll_transmit() {
            let everybody = (EthernetAddress::BROADCAST, core::net::Ipv4Addr::BROADCAST);
            let (hardware, ip) = to.unwrap_or(everybody);
            let packet = ipv4::udp((from, CLIENT_PORT), (ip, SERVER_PORT), &message);
            let mut frame = Frame::from_packet(&packet);
            frame.push_ethernet_header(self.config.options.hardware, hardware);
            let counters = self.counters_mut();
            counters.originated += 1;
            counters.count(Verdict::Forward(LAN));
            self.transmits.push_back((LAN, frame));
        }
    }

    fn begin_host(&mut self, lease: &ClientLease, now: Instant) {
        self.end_host(now);
        let mut options = self.config.options.clone();
        if lease.address.contains_addr(&lease.server) {
            // Its leases decide who owns what.
            options.authorities.extend(self.client.via());
        }
        let config = HostConfig {
            options,
            address: lease.address,
            gateway: lease.gateway,
            set: PortSet::Psid(lease.set),
            // What is to be probed has not ended.
            lease: Some(lease.until - now),
        };
        let host = Host::new(config.clone(), now).or_else(|error| {
            tracing::warn!(%error, "no echo service");
            let options = HostOptions { echo: EchoPort::Off, ..config.options };
            Host::new(HostConfig { options, ..config }, now)
        });
        match host {
            Ok(mut host) => {
                host.counters.add_change(&Counters::default(), &core::mem::take(&mut self.counters));
                self.host = Some(host);
            }
            // Without an echo service nothing of it can fail.
            Err(error) => tracing::error!(%error, "the leased set cannot be used"),
        }
    }

    fn end_host(&mut self, now: Instant) {
        let Some(mut host) = self.host.take() else { return };
        // Neighbors learn at once that it is over.
        host.release(now);
        self.transmits.extend(core::iter::from_fn(|| host.poll_transmit(now)));
        self.counters = core::mem::take(&mut host.counters);
        // What waited for a next hop has no source any more.
        while self.counters.pending > 0 {
            self.counters.count_resolved(DropReason::SetNotHeld.into());
        }
    }

    fn counters_mut(&mut self) -> &mut Counters {
        self.host.as_mut().map_or(&mut self.counters, |host| &mut host.counters)
    }
}

impl Node for LeasedHost {
    fn links(&self) -> Vec<(String, Medium)> {
        let HostLinks { lan, tun } = self.config.options.links.clone();
        vec![(lan, Medium::Ethernet), (tun, Medium::Ip)]
    }

    fn handle_frame(&mut self, link: LinkId, frame: &mut Frame, now: Instant) -> Verdict {
        if link == LAN && self.is_dhcp(frame) {
            self.counters_mut().received += 1;
            let verdict = self.receive_dhcp(frame, now).unwrap_or_else(Verdict::Dropped);
            self.counters_mut().count(verdict);
            self.sync(now);
            return verdict;
        }
        let Some(host) = &mut self.host else {
            self.counters.received += 1;
            let verdict = Verdict::Dropped(DropReason::SetNotHeld);
            self.counters.count(verdict);
            return verdict;
        };
        let verdict = host.handle_frame(link, frame, now);
        // Only what came by the LAN can have taken the set.
        if link != TUN {
            self.sync(now);
        }
        verdict
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<(LinkId, Frame)> {
        self.transmits.pop_front().or_else(|| self.host.as_mut()?.poll_transmit(now))
    }

    fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let host = self.host.as_mut().and_then(|host| host.poll_timeout(now));
        [self.client.poll_timeout(), host].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(host) = &mut self.host {
            host.handle_timeout(now);
            self.sync(now);
        }
        self.client.handle_timeout(now);
        self.sync(now);
    }

    fn send_failed(&mut self, link: LinkId, frame: &Frame) {
        let medium = if link == TUN { Medium::Ip } else { Medium::Ethernet };
        self.counters_mut().send_failed(medium, frame);
    }

    fn counters(&self) -> &Counters {
        self.host.as_ref().map_or(&self.counters, Host::counters)
    }

    fn neighbors(&self, now: Instant) -> Vec<(String, Entry)> {
        self.host.as_ref().map(|host| host.neighbors(now)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
