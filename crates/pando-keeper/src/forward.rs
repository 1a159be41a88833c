//! Host port forwards: a listener on the host's loopback, relayed through the guest channel to a
//! port on the guest's loopback. They need no network in the guest, so they work the same in every
//! branch, and end with the incarnation.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use pando_link::TcpHandle;
use pando_model::Name;
use pando_model::host::HostError;

use crate::published::Published;
use crate::{limits, trouble};

/// The forwards of a branch.
#[derive(Default)]
pub struct Forwards {
    open: Mutex<BTreeMap<(Name, u16), u16>>,
}

impl Forwards {
    /// Opens a forward, or returns the one that is open: its port on the host's loopback, which is
    /// `host_port` if one is asked for.
    pub fn open(
        &self,
        published: &Arc<Published>,
        node: &Name,
        guest_port: u16,
        host_port: Option<u16>,
    ) -> Result<u16, HostError> {
        let known = published.read(|view| view.nodes.iter().any(|view| view.name == *node));
        if !known {
            return Err(HostError::NoSuchNode {
                branch: published.branch().clone(),
                node: node.to_string(),
            });
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node.clone(), guest_port);
        if let Some(port) = open.get(&key)
            && host_port.is_none_or(|asked| asked == *port)
        {
            return Ok(*port);
        }
        let what = || format!("open a forward to port {guest_port} of `{node}`");
        if open.len() >= limits::MAX_FORWARDS {
            let detail = format!("{} are open, which is the limit", open.len());
            return Err(HostError::Io { what: what(), detail });
        }
        let listen = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, host_port.unwrap_or(0)))?;
            let port = listener.local_addr()?.port();
            let (published, node) = (published.clone(), node.clone());
            thread::Builder::new()
                .name("forward".into())
                .spawn(move || accept(&listener, &published, &node, guest_port))?;
            Ok(port)
        };
        let port = listen().map_err(|e: io::Error| match (e.kind(), host_port) {
            (io::ErrorKind::AddrInUse, Some(port)) => HostError::PortTaken { port },
            _ => trouble::io(what(), &e),
        })?;
        open.insert(key, port);
        Ok(port)
    }
}

fn accept(listener: &TcpListener, published: &Arc<Published>, node: &Name, guest_port: u16) {
    let busy = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming().flatten() {
        if busy.fetch_add(1, Ordering::Relaxed) >= limits::MAX_FORWARD_CONNECTIONS {
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (published, node, mine) = (published.clone(), node.clone(), busy.clone());
        let started = thread::Builder::new().name("relay".into()).spawn(move || {
            if let Err(error) = relay(&client, &published, &node, guest_port) {
                tracing::debug!(%error, %node, guest_port, "forward ended");
            }
            mine.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn relay(
    client: &TcpStream,
    published: &Published,
    node: &Name,
    guest_port: u16,
) -> Result<(), HostError> {
    let soon = Instant::now() + limits::GUEST_ANSWER;
    let link = published.link(node, soon)?;
    let failed = |e| trouble::link(published.branch(), node, &e);
    let guest = link.connect(guest_port, soon).map_err(failed)?;
    let _ = client.set_nodelay(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            if upward(client, &guest).is_err() {
                guest.abort();
            }
        });
        let down = downward(client, &guest);
        // Whatever ended this direction, the other one must not wait for the client for ever.
        let _ = client.shutdown(if down.is_ok() { Shutdown::Write } else { Shutdown::Both });
    });
    Ok(())
}

fn upward(mut client: &TcpStream, guest: &TcpHandle) -> io::Result<()> {
    let mut buffer = vec![0; limits::RELAY_BUFFER];
    loop {
        let count = client.read(&mut buffer)?;
        let deadline = Instant::now() + limits::MAX_WAIT;
        if count == 0 {
            return guest.shutdown_write(deadline).map_err(io::Error::other);
        }
        guest.write_all(&buffer[..count], deadline).map_err(io::Error::other)?;
    }
}

fn downward(mut client: &TcpStream, guest: &TcpHandle) -> io::Result<()> {
    let mut buffer = vec![0; limits::RELAY_BUFFER];
    loop {
        let deadline = Instant::now() + limits::MAX_WAIT;
        let count = guest.read(&mut buffer, deadline).map_err(io::Error::other)?;
        if count == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..count])?;
    }
}
