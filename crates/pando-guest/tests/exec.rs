//! Commands, run by a real guest program in a process of its own.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{argv, finish, run, sh, soon, start, start_in, until};
use pando_link::{ExecEvent, GuestClock, LinkError, RefusalKind};
use pando_model::guest::{ExecStatus, Stdin, TerminalSize};
use pando_wire::limits::STREAM_WINDOW_BYTES;

#[test]
fn argv_shell_env_cwd_and_exit_status() {
    let guest = start();
    let link = &guest.link;
    let ran = run(link, &argv(&["printf", "%s|%s", "a b", "$HOME"])).unwrap();
    assert_eq!((ran.stdout.as_str(), ran.code()), ("a b|$HOME", 0));

    let mut spec = sh("echo $GREETING; echo err >&2; pwd; exit 7");
    spec.env.insert("GREETING".into(), "hello".into());
    spec.cwd = Some("/usr/lib".into());
    let ran = run(link, &spec).unwrap();
    assert_eq!(ran.stdout, "hello\n/usr/lib\n");
    assert_eq!((ran.stderr.as_str(), ran.code()), ("err\n", 7));

    let ran = run(link, &sh("echo $HOME $USER $LOGNAME $PATH $LANG; pwd")).unwrap();
    assert_eq!(
        ran.stdout,
        "/root root root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin C.UTF-8\n/root\n"
    );
    let ran = run(link, &sh("kill -9 $$")).unwrap();
    assert_eq!(ran.outcome.status, ExecStatus::Signaled(9));
}

#[test]
fn another_user_gets_its_groups_and_home() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let passwd = "root:x:0:0::/root:/bin/sh\nann:x:4001:4001::/tmp:/bin/dash\n";
    std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
    std::fs::write(root.path().join("etc/group"), "ann:x:4001:\nextra:x:4002:ann\n").unwrap();
    std::fs::write(root.path().join("etc/environment"), "FROM_FILE=yes\n").unwrap();
    let guest = start_in(root.path());
    let mut spec = sh("id -u; id -g; id -G; echo $HOME $SHELL $FROM_FILE; pwd");
    spec.user = Some("ann".into());
    let ran = run(&guest.link, &spec).unwrap();
    assert_eq!(ran.stdout, "4001\n4001\n4001 4002\n/tmp /bin/dash yes\n/tmp\n");
    spec.user = Some("4321".into());
    spec.cwd = Some("/".into());
    assert!(run(&guest.link, &spec).unwrap().stdout.starts_with("4321\n4321\n4321\n"));
}

#[test]
fn what_cannot_start_is_refused_with_its_reason() {
    let guest = start();
    let refused = |spec| match guest.link.exec(&spec, soon()) {
        Err(LinkError::Refused { kind, message, .. }) => (kind, message),
        other => panic!("{other:?}"),
    };
    let (kind, message) = refused(argv(&["no-such-program"]));
    assert_eq!((kind, message.as_str()), (RefusalKind::NotFound, "no program `no-such-program`"));
    assert_eq!(refused(argv(&["/etc/passwd"])).0, RefusalKind::Denied);
    assert_eq!(refused(argv(&["/no/such"])).0, RefusalKind::NotFound);
    assert_eq!(refused(argv(&[])).0, RefusalKind::Invalid);
    assert_eq!(refused(argv(&["a\0b"])).0, RefusalKind::NotFound);
    assert_eq!(refused(argv(&["true", "a\0b"])).0, RefusalKind::Invalid);
    let mut spec = sh("true");
    spec.user = Some("nobody-here".into());
    assert_eq!(refused(spec.clone()).1, "no user `nobody-here`");
    spec.user = None;
    spec.cwd = Some("/no/such".into());
    assert_eq!(refused(spec.clone()).0, RefusalKind::NotFound);
    spec.cwd = Some("/etc/passwd".into());
    assert_eq!(refused(spec.clone()).0, RefusalKind::WrongFileType);
    spec.cwd = None;
    spec.timeout_ms = 0;
    assert_eq!(refused(spec).0, RefusalKind::Invalid);
    guest.link.ping(soon()).unwrap();
}

