//! Keys of the user's own, and who logs in: what a topology says, what settings say, and that what
//! held when a cluster was defined holds for as long as it lives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::Bench;
use pando_model::ErrorCode;
use serde_json::{Value, json};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

/// Writes a new private key; returns its public half.
fn write_key(path: &Path) -> String {
    let key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).unwrap();
    std::fs::write(path, key.to_openssh(LineEnding::LF).unwrap()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    key.public_key().to_openssh().unwrap()
}

fn topology(ssh: &str) -> Value {
    json!({"topology": format!("name: duo\nssh: {ssh}\nnodes: [{{name: db}}, {{name: web}}]\n")})
}

/// A directory of keys, and the path of one in it that is not there.
fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("id");
    (directory, path)
}

/// Returns the file of the cluster's own key.
fn own_key(bench: &Bench) -> PathBuf {
    let files = std::fs::read_dir(bench.home.path().join("keys")).unwrap();
    files.map(|file| file.unwrap().path()).find(|path| path.extension().is_none()).unwrap()
}

/// Returns the file of the key that logs in, as every verb that tells it says.
async fn key_file(bench: &Bench) -> PathBuf {
    let info = bench.ok("connect_info", json!({"address": "duo/db"})).await;
    let handle = bench.ok("cluster_handle", json!({"cluster_name": "duo"})).await;
    let path = info["key_path"].as_str().unwrap();
    assert!(handle["nodes"].as_array().unwrap().iter().all(|node| node["ssh_key_path"] == path));
    assert!(info["command"].as_str().unwrap().contains(&format!(" -i {path} ")), "{info}");
    path.into()
}

