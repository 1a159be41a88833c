//! Random frames, faults, holds, saves and restarts: no frame is lost without a count, and a branch
//! goes on as its parent would have.

use pando_model::fault::{Burst, Distribution};
use proptest::prelude::*;

use super::*;

/// One thing that happens to a switch.
#[derive(Debug, Clone)]
enum Step {
    Frame { from: usize, to: u8, spoof: bool, length: usize },
    Outside { length: usize },
    Pass { micros: u64 },
    Read { output: usize, frames: usize },
    Faults(Vec<(u8, Impairment, bool)>),
    Hold,
    Release,
    Close { port: usize },
    Open { port: usize },
    Save,
}

fn step() -> impl Strategy<Value = Step> {
    let impairment = (
        (0u64..3000, 0u64..2000, 0u8..3),
        (0u32..400_000, proptest::option::of(1u32..6)),
        (0u32..400_000, 0u32..400_000, 0u32..400_000),
        proptest::option::of(100_000u64..10_000_000),
    )
        .prop_map(
            |((latency_us, jitter_us, form), (loss, burst), (twice, flip, skip), rate)| {
                Impairment {
                    latency_us,
                    jitter_us,
                    distribution: [
                        Distribution::Uniform,
                        Distribution::Normal,
                        Distribution::Pareto,
                    ][usize::from(form)],
                    loss: PerMillion(loss),
                    burst: burst.map(|mean_frames| Burst { mean_frames }),
                    duplicate: PerMillion(twice),
                    corrupt: PerMillion(flip),
                    reorder: PerMillion(skip),
                    rate_bps: rate,
                }
            },
        );
    let frame = (0usize..6, 0u8..10, proptest::bool::weighted(0.1), 0usize..1600)
        .prop_map(|(from, to, spoof, length)| Step::Frame { from, to, spoof, length });
    prop_oneof![
        20 => frame,
        2 => (18usize..1600).prop_map(|length| Step::Outside { length }),
        5 => (0u64..3000).prop_map(|micros| Step::Pass { micros }),
        5 => (0usize..11, 1usize..20).prop_map(|(output, frames)| Step::Read { output, frames }),
        1 => proptest::collection::vec((0u8..4, impairment, proptest::bool::weighted(0.2)), 0..4)
            .prop_map(Step::Faults),
        1 => Just(Step::Hold),
        2 => Just(Step::Release),
        1 => (0usize..11).prop_map(|port| Step::Close { port }),
        2 => (0usize..11).prop_map(|port| Step::Open { port }),
        1 => Just(Step::Save),
    ]
}

/// A switch and all that was read from it.
struct World {
    core: Core,
    now: Duration,
    number: u32,
    read: Vec<(usize, Vec<u8>)>,
    saves: bool,
}

