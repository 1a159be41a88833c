//! A simulated world with an engine on it, and calls in the words of a client.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use pando_api::{ApiError, Call, Caller, Control};
use pando_driver::Store;
use pando_driver::sim::SimWorld;
use pando_engine::{Config, Drivers, Engine};
use pando_model::cluster::SshDefaults;
use pando_model::{Branch, BranchId, Layout};
use serde_json::{Value, json};

/// A world, the engine that works on it, and the home of its keys.
pub struct Bench {
    pub world: SimWorld,
    pub engine: Engine,
    pub home: tempfile::TempDir,
    pub caller: Caller,
}

/// Two nodes on one network, with everything that is done once in a node.
pub const DUO: &str = "\
name: duo
network: {name: lan, subnet: 10.7.0.0/24}
image: default
snapshots: {clean: first}
ssh: {user: ops}
nodes:
  - name: db
    role: database
    forwards: ['18080:80', 5432]
    memory: 256 MiB
    extra_disks: [{name: data, size: 1G}, {size: 2G}]
    files: [{path: /etc/motd, contents: hello}]
    commands: [set-disk seeded yes]
    services: [{name: store, command: 'store --all'}]
  - name: web
    memory: 256 MiB
    user_data: |
      #!/bin/sh
      true
";

pub fn config(home: &std::path::Path) -> Config {
    let mut config = Config::new(Layout::new(home, home.join("run")), "0.0.0-test");
    config.workers = 2;
    config.lock_wait = Duration::from_secs(5);
    config.reconcile_every = None;
    config
}

async fn engine(world: &SimWorld, config: Config) -> Engine {
    let connection = world.connect();
    let drivers = Drivers {
        host: connection.host(),
        images: connection.images(),
        store: connection.store(),
        journal: connection.journal(),
    };
    Engine::start(drivers, config).await.unwrap()
}

impl Bench {
    /// Returns a bench with the image `default`.
    pub async fn new() -> Self {
        let world = SimWorld::new();
        let home = tempfile::tempdir().unwrap();
        let engine = engine(&world, config(home.path())).await;
        let bench = Self { world, engine, home, caller: Caller::local(0) };
        bench.ok("image_build", json!({})).await;
        bench
    }

    /// Returns a bench with a machine `shop` from a ready state.
    pub async fn with_vm() -> Self {
        let bench = Self::new().await;
        bench.ok("vm_create", json!({"name": "shop"})).await;
        bench
    }

    /// Returns a bench with a cluster `duo` of the nodes `db` and `web`, defined and started.
    pub async fn with_cluster() -> Self {
        let bench = Self::new().await;
        bench.ok("cluster_define", json!({"topology": DUO})).await;
        bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
        bench
    }

    /// Returns a bench on a copy of the world as it is, with an engine of its own.
    pub async fn fork(&self) -> Self {
        self.engine.idle().await;
        let world = self.world.fork();
        let home = tempfile::tempdir().unwrap();
        if let Ok(keys) = std::fs::read_dir(self.home.path().join("keys")) {
            std::fs::create_dir(home.path().join("keys")).unwrap();
            for key in keys.map(Result::unwrap) {
                std::fs::copy(key.path(), home.path().join("keys").join(key.file_name())).unwrap();
            }
        }
        let engine = engine(&world, config(home.path())).await;
        engine.idle().await;
        Self { world, engine, home, caller: self.caller.clone() }
    }

    /// Starts a new engine on the same world that compares records with it as often as this.
    pub async fn watch_every(&mut self, every: Duration) {
        let config = Config { reconcile_every: Some(every), ..config(self.home.path()) };
        self.engine = engine(&self.world, config).await;
        self.engine.idle().await;
    }

    /// Starts a new engine on the same world that parks so many machines at most.
    pub async fn park_at_most(&mut self, max_parked: usize) {
        let config = Config { max_parked, ..config(self.home.path()) };
        self.engine = engine(&self.world, config).await;
        self.engine.idle().await;
    }

    /// Starts a new engine on the same world, with these settings of SSH.
    pub async fn log_in_by(&mut self, user: &str, key_path: &std::path::Path) {
        let key_path = Some(key_path.to_str().unwrap().to_owned());
        let ssh = SshDefaults { user: Some(user.to_owned()), key_path };
        let config = Config { ssh, ..config(self.home.path()) };
        self.engine = engine(&self.world, config).await;
        self.engine.idle().await;
    }

    /// Starts a new engine on the same world, with a store before the world's.
    pub async fn restart_on(&mut self, over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) {
        let connection = self.world.connect();
        let store = over(connection.store());
        let drivers = Drivers {
            host: connection.host(),
            images: connection.images(),
            store,
            journal: connection.journal(),
        };
        self.engine = Engine::start(drivers, config(self.home.path())).await.unwrap();
        self.engine.idle().await;
    }

    /// Starts a new engine on the same world, as after a crash, and waits for its recovery.
    pub async fn restart(&mut self) {
        self.engine = engine(&self.world, config(self.home.path())).await;
        self.engine.idle().await;
    }

    pub async fn call(&self, verb: &str, params: Value) -> Result<Value, ApiError> {
        let call = Call::parse(verb, params).unwrap_or_else(|error| panic!("{verb}: {error}"));
        self.engine.call(&self.caller, call).await
    }

    pub async fn ok(&self, verb: &str, params: Value) -> Value {
        match self.call(verb, params.clone()).await {
            Ok(result) => result,
            Err(error) => panic!("{verb} {params}: {error:?}"),
        }
    }

    /// Calls a verb that must fail.
    pub async fn fails(&self, verb: &str, params: Value) -> ApiError {
        match self.call(verb, params.clone()).await {
            Ok(result) => panic!("{verb} {params} succeeded: {result}"),
            Err(error) => error,
        }
    }

    /// Runs a command that must exit with status 0 and returns what it printed.
    pub async fn exec(&self, address: &str, line: &str) -> String {
        let result = self.ok("exec_run", json!({"address": address, "command": line})).await;
        assert_eq!(result["exit_code"], 0, "{address}: {line}: {result}");
        result["stdout"].as_str().unwrap().trim().to_owned()
    }

    /// Returns a value of a machine's memory, or "" if it has none.
    pub async fn mem(&self, address: &str, key: &str) -> String {
        let line = format!("get-mem {key}");
        let result = self.ok("exec_run", json!({"address": address, "command": line})).await;
        result["stdout"].as_str().unwrap().trim().to_owned()
    }

    /// Asserts that records and world say the same and that nothing is left over, and that
    /// comparing them again finds nothing to do.
    pub async fn assert_consistent(&self, context: &str) {
        self.engine.idle().await;
        let found = self.world.discrepancies().await.unwrap();
        assert!(found.is_empty(), "{context}: {found:#?}");
        let keys = std::fs::read_dir(self.home.path().join("keys"));
        let keys = keys.map(|keys| keys.count()).unwrap_or(0);
        let clusters = self.ok("cluster_list", json!({"limit": 500})).await;
        let clusters = clusters["total"].as_u64().unwrap() as usize;
        assert!(keys <= clusters * 3, "{context}: {keys} key files for {clusters} clusters");
    }

    pub async fn branch(&self, id: &str) -> Branch {
        let connection = self.world.connect();
        connection.store().get(id).await.unwrap().unwrap()
    }

    pub async fn host_id(&self, id: &str) -> BranchId {
        self.branch(id).await.host_id
    }
}
