//! What changes by itself in every running system. It is left out of comparisons and counted.

/// Why a path is noise.
const PATHS: &[(&str, &str)] = &[
    ("/proc/", "kernel's files"),
    ("/sys/", "kernel's files"),
    ("/dev/", "kernel's files"),
    ("/run/", "run-time files"),
    ("/tmp/systemd-private-", "private directories of services"),
    ("/var/tmp/systemd-private-", "private directories of services"),
    ("/tmp/.X11-unix", "run-time files"),
    ("/var/log/journal", "logs"),
    ("/var/log/wtmp", "logs"),
    ("/var/log/btmp", "logs"),
    ("/var/log/lastlog", "logs"),
    ("/var/log/dpkg.log", "logs"),
    ("/var/log/alternatives.log", "logs"),
    ("/var/log/apt/", "logs"),
    ("/var/log/postgresql/", "logs"),
    ("/var/cache/", "caches"),
    ("/root/.cache/", "caches"),
    ("/etc/ld.so.cache", "caches"),
    ("/var/lib/apt/", "package manager's own files"),
    ("/var/lib/dpkg/", "package manager's own files"),
    ("/var/lib/ucf/", "package manager's own files"),
    ("/lib/apk/db/", "package manager's own files"),
    ("/var/lib/systemd/random-seed", "service manager's own files"),
    ("/var/lib/systemd/timers/", "service manager's own files"),
    ("/var/lib/systemd/timesync/", "service manager's own files"),
    ("/var/lib/systemd/catalog/", "service manager's own files"),
    ("/var/lib/systemd/deb-systemd-helper", "service manager's own files"),
    ("/var/lib/systemd/linger/", "service manager's own files"),
    ("/var/lib/private", "service manager's own files"),
    ("/etc/machine-id", "identity"),
    ("/var/lib/dbus/machine-id", "identity"),
    ("/etc/ssh/ssh_host_", "identity"),
    ("/var/lib/pando", "identity"),
    ("/etc/.pwd.lock", "backups of tables"),
    ("/etc/passwd-", "backups of tables"),
    ("/etc/group-", "backups of tables"),
    ("/etc/shadow-", "backups of tables"),
    ("/etc/gshadow-", "backups of tables"),
    ("/etc/subuid-", "backups of tables"),
    ("/etc/subgid-", "backups of tables"),
];

/// Tables that users and groups are kept in: a change of those is told as one of users.
const TABLES: &[&str] =
    &["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];

/// Services that come and go by themselves.
const SERVICES: &[&str] = &[
    "systemd-tmpfiles-clean.",
    "systemd-hostnamed.",
    "systemd-timedated.",
    "systemd-localed.",
    "systemd-logind-",
    "apt-daily",
    "dpkg-db-backup.",
    "e2scrub_",
    "fstrim.",
    "logrotate.",
    "man-db.",
    "user@",
    "user-runtime-dir@",
    "session-",
    "run-",
];

/// Processes that come and go by themselves.
const PROCESSES: &[&str] = &["pando-guest", "systemd-userwor", "(sd-pam)", "systemd-tmpfile"];

/// Beginnings of messages of the kernel about how busy the host is.
const KERNEL: &[&str] = &[
    "hrtimer: interrupt took",
    "clocksource: ",
    "perf: interrupt took too long",
    "sched: RT throttling activated",
    "workqueue: ",
    "INFO: NMI handler",
];

/// Beginnings of command lines of processes that come and go by themselves.
const COMMANDS: &[&str] = &["postgres: autovacuum worker", "postgres: parallel worker", "(sd-"];

/// Returns why a path is noise, if it is.
pub fn path(path: &str) -> Option<&'static str> {
    let noisy = |prefix: &str| {
        path.starts_with(prefix) || prefix.strip_suffix('/').is_some_and(|itself| path == itself)
    };
    PATHS.iter().find(|(prefix, _)| noisy(prefix)).map(|(_, why)| *why)
}

/// Returns whether a path is a table of users or groups.
pub fn is_users_table(path: &str) -> bool {
    TABLES.contains(&path)
}

/// Returns whether a unit comes and goes by itself.
pub fn service(name: &str) -> bool {
    SERVICES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns whether a process of this name comes and goes by itself.
pub fn process(name: &str) -> bool {
    PROCESSES.contains(&name)
}

/// Returns whether a process of this command line comes and goes by itself. One that serves us is
/// among them.
pub fn command(line: &str) -> bool {
    COMMANDS.iter().any(|start| line.starts_with(start))
        || line.starts_with("postgres: ") && line.contains(" [local] ")
}

/// Returns whether a message of the kernel is about how busy the host is.
pub fn kernel(text: &str) -> bool {
    KERNEL.iter().any(|start| text.starts_with(start))
}

/// Returns whether a variable's value is likely to be a secret.
pub fn secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["SECRET", "TOKEN", "PASSW", "KEY", "CREDENTIAL"].iter().any(|word| name.contains(word))
}
