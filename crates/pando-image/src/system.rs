//! Turns a freshly bootstrapped distribution into a system that starts fast and has no identity:
//! no keys, no machine-id, no logs, no timers, no unit that a virtual machine of ours has no use
//! for. Networking, names and keys are left to the guest program.

use std::fmt::Write as _;

use crate::tree::{Kind, Meta, Tree, TreeError};

/// What every built image has beyond the essential packages.
pub const PACKAGES: &[&str] = &[
    "ca-certificates",
    "dbus",
    "hostname",
    "iproute2",
    "kmod",
    "less",
    "login",
    "mount",
    "netbase",
    "openssh-server",
    "passwd",
    "procps",
    "systemd",
    "systemd-sysv",
    "usr-is-merged",
    "util-linux",
];

/// Documentation that a guest does without; translations as well, since its locale is C.UTF-8.
pub const EXCLUDED_PATHS: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
];

/// Units that cost boot time, or wake an idle guest, and give nothing here: device discovery is
/// done by our initramfs and devtmpfs, the clock and the RNG are set by the guest program, nobody
/// sits at a terminal, and image maintenance is the image builder's.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "container-getty@.service",
    "cryptsetup.target",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty.target",
    "getty@tty1.service",
    "integritysetup.target",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "logrotate.timer",
    "man-db.timer",
    "modprobe@.service",
    "motd-news.timer",
    "networkd-dispatcher.service",
    "nss-lookup.target",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "remote-cryptsetup.target",
    "remote-fs.target",
    "serial-getty@ttyS0.service",
    "snapd.service",
    "snapd.socket",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-battery-check.service",
    "systemd-binfmt.service",
    "systemd-boot-system-token.service",
    "systemd-firstboot.service",
    "systemd-fsck-root.service",
    "systemd-hibernate-resume.service",
    "systemd-hwdb-update.service",
    "systemd-initctl.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-network-generator.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-quotacheck.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-repart.service",
    "systemd-resolved.service",
    "systemd-sysupdate.timer",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tpm2-setup-early.service",
    "systemd-tpm2-setup.service",
    "systemd-udev-settle.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "ufw.service",
    "unattended-upgrades.service",
    "veritysetup.target",
];

/// Generators that look for things that such a guest never has. Each is a process of its own at
/// every boot and reload. Those for fstab, rc.local and init scripts stay: users and packages rely
/// on them.
const MASKED_GENERATORS: &[&str] = &[
    "netplan",
    "systemd-bless-boot-generator",
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-run-generator",
    "systemd-system-update-generator",
    "systemd-tpm2-generator",
    "systemd-veritysetup-generator",
];

/// One process a connection: host keys are read when somebody connects, so that a node whose
/// identity is set after its start never offers a key of its image, and no daemon waits in memory.
const SSH_SOCKET: &str = "\
[Unit]
Description=SSH connections
Before=sockets.target

[Socket]
ListenStream=22
Accept=yes

[Install]
WantedBy=sockets.target
";

const SSH_CONNECTION: &str = "\
[Unit]
Description=One SSH connection

[Service]
ExecStart=-/usr/sbin/sshd -i
StandardInput=socket
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
";

const SSHD_CONFIG: &str = "\
PermitRootLogin prohibit-password
UseDNS no
PrintLastLog no
PrintMotd no
";

const JOURNALD_CONFIG: &str = "\
[Journal]
Storage=volatile
RuntimeMaxUse=8M
ForwardToSyslog=no
Audit=no
";

/// Stopping fast matters more than an odd service that wants a minute and a half.
const SYSTEMD_CONFIG: &str = "\
[Manager]
DefaultTimeoutStartSec=60s
DefaultTimeoutStopSec=10s
";

const FSTAB: &str = "/dev/vda / ext4 rw,noatime 0 0\n";

/// Directories whose files are of the bootstrap and not of the system.
const EMPTIED: &[&str] = &[
    "boot",
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/lib/systemd/random-seed",
    "var/log",
    "var/tmp",
];

