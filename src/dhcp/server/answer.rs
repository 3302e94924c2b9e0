//! What each message of a client leads to (RFC 2131 §4.3).

use core::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, MessageType};
use smoltcp::time::Duration;

use super::{
    Context, Destination, Event, Grant, Lease, LeaseState, MIN_LEASE, OFFER_TIME, Pending, Refused, Reply,
    Server, Slot,
};
use crate::dhcp::codec::{Invalid, ReplyMessage, portless_option};
use crate::ports::Psid;

impl Server {
    /// RFC 2131 §4.3.1.
    pub(super) fn discover(&mut self, context: &Context<'_>) -> Result<(), Refused> {
        let Context { request, arrival, now, .. } = *context;
        if self.pause.is_some_and(|until| now < until) {
            return Ok(());
        }
        // PE-ARP rule 96: without a fitting pool there is no offer.
        let Some(slot) = self.choose(context) else { return Ok(()) };
        if self.has_enough(request.hardware, slot, now) {
            return Err(Refused::Limit);
        }
        let rests = self.table.get(slot).map_or(now, |lease| lease.rest_end(self.config.rest));
        self.note_offer(arrival.link, slot, rests, now);
        let mine = self.table.get(slot).filter(|lease| lease.client == request.client);
        if !mine.is_some_and(|lease| lease.is_live(now) && lease.state == LeaseState::Bound) {
            let mut lease = self.lease(context, slot);
            // PE-ARP rule 74: to offer a set to the client that had it does not end its rest.
            (lease.state, lease.until) = (LeaseState::Offered, rests.max(now + OFFER_TIME));
            self.table.insert(lease);
        }
        let mut reply = request.reply(MessageType::Offer, context.server);
        self.fill(context, &mut reply, Some(slot));
        self.send(context, reply, Some(slot.0));
        Ok(())
    }

    /// RFC 2131 §4.3.2.
    pub(super) fn request(&mut self, context: &Context<'_>) -> Result<(), Refused> {
        let Context { request, now, .. } = *context;
        let renews = request.ciaddr.is_some();
        if let Some(chosen) = request.server
            && !self.config.links.iter().any(|link| link.address.address() == chosen)
        {
            self.withdraw_offers(context);
            return Ok(());
        }
        let ip = request.ciaddr.or(request.requested).ok_or(Invalid::Format)?;
        let slot = self.slot(context, ip);
        let lease = self.table.get(slot);
        let own = lease.is_some_and(|lease| lease.client == request.client);
        let taken = lease.is_some_and(|lease| !own && lease.holds_off_others(self.config.rest, now));
        let may = self.is_allowed(context, slot)
            && self.is_free_for(&request.client, slot, now)
            && !self.has_enough(request.hardware, slot, now);
        // INIT-REBOOT of a client of which nothing is known: another server may know it.
        let known = own || renews || request.server.is_some();
        if may && known {
            self.bind(context, slot);
            return Ok(());
        }
        let right_network = self.network_of(ip) == Some(context.network);
        let has_record = self.table.of_client(&request.client).next().is_some();
        if known || taken || has_record || !right_network {
            self.refuse(context);
        }
        Ok(())
    }

    /// Which lease a client speaks of (PE-ARP rule 98): without option 159 its only one of the address.
    fn slot(&self, context: &Context<'_>, ip: Ipv4Addr) -> Slot {
        let only = || {
            let mut leases = self.table.of_client(&context.request.client).filter(|lease| lease.ip == ip);
            let first = leases.next()?;
            leases.next().is_none().then_some(first.set)
        };
        (ip, context.request.set.or_else(only).unwrap_or(Psid::FULL))
    }

    fn lease(&self, context: &Context<'_>, slot: Slot) -> Lease {
        let Context { request, now, .. } = *context;
        let earlier = self.table.get(slot).filter(|lease| lease.client == request.client);
        let host_name = request.host_name.clone();
        let until = now + self.lease_time(context);
        let held = earlier.filter(|lease| lease.state == LeaseState::Bound && now < lease.until);
        Lease {
            client: request.client.clone(),
            hardware: request.hardware,
            ip: slot.0,
            set: slot.1,
            state: LeaseState::Bound,
            until,
            since: held.map_or(now, |lease| lease.since),
            held_until: until,
            host_name: host_name.or_else(|| earlier.and_then(|lease| lease.host_name.clone())),
        }
    }

    fn lease_time(&self, context: &Context<'_>) -> Duration {
        let longest = self.config.lease;
        context.request.lease.map_or(longest, |asked| asked.max(MIN_LEASE).min(longest))
    }

    fn bind(&mut self, context: &Context<'_>, slot: Slot) {
        let lease = self.lease(context, slot);
        if let Some(offers) = self.offers.get_mut(&context.arrival.link) {
            offers.remove(&slot);
        }
        let mut reply = context.request.reply(MessageType::Ack, context.server);
        self.fill(context, &mut reply, Some(slot));
        let reply = Self::addressed(context, reply, Some(slot.0));
        let before = self.table.insert(lease.clone());
        self.pending.push_back(Pending { slot, grant: Some(Grant { before, reply }) });
        self.events.push_back(Event::Commit(lease));
    }

