//! Whether the kernel's network works here: everything is tried once, in a namespace that ends with
//! the trial. That a tool or a module is there would prove little.

use std::io;

use pando_model::{KernelNetwork, Lack};

use crate::sys::{self, NamespaceError};
use crate::tools::Tool;

/// What is tried, line by line.
const BRIDGE: &str = "link add name br0 type bridge stp_state 0 mcast_snooping 0\n";
const TAP: &str = "tap0";
const PLUG: &str = "link set dev tap0 master br0 up\n";
const RULES: &str = "table bridge pando {\nmap links {\ntype ifname . ifname : verdict\n}\n\
                     chain forward {\ntype filter hook forward priority 0; policy accept;\n\
                     iifname . oifname vmap @links\n}\n}\n";
const RATE: &str = "qdisc add dev tap0 root handle 1: htb default 0\n\
                    class add dev tap0 parent 1: classid 1:1 htb rate 8000bit\n\
                    qdisc add dev tap0 parent 1:1 handle 100: bfifo limit 2000\n";
const NO_RATE: &str = "qdisc del dev tap0 root\n";
const NETEM: &str = "qdisc add dev tap0 root netem delay 1ms\n";

/// Returns what the kernel can do here. It takes some tens of milliseconds and changes nothing.
pub fn probe() -> KernelNetwork {
    let mut found = KernelNetwork::default();
    for tool in [Tool::Ip, Tool::Nft, Tool::Tc] {
        if tool.find().is_none() {
            let package = tool.package();
            found.lacks.push(lack(
                format!("`{}` is missing", tool.name()),
                format!("apt-get install {package}"),
            ));
        }
    }
    if !found.lacks.is_empty() {
        return found;
    }
    // A thread of its own: a namespace is a thread's, and there is no way back.
    let tried = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        if let Err(lack) = try_all(&mut found) {
            found.lacks.push(lack);
        }
        found
    });
    let tried = tried.map_err(|error| error.to_string());
    let tried = tried.and_then(|thread| thread.join().map_err(|_| "it panicked".to_owned()));
    tried.unwrap_or_else(|why| KernelNetwork {
        lacks: vec![lack(format!("it could not be tried: {why}"), "pando doctor")],
        ..KernelNetwork::default()
    })
}

fn lack(what: impl Into<String>, remedy: impl Into<String>) -> Lack {
    Lack { what: what.into(), remedy: remedy.into() }
}

fn try_all(found: &mut KernelNetwork) -> Result<(), Lack> {
    sys::enter_own_namespace().map_err(|error| namespace(&error))?;
    try_batch(Tool::Ip, BRIDGE, "the kernel makes no bridge", "modprobe bridge")?;
    let _tap = sys::open_tap(TAP).map_err(|error| {
        let what = format!("no tap can be made with {}: {error}", sys::TUN);
        match error.kind() {
            io::ErrorKind::PermissionDenied => lack(what, format!("chmod 666 {}", sys::TUN)),
            _ => lack(what, "modprobe tun"),
        }
    })?;
    try_batch(Tool::Ip, PLUG, "the kernel puts no tap on a bridge", "modprobe bridge tun")?;
    let remedy = "modprobe nf_tables, in a kernel with NF_TABLES_BRIDGE";
    try_batch(Tool::Nft, RULES, "the kernel filters no bridge", remedy)?;
    let remedy = "modprobe sch_htb, or take the user-space switch (`mode: switch`)";
    let rate = try_batch(Tool::Tc, RATE, "the kernel limits no rate (HTB)", remedy);
    match rate {
        Ok(()) => try_batch(Tool::Tc, NO_RATE, "the kernel limits no rate (HTB)", remedy)?,
        Err(lack) => found.no_rate = Some(lack),
    }
    let remedy = "modprobe sch_netem, or take the user-space switch (`mode: switch`)";
    let what = "the kernel cannot delay, lose, duplicate, corrupt or reorder frames (netem)";
    found.no_netem = try_batch(Tool::Tc, NETEM, what, remedy).err();
    Ok(())
}

fn namespace(error: &NamespaceError) -> Lack {
    let remedy = match error {
        NamespaceError::Made(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "run the daemon as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN"
        }
        NamespaceError::Made(_) => "a kernel with NET_NS",
        NamespaceError::Silenced(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            "mount -o remount,rw /proc/sys; a container has it so when it is privileged"
        }
        NamespaceError::Silenced(_) => "run the daemon as root",
    };
    lack(error.to_string(), remedy)
}

fn try_batch(tool: Tool, lines: &str, what: &str, remedy: &str) -> Result<(), Lack> {
    let failed = |error: io::Error| {
        // Of what the tool complains of, the first line says why.
        let error = error.to_string();
        lack(format!("{what}: {}", error.lines().next().unwrap_or_default()), remedy)
    };
    tool.batch(lines).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_not_taken_for_missing_privileges() {
        let error = |number| io::Error::from_raw_os_error(number);
        for (why, what, remedy) in [
            (NamespaceError::Made(error(libc::EPERM)), "no network namespace", "as root"),
            (NamespaceError::Made(error(libc::EINVAL)), "no network namespace", "NET_NS"),
            (NamespaceError::Silenced(error(libc::EROFS)), "/proc/sys/", "remount,rw /proc/sys"),
            (NamespaceError::Silenced(error(libc::EACCES)), "/proc/sys/", "as root"),
        ] {
            let lack = namespace(&why);
            assert!(lack.what.contains(what) && lack.remedy.contains(remedy), "{lack:?}");
        }
    }
}
