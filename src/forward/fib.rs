//! Routes, by longest prefix.

use core::net::Ipv4Addr;

use smoltcp::wire::Ipv4Cidr;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop<L> {
    /// The egress link.
    pub link: L,
    /// The router there; `None` where the destination itself is on the link.
    pub gateway: Option<Ipv4Addr>,
}

/// Routes of a node, few enough to be searched in order of prefix length.
#[derive(Clone, Debug)]
pub struct Fib<L> {
    routes: Vec<(Ipv4Cidr, NextHop<L>)>,
}

impl<L: Copy> Fib<L> {
    /// No routes.
    pub const fn new() -> Self {
        Self { routes: Vec::new() }
    }

    /// Adds a route.
    pub fn insert(&mut self, prefix: Ipv4Cidr, next_hop: NextHop<L>) {
        let at = self.routes.partition_point(|(other, _)| other.prefix_len() >= prefix.prefix_len());
        self.routes.insert(at, (prefix, next_hop));
    }

    /// The most specific route to `destination`; of equal ones the first inserted.
    pub fn lookup(&self, destination: Ipv4Addr) -> Option<NextHop<L>> {
        self.routes
            .iter()
            .find(|(prefix, _)| prefix.contains_addr(&destination))
            .map(|(_, next_hop)| *next_hop)
    }
}

impl<L: Copy> Default for Fib<L> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut fib = Fib::new();
        let gateway = Some(Ipv4Addr::new(203, 0, 113, 254));
        fib.insert("0.0.0.0/0".parse().unwrap(), NextHop { link: 1, gateway });
        fib.insert("198.51.100.0/24".parse().unwrap(), NextHop { link: 0, gateway: None });
        fib.insert("198.51.100.128/25".parse().unwrap(), NextHop { link: 2, gateway: None });
        let link = |last| fib.lookup(Ipv4Addr::new(198, 51, 100, last)).map(|hop| hop.link);
        assert_eq!((link(1), link(200)), (Some(0), Some(2)));
        assert_eq!(fib.lookup(Ipv4Addr::new(8, 8, 8, 8)), Some(NextHop { link: 1, gateway }));
        assert_eq!(Fib::<u8>::new().lookup(Ipv4Addr::LOCALHOST), None);
    }
}