impl World {
    fn new(saves: bool) -> Self {
        Self { core: core(), now: ZERO, number: 0, read: Vec::new(), saves }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Frame { from, to, spoof, length } => self.send(*from, *to, *spoof, *length),
            Step::Outside { length } => {
                let uplink = self.core.uplink(&name("n0")).unwrap();
                self.number += 1;
                let frame = frame(mac(0), GATEWAY_MAC, self.number, *length);
                if !self.core.is_held() {
                    self.core.input(self.now, uplink, &frame);
                }
            }
            Step::Pass { micros } => {
                if !self.core.is_held() {
                    self.now += Duration::from_micros(*micros);
                }
                self.core.advance(self.now);
            }
            Step::Read { output, frames } => {
                let whole: usize = crate::frame::Frames::new(self.core.output(*output))
                    .take(*frames)
                    .map(|frame| {
                        let frame = frame.unwrap();
                        self.read.push((*output, frame.to_vec()));
                        frame.len() + 4
                    })
                    .sum();
                self.core.wrote(*output, whole, |_, _| {});
            }
            Step::Faults(faults) => self.core.set_faults(self::faults(faults)).unwrap(),
            Step::Hold => self.core.hold(),
            Step::Release => {
                self.core.release();
                while self.core.forward_held(self.now) {}
            }
            Step::Close { port } => self.core.close(*port),
            Step::Open { port } => self.core.open(*port),
            Step::Save => self.save(),
        }
    }

    fn send(&mut self, from: usize, to: u8, spoof: bool, length: usize) {
        self.number += 1;
        let to = match to {
            0..6 => mac(usize::from(to)),
            6 => MacAddress::BROADCAST,
            7 => GATEWAY_MAC,
            8 => MacAddress([0x33, 0x33, 0, 0, 0, 1]),
            _ => MacAddress([2, 0, 0, 0, 0, self.number as u8]),
        };
        let source = if spoof { mac((from + 1) % 6) } else { mac(from) };
        let mut frame = frame(to, source, self.number, length);
        frame.truncate(length);
        self.core.input(self.now, from, &frame);
    }

    /// Continues in another switch, if this world is the one that does.
    fn save(&mut self) {
        let was_held = self.core.is_held();
        self.core.hold();
        if self.saves {
            let spec = NetworkSpec { faults: self.core.faults().to_vec(), ..spec() };
            let open: Vec<bool> = self.core.outputs.iter().map(|output| output.is_open).collect();
            let (bytes, _) = self.core.save(self.now, &[]);
            let (mut core, now) = Core::restore(spec, &bytes).unwrap();
            assert_eq!(now, self.now);
            assert_eq!(core.save(now, &[]).0, bytes, "a state is read as it was written");
            for (output, open) in open.into_iter().enumerate() {
                if open { core.open(output) } else { core.close(output) }
            }
            self.core = core;
        }
        if !was_held {
            self.take(&Step::Release);
        }
    }
}

fn faults(chosen: &[(u8, Impairment, bool)]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for (number, impairment, partition) in chosen {
        let effect =
            if *partition { Effect::Partition } else { Effect::Impair(impairment.clone()) };
        let links =
            [("n0", "n1"), ("n1", "n0"), ("n0", "gateway"), ("gateway", "n0"), ("n3", "n4")];
        let fault = fault(*number, 7, effect, &links);
        if faults.iter().all(|other| other.id != fault.id) {
            faults.push(fault);
        }
    }
    faults
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The promise of every commit: sent = delivered + held + dropped; nothing is received that was
    /// not sent; and a branch goes on as its parent would have, frame for frame.
    #[test]
    fn frames_are_conserved_and_a_restored_switch_goes_on_the_same(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let (mut straight, mut saving) = (World::new(false), World::new(true));
        for step in &steps {
            for world in [&mut straight, &mut saving] {
                world.take(step);
                assert_balance(&world.core);
            }
            prop_assert_eq!(&straight.read, &saving.read, "after {:?}", step);
        }
        for world in [&mut straight, &mut saving] {
            world.take(&Step::Release);
            world.take(&Step::Pass { micros: 1_000_000_000 });
            (0..11).for_each(|output| world.take(&Step::Read { output, frames: usize::MAX }));
        }
        prop_assert_eq!(&straight.read, &saving.read);
        let (one, other) = (straight.core.observe(straight.now), saving.core.observe(saving.now));
        prop_assert_eq!(one.links, other.links);
        prop_assert_eq!(one.fault_counts, other.fault_counts);
        let numbers = straight.read.iter().filter_map(|(_, frame)| frame.get(14..18));
        let corrupted: u64 = saving.core.observe(ZERO).links.iter().map(|(_, it)| it.corrupted).sum();
        let foreign = numbers
            .filter(|number| u32::from_be_bytes((*number).try_into().unwrap()) > straight.number);
        prop_assert!(foreign.count() as u64 <= corrupted);
    }

    #[test]
    fn the_same_frames_under_the_same_seed_have_the_same_fate(
        steps in proptest::collection::vec(step(), 1..100),
    ) {
        let run = || {
            let mut world = World::new(false);
            steps.iter().for_each(|step| world.take(step));
            (world.read, world.core.observe(world.now).links)
        };
        prop_assert_eq!(run(), run());
    }
}