    fn refuse(&mut self, context: &Context<'_>) {
        tracing::debug!(client = %context.request.client, "DHCPNAK");
        let reply = context.request.reply(MessageType::Nak, context.server);
        // RFC 2131 §4.3.2: the client may have no usable address, so that a relay has to broadcast it, too.
        if let Some(message) = reply.broadcast().into_bytes() {
            let destination = context.request.giaddr.map_or(Destination::Broadcast, Destination::Relay);
            self.replies.push_back(Reply { link: context.arrival.link, destination, message });
        }
    }

    /// The client took another server's offer.
    fn withdraw_offers(&mut self, context: &Context<'_>) {
        let offered = self.table.of_client(&context.request.client);
        let offered: Vec<_> =
            offered.filter(|lease| lease.state == LeaseState::Offered).map(Lease::slot).collect();
        for slot in offered {
            // Not free at once: it may have been in its rest when it was offered.
            if let Some(lease) = self.table.get(slot).cloned() {
                self.table.insert(Lease { state: LeaseState::Released, ..lease });
            }
            for offers in self.offers.values_mut() {
                offers.remove(&slot);
            }
        }
    }

    /// RFC 2131 §4.3.3 and §4.3.4: a lease is declined or released, by its client alone.
    pub(super) fn end(&mut self, context: &Context<'_>, state: LeaseState) -> Result<(), Refused> {
        let Context { request, now, .. } = *context;
        let ip = request.ciaddr.or(request.requested).ok_or(Invalid::Format)?;
        let slot = self.slot(context, ip);
        let Some(lease) = self.table.get(slot).filter(|lease| lease.client == request.client) else {
            return Ok(());
        };
        if !lease.is_live(now) {
            return Ok(());
        }
        let mut lease = lease.clone();
        let time = match state {
            LeaseState::Quarantined => self.config.quarantine,
            _ => self.config.rest,
        };
        if state == LeaseState::Quarantined {
            tracing::warn!(%ip, set = %slot.1, client = %request.client, "a client found its lease in use by another");
        }
        // What was only offered nobody has had.
        lease.held_until = lease.held_until.min(now);
        (lease.state, lease.until) = (state, now + time);
        self.events.push_back(Event::Bindings { ip, hardware: lease.hardware });
        self.table.insert(lease.clone());
        self.pending.push_back(Pending { slot, grant: None });
        self.events.push_back(Event::Commit(lease));
        Ok(())
    }

    /// RFC 2131 §4.3.5.
    pub(super) fn inform(&mut self, context: &Context<'_>) -> Result<(), Refused> {
        let ip = context.request.ciaddr.ok_or(Invalid::Format)?;
        let mut reply = context.request.reply(MessageType::Ack, context.server);
        self.fill(context, &mut reply, None);
        self.send(context, reply, Some(ip));
        Ok(())
    }

    /// The lease, and what a client should know of its network.
    fn fill(&self, context: &Context<'_>, reply: &mut ReplyMessage, slot: Option<Slot>) {
        let ip = slot.map_or(context.network.address(), |(ip, _)| ip);
        if let Some((ip, set)) = slot {
            reply.lease(ip, set, self.lease_time(context));
            // PE-ARP rule 105: the slot is the client's, or it would not get it.
            let reserved = self.reserved.get(&(ip, set)).filter(|_| context.request.wants_set);
            let portless = reserved.and_then(|at| Some(&self.config.reservations.get(*at)?.portless));
            if let Some(portless) = portless.filter(|portless| !portless.is_empty()) {
                reply.option(portless_option(portless));
            }
        }
        reply.option(DhcpOption::SubnetMask(context.network.netmask()));
        if let Some(router) = self.router_of(ip) {
            reply.option(DhcpOption::Router(vec![router]));
        }
        if !self.config.dns.is_empty() {
            reply.option(DhcpOption::DomainNameServer(self.config.dns.clone()));
        }
        if let Some(domain) = &self.config.domain {
            reply.option(DhcpOption::DomainName(domain.clone()));
        }
    }

    fn send(&mut self, context: &Context<'_>, reply: ReplyMessage, to: Option<Ipv4Addr>) {
        self.replies.extend(Self::addressed(context, reply, to));
    }

    /// RFC 2131 §4.1. The link-layer address is the client's, also where it has an IP address already: nobody could
    /// be asked who has port 68 of a shared one (PE-ARP rule 100).
    fn addressed(context: &Context<'_>, reply: ReplyMessage, to: Option<Ipv4Addr>) -> Option<Reply> {
        let request = context.request;
        let destination = match (request.giaddr, request.ciaddr.or(to)) {
            (Some(relay), _) => Destination::Relay(relay),
            (None, Some(ip)) if request.ciaddr.is_some() || !request.broadcast => {
                Destination::Client(request.hardware, ip)
            }
            (None, _) => Destination::Broadcast,
        };
        Some(Reply { link: context.arrival.link, destination, message: reply.into_bytes()? })
    }
}
