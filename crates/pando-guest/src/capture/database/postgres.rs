//! PostgreSQL's databases, asked of the servers that run: over their sockets in their own protocol
//! (<https://www.postgresql.org/docs/current/protocol.html>), as the user whose the server is. So
//! nothing is started or installed, and whatever is asked runs in transactions that only read, with a
//! limit on each.

mod client;
mod queries;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pando_model::capture::Database;

use self::client::Client;
use super::{Databases, too_many};
use crate::config::{Authority, Config};
use crate::limits::{DATABASE_TIMEOUT, MAX_DATABASES};
use crate::users::{Tables, User};

/// Where servers have their sockets.
const SOCKETS: &str = "run/postgresql";
/// Where distributions keep the servers' files, by version and name.
const CLUSTERS: &str = "var/lib/postgresql";
/// Whose the servers are.
const OWNER: &str = "postgres";

/// Returns the databases of all servers.
pub fn databases(config: &Config) -> Databases {
    let mut found = Databases::new();
    let mut places = Vec::new();
    for (port, socket) in sockets(&config.root.join(SOCKETS)) {
        match ask(config, &socket, port) {
            Ok(told) => {
                places.extend(told.values().map(|database| database.place.clone()));
                found.extend(told);
            }
            Err(reason) => {
                let unknown = Database { unknown: Some(reason), ..Database::default() };
                found.insert(format!("postgresql:{port}"), unknown);
            }
        }
    }
    for place in clusters(&config.root) {
        if !places.contains(&place) {
            let unknown = Some("no server that runs tells of it".to_owned());
            let name = format!("postgresql in {place}");
            found.insert(name, Database { place, unknown, ..Database::default() });
        }
    }
    found
}

/// Returns the servers' sockets by their ports.
fn sockets(directory: &Path) -> Vec<(u16, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let socket = |entry: fs::DirEntry| {
        let port = entry.file_name().to_str()?.strip_prefix(".s.PGSQL.")?.parse().ok()?;
        Some((port, entry.path()))
    };
    let mut found: Vec<_> = entries.flatten().filter_map(socket).take(MAX_DATABASES).collect();
    found.sort();
    found
}

/// Returns the directories that hold a server's files.
fn clusters(root: &Path) -> Vec<String> {
    let below = |directory: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.take(MAX_DATABASES).map(|entry| entry.path()).collect()
    };
    let all = below(root.join(CLUSTERS)).into_iter().flat_map(below);
    let own = all.filter(|place| place.join("PG_VERSION").exists());
    let inside = |place: PathBuf| Some(format!("/{}", place.strip_prefix(root).ok()?.display()));
    let mut found: Vec<String> = own.filter_map(inside).collect();
    found.sort();
    found
}

/// Asks a server for all of its databases, on a thread of its own that becomes the server's user:
/// that is who the server lets in without a password.
fn ask(config: &Config, socket: &Path, port: u16) -> Result<Databases, String> {
    let user = match config.authority {
        Authority::Machine => User::find(&mut Tables::new(&config.root), OWNER).ok().flatten(),
        Authority::Files => None,
    };
    let ask = || {
        if let Some(user) = user {
            become_user(user.uid, user.gid)
                .map_err(|error| format!("cannot act as {OWNER}: {error}"))?;
        }
        all(socket, port)
    };
    std::thread::scope(|scope| {
        let asking = scope.spawn(ask);
        asking.join().unwrap_or_else(|_| Err("its answer was not understood".to_owned()))
    })
}

/// Makes this thread, and no other, a user's.
fn become_user(uid: u32, gid: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

fn all(socket: &Path, port: u16) -> Result<Databases, String> {
    let deadline = Instant::now() + DATABASE_TIMEOUT;
    let open = |database: &str| Client::connect(socket, OWNER, database, deadline);
    let failed = |error: client::Error| error.to_string();
    let mut first = open("template1").map_err(failed)?;
    let place = first.ask(queries::PLACE).map_err(failed)?;
    let place = place.into_iter().flatten().flatten().next().unwrap_or_default();
    let names = first.ask(queries::DATABASES).map_err(failed)?;
    drop(first);
    let mut found = Databases::new();
    for name in names.into_iter().flatten().flatten() {
        if found.len() == MAX_DATABASES {
            let rest =
                Database { place: place.clone(), unknown: too_many(), ..Database::default() };
            found.insert(format!("postgresql:{port}: more databases"), rest);
            break;
        }
        let told = open(&name).and_then(|mut client| queries::database(&mut client));
        let mut database = told.unwrap_or_else(|error| Database {
            unknown: Some(error.to_string()),
            ..Database::default()
        });
        database.place.clone_from(&place);
        found.insert(format!("postgresql:{port}/{name}"), database);
    }
    Ok(found)
}
