//! Host port forwards: a listener on the host's loopback, relayed through the guest channel to a
//! port on the guest's loopback. They need no network in the guest, so they work the same in every
//! branch, and end with the incarnation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pando_link::TcpHandle;
use pando_model::Name;
use pando_model::host::HostError;

use crate::published::Published;
use crate::server::accepted;
use crate::{limits, trouble};

/// Ports of this host, by the ports of a node that they lead to.
type OfNode = BTreeMap<u16, BTreeSet<u16>>;

/// The forwards of a branch.
#[derive(Default)]
pub struct Forwards {
    open: Mutex<BTreeMap<Name, OfNode>>,
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
        let of_node = open.entry(node.clone()).or_default();
        let ports = of_node.get(&guest_port).into_iter().flatten();
        if let Some(port) = ports.copied().find(|port| host_port.is_none_or(|one| one == *port)) {
            return Ok(port);
        }
        let what = || format!("open a forward to port {guest_port} of `{node}`");
        let count: usize = of_node.values().map(BTreeSet::len).sum();
        if count >= limits::MAX_FORWARDS {
            let detail = format!("{count} are open, which is the limit");
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
        of_node.entry(guest_port).or_default().insert(port);
        Ok(port)
    }
}

fn accept(listener: &TcpListener, published: &Arc<Published>, node: &Name, guest_port: u16) {
    let busy = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming().filter_map(accepted) {
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
    carry(client, &guest, limits::CLIENT_STALLED, limits::HALF_CLOSED);
    Ok(())
}

/// Carries bytes both ways until both sides have closed, or the client takes nothing for so long as
/// `stalled` says, or neither says anything nor closes for as long as `half_closed` says after the
/// guest has closed.
fn carry(client: &TcpStream, guest: &TcpHandle, stalled: Duration, half_closed: Duration) {
    let _ = client.set_write_timeout(Some(stalled));
    let sent = AtomicU64::new(0);
    let (done, is_done) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            if upward(client, guest, &sent).is_err() {
                guest.abort();
            }
            drop(done);
        });
        if downward(client, guest).is_err() {
            guest.abort();
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        let _ = client.shutdown(Shutdown::Write);
        let mut before = sent.load(Ordering::Relaxed);
        while let Err(RecvTimeoutError::Timeout) = is_done.recv_timeout(half_closed) {
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                guest.abort();
                let _ = client.shutdown(Shutdown::Both);
                return;
            }
            before = now;
        }
    });
}

/// Counts in `sent` what the guest took.
fn upward(mut client: &TcpStream, guest: &TcpHandle, sent: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; limits::RELAY_BUFFER];
    loop {
        let count = client.read(&mut buffer)?;
        let deadline = Instant::now() + limits::MAX_WAIT;
        if count == 0 {
            return guest.shutdown_write(deadline).map_err(io::Error::other);
        }
        guest.write_all(&buffer[..count], deadline).map_err(io::Error::other)?;
        sent.fetch_add(count as u64, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use pando_model::{BranchId, BranchState, NodeLayers};

    use super::*;
    use crate::fake::real_guest;
    use crate::published::NodeView;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(60);

    /// Connects a client through the guest to a server on this machine, and carries until it ends;
    /// returns the client, the server's connection and how long it is carried.
    fn forward(
        stalled: Duration,
        half_closed: Duration,
    ) -> (TcpStream, TcpStream, thread::JoinHandle<Duration>) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let link = real_guest();
        let guest = link.connect(port, Instant::now() + limits::GUEST_ANSWER).unwrap();
        let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
        let ours = front.accept().unwrap().0;
        let carried = thread::spawn(move || {
            let began = Instant::now();
            carry(&ours, &guest, stalled, half_closed);
            drop(link);
            began.elapsed()
        });
        (client, server.accept().unwrap().0, carried)
    }

    #[test]
    fn a_client_that_never_closes_does_not_hold_a_connection_that_the_guest_closed() {
        let (mut client, server, carried) = forward(LONG, SHORT);
        drop(server);
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        assert!(carried.join().unwrap() < LONG / 2);
    }

    #[test]
    fn a_client_that_still_sends_is_heard_after_the_guest_has_closed_its_side() {
        let (mut client, mut server, carried) = forward(LONG, SHORT);
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        for _ in 0..4 {
            client.write_all(b"word").unwrap();
            thread::sleep(SHORT / 2);
        }
        drop(client);
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).unwrap();
        assert_eq!(heard.len(), 16);
        carried.join().unwrap();
    }

    #[test]
    fn a_client_that_takes_nothing_does_not_hold_a_connection() {
        let (client, mut server, carried) = forward(SHORT, LONG);
        // Ends when the guest's side is closed.
        while server.write_all(&[0; limits::RELAY_BUFFER]).is_ok() {}
        assert!(carried.join().unwrap() < LONG / 2);
        drop(client);
    }

    fn view(name: &Name) -> NodeView {
        NodeView {
            name: name.clone(),
            state: BranchState::Running,
            ended: None,
            trouble: None,
            pid: None,
            layers: NodeLayers::of_root(pando_model::LayerId::random()),
            link: None,
            greeted: false,
            started_at: Instant::now(),
        }
    }

    #[test]
    fn forwards_are_counted_by_node_and_each_port_of_this_host_is_remembered() {
        let names: [Name; 2] = ["a", "b"].map(|name| name.parse().unwrap());
        let views = names.iter().map(view).collect();
        let published = Arc::new(Published::new(BranchId::random(), views));
        let forwards = Forwards::default();
        let open = |node, guest, host| forwards.open(&published, node, guest, host);
        let first = open(&names[0], 80, None).unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let second = free.local_addr().unwrap().port();
        drop(free);
        assert_eq!(open(&names[0], 80, Some(second)).unwrap(), second);
        assert_eq!(open(&names[0], 80, Some(first)).unwrap(), first);
        assert_eq!(open(&names[0], 80, Some(second)).unwrap(), second);
        let more = (1000..).take(limits::MAX_FORWARDS - 2);
        more.for_each(|port| assert!(open(&names[0], port, None).is_ok()));
        assert!(open(&names[0], 81, None).is_err());
        open(&names[1], 80, None).unwrap();
    }
}
