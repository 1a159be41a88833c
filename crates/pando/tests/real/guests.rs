//! Guests that do not answer, that flood, and that will not end; and the door over SSH.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Home, finish, resident, text, until};

#[test]
fn a_guest_that_never_answers_holds_up_nobody() {
    let mut home = Home::new();
    home.set("PANDO_TIMEOUTS_RESTORE_S", "4");
    home.create_shop();
    let before = home.guest("shop");
    home.ok(&["commit", "shop", "-t", "v1"]);
    home.ok(&["branch", "shop", "--name", "other"]);

    // The guest program's own pid is the command's parent.
    let stop = "setsid sh -c \"sleep 0.3; kill -STOP $PPID\" >/dev/null 2>&1 </dev/null &";
    home.sh("shop@main", stop);
    let began = Instant::now();
    until("the guest falls silent", || {
        let one = home.json(&["exec", "shop@main", "-n", "--timeout", "2", "--", "true"]);
        (one["success"] == false)
            .then(|| assert_eq!(one["error"]["code"], "guest_unreachable", "{one}"))
    });
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());

    // While one caller waits for it, nobody else does.
    let waiting = home.spawn(&["exec", "shop@main", "-n", "--timeout", "5", "--", "true"]);
    home.assert_goes_on("shop@other", &before);
    let commit = home.ok(&["commit", "shop@main", "-t", "silent"]);
    assert_eq!(commit["kind"], "full");
    assert!(!finish(waiting).status.success());

    // A copy of a silent guest is silent, and is not left half-made.
    let made = home.json(&["branch", "silent", "--name", "copy"]);
    assert_eq!(made["success"], false, "{made}");
    home.assert_consistent();
    assert_eq!(home.ok(&["branches", "shop"])["total"], 2);
    home.ok(&["rollback", "shop@main", "v1"]);
    home.assert_goes_on("shop@main", &before);
    home.assert_nothing_left();
}

#[test]
fn a_flood_of_output_is_bounded_with_head_and_tail() {
    let home = Home::with_shop();
    let flood = "echo first; yes 0123456789abcdef | head -c 200000000; echo last";
    let result = home.ok(&["exec", "shop", "-n", "-c", flood]);
    let stdout = text(&result, "stdout");
    assert!(stdout.starts_with("first\n") && stdout.ends_with("last\n"));
    assert!(stdout.len() < 1 << 20, "{}", stdout.len());
    assert_eq!(
        (&result["stdout_truncated"], &result["stdout_bytes"]),
        (&json!(true), &json!(200_000_011))
    );

    // Streamed, it is whole.
    let output = home.run(&["exec", "shop", "-n", "-c", "yes 0123456789abcdef | head -c 30000000"]);
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 30_000_000);

    // Streamed to somebody who goes away: it ends.
    let mut command = home.command(&["exec", "shop", "-n", "-c", "yes endless"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = [0; 4096];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut some).unwrap();
    drop(child.stdout.take());
    finish(child);
    until("the endless command ends", || {
        home.sh("shop", "pgrep -x yes || echo none").eq("none").then_some(())
    });

    let daemon = resident(home.daemon().unwrap().pid);
    assert!(daemon < 120 << 20, "the daemon had {daemon} bytes");
    let keeper = resident(home.keeper("shop@main").pid);
    assert!(keeper < 32 << 20, "the keeper had {keeper} bytes");
    home.assert_nothing_left();
}

#[test]
fn a_command_that_runs_out_of_time_ends_with_its_whole_tree() {
    let home = Home::with_shop();
    // A tree of 63 shells, each in a session of its own, that ignore being asked to end.
    let tree = "cat >/root/tree <<'X'\n\
        trap '' HUP TERM INT\n\
        if [ $1 -gt 0 ]; then setsid sh /root/tree $(($1-1)) & setsid sh /root/tree $(($1-1)) & fi\n\
        while :; do sleep 1000; done\n\
        X\n\
        sh /root/tree 5";
    let result = home.ok(&["exec", "shop", "-n", "--timeout", "6", "-c", tree]);
    assert_eq!(result["timed_out"], true, "{result}");
    assert_eq!(home.sh("shop", "pgrep -cf '/root/tre[e]|sleep 100[0]' || :"), "0");
    let output = home.run(&["exec", "shop", "-n", "--timeout", "1", "--", "sleep", "100"]);
    assert_eq!(output.status.code(), Some(124));
    home.assert_nothing_left();
}

