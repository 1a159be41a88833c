//! Settings: environment over `HOME/config.toml` over a file of vmcluster-mcp's over defaults. Each is declared once, below; from
//! it come its type, its place in the file, its variable and its line in `pando config show`.

mod file;
mod foreign;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pando_api::ApiError;
use pando_model::cluster::SshDefaults;
use pando_model::{ErrorCode, Layout, suggest};

pub use file::{read, write};
pub use foreign::{Ignored, Meaning, Theirs, VARIABLES as FOREIGN, key_of};
pub use value::{AcceleratorChoice, HttpListen, KeyPath, Setting, UserName};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The file.
    File,
    /// The environment variable of this name.
    Environment(String),
    /// The file of vmcluster-mcp's settings at this path.
    Foreign(String),
}

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `section.name`.
    pub key: &'static str,
    /// Its value, as text.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// What it is.
    pub doc: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr, $key:literal;)*) => {
        /// Every setting, typed.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Settings {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        /// Every key, in the order of the reference.
        pub const KEYS: &[&str] = &[$($key),*];

        impl Settings {
            /// Returns the settings that the sources make, with where each came from.
            ///
            /// # Errors
            /// `config_invalid` for a key that is unknown or a value that is no such thing.
            pub fn resolve(sources: &Sources) -> Result<(Self, Vec<Shown>), ApiError> {
                sources.refuse_unknown()?;
                let mut settings = Self::default();
                let mut shown = Vec::new();
                $(
                    let origin = sources.apply($key, &mut settings.$field)?;
                    let doc = concat!($($doc),*).trim_ascii();
                    shown.push(Shown { key: $key, value: settings.$field.show(), origin, doc });
                )*
                Ok((settings, shown))
            }

            /// Checks one value without keeping it.
            ///
            /// # Errors
            /// `config_invalid`.
            pub fn check(key: &str, text: &str) -> Result<(), ApiError> {
                match key {
                    $($key => {
                        let said = format!("`{key}`");
                        <$type>::parse(text).map(drop).map_err(|why| wrong(key, &said, text, why))
                    })*
                    other => Err(unknown(other)),
                }
            }
        }
    };
}

settings! {
    /// What the daemon writes to its log: error, warn, info, debug, trace, or a filter by module.
    log: String = "info".to_owned(), "daemon.log";
    /// Where the daemon listens on TCP as well: off, a port, or a loopback ADDRESS:PORT.
    http_listen: HttpListen = HttpListen::Off, "http.listen";
    /// QEMU's program; looked for in PATH when empty.
    qemu: String = String::new(), "qemu.binary";
    /// How guest code runs: auto, kvm or tcg.
    accelerator: AcceleratorChoice = AcceleratorChoice::Auto, "qemu.accelerator";
    /// The guest program that goes into images; looked for beside pando when empty.
    guest_program: String = String::new(), "image.guest_program";
    /// Where topologies that have a name are; `topologies` in the home when empty.
    topology_dir: String = String::new(), "cluster.topology_dir";
    /// Who logs in over SSH where a topology does not say; root when empty.
    ssh_user: UserName = UserName::default(), "cluster.ssh_user";
    /// A private key that logs in where a topology names none, beside each cluster's own.
    ssh_key_path: KeyPath = KeyPath::default(), "cluster.ssh_key_path";
    /// Whether disk flushes of guests reach the host's disk.
    durable_disk: bool = false, "machine.durable_disk";
    /// Memory of the host that is never used, in MiB.
    memory_reserve_mib: u64 = 256, "limits.memory_reserve_mib";
    /// Disk space that is never used, in MiB.
    disk_reserve_mib: u64 = 1024, "limits.disk_reserve_mib";
    /// Most disk space for flat memory that nothing runs on, in MiB.
    memory_cache_mib: u64 = 8192, "limits.memory_cache_mib";
    /// Most machines of warm copies in the whole home.
    max_parked: u64 = 16, "limits.max_parked";
    /// Branches that one call starts at the same time; 0 for one per processor.
    workers: u64 = 0, "limits.workers";
    /// How long a call waits for another one on the same object, in seconds.
    lock_wait_s: u64 = 30, "timeouts.lock_wait_s";
    /// How long a restored branch may take to answer, in seconds.
    restore_s: u64 = 60, "timeouts.restore_s";
    /// How long a commit may take, in seconds.
    cut_s: u64 = 120, "timeouts.cut_s";
    /// How long the first boot of an image may take, in seconds.
    first_boot_s: u64 = 300, "timeouts.first_boot_s";
    /// How long an image may take to build or import, in seconds.
    image_s: u64 = 3600, "timeouts.image_s";
}

/// What settings are made of: texts by key.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file's.
    pub file: BTreeMap<String, String>,
    /// The environment's variables, by their own names.
    pub environment: BTreeMap<String, String>,
    /// The file of vmcluster-mcp's settings that the environment names.
    pub theirs: Option<Theirs>,
}

/// Returns the environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("PANDO_{}", key.replace('.', "_").to_ascii_uppercase())
}

impl Settings {
    /// Returns the directory of topologies that have a name. A relative one is the home's: it would
    /// depend on where the daemon was started.
    pub fn topologies(&self, layout: &Layout) -> PathBuf {
        match self.topology_dir.as_str() {
            "" => layout.topologies(),
            set => layout.home().join(set),
        }
    }

    /// Returns how people log in where a topology does not say.
    pub fn ssh(&self) -> SshDefaults {
        let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        SshDefaults { user: set(&self.ssh_user.0), key_path: set(&self.ssh_key_path.0) }
    }
}

