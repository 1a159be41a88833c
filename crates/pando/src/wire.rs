//! The only place that names concrete drivers: puts an engine together from them.

pub mod machines;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pando_api::ApiError;
use pando_bridge::KernelSwitches;
use pando_driver::store::StoreError;
use pando_engine::{Config, Drivers, Engine};
use pando_host::{HostConfig, LocalHost};
use pando_image::{ImageConfig, ImageStore};
use pando_machine::{Switch, SwitchError, Switches};
use pando_model::host::HostError;
use pando_model::network::NetworkSpec;
use pando_model::{ByteCount, ErrorCode, Layout};
use pando_qemu::Qcow2Layers;
use pando_store::{FileJournal, SqliteStore};
use pando_switch::UserSwitches;

use crate::daemon;
use crate::settings::Settings;

/// Opens whichever kind of switch a network asks for.
#[derive(Debug, Clone, Copy)]
pub struct EverySwitch;

impl Switches for EverySwitch {
    fn open(
        &self,
        spec: &NetworkSpec,
        state: Option<&Path>,
    ) -> Result<(Box<dyn Switch>, Vec<OwnedFd>), SwitchError> {
        match spec.is_bridged() {
            true => KernelSwitches.open(spec, state),
            false => UserSwitches.open(spec, state),
        }
    }
}

/// The guest program's file name.
const GUEST_PROGRAM: &str = "pando-guest";

/// Returns the engine of a home, with its recovery begun. `url` is where it will be served on TCP.
///
/// # Errors
/// What a driver needs and has not.
pub async fn engine(
    layout: &Layout,
    settings: &Settings,
    url: Option<String>,
) -> Result<Engine, ApiError> {
    let store =
        SqliteStore::open(&layout.database()).await.map_err(|error| store_failed(&error))?;
    let journal_path = layout.home().join("journal.log");
    let journal = FileJournal::open(&journal_path).map_err(|error| {
        ApiError::new(
            ErrorCode::Internal,
            format!("cannot open {}: {error}", journal_path.display()),
        )
    })?;
    let guest = guest_program(settings);
    let profile_of = (layout.clone(), settings.clone());
    let seed_guest = guest.clone();
    let host = LocalHost::new(HostConfig {
        layout: layout.clone(),
        keeper_program: daemon::launch::program().map_err(|error| {
            ApiError::new(ErrorCode::Internal, format!("cannot find this program: {error}"))
        })?,
        profile: Arc::new(move || machines::profile(&profile_of.0, &profile_of.1)),
        kernel_network: Arc::new(pando_bridge::probe),
        disks: Arc::new(Qcow2Layers),
        seeds: Arc::new(move |files| seed(files, &seed_guest)),
        memory_reserve: ByteCount::from_mib(settings.memory_reserve_mib),
    });
    host.after_boot().map_err(|error| {
        ApiError::new(ErrorCode::Internal, format!("cannot clear the memory cache: {error}"))
    })?;
    let drivers = Drivers {
        host: Arc::new(host),
        images: Arc::new(ImageStore::new(ImageConfig::new(layout.clone(), guest))),
        store: Arc::new(store),
        journal: Arc::new(journal),
    };
    let config = Config { url, ..config(layout, settings) };
    Engine::start(drivers, config).await
}

fn config(layout: &Layout, settings: &Settings) -> Config {
    let mut config = Config::new(layout.clone(), daemon::VERSION);
    config.topology_dir = settings.topologies(layout);
    config.ssh = settings.ssh();
    config.disk_reserve = ByteCount::from_mib(settings.disk_reserve_mib);
    config.memory_reserve = ByteCount::from_mib(settings.memory_reserve_mib);
    config.memory_cache = ByteCount::from_mib(settings.memory_cache_mib);
    config.max_parked = usize::try_from(settings.max_parked).unwrap_or(usize::MAX);
    if let Ok(workers @ 1..) = usize::try_from(settings.workers) {
        config.workers = workers;
    }
    config.lock_wait = Duration::from_secs(settings.lock_wait_s);
    config.restore_timeout = Duration::from_secs(settings.restore_s);
    config.cut_timeout = Duration::from_secs(settings.cut_s);
    config.first_boot_timeout = Duration::from_secs(settings.first_boot_s);
    config.image_timeout = Duration::from_secs(settings.image_s);
    config.durable_disk = settings.durable_disk;
    config
}

fn store_failed(error: &StoreError) -> ApiError {
    match error {
        StoreError::SchemaTooNew { .. } => {
            ApiError::new(ErrorCode::Incompatible, error.to_string())
                .hint("this home was used by a newer pando: start that one, or set PANDO_HOME")
        }
        _ => ApiError::new(ErrorCode::Internal, error.to_string()).hint("pando doctor"),
    }
}

fn seed(
    files: &std::collections::BTreeMap<String, String>,
    guest: &Path,
) -> Result<Vec<u8>, HostError> {
    let failed = |detail: String| HostError::Io { what: "make a seed disk".to_owned(), detail };
    let program =
        std::fs::read(guest).map_err(|error| failed(format!("{}: {error}", guest.display())))?;
    pando_image::seed::seed_image(files, &program).map_err(|error| failed(error.to_string()))
}

/// Returns where the guest program is, or where it should be.
pub fn guest_program(settings: &Settings) -> PathBuf {
    let named = std::env::var_os("PANDO_GUEST").filter(|path| !path.is_empty());
    if let Some(path) = named {
        return PathBuf::from(path);
    }
    if !settings.guest_program.is_empty() {
        return PathBuf::from(&settings.guest_program);
    }
    let program = daemon::launch::program().unwrap_or_default();
    let beside = program.parent().unwrap_or(Path::new("/"));
    // Built in the same target directory (where one beside us would not be static), installed
    // beside us, installed as a library.
    let candidates = [
        beside.join("../x86_64-unknown-linux-gnu/guest").join(GUEST_PROGRAM),
        beside.join(GUEST_PROGRAM),
        beside.join("../lib/pando").join(GUEST_PROGRAM),
    ];
    let [_, usual, _] = &candidates;
    candidates.iter().find(|path| path.is_file()).unwrap_or(usual).clone()
}