async fn drift(bench: &Bench, params: Value) -> Vec<[String; 3]> {
    let again = bench.ok("cluster_define", params).await;
    assert_eq!(again["created"], false);
    let text = |value: &Value| value.as_str().unwrap_or("nothing").to_owned();
    let one = |one: &Value| ["path", "defined", "file"].map(|field| text(&one[field]));
    again["drift"].as_array().unwrap().iter().map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn the_key_of_a_topology_logs_in_beside_the_clusters_own() {
    let bench = Bench::new().await;
    let (_directory, path) = directory();
    let public = write_key(&path);
    let text = topology(&format!("{{user: ops, key_path: {}}}", path.display()));
    let defined = bench.ok("cluster_define", text.clone()).await;
    assert_eq!(defined["notes"], json!([]), "{defined}");
    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    let own = std::fs::read_to_string(own_key(&bench).with_extension("pub")).unwrap();
    let both = format!("{}\n{}", own.trim_end(), public.trim_end());
    for node in ["duo/db", "duo/web"] {
        assert_eq!(bench.mem(node, "login.root").await, both);
        assert_eq!(bench.exec(node, "get-disk login.ops").await, both);
    }
    assert_eq!(key_file(&bench).await, path);
    assert_eq!(drift(&bench, text.clone()).await, [[""; 3]; 0]);

    // Nothing of this reaches the cluster: it is told, and its own key still logs in.
    let at = |words: &str| format!("{}: {words}", path.display());
    let end =
        |key: &str| at(&format!("ssh-ed25519 …{}", &key.trim_end()[key.trim_end().len() - 12..]));
    let other = write_key(&path);
    let expected = ["ssh.key_path".to_owned(), end(&public), end(&other)];
    assert_eq!(drift(&bench, text.clone()).await, [expected]);
    assert_eq!(key_file(&bench).await, own_key(&bench));
    std::fs::write(&path, "words").unwrap();
    assert_eq!(drift(&bench, text.clone()).await[0][2], at("it is no private key"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(drift(&bench, text).await[0][2], at("not there"));
    assert_eq!(key_file(&bench).await, own_key(&bench));
    let moved = drift(&bench, topology("{user: ops, key_path: /keys/id}")).await;
    let paths = [path.to_str().unwrap(), "/keys/id"].map(str::to_owned);
    assert_eq!(moved, [["ssh.key_path".to_owned(), paths[0].clone(), paths[1].clone()]]);
    bench.ok("cluster_destroy", json!({"cluster_name": "duo", "remove_overlays": true})).await;
    bench.assert_consistent("after the end").await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_there_is_noted_and_the_clusters_own_logs_in() {
    let bench = Bench::new().await;
    let (_directory, path) = directory();
    let text = topology(&format!("{{key_path: {}}}", path.display()));
    let defined = bench.ok("cluster_define", text.clone()).await;
    let note = defined["notes"][0].as_str().unwrap();
    assert!(note.contains("is not there") && note.contains("ssh-keygen"), "{note}");
    assert_eq!(drift(&bench, text.clone()).await, [[""; 3]; 0]);
    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    assert_eq!(bench.mem("duo/db", "login.root").await.lines().count(), 1);
    write_key(&path);
    assert_eq!(drift(&bench, text).await.len(), 1);
    assert_eq!(key_file(&bench).await, own_key(&bench));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_no_key_defines_no_cluster() {
    let mut bench = Bench::new().await;
    let (directory, path) = directory();
    let public = directory.path().join("id.pub");
    std::fs::write(&public, write_key(&path)).unwrap();
    let text = topology(&format!("{{key_path: {}}}", public.display()));
    let error = bench.fails("cluster_define", text).await;
    assert_eq!(error.code, ErrorCode::TopologyInvalid);
    assert_eq!(error.subject.as_deref(), Some("ssh.key_path"));
    assert_eq!(error.hint, Some(format!("name the private one: {}", path.display())));
    bench.log_in_by("ops", directory.path()).await;
    let error = bench.fails("cluster_define", topology("{}")).await;
    assert!(error.message.ends_with("it is no regular file"), "{}", error.message);
    assert!(error.hint.unwrap().contains("unset `cluster.ssh_key_path`"));
    assert_eq!(bench.ok("cluster_list", json!({})).await["total"], 0);
    bench.assert_consistent("after refusals").await;
}

#[tokio::test(start_paused = true)]
async fn settings_hold_where_the_text_is_silent_and_later_ones_are_drift() {
    let mut bench = Bench::new().await;
    let (_directory, path) = directory();
    let public = write_key(&path);
    bench.log_in_by("ops", &path).await;
    let silent = topology("{connect_timeout_s: 7}");
    let shown = bench.ok("topology_show", silent.clone()).await;
    assert!(shown["yaml"].as_str().unwrap().contains("user: ops"), "{shown}");
    bench.ok("cluster_define", silent.clone()).await;
    assert_eq!(drift(&bench, silent.clone()).await, [[""; 3]; 0]);

    // The settings are gone before the first start.
    bench.restart().await;
    bench.ok("cluster_start", json!({"cluster_name": "duo"})).await;
    let login = bench.exec("duo/web", "get-disk login.ops").await;
    assert!(login.ends_with(public.trim_end()), "{login}");
    let info = bench.ok("connect_info", json!({"address": "duo/web"})).await;
    assert_eq!((&info["user"], &info["connect_timeout_s"]), (&"ops".into(), &7.into()));
    assert!(info["command"].as_str().unwrap().contains(" -o ConnectTimeout=7 "), "{info}");
    assert_eq!(key_file(&bench).await, path);
    bench.exec("duo/web", "set-mem no-ssh yes").await;
    let mute = json!({"cluster_name": "duo", "snapshot_name": "mute", "include_memory": true});
    bench.ok("snapshot_create", mute).await;
    let back = json!({"cluster_name": "duo", "snapshot_name": "mute"});
    let error = bench.fails("snapshot_revert", back).await;
    assert!(error.message.contains(" of web within 7s"), "{}", error.message);
    let mut told = drift(&bench, silent).await;
    told.sort();
    let key = ["ssh.key_path", path.to_str().unwrap(), "nothing"].map(str::to_owned);
    assert_eq!(told, [key, ["ssh.user", "ops", "root"].map(str::to_owned)]);
}