#[test]
fn stdin_is_streamed_both_ways_at_once() {
    let guest = start();
    let handle = guest.link.exec(&argv(&["cat"]), soon()).unwrap();
    let total = 8 * 1024 * 1024;
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            let block: Vec<u8> = (0..65_536u32).map(|n| (n % 251) as u8).collect();
            for _ in 0..total / block.len() {
                handle.write_stdin(&block, soon()).unwrap();
            }
            handle.close_stdin(soon()).unwrap();
        });
        let mut received = Vec::new();
        loop {
            match handle.next_event(soon()).unwrap() {
                ExecEvent::Output { bytes, .. } => received.extend(bytes),
                ExecEvent::Ended(outcome) => {
                    assert_eq!(outcome.status, ExecStatus::Exited(0));
                    return received;
                }
            }
        }
    });
    assert_eq!(received.len(), total);
    assert!(received.iter().enumerate().all(|(at, &byte)| byte == (at % 65_536 % 251) as u8));
}

#[test]
fn a_command_without_input_reads_from_nothing() {
    let guest = start();
    let mut spec = sh("readlink /proc/self/fd/0; cat; echo end");
    spec.stdin = Stdin::Empty;
    assert_eq!(run(&guest.link, &spec).unwrap().stdout, "/dev/null\nend\n");
}

#[test]
fn a_command_that_closes_its_output_early_still_ends_once() {
    let guest = start();
    let ran = run(&guest.link, &sh("echo out; echo err >&2; exec >&- 2>&-; sleep 0.1; exit 5"));
    let ran = ran.unwrap();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.code()), ("out\n", "err\n", 5));
}

#[test]
fn a_command_that_does_not_read_its_input_ends_all_the_same() {
    let guest = start();
    let handle = guest.link.exec(&sh("exec <&-; sleep 0.1; echo done"), soon()).unwrap();
    // More than pipe and window hold: only dropping what nobody reads lets this return.
    let sent = handle.write_stdin(&vec![1; 1024 * 1024], soon());
    assert!(matches!(sent, Ok(()) | Err(LinkError::Ended { .. })), "{sent:?}");
    assert_eq!(finish(&handle).unwrap().stdout, "done\n");
    let late = handle.write_stdin(b"x", soon());
    assert!(matches!(late, Err(LinkError::Ended { .. })), "{late:?}");
}

#[test]
fn a_timeout_kills_the_whole_tree_and_its_daemons() {
    let guest = start();
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // A child, a grandchild in the background, and a daemon in a session of its own whose parents
    // are gone.
    let line = format!(
        "echo $$ >> {0}; (echo $BASHPID >> {0}; sleep 300) & \
         (setsid sh -c 'echo $$ >> {0}; sleep 300' >/dev/null 2>&1 </dev/null &) ; sleep 300",
        pids.display()
    );
    let mut spec = argv(&["bash", "-c", &line]);
    spec.timeout_ms = 700;
    let started = Instant::now();
    let ran = run(&guest.link, &spec).unwrap();
    assert_eq!(ran.outcome.status, ExecStatus::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(5));
    let listed = std::fs::read_to_string(&pids).unwrap();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    for pid in listed.lines() {
        until("the process is gone", || !Path::new("/proc").join(pid).exists());
    }
}

#[test]
fn dropping_a_command_kills_it() {
    let guest = start();
    let handle = guest.link.exec(&sh("echo $$; exec sleep 300"), soon()).unwrap();
    let ExecEvent::Output { bytes, .. } = handle.next_event(soon()).unwrap() else { panic!() };
    let pid = String::from_utf8(bytes).unwrap();
    let proc = Path::new("/proc").join(pid.trim());
    assert!(proc.exists());
    drop(handle);
    until("the process is gone", || !proc.exists());
}

#[test]
fn signals_reach_the_process_group() {
    let guest = start();
    let line = "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.01; done";
    let handle = guest.link.exec(&sh(line), soon()).unwrap();
    let ExecEvent::Output { bytes, .. } = handle.next_event(soon()).unwrap() else { panic!() };
    assert_eq!(bytes, b"ready\n");
    handle.signal(9999, soon()).unwrap();
    handle.signal(-1, soon()).unwrap();
    handle.signal(0, soon()).unwrap();
    handle.signal(10, soon()).unwrap();
    let ran = finish(&handle).unwrap();
    assert_eq!((ran.stdout.as_str(), ran.outcome.status), ("got it\n", ExecStatus::Exited(3)));
}

