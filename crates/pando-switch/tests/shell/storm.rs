//! Random traffic, faults, cuts and machines that come and go, on a real switch: every frame stays
//! counted, and what was delivered is what machines can read.

use std::io::Write as _;
use std::time::{Duration, Instant};

use pando_machine::Switch;
use pando_model::fault::{Burst, Effect, Fault, Impairment, PerMillion};
use pando_model::network::{End, LinkCounts, MacAddress, NetworkSpec};
use proptest::prelude::*;

use crate::support::*;

const NODES: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Send { from: usize, to: usize, frames: u32, length: usize },
    Broadcast { from: usize },
    Read { node: usize },
    Faults { partition: Option<(usize, usize)>, loss: u32, latency_us: u64 },
    Cut,
    Branch,
    Replug { node: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        8 => (node.clone(), node.clone(), 1u32..400, 18usize..1518)
            .prop_map(|(from, to, frames, length)| Step::Send { from, to, frames, length }),
        2 => node.clone().prop_map(|from| Step::Broadcast { from }),
        4 => node.clone().prop_map(|node| Step::Read { node }),
        2 => (proptest::option::of((node.clone(), node.clone())), 0u32..500_000, 0u64..5_000)
            .prop_map(|(partition, loss, latency_us)| Step::Faults { partition, loss, latency_us }),
        2 => Just(Step::Cut),
        1 => Just(Step::Branch),
        1 => node.prop_map(|node| Step::Replug { node }),
    ]
}

struct World {
    directory: tempfile::TempDir,
    switch: Box<dyn Switch>,
    machines: Vec<Machine>,
    number: u32,
    /// Frames that each machine has read of its present port, and the beginning of another.
    read: Vec<(u64, Vec<u8>)>,
    /// Frames that went to each node's former ports, or that its branch had before.
    before: Vec<u64>,
}

impl World {
    fn new() -> Self {
        let (switch, machines) = open(NODES);
        Self {
            directory: tempfile::tempdir().unwrap(),
            switch,
            machines,
            number: 0,
            read: vec![(0, Vec::new()); NODES],
            before: vec![0; NODES],
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Send { from, to, frames, length } => {
                let burst: Vec<u8> = (0..*frames)
                    .flat_map(|_| {
                        self.number += 1;
                        framed(&frame_of(*from, *to, self.number, *length))
                    })
                    .collect();
                self.machines[*from].0.write_all(&burst).unwrap();
            }
            Step::Broadcast { from } => {
                let mut frame = frame(*from, 0, 0);
                frame[..6].copy_from_slice(&MacAddress::BROADCAST.0);
                self.machines[*from].send(&frame);
            }
            Step::Read { node } => self.read(*node),
            Step::Faults { partition, loss, latency_us } => {
                self.switch.set_faults(faults(*partition, *loss, *latency_us)).unwrap();
            }
            Step::Cut => {
                self.cut();
                self.switch.release().unwrap();
            }
            Step::Branch => self.branch(),
            Step::Replug { node } => {
                // Nothing may come to the new port before it is known what came to the old one.
                self.switch.hold().unwrap();
                let ends = self.switch.replug(&name(&format!("n{node}"))).unwrap();
                self.machines[*node] = Machine::new(ends.into_iter().next().unwrap());
                self.begin_port(*node);
                self.switch.release().unwrap();
            }
        }
    }

    /// Everything until the machines would go on; none of them reads meanwhile.
    fn cut(&mut self) {
        self.switch.hold().unwrap();
        self.switch.drain(Instant::now() + Duration::from_millis(2)).unwrap();
        assert_eq!(self.switch.settle().unwrap().partial, []);
        self.switch.save(&self.directory.path().join("state")).unwrap();
    }

    /// Goes on in another switch, with the machines that a restore would give.
    fn branch(&mut self) {
        self.cut();
        let faults = self.switch.observe().unwrap().faults;
        let spec = NetworkSpec { faults, ..spec(NODES) };
        let state = self.directory.path().join("state");
        let (switch, machines) = restore(&spec, Some(&state));
        (self.switch, self.machines) = (switch, machines);
        (0..NODES).for_each(|node| self.begin_port(node));
        self.switch.release().unwrap();
    }

    fn begin_port(&mut self, node: usize) {
        self.before[node] = self.delivered(node);
        self.read[node] = (0, Vec::new());
    }

    /// Frames that the switch has brought to a node, if no more come.
    fn delivered(&mut self, node: usize) -> u64 {
        let to = End::Node(name(&format!("n{node}")));
        let links = self.switch.observe().unwrap().links;
        links
            .into_iter()
            .filter(|(link, _)| link.to == to)
            .map(|(_, counts)| counts.delivered)
            .sum()
    }

    fn read(&mut self, node: usize) {
        let (frames, bytes) = &mut self.read[node];
        bytes.extend(self.machines[node].read_all_there_is());
        let mut at = 0;
        while let Some(prefix) = bytes[at..].first_chunk::<4>() {
            let end = at + 4 + u32::from_be_bytes(*prefix) as usize;
            if end > bytes.len() {
                break;
            }
            (*frames, at) = (*frames + 1, end);
        }
        bytes.drain(..at);
    }

    fn balances(&mut self) -> bool {
        let links = self.switch.observe().unwrap().links;
        links.iter().all(|(_, LinkCounts { sent, delivered, held, dropped, .. })| {
            *sent == delivered + held + dropped.values().sum::<u64>()
        })
    }

    /// Reads until nothing is held any more, and everything delivered was read.
    fn finish(&mut self) {
        self.switch.set_faults(Vec::new()).unwrap();
        let deadline = soon();
        loop {
            (0..NODES).for_each(|node| self.read(node));
            self.switch.settle().unwrap();
            let links = self.switch.observe().unwrap().links;
            let is_done = links.iter().all(|(_, counts)| counts.held == 0)
                && (0..NODES)
                    .all(|node| self.delivered(node) == self.before[node] + self.read[node].0);
            if is_done {
                return;
            }
            assert!(Instant::now() < deadline, "{links:?} {:?} {:?}", self.before, self.read);
        }
    }
}

fn faults(partition: Option<(usize, usize)>, loss: u32, latency_us: u64) -> Vec<Fault> {
    let links = (0..NODES).map(|node| link(node, (node + 1) % NODES));
    let impairment = Impairment {
        loss: PerMillion(loss),
        burst: loss.is_multiple_of(2).then_some(Burst { mean_frames: 3 }),
        latency_us,
        duplicate: PerMillion(loss / 4),
        ..Impairment::default()
    };
    let mut impaired = slow(link(0, 1), 0);
    impaired.effect = Effect::Impair(impairment);
    impaired.links = links.collect();
    let parted = partition.map(|(from, to)| {
        let mut parted = slow(link(from, to), 0);
        parted.id = "ft_000000000002".parse().unwrap();
        parted.effect = Effect::Partition;
        parted
    });
    parted.into_iter().chain([impaired]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_happens_every_frame_is_counted_and_every_delivered_one_can_be_read(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
            prop_assert!(world.balances(), "after {:?}", step);
        }
        world.finish();
        prop_assert!(world.balances());
    }
}
