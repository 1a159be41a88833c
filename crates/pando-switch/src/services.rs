//! What the switch itself answers at a segment's gateway address. Pure: a frame and the time in, an
//! answer out. The core asks for every frame that reaches the gateway, and, before it decides where
//! a broadcast or multicast goes, whether the gateway is one of those that it is for.

use std::time::Duration;

use pando_model::network::{DropReason, GATEWAY_MAC, Port, Segment};

/// What the services know of a segment.
#[derive(Debug, Clone, Copy)]
pub struct SegmentView<'a> {
    /// The segment.
    pub segment: &'a Segment,
    /// Domain of the nodes' names.
    pub domain: &'a str,
    /// All ports of the branch, in every segment: names are told across segments.
    pub ports: &'a [Port],
}

/// What becomes of a frame at the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This frame goes back to the port that asked.
    Reply(Vec<u8>),
    /// It is for the outside, unchanged.
    ToUplink,
    /// It was for the gateway, and nothing comes of it.
    Drop(DropReason),
    /// It was not for the gateway.
    NotForMe,
}

/// Returns what becomes of `frame`, which has a whole Ethernet header and came in through `port`.
/// `now` is the switch's clock, which stands still while it is held.
pub fn answer(_view: &SegmentView<'_>, _port: &Port, frame: &[u8], _now: Duration) -> Answer {
    if frame.starts_with(&GATEWAY_MAC.0) {
        Answer::Drop(DropReason::NoRoute)
    } else {
        Answer::NotForMe
    }
}

#[cfg(test)]
mod tests {
    use pando_model::cluster::Uplink;

    use super::*;

    #[test]
    fn a_frame_for_another_station_is_not_the_gateways() {
        let segment = Segment {
            name: "lan".parse().unwrap(),
            subnet: [10, 0, 2, 0].into(),
            prefix_bits: 24,
            gateway: [10, 0, 2, 2].into(),
            gateway6: None,
            uplink: Uplink::None,
        };
        let port = Port {
            node: "db".parse().unwrap(),
            nic: 0,
            segment: segment.name.clone(),
            mac: "52:54:00:12:34:56".parse().unwrap(),
            address: None,
            address6: None,
        };
        let view = SegmentView { segment: &segment, domain: "shop", ports: &[] };
        let mut frame = [0xee; 60];
        assert_eq!(answer(&view, &port, &frame, Duration::ZERO), Answer::NotForMe);
        frame[..6].copy_from_slice(&GATEWAY_MAC.0);
        let dropped = Answer::Drop(DropReason::NoRoute);
        assert_eq!(answer(&view, &port, &frame, Duration::ZERO), dropped);
    }
}