/// Prepares the tree. `sources` is what the guest's own apt uses, where it has an uplink.
///
/// # Errors
/// If a bootstrapped path is not what it is in every Debian, such as `/etc` being a link.
pub fn prepare(tree: &mut Tree, sources: &str) -> Result<(), TreeError> {
    remove_identity(tree);
    empty_directories(tree)?;
    configure_systemd(tree)?;
    configure_ssh(tree)?;
    tree.add_text("etc/fstab", 0o644, FSTAB)?;
    tree.add_text("etc/hostname", 0o644, "localhost\n")?;
    tree.add_text("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n")?;
    tree.add_text("etc/resolv.conf", 0o644, "")?;
    tree.add_text("etc/locale.conf", 0o644, "LANG=C.UTF-8\n")?;
    tree.add_text("etc/default/locale", 0o644, "LANG=C.UTF-8\n")?;
    tree.remove("etc/apt/sources.list");
    tree.remove("etc/apt/sources.list.d");
    tree.add_text("etc/apt/sources.list.d/pando.sources", 0o644, sources)?;
    // It has this machine's own proxy settings.
    tree.remove("etc/apt/apt.conf.d/99mmdebstrap");
    tree.add_text(
        "etc/apt/apt.conf.d/90pando",
        0o644,
        "APT::Install-Recommends \"false\";\nAcquire::Languages \"none\";\n",
    )?;
    let mut excludes = String::new();
    for path in EXCLUDED_PATHS {
        let _ = writeln!(excludes, "path-exclude={path}");
    }
    tree.remove("etc/dpkg/dpkg.cfg.d/99mmdebstrap");
    tree.add_text("etc/dpkg/dpkg.cfg.d/90pando", 0o644, excludes)
}

/// Removes what two machines must never share.
fn remove_identity(tree: &mut Tree) {
    let keys: Vec<_> = tree
        .children("etc/ssh".as_ref())
        .filter(|path| path.to_string_lossy().starts_with("etc/ssh/ssh_host_"))
        .map(ToOwned::to_owned)
        .collect();
    for key in keys {
        tree.remove(key);
    }
    for path in ["etc/machine-id", "var/lib/dbus/machine-id", "etc/hostname", "etc/resolv.conf"] {
        tree.remove(path);
    }
}

fn empty_directories(tree: &mut Tree) -> Result<(), TreeError> {
    for path in EMPTIED {
        let meta = tree.get(path).filter(|entry| matches!(entry.kind, Kind::Directory));
        let Some(meta) = meta.map(|entry| entry.meta) else { continue };
        let mut kept = Vec::new();
        if *path == "var/log" {
            // Packages expect their own directories there.
            kept = tree
                .iter()
                .filter(|(below, entry)| {
                    below.starts_with(path) && matches!(entry.kind, Kind::Directory)
                })
                .map(|(below, entry)| (below.to_owned(), entry.meta))
                .collect();
        }
        tree.remove(path);
        tree.add_directory(path, meta)?;
        for (below, meta) in kept {
            tree.add_directory(below, meta)?;
        }
    }
    tree.add_directory("var/cache/apt/archives/partial", Meta::root(0o700))?;
    tree.add_directory("var/lib/apt/lists/partial", Meta::root(0o755))?;
    // Empty, and there: systemd then takes this for no first boot, and makes no id of its own that
    // a ready state would keep.
    tree.add_text("etc/machine-id", 0o444, "")?;
    tree.add_symlink("var/lib/dbus/machine-id", Meta::root(0o777), "/etc/machine-id")
}

