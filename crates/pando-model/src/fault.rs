//! Faults: what a branch's network is told to do wrong, on which links.
//!
//! Every decision of a fault is a pure function of its seed, the link and the number of the frame
//! on it, so that a branch of a commit repeats what its parent would have done, and a fault that
//! is made again does again what it did.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::FaultId;
use crate::name::Name;
use crate::network::Link;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its id; a branch of a commit has the same.
    pub id: FaultId,
    /// Free text of whoever made it.
    pub label: Option<String>,
    /// What it does.
    pub effect: Effect,
    /// Where.
    pub links: Vec<Link>,
    /// The only segment that it works in; all of them without one.
    #[serde(default)]
    pub segment: Option<Name>,
    /// What its decisions follow from.
    pub seed: u64,
    /// Its number among the branch's faults of the same seed, from 0: they decide apart, and alike
    /// wherever the same ones are made again.
    #[serde(default)]
    pub ordinal: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

impl Fault {
    /// Returns whether it works on a link in a segment.
    pub fn works_on(&self, link: &Link, segment: &Name) -> bool {
        self.segment.as_ref().is_none_or(|own| own == segment) && self.links.contains(link)
    }
}

/// What a fault does to frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// None get through.
    Partition,
    /// They get through worse.
    Impair(Impairment),
}

/// A probability in parts per million.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PerMillion(pub u32);

/// How delays vary around the latency.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Evenly within ± the jitter.
    #[default]
    Uniform,
    /// Normally, with the jitter as standard deviation; never below zero.
    Normal,
    /// A long tail above the latency (Pareto), with the jitter as its scale.
    Pareto,
}

/// Losses that come in bursts (Gilbert–Elliott): in the bad state every frame is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burst {
    /// Mean number of frames lost in a row, at least 1.
    pub mean_frames: u32,
}

/// How frames get through worse. Zero of anything is none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// Delay of every frame, in microseconds.
    pub latency_us: u64,
    /// Its variation, in microseconds.
    pub jitter_us: u64,
    /// The form of the variation.
    pub distribution: Distribution,
    /// Frames lost.
    pub loss: PerMillion,
    /// Whether they are lost in bursts.
    pub burst: Option<Burst>,
    /// Frames delivered twice.
    pub duplicate: PerMillion,
    /// Frames with one bit changed.
    pub corrupt: PerMillion,
    /// Frames that skip the delay, and so overtake others.
    pub reorder: PerMillion,
    /// Most bits a second, Ethernet headers included.
    pub rate_bps: Option<u64>,
}
