//! Where everything is: the home (state) and the runtime directory (sockets), which is keyed by
//! the home so that several homes never meet.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pando_api::ApiError;
use pando_model::limits::MAX_SOCKET_PATH_BYTES;
use pando_model::{ErrorCode, Layout};

/// Bytes that the longest socket name adds to the runtime directory: `/b/` and a branch's suffix.
const LONGEST_SOCKET_NAME: usize = "/b/0123456789ab.sock".len();
/// Hex digits of the home's hash: 48 bits are plenty for the homes of one user.
const HASH_DIGITS: usize = 12;

/// Returns the layout that the arguments and the environment name.
///
/// # Errors
/// `config_invalid` when there is no home, or no directory short enough for its sockets.
pub fn layout(argument: Option<&Path>) -> Result<Layout, ApiError> {
    let home = match argument {
        Some(home) => home.to_owned(),
        None => default_home(&|name| env::var_os(name).filter(|value| !value.is_empty()))?,
    };
    let home = std::path::absolute(&home).map_err(|source| {
        ApiError::new(
            ErrorCode::ConfigInvalid,
            format!("the home {} is not usable: {source}", home.display()),
        )
    })?;
    let uid = rustix::process::geteuid().as_raw();
    let runtime = runtime(&home, env::var_os("XDG_RUNTIME_DIR"), uid)?;
    Ok(Layout::new(home, runtime))
}

fn default_home(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, ApiError> {
    if let Some(home) = variable("PANDO_HOME") {
        return Ok(home.into());
    }
    let data = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")));
    data.map(|data| data.join("pando")).ok_or_else(|| {
        ApiError::new(ErrorCode::ConfigInvalid, "there is no home: $HOME is not set")
            .hint("set PANDO_HOME to a directory")
    })
}

fn runtime(home: &Path, xdg: Option<OsString>, uid: u32) -> Result<PathBuf, ApiError> {
    // The same home by another path (a symbolic link) must not get a second daemon.
    let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
    let hash = blake3::hash(home.as_os_str().as_encoded_bytes()).to_hex();
    let key = hash.get(..HASH_DIGITS).unwrap_or_default();
    let of_user = xdg.filter(|xdg| Path::new(xdg).is_absolute());
    let candidates = of_user
        .map(|xdg| PathBuf::from(xdg).join("pando"))
        .into_iter()
        .chain([PathBuf::from(format!("/tmp/pando-{uid}"))]);
    let fits =
        |path: &PathBuf| path.as_os_str().len() + LONGEST_SOCKET_NAME <= MAX_SOCKET_PATH_BYTES;
    candidates.map(|base| base.join(key)).find(fits).ok_or_else(|| {
        ApiError::new(ErrorCode::ConfigInvalid, "no directory is short enough for sockets")
    })
}

/// Makes the home and the runtime directory, closed to everybody else.
///
/// # Errors
/// `config_invalid` when one cannot be made or belongs to somebody else.
pub fn prepare(layout: &Layout) -> Result<(), ApiError> {
    let base = layout.runtime().parent().unwrap_or(layout.runtime());
    for directory in [layout.home(), base, layout.runtime()] {
        pando_http::server::private_directory(directory).map_err(|source| {
            ApiError::new(
                ErrorCode::ConfigInvalid,
                format!("{} is not usable: {source}", directory.display()),
            )
            .hint("set PANDO_HOME to a directory that belongs to you")
        })?;
    }
    Ok(())
}

/// Removes the directories for sockets, unless something still runs there.
pub fn tidy(layout: &Layout) {
    for directory in [layout.keeper_sockets(), layout.runtime().to_owned()] {
        // Only an empty one can be removed.
        let _ = std::fs::remove_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_named_by_the_environment() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: &[Case<'_>] = &[
            (&[("PANDO_HOME", "/p"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")], Some("/p")),
            (&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")], Some("/x/pando")),
            (&[("XDG_DATA_HOME", "x"), ("HOME", "/h")], Some("/h/.local/share/pando")),
            (&[("HOME", "/h")], Some("/h/.local/share/pando")),
            (&[], None),
        ];
        for (variables, expected) in cases {
            let lookup = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let home = default_home(&lookup).ok();
            assert_eq!(home.as_deref(), expected.map(Path::new), "{variables:?}");
        }
    }

    #[test]
    fn sockets_fit_and_homes_do_not_meet() {
        let long = OsString::from(format!("/{}", "r".repeat(100)));
        for xdg in [None, Some(OsString::from("/run/user/1000")), Some(long)] {
            let one = runtime(Path::new("/home/a"), xdg.clone(), 1000).unwrap();
            let two = runtime(Path::new("/home/b"), xdg, 1000).unwrap();
            assert_ne!(one, two);
            let socket =
                Layout::new("/home/a", &one).keeper_socket(&pando_model::BranchId::random());
            assert!(socket.as_os_str().len() <= MAX_SOCKET_PATH_BYTES, "{}", socket.display());
        }
    }
}