fn configure_systemd(tree: &mut Tree) -> Result<(), TreeError> {
    let link = Meta::root(0o777);
    for unit in MASKED {
        tree.add_symlink(format!("etc/systemd/system/{unit}"), link, "/dev/null")?;
    }
    for generator in MASKED_GENERATORS {
        let path = format!("etc/systemd/system-generators/{generator}");
        tree.add_symlink(path, link, "/dev/null")?;
    }
    // The message bus starts when somebody talks to it.
    tree.remove("usr/lib/systemd/system/multi-user.target.wants/dbus.service");
    tree.remove("etc/systemd/system/timers.target.wants");
    tree.remove("etc/systemd/system/getty.target.wants");
    let target = "/usr/lib/systemd/system/multi-user.target";
    tree.add_symlink("etc/systemd/system/default.target", link, target)?;
    tree.add_text("etc/systemd/journald.conf.d/pando.conf", 0o644, JOURNALD_CONFIG)?;
    tree.add_text("etc/systemd/system.conf.d/pando.conf", 0o644, SYSTEMD_CONFIG)
}

fn configure_ssh(tree: &mut Tree) -> Result<(), TreeError> {
    let units = "etc/systemd/system";
    for unit in ["multi-user.target.wants/ssh.service", "sshd.service", "ssh.service.requires"] {
        tree.remove(format!("{units}/{unit}"));
    }
    tree.add_symlink(format!("{units}/ssh.service"), Meta::root(0o777), "/dev/null")?;
    tree.add_text(format!("{units}/ssh.socket"), 0o644, SSH_SOCKET)?;
    tree.add_text(format!("{units}/ssh@.service"), 0o644, SSH_CONNECTION)?;
    let wanted = format!("{units}/sockets.target.wants/ssh.socket");
    tree.add_symlink(wanted, Meta::root(0o777), "/etc/systemd/system/ssh.socket")?;
    tree.add_text("etc/ssh/sshd_config.d/pando.conf", 0o644, SSHD_CONFIG)?;
    tree.add_directory("root", Meta::root(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrapped() -> Tree {
        let mut tree = Tree::default();
        for path in [
            "etc/machine-id",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "etc/ssh/sshd_config",
            "etc/apt/apt.conf.d/99mmdebstrap",
            "etc/apt/sources.list.d/0000x.sources",
            "etc/systemd/system/multi-user.target.wants/ssh.service",
            "var/log/apt/history.log",
            "var/log/dpkg.log",
            "var/cache/apt/pkgcache.bin",
        ] {
            tree.add_text(path, 0o644, "secret").unwrap();
        }
        tree.add_directory("tmp", Meta::root(0o1777)).unwrap();
        tree
    }

    #[test]
    fn no_identity_is_left() {
        let mut tree = bootstrapped();
        prepare(&mut tree, "Types: deb\n").unwrap();
        assert_eq!(tree.read("etc/machine-id", 10).unwrap().unwrap(), b"");
        for path in ["etc/ssh/ssh_host_ed25519_key", "var/log/dpkg.log", "var/log/apt/history.log"]
        {
            assert!(tree.get(path).is_none(), "{path}");
        }
        assert!(tree.get("etc/ssh/sshd_config").is_some());
        assert!(tree.get("var/log/apt").is_some());
        assert_eq!(tree.get("tmp").unwrap().meta.mode, 0o1777);
    }

    #[test]
    fn this_machines_proxy_does_not_reach_the_guest() {
        let mut tree = bootstrapped();
        prepare(&mut tree, "Types: deb\n").unwrap();
        assert!(tree.get("etc/apt/apt.conf.d/99mmdebstrap").is_none());
        let sources: Vec<_> = tree.children("etc/apt/sources.list.d".as_ref()).collect();
        assert_eq!(sources, [std::path::Path::new("etc/apt/sources.list.d/pando.sources")]);
    }

    #[test]
    fn preparing_twice_changes_nothing() {
        let mut tree = bootstrapped();
        prepare(&mut tree, "x").unwrap();
        let mut once = Vec::new();
        tree.write_tar(&mut once, 9).unwrap();
        prepare(&mut tree, "x").unwrap();
        let mut twice = Vec::new();
        tree.write_tar(&mut twice, 9).unwrap();
        assert!(once == twice);
    }
}
