//! What tests with real programs in network namespaces share.

pub(crate) mod attack;
pub(crate) mod bulk;
pub(crate) mod capture;
pub(crate) mod dhcp;
pub(crate) mod dhcpd;
pub(crate) mod intruder;
pub(crate) mod lab;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod requirements;
pub(crate) mod sandbox;
pub(crate) mod ssh;
pub(crate) mod tap;
pub(crate) mod wait;