impl Sources {
    /// Returns what the file at `path`, the process's environment and the file that it may name say.
    ///
    /// # Errors
    /// `config_invalid` when a file is there and cannot be read, or is named and not there.
    pub fn of_process(path: &Path) -> Result<Self, ApiError> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("PANDO_") || name.starts_with(foreign::PREFIX))
            .collect();
        let mut sources = Self { file: read(path)?, environment, theirs: None };
        sources.read_theirs()?;
        Ok(sources)
    }

    fn refuse_unknown(&self) -> Result<(), ApiError> {
        match self.file.keys().find(|key| !KEYS.contains(&key.as_str())) {
            Some(key) => Err(unknown(key)),
            None => Ok(()),
        }
    }

    fn apply<T: Setting>(&self, key: &str, target: &mut T) -> Result<Origin, ApiError> {
        let own = variable(key);
        let said = format!("`{key}`");
        let (text, origin, said) = if let Some(text) = self.environment.get(&own) {
            (text.clone(), Origin::Environment(own), said)
        } else if let Some((name, text)) = self.foreign(key) {
            (text, Origin::Environment(name.to_owned()), said)
        } else if let Some(text) = self.file.get(key) {
            (text.clone(), Origin::File, said)
        } else if let Some((text, said)) = self.foreign_file(key) {
            let path = self.theirs.as_ref().map(|theirs| theirs.path.clone());
            (text, Origin::Foreign(path.unwrap_or_default()), said)
        } else {
            return Ok(Origin::Default);
        };
        *target = T::parse(&text).map_err(|why| wrong(key, &said, &text, why))?;
        Ok(origin)
    }
}

fn wrong(key: &str, said: &str, text: &str, why: &str) -> ApiError {
    let shown: String = text.chars().take(80).collect();
    ApiError::new(ErrorCode::ConfigInvalid, format!("{said} is `{shown}`, but must be {why}"))
        .subject(key)
        .hint("pando config show --origin")
}

fn unknown(key: &str) -> ApiError {
    let error = ApiError::new(ErrorCode::ConfigInvalid, format!("there is no setting `{key}`"))
        .subject(key);
    match suggest::nearest(key, KEYS.iter().copied()) {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint("pando config show"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(file: &[(&str, &str)], environment: &[(&str, &str)]) -> Sources {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Sources { file: map(file), environment: map(environment), theirs: None }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
        let sources = sources(
            &[("limits.max_parked", "3"), ("daemon.log", "debug")],
            &[("PANDO_LIMITS_MAX_PARKED", "5"), ("PANDO_HOME", "/x")],
        );
        let (settings, shown) = Settings::resolve(&sources).unwrap();
        assert_eq!((settings.max_parked, settings.log.as_str()), (5, "debug"));
        let origin = |key| shown.iter().find(|one| one.key == key).unwrap().origin.clone();
        assert_eq!(origin("daemon.log"), Origin::File);
        assert_eq!(origin("timeouts.cut_s"), Origin::Default);
        let name = "PANDO_LIMITS_MAX_PARKED".to_owned();
        assert_eq!(origin("limits.max_parked"), Origin::Environment(name));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = Settings::resolve(&sources(&[("limits.max_park", "3")], &[])).unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("did you mean `limits.max_parked`?"));
        let error = Settings::resolve(&sources(&[("limits.max_parked", "many")], &[])).unwrap_err();
        assert_eq!(error.message, "`limits.max_parked` is `many`, but must be a whole number");
        assert!(Settings::check("machine.durable_disk", "yes").is_err());
        assert!(Settings::check("machine.durable_disk", "true").is_ok());
        for (key, bad) in [
            ("cluster.ssh_user", "-oProxyCommand=id"),
            ("cluster.ssh_user", "0"),
            ("cluster.ssh_key_path", "id_ed25519"),
            ("cluster.ssh_key_path", "/keys/../id_ed25519"),
        ] {
            assert_eq!(Settings::check(key, bad).unwrap_err().code, ErrorCode::ConfigInvalid);
        }
    }

    #[test]
    fn the_variables_of_vmcluster_stand_below_our_own_and_above_the_file() {
        let file = [("cluster.topology_dir", "/file"), ("daemon.log", "trace")];
        let theirs = ("VMCLUSTER_TOPOLOGY_DIR", "/theirs");
        let of = |environment: &[(&str, &str)]| {
            let (settings, shown) = Settings::resolve(&sources(&file, environment)).unwrap();
            let one = shown.into_iter().find(|one| one.key == "cluster.topology_dir").unwrap();
            (settings.topology_dir, one.origin)
        };
        let name = |name: &str| Origin::Environment(name.to_owned());
        assert_eq!(of(&[]), ("/file".to_owned(), Origin::File));
        assert_eq!(of(&[theirs]), ("/theirs".to_owned(), name("VMCLUSTER_TOPOLOGY_DIR")));
        let ours = ("PANDO_CLUSTER_TOPOLOGY_DIR", "/ours");
        assert_eq!(of(&[theirs, ours]), ("/ours".to_owned(), name("PANDO_CLUSTER_TOPOLOGY_DIR")));
    }

    #[test]
    fn log_levels_are_translated_and_what_means_nothing_is_told() {
        let environment = [
            ("VMCLUSTER_LOG_LEVEL", "WARNING"),
            ("VMCLUSTER_LIBVIRT_URI", "qemu:///system"),
            ("VMCLUSTER_NEW", "x"),
        ];
        let sources = sources(&[], &environment);
        let (settings, _) = Settings::resolve(&sources).unwrap();
        assert_eq!(settings.log, "warn");
        let ignored: Vec<String> = sources.ignored().into_iter().map(|one| one.variable).collect();
        assert_eq!(ignored, ["VMCLUSTER_LIBVIRT_URI", "VMCLUSTER_NEW"]);
    }
}