#[test]
fn when_memory_runs_out_commands_die_and_the_guest_program_does_not() {
    let home = Home::with_shop();
    // What a command leaves behind is as little protected as itself.
    let told =
        home.sh("shop", "cat /proc/self/oom_score_adj; (cat /proc/self/oom_score_adj) & wait");
    assert_eq!(told, "0\n0");
    let told = home.sh("shop", "cat /proc/$(pgrep -o pando-guest)/oom_score_adj");
    assert_eq!(told, "-1000");
    let output = home.run(&["exec", "shop", "-n", "--", "tail", "/dev/zero"]);
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    assert_eq!(home.sh("shop", "cat /proc/$(pgrep -o pando-guest)/oom_score_adj"), "-1000");
    home.assert_nothing_left();
}

#[test]
fn copies_draw_numbers_of_their_own_at_once_and_their_kernels_hear_of_the_restore_later() {
    const HEARD: &str = "dmesg | grep -c 'virtual machine fork'";
    const EVENT: &str = "cat /sys/firmware/acpi/interrupts/gpe05";
    let home = Home::with_shop();
    // The shop was restored as well, from its image's ready state.
    let heard = |address: &str| home.sh(address, &format!("{HEARD} || :")).parse::<u32>().unwrap();
    until("the shop's kernel hears of it", || (heard("shop@main") > 0).then_some(()));
    until("the event is held back", || {
        let held = |state: &str| state.split_whitespace().any(|word| word == "masked");
        held(&home.sh("shop@main", EVENT)).then_some(())
    });
    let before = heard("shop@main");
    // By the clock of the kernel's log, which goes on from the cut in every copy.
    home.sh("shop@main", "echo before the cut >/dev/kmsg");
    home.ok(&["commit", "shop@main", "-t", "v1"]);

    // The very first command of each.
    let draw = |address: &str| home.sh(address, "od -An -N16 -tx1 /dev/urandom");
    let mut drawn = vec![draw("shop@main")];
    for name in ["one", "two"] {
        home.ok(&["branch", "shop@v1", "--name", name]);
        drawn.push(draw(&format!("shop@{name}")));
    }
    home.ok(&["rollback", "shop@main", "v1"]);
    drawn.push(draw("shop@main"));
    let different: std::collections::BTreeSet<_> = drawn.iter().collect();
    assert_eq!(different.len(), drawn.len(), "{drawn:?}");

    for address in ["shop@one", "shop@two", "shop@main"] {
        until("its kernel hears of the restore", || (heard(address) > before).then_some(()));
        assert_eq!(heard(address), before + 1, "{address}");
        let logged = |what: &str| -> f64 {
            let line = home.sh(address, &format!("dmesg | grep '{what}' | tail -1"));
            line.trim_start_matches(['[', ' ']).split(']').next().unwrap().parse().unwrap()
        };
        let late = logged("virtual machine fork") - logged("before the cut");
        assert!(late > 1.4, "{address} heard after {late} s");
    }
    home.assert_nothing_left();
}

