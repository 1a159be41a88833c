//! What the owner does with its machines, on scripted ones.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use pando_machine::{PortNumber, Settled, Stillness};
use pando_model::branch::BranchState;
use pando_model::host::{AfterStart, BranchSpec, Clock, HostError};

use super::*;
use crate::fake::World;

/// Starts a branch on scripted machines.
fn owner(world: &World, spec: &BranchSpec) -> (Owner, Receiver<Message>) {
    let (sender, receiver) = channel();
    let parts = Parts {
        layout: world.layout.clone(),
        branch: spec.branch.clone(),
        hypervisor: Arc::new(world.stage.clone()),
        switches: Arc::new(world.stage.clone()),
    };
    let mut owner = Owner::new(parts, spec.clone(), sender);
    owner.start().unwrap();
    (owner, receiver)
}

fn greeted(owner: &Owner) -> Vec<bool> {
    owner.published.read(|view| view.nodes.iter().map(|node| node.greeted).collect())
}

const BUSY: Stillness = Stillness { quiet: false, crowded: Vec::new() };

fn is_empty(spool: &std::path::Path) -> bool {
    std::fs::read_dir(spool).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn a_branch_held_at_its_start_is_greeted_when_it_is_resumed() {
    let world = World::new();
    let spec = BranchSpec { after: AfterStart::Hold, ..world.spec(&["web", "db"]) };
    let (mut owner, _messages) = owner(&world, &spec);
    assert_eq!(owner.state(), BranchState::Paused);
    assert_eq!(greeted(&owner), [false, false]);
    assert_eq!(world.count("web hello") + world.count("web resume") + world.count("release"), 0);

    owner.resume(Clock::Step).unwrap();
    assert_eq!(owner.state(), BranchState::Running);
    assert_eq!(greeted(&owner), [true, true]);
    assert_eq!((world.count("web resume"), world.count("release")), (1, 1));
    world.until("web clock", 1);
    world.until("db clock", 1);

    // From then on as any other.
    let hellos = world.count("db hello");
    owner.pause().unwrap();
    owner.resume(Clock::Step).unwrap();
    assert_eq!(world.count("db hello"), hellos);
}

#[test]
fn a_held_branch_whose_guests_are_silent_stands_again() {
    let world = World::new();
    let mut spec = BranchSpec { after: AfterStart::Hold, ..world.spec(&["db"]) };
    spec.ready_timeout = Duration::from_millis(50);
    let (mut owner, _messages) = owner(&world, &spec);
    world.script(|script| script.silent = true);
    owner.resume(Clock::Step).unwrap_err();
    assert_eq!(owner.state(), BranchState::Paused);
    assert_eq!(world.take_log().last().unwrap(), "db pause");
    world.script(|script| script.silent = false);
    owner.resume(Clock::Step).unwrap();
    assert_eq!(greeted(&owner), [true]);
}

#[test]
fn a_branch_is_paused_and_resumed_while_a_node_reboots() {
    let world = World::new();
    let (mut owner, _messages) = owner(&world, &world.spec(&["web", "db"]));
    world.script(|script| script.silent = true);
    owner.boot_again(1).unwrap();
    world.until("db hello", 2);
    owner.pause().unwrap();
    owner.resume(Clock::Step).unwrap();
    assert_eq!(owner.state(), BranchState::Running);
    world.script(|script| script.silent = false);
    let soon = Instant::now() + Duration::from_secs(20);
    let answers = |view: &mut BranchView| view.nodes[1].greeted.then_some(());
    owner.published.wait(soon, answers).expect("the rebooted guest is greeted");
}

#[test]
fn a_guest_that_rebooted_just_before_the_pause_boots_at_the_resume() {
    let world = World::new();
    let (mut owner, _messages) = owner(&world, &world.spec(&["web", "db"]));
    owner.pause().unwrap();
    world.take_log();
    owner.boot_again(1).unwrap();
    assert_eq!(owner.state(), BranchState::Paused);
    assert_eq!(world.take_log(), ["db spawn"]);
    owner.resume(Clock::Step).unwrap();
    let soon = Instant::now() + Duration::from_secs(20);
    let answers = |view: &mut BranchView| view.nodes[1].greeted.then_some(());
    owner.published.wait(soon, answers).expect("the rebooted guest is greeted");
}

#[test]
fn a_frozen_clock_stays_frozen_through_a_pause_and_a_reboot() {
    let world = World::new();
    let spec = BranchSpec { clock: Clock::Frozen, ..world.spec(&["db"]) };
    let (mut owner, _messages) = owner(&world, &spec);
    owner.pause().unwrap();
    owner.resume(Clock::Step).unwrap();
    let greetings = world.count("db hello");
    owner.boot_again(0).unwrap();
    world.until("db hello", greetings + 1);
    let soon = Instant::now() + Duration::from_secs(20);
    owner.published.wait(soon, |view| view.nodes[0].greeted.then_some(())).unwrap();
    assert_eq!(world.count("db clock"), 0);
}

#[test]
fn clients_that_never_stop_asking_do_not_keep_the_owner_from_looking() {
    let world = World::new();
    let (mut owner, messages) = owner(&world, &world.spec(&["db"]));
    world.script(|script| script.trouble = Some("no space".into()));
    let (sender, published) = (owner.sender.clone(), owner.published.clone());
    let serving = std::thread::spawn(move || owner.serve(&messages));
    let ask = |command| {
        let (reply, answer) = sync_channel(1);
        sender.send(Message::Do(command, reply)).unwrap();
        answer.recv().unwrap().unwrap()
    };
    let deadline = Instant::now() + limits::LOOK_AFTER * 3;
    while published.read(|view| view.nodes[0].trouble.is_none()) {
        assert!(Instant::now() < deadline, "nobody looked after the guest");
        ask(Command::Network);
    }
    ask(Command::Stop { mode: StopMode::Kill });
    serving.join().unwrap();
}

#[test]
fn a_switch_that_was_not_released_is_released_later_and_said_to_hold_meanwhile() {
    let world = World::new();
    let spec = world.spec(&["db"]);
    let (mut owner, _messages) = owner(&world, &spec);
    let ended = |owner: &Owner| owner.published.read(|view| view.network_ended.clone());
    world.script(|script| script.failing_releases = 2);
    let Ok(Reply::Cut { report }) = owner.cut(&world.cut_spec(&spec)) else { panic!("no report") };
    assert!(matches!(report.failed, Some(HostError::Network { .. })), "{report:?}");
    world.take_log();
    owner.look_after();
    assert!(ended(&owner).is_some(), "the branch has no network, and nobody says so");
    owner.look_after();
    assert_eq!(ended(&owner), None);
    owner.look_after();
    assert_eq!(world.count("release"), 2, "once in vain, once for good");
}

#[test]
fn a_switch_that_shall_hold_is_not_released_later() {
    let world = World::new();
    let (mut owner, _messages) = owner(&world, &world.spec(&["db"]));
    owner.pause().unwrap();
    world.script(|script| script.failing_releases = 1);
    owner.resume(Clock::Step).unwrap_err();
    assert_eq!(owner.state(), BranchState::Paused);
    world.take_log();
    owner.look_after();
    assert_eq!(world.count("release"), 0);
}

/// Cuts a branch of two nodes whose second stands as scripted, and returns how it went, with the log.
fn cut(script: impl FnOnce(&mut crate::fake::Script)) -> (Answer, Vec<String>, World, CutSpec) {
    let world = World::new();
    let spec = world.spec(&["web", "db"]);
    let (mut owner, _messages) = owner(&world, &spec);
    world.script(script);
    world.take_log();
    let cut = world.cut_spec(&spec);
    let answer = owner.cut(&cut);
    let log = world.take_log();
    assert_eq!(owner.state(), BranchState::Running);
    let spool = world.layout.spool(&spec.branch, &cut.commit);
    assert_eq!(answer.is_err(), is_empty(spool.parent().unwrap()));
    let tops: Vec<_> = owner.nodes.iter().map(|node| node.layers.clone()).collect();
    let was: Vec<_> = spec.nodes.iter().map(|node| node.layers.clone()).collect();
    assert_eq!(answer.is_err(), tops == was, "the disks move if and only if there is a commit");
    (answer, log, world, cut)
}

/// Asserts that everything that was stopped went on, so often.
fn assert_went_on(log: &[String], times: usize) {
    let count = |what: &str| log.iter().filter(|asked| *asked == what).count();
    for what in ["hold", "web resume", "db resume", "release"] {
        assert_eq!(count(what), times, "{what}: {log:?}");
    }
    assert_eq!(log.iter().rfind(|asked| !asked.ends_with("clock")).map(String::as_str), {
        let last = log.iter().rfind(|asked| asked.ends_with("discard")).unwrap();
        Some(last.as_str())
    });
}

#[test]
fn a_cut_that_is_not_clean_at_first_is_tried_again() {
    let unclean = [
        cut(|script| {
            script.stillness.insert("db".into(), VecDeque::from([Some(BUSY)]));
        }),
        cut(|script| {
            script.settled.push_back(Settled { frames: 0, partial: vec![PortNumber(1)] });
        }),
    ];
    for (answer, log, ..) in unclean {
        let Ok(Reply::Cut { report }) = answer else { panic!("{answer:?}") };
        assert_eq!(report.failed, None);
        assert_went_on(&log, 2);
        assert_eq!(log.iter().filter(|asked| *asked == "db save").count(), 1);
    }
}

#[test]
fn a_cut_that_is_never_clean_saves_nothing_and_lets_all_go_on() {
    let tries = limits::GUARD_TRIES as usize;
    let unclean = [
        cut(|script| {
            script.stillness.insert("db".into(), vec![Some(BUSY); tries].into());
        }),
        cut(|script| {
            let partial = Settled { frames: 1, partial: vec![PortNumber(0)] };
            script.settled = vec![partial; tries].into();
        }),
    ];
    let reasons = ["a network device had frames under way", "a frame had half arrived"];
    for ((answer, log, ..), reason) in unclean.into_iter().zip(reasons) {
        let Err(HostError::CutUnclean { detail, .. }) = answer else { panic!("{answer:?}") };
        assert!(detail.starts_with(reason), "{detail}");
        assert_went_on(&log, tries);
        assert!(!log.iter().any(|asked| asked.ends_with("save")), "{log:?}");
    }
}

#[test]
fn a_machine_that_does_not_stop_ends_the_cut_and_all_go_on() {
    let (answer, log, ..) = cut(|script| {
        script.stillness.insert("web".into(), VecDeque::from([None]));
    });
    assert!(matches!(answer, Err(HostError::Machine { .. })), "{answer:?}");
    assert_went_on(&log, 1);
    assert!(!log.iter().any(|asked| asked.ends_with("save")), "{log:?}");
}

#[test]
fn a_failed_start_is_explained_by_the_machine_that_ended_without_waiting_for_each_that_lives() {
    let world = World::new();
    let (mut owner, _messages) = owner(&world, &world.spec(&["a", "b", "c", "d"]));
    world.script(|script| script.ended = Some("d".into()));
    let began = Instant::now();
    let silent = HostError::GuestSilent { node: "a".into(), what: "answer".into(), waited_ms: 1 };
    let why = owner.explain(silent).to_string();
    assert!(why.contains("panicked"), "{why}");
    assert!(began.elapsed() < limits::LINGER * 2, "{:?}", began.elapsed());
}