#[test]
fn a_terminal_is_one_and_can_be_resized() {
    let guest = start();
    let line = "tty >/dev/null && echo yes; stty size; echo $TERM; ps -o tty= -p $$ | wc -w; \
                trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut spec = sh(line);
    spec.terminal = Some(TerminalSize { columns: 80, rows: 24 });
    let handle = guest.link.exec(&spec, soon()).unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        let ExecEvent::Output { bytes, .. } = handle.next_event(soon()).unwrap() else {
            panic!("{seen}")
        };
        seen.push_str(&String::from_utf8(bytes).unwrap());
    }
    assert_eq!(seen, "yes\r\n24 80\r\nxterm-256color\r\n1\r\nready\r\n");
    handle.resize(TerminalSize { columns: 132, rows: 50 }, soon()).unwrap();
    let ran = finish(&handle).unwrap();
    assert_eq!((ran.stdout.as_str(), ran.code()), ("50 132\r\n", 0));
}

#[test]
fn typing_on_a_terminal_works() {
    let guest = start();
    let mut spec = sh("read line; echo \"<$line>\"; cat; echo bye");
    spec.terminal = Some(TerminalSize { columns: 80, rows: 24 });
    let handle = guest.link.exec(&spec, soon()).unwrap();
    handle.write_stdin(b"hi\n", soon()).unwrap();
    handle.write_stdin(b"\x04", soon()).unwrap();
    let ran = finish(&handle).unwrap();
    assert!(ran.stdout.contains("<hi>") && ran.stdout.ends_with("bye\r\n"), "{ran:?}");
}

#[test]
fn a_reader_that_takes_its_time_misses_nothing_of_a_terminal() {
    // More than is sent without being asked for, by less than a terminal holds.
    const BYTES: usize = STREAM_WINDOW_BYTES as usize + 2000;
    let guest = start();
    let mut spec = sh(&format!("head -c {BYTES} /dev/zero | tr '\\0' x"));
    spec.terminal = Some(TerminalSize { columns: 80, rows: 24 });
    let handle = guest.link.exec(&spec, soon()).unwrap();
    // A reader who is slow, and nothing else: the guest stops waiting long before.
    std::thread::sleep(Duration::from_millis(600));
    let ran = finish(&handle).unwrap();
    assert_eq!((ran.stdout.len(), ran.code()), (BYTES, 0));
}

#[test]
fn a_command_that_nobody_wants_ends_with_all_that_it_started() {
    let guest = start();
    let mut spec = sh("setsid sleep 1000 & echo $!; wait");
    spec.terminal = Some(TerminalSize { columns: 80, rows: 24 });
    let handle = guest.link.exec(&spec, soon()).unwrap();
    let ExecEvent::Output { bytes, .. } = handle.next_event(soon()).unwrap() else { panic!() };
    let child = String::from_utf8(bytes).unwrap();
    let process = Path::new("/proc").join(child.trim());
    assert!(process.exists());
    handle.abort();
    assert!(matches!(handle.next_event(soon()), Err(LinkError::Closed { .. })));
    until("its child is gone", || !process.exists());
}

#[test]
fn a_background_child_does_not_hold_the_end_nor_die_of_it() {
    let guest = start();
    let dir = tempfile::tempdir().unwrap();
    let (go, alive) = (dir.path().join("go"), dir.path().join("alive"));
    let line = format!(
        "(while [ ! -e {0} ]; do sleep 0.01; done; echo still here; echo ok > {1}) & echo front",
        go.display(),
        alive.display()
    );
    let started = Instant::now();
    let ran = run(&guest.link, &sh(&line)).unwrap();
    assert_eq!((ran.stdout.as_str(), ran.code()), ("front\n", 0));
    assert!(started.elapsed() < Duration::from_secs(5));
    // It writes to the pipe after the command's end and lives.
    std::fs::write(&go, "").unwrap();
    until("the child has gone on", || {
        std::fs::read_to_string(&alive).is_ok_and(|text| text == "ok\n")
    });
}

