//! Faults of one segment, between nodes that have two in common.

use super::*;

/// The ports of `n3` and `n4` in each segment.
const LAN: (usize, usize) = (3, 6);
const DMZ: (usize, usize) = (4, 5);

fn core() -> Core {
    let mut spec = spec();
    let port = spec.ports[5].clone();
    spec.ports.push(Port { nic: 1, segment: name("lan"), mac: mac(6), ..port });
    let mut core = Core::new(spec).unwrap();
    core.release();
    core
}

fn in_segment(segment: &str, fault: Fault) -> Fault {
    Fault { segment: Some(name(segment)), ..fault }
}

fn send(core: &mut Core, now: Duration, (from, to): (usize, usize)) {
    core.input(now, from, &frame(mac(to), mac(from), 1, 60));
}

/// Returns how many frames a fault met, and how many it dropped.
fn met(core: &Core, fault: &Fault) -> (u64, u64) {
    let counts = core.observe(ZERO).fault_counts;
    let own = counts.iter().find(|count| count.fault == fault.id).unwrap();
    (own.frames, own.dropped)
}

#[test]
fn a_fault_of_one_segment_leaves_the_other_alone() {
    let mut core = core();
    let links = [("n3", "n4"), ("n3", "gateway")];
    let cut = in_segment("lan", fault(1, 0, Effect::Partition, &links));
    core.set_faults(vec![cut.clone()]).unwrap();
    for way in [LAN, DMZ, DMZ] {
        send(&mut core, ZERO, way);
    }
    assert!(read(&mut core, LAN.1).is_empty());
    assert_eq!(read(&mut core, DMZ.1).len(), 2);
    assert_eq!(met(&core, &cut).1, 1);
    // The gateway is in every segment.
    let before = dropped(&core, "n3", "gateway", DropReason::Partition);
    core.input(ZERO, DMZ.0, &frame(GATEWAY_MAC, mac(DMZ.0), 1, 60));
    assert_eq!(dropped(&core, "n3", "gateway", DropReason::Partition), before);
    core.input(ZERO, LAN.0, &frame(GATEWAY_MAC, mac(LAN.0), 1, 60));
    assert_eq!(dropped(&core, "n3", "gateway", DropReason::Partition), before + 1);
    assert_balance(&core);
}

#[test]
fn what_is_under_way_is_stopped_in_the_segment_of_a_partition_only() {
    let mut core = core();
    let latency = Impairment { latency_us: 50_000, ..Impairment::default() };
    let slow = fault(1, 7, Effect::Impair(latency), &[("n3", "n4")]);
    core.set_faults(vec![slow.clone()]).unwrap();
    send(&mut core, ZERO, LAN);
    send(&mut core, ZERO, DMZ);
    let cut = in_segment("dmz", fault(2, 0, Effect::Partition, &[("n3", "n4")]));
    core.set_faults(vec![slow, cut]).unwrap();
    core.advance(ms(50));
    assert_eq!((read(&mut core, LAN.1).len(), read(&mut core, DMZ.1).len()), (1, 0));
    assert_balance(&core);
}

/// What decides numbers the frames of its segment: traffic elsewhere changes nothing.
#[test]
fn decisions_of_one_segment_do_not_depend_on_the_other() {
    let lost = |with_others: bool| {
        let mut core = core();
        let loss = Impairment { loss: PerMillion(300_000), ..Impairment::default() };
        let loses = in_segment("lan", fault(1, 7, Effect::Impair(loss), &[("n3", "n4")]));
        core.set_faults(vec![loses.clone()]).unwrap();
        let got = (0..200).map(|_| {
            send(&mut core, ZERO, LAN);
            if with_others {
                send(&mut core, ZERO, DMZ);
                assert_eq!(read(&mut core, DMZ.1).len(), 1);
            }
            read(&mut core, LAN.1).len()
        });
        let got: Vec<usize> = got.collect();
        assert_eq!(met(&core, &loses).0, 200);
        got
    };
    let alone = lost(false);
    assert!((30..90).contains(&alone.iter().filter(|count| **count == 0).count()));
    assert_eq!(lost(true), alone);
}

#[test]
fn a_segment_that_is_not_there_is_refused() {
    let mut core = core();
    let nowhere = in_segment("wan", fault(2, 0, Effect::Partition, &[("n3", "n4")]));
    assert_eq!(
        core.set_faults(vec![nowhere]).unwrap_err().to_string(),
        "apply the fault ft_000000000002 in `wan`, which this network does not have"
    );
}