#[test]
fn a_shell_started_ahead_runs_the_next_command_and_nobody_can_tell() {
    // First the age of its process, in hundredths of a second; then whatever a shell can tell of itself.
    const SELF: &str = "read up _ </proc/uptime; set -- $(sed 's/.*) //' /proc/$$/stat); \
        echo $((${up%.*}${up#*.} - ${20})); shift $#; tr '\\0' '|' </proc/$$/cmdline; \
        tr '\\0' '\\n' </proc/$$/environ | grep -v PANDO_COMMAND; pwd; cat /proc/$$/comm /proc/$$/limits; \
        echo /proc/self/fd/*; readlink /proc/$$/fd/0; cat /proc/$$/cgroup; id; umask; \
        grep -E 'TracerPid|Cap|Seccomp|NoNew' /proc/$$/status; cat /proc/$$/oom_score_adj; \
        cut -d' ' -f4 /proc/$$/stat; echo \"$0 $# $*\"";
    let home = Home::with_shop();
    let told = |address: &str, more: &[&str]| {
        let output = home.run(&[&["exec", address, "-n", "-c", SELF], more].concat());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (age, rest) = text.split_once('\n').unwrap();
        (age.parse::<u32>().unwrap(), rest.to_owned())
    };
    let idle = || std::thread::sleep(Duration::from_secs(4));
    let is_ahead = |age: u32| age > 50;
    for directory in ["/root", "/usr/share"] {
        let more = ["-w", directory];
        let (ahead, usual) = until("there is a shell, and then none", || {
            idle();
            let both = (told("shop", &more), told("shop", &more));
            (is_ahead(both.0.0) && !is_ahead(both.1.0)).then_some(both)
        });
        for (ahead, usual) in ahead.1.lines().zip(usual.1.lines()) {
            assert_eq!(ahead, usual);
        }
        assert_eq!(ahead.1, usual.1);
        assert!(ahead.1.contains(&format!("\n{directory}\n")), "{}", ahead.1);
    }

    // It is in the memory of a commit: a copy's first command finds it there.
    idle();
    home.ok(&["commit", "shop@main", "-t", "v1"]);
    home.ok(&["branch", "shop@v1", "--name", "copy"]);
    let (age, _) = told("shop@copy", &[]);
    assert!(is_ahead(age), "{age}");
    // Only a shell's command is run by it, and commands run whatever becomes of it.
    for (program, is_there) in [
        (&["true"][..], true),
        (&["pgrep", "-f", "# for the next command"], true),
        (&["pkill", "-KILL", "-f", "# for the next command"], false),
        (&["pkill", "-TERM", "-f", "# for the next command"], false),
    ] {
        idle();
        let output = home.run(&[&["exec", "shop@copy", "-n", "--"], program].concat());
        assert!(output.status.success(), "{program:?}: {output:?}");
        let (age, _) = told("shop@copy", &[]);
        assert_eq!(is_ahead(age), is_there, "after {program:?}: {age}");
    }
    // What is compared does not have it, and a process that was it began with its command.
    home.sh("shop@copy", "sleep 0");
    idle();
    home.ok(&["exec", "shop@copy", "-n", "--detach", "-c", "exec sleep 1000"]);
    idle();
    let diff = home.ok(&["diff", "shop@v1", "shop@copy"]);
    let differences = diff["differences"].as_array().unwrap();
    let process = differences.iter().find(|one| one["id"] == "processes:sleep 1000");
    let process = process.unwrap_or_else(|| panic!("{diff:#}"));
    assert_eq!(text(&process["causes"][0], "command"), "exec sleep 1000", "{process:#}");
    assert!(!diff["differences"].to_string().contains("/bin/sh -c"), "{diff:#}");
    home.sh("shop@copy", "pkill -x sleep");

    // Other libraries are another shell. The file comes without a command.
    idle();
    let empty = home.path().with_extension("empty");
    std::fs::write(&empty, "").unwrap();
    home.ok(&["cp", empty.to_str().unwrap(), "shop@main:/etc/ld.so.preload"]);
    let (age, _) = told("shop@main", &[]);
    assert!(!is_ahead(age), "{age}");
    home.assert_nothing_left();
}

#[test]
fn a_kernel_that_panics_stays_down_says_why_and_boots_when_asked() {
    let home = Home::with_shop();
    home.sh("shop", "echo kept >/srv/file; sync");
    let output = home.run(&["exec", "shop", "-n", "-c", "echo c >/proc/sysrq-trigger"]);
    assert!(!output.status.success(), "{output:?}");
    let reason = until("the panic is noticed", || {
        let status = home.ok(&["vm", "status", "shop"]);
        (status["state"] == "stopped").then(|| text(&status, "reason").to_owned())
    });
    assert!(reason.contains("panicked"), "{reason}");
    home.ok(&["start", "shop"]);
    assert_eq!(home.sh("shop", "cat /srv/file"), "kept");
    home.assert_nothing_left();
}

#[test]
fn ssh_reaches_every_branch_by_its_own_port_also_after_the_daemon_died() {
    let home = Home::with_shop();
    let info = home.ok(&["connect-info", "shop"]);
    assert_eq!(info["host"], "127.0.0.1");
    assert!(text(&info, "known_hosts_line").contains("ssh-ed25519"), "{info}");
    let ssh = |address: &str, command: &str| {
        let output = home.run(&["ssh", address, "--", command]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{address}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    assert_eq!(ssh("shop", "hostname; echo main >/srv/who"), "shop");
    home.ok(&["branch", "shop", "--name", "copy"]);
    home.sh("shop@copy", "echo copy >/srv/who");
    let other = home.ok(&["connect-info", "shop@copy"]);
    assert_ne!(other["port"], info["port"]);
    assert_eq!(ssh("shop@copy", "cat /srv/who"), "copy");
    home.kill_daemon();
    assert_eq!(home.ok(&["connect-info", "shop@main"])["port"], info["port"]);
    assert_eq!(ssh("shop@main", "cat /srv/who"), "main");
    assert_eq!(home.run(&["ssh", "shop@main", "--", "exit 3"]).status.code(), Some(3));
    home.assert_nothing_left();
}
