//! How frames look to the driver of a device.

use crate::wire::{Frame, Medium, Offload, VIRTIO_NET_HEADER};

/// What a device carries, and what stands in front of each frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    pub(super) medium: Medium,
    /// A virtio-net header does.
    pub(super) virtio_net: bool,
}

impl Framing {
    /// Empties a frame and gives what the driver reads into; then call [`Framing::received`].
    pub(super) fn space(self, frame: &mut Frame) -> &mut [u8] {
        frame.space_behind(self.header_len(), self.medium)
    }

    /// The driver wrote `len` bytes.
    pub(super) fn received(self, frame: &mut Frame, len: usize) {
        frame.set_len(len.saturating_sub(self.header_len()));
        if !self.virtio_net {
            return;
        }
        match Offload::parse(frame.front(), self.medium, frame.bytes()) {
            Ok(offload) => frame.offload = offload,
            Err(error) => {
                tracing::debug!(%error, "a frame behind a header that makes no sense");
                // Nothing is known of such a frame. The node counts it as one that is too short.
                frame.set_len(0);
            }
        }
    }

    /// What the driver is to be given.
    pub(super) fn bytes(self, frame: &mut Frame) -> &[u8] {
        if self.virtio_net {
            let header = frame.offload.emit(self.medium);
            frame.behind(&header)
        } else {
            frame.bytes()
        }
    }

    fn header_len(self) -> usize {
        if self.virtio_net { VIRTIO_NET_HEADER } else { 0 }
    }
}