#[test]
fn all_output_arrives_before_the_end() {
    let guest = start();
    for _ in 0..20 {
        let ran = run(&guest.link, &sh("yes 0123456789 | head -c 300000; echo >&2 e")).unwrap();
        assert_eq!((ran.stdout.len(), ran.stderr.as_str()), (300_000, "e\n"));
    }
}

#[test]
fn a_flood_of_output_is_bounded_on_both_sides() {
    let guest = start();
    let handle = guest.link.exec(&sh("yes | head -c 100000000"), soon()).unwrap();
    // Nobody reads: the guest must stop, and neither side may grow.
    let other = run(&guest.link, &sh("echo other")).unwrap();
    assert_eq!(other.stdout, "other\n");
    let resident = || {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", guest.process.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert!(resident() < 12_000, "{} KiB", resident());
    let mut total = 0;
    loop {
        match handle.next_event(soon()).unwrap() {
            ExecEvent::Output { bytes, .. } => total += bytes.len(),
            ExecEvent::Ended(outcome) => break assert_eq!(outcome.status, ExecStatus::Exited(0)),
        }
        assert!(total <= 100_000_000);
    }
    assert_eq!(total, 100_000_000);
    assert!(resident() < 12_000, "{} KiB", resident());
}

#[test]
fn two_hundred_commands_at_once() {
    let guest = start();
    let handles: Vec<_> = (0..200)
        .map(|n| guest.link.exec(&sh(&format!("read x; echo {n} $x")), soon()).unwrap())
        .collect();
    for handle in &handles {
        handle.write_stdin(b"go\n", soon()).unwrap();
    }
    for (n, handle) in handles.iter().enumerate() {
        assert_eq!(finish(handle).unwrap().stdout, format!("{n} go\n"));
    }
    drop(handles);
    // Nothing is left: not a stream, not a process, not a descriptor.
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", guest.process.0.id())).unwrap().count();
    until("all descriptors are closed", || fds() < 12);
}

#[test]
fn a_new_epoch_keeps_commands_and_drops_their_streams() {
    let guest = start();
    let dir = tempfile::tempdir().unwrap();
    let (go, done) = (dir.path().join("go"), dir.path().join("done"));
    let line = format!(
        "echo one; while [ ! -e {0} ]; do echo noise; sleep 0.01; done; echo > {1}",
        go.display(),
        done.display()
    );
    let old = guest.link.exec(&sh(&line), soon()).unwrap();
    old.next_event(soon()).unwrap();
    let welcome = guest.link.hello(GuestClock::Keep, soon()).unwrap();
    let [inherited] = welcome.inherited.as_slice() else { panic!("{welcome:?}") };
    assert!(inherited.command.starts_with("echo one"), "{inherited:?}");
    assert!(Path::new("/proc").join(inherited.pid.to_string()).exists());
    loop {
        match old.next_event(soon()) {
            Ok(ExecEvent::Output { .. }) => {}
            ended => {
                break assert!(matches!(ended, Err(LinkError::EpochEnded { .. })), "{ended:?}");
            }
        }
    }
    drop(old);
    // The first command of the new epoch just works, and sees nothing of the old one.
    assert_eq!(run(&guest.link, &sh("echo new")).unwrap().stdout, "new\n");
    assert!(!done.exists());
    std::fs::write(&go, "").unwrap();
    until("the inherited command has ended by itself", || done.exists());
    until("it is not listed any more", || {
        guest.link.hello(GuestClock::Keep, soon()).unwrap().inherited.is_empty()
    });
}

#[test]
fn a_guest_that_is_left_kills_its_commands_and_ends() {
    let mut guest = start();
    let handle = guest.link.exec(&sh("echo $$; exec sleep 300"), soon()).unwrap();
    let ExecEvent::Output { bytes, .. } = handle.next_event(soon()).unwrap() else { panic!() };
    let proc = Path::new("/proc").join(String::from_utf8(bytes).unwrap().trim());
    drop(guest.link);
    let ended = handle.next_event(soon());
    assert!(matches!(ended, Err(LinkError::Closed { .. })), "{ended:?}");
    assert!(guest.process.0.wait().unwrap().success());
    until("the command is gone", || !proc.exists());
}
