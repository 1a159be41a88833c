//! Keys of the user's own: OpenSSH's client logs in to real machines with them, and with no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Home, text};

const PAIR: &str = "name: pair
image: default
ssh: {connect_timeout_s: 20}
nodes: [{name: a, memory: 256 MiB}, {name: b, memory: 256 MiB}]
";

/// Makes a private key as people do, without its public half beside it.
fn make_key(home: &Home, name: &str, kind: &str, passphrase: &str) -> PathBuf {
    let path = home.path().with_file_name(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-f"])
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    fs::remove_file(path.with_extension("pub")).unwrap();
    path
}

/// Runs `id -un` through OpenSSH's own client, which is given one key and none of our doing.
fn log_in(key: &Path, user: &str, port: u64) -> Result<String, String> {
    let output = Command::new("ssh")
        .args(["-F", "/dev/null", "-p", &port.to_string(), "-i"])
        .arg(key)
        .args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .arg(format!("{user}@127.0.0.1"))
        .args(["id", "-un"])
        .env_remove("SSH_AUTH_SOCK")
        .output()
        .unwrap();
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(words(&output.stdout)),
        false => Err(words(&output.stderr)),
    }
}

/// Returns the key and origin of each setting that is not a default.
fn origins(home: &Home) -> Vec<[String; 2]> {
    let shown = home.ok(&["config", "show"]);
    let settings = shown["settings"].as_array().unwrap().iter();
    let set = settings.filter(|one| text(one, "key").starts_with("cluster.ssh_"));
    set.map(|one| ["key", "origin"].map(|field| text(one, field).to_owned())).collect()
}

#[test]
fn a_key_of_the_users_own_logs_in_and_no_strangers_does() {
    let mut home = Home::new();
    let key = make_key(&home, "id", "ecdsa", "");
    let stranger = make_key(&home, "stranger", "ed25519", "");
    let locked = make_key(&home, "locked", "rsa", "a passphrase");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let config = path(&home.path().with_file_name("config.yaml"));
    let theirs = format!("ssh_key_path: {}\nssh_user: ops\noverlay_dir: /o\n", key.display());
    fs::write(&config, theirs).unwrap();
    home.set("VMCLUSTER_CONFIG", config.clone());
    let expected = ["cluster.ssh_user", "cluster.ssh_key_path"].map(str::to_owned);
    assert_eq!(origins(&home), expected.map(|key| [key, config.clone()]));
    let ignored = &home.ok(&["config", "show"])["ignored"];
    assert_eq!((ignored.as_array().unwrap().len(), &ignored[0]["file"]), (1, &json!(config)));

    let file = path(&home.path().with_file_name("pair.yaml"));
    fs::write(&file, PAIR.replace("20}", &format!("20, key_path: {}}}", locked.display())))
        .unwrap();
    let defined = home.ok(&["cluster", "define", &file]);
    assert!(defined["notes"][0].as_str().unwrap().contains("has a passphrase"), "{defined}");
    home.ok(&["cluster", "destroy", "pair", "--remove-overlays"]);
    fs::write(&file, PAIR).unwrap();
    assert_eq!(home.ok(&["cluster", "define", &file])["notes"], json!([]));
    home.ok(&["cluster", "start", "pair"]);
    let info = home.ok(&["connect-info", "pair/a"]);
    let told = ["key_path", "user"].map(|field| text(&info, field).to_owned());
    assert_eq!((told, &info["connect_timeout_s"]), ([path(&key), "ops".to_owned()], &json!(20)));
    let handle = home.ok(&["cluster", "handle", "pair"]);
    for node in handle["nodes"].as_array().unwrap() {
        assert_eq!(text(node, "ssh_key_path"), path(&key));
        let port = node["ssh_port"].as_u64().unwrap();
        for user in ["ops", "root"] {
            assert_eq!(log_in(&key, user, port).as_deref(), Ok(user));
            for other in [&stranger, &locked] {
                let refused = log_in(other, user, port).unwrap_err();
                assert!(refused.contains("Permission denied"), "{refused}");
            }
        }
    }
    let by_pando = |address: &str| {
        let output = home.run(&["ssh", address, "--", "id -un; hostname"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(by_pando("pair/b"), "ops\nb\n");

    // Another key at the same path does not get in; the cluster's own does.
    fs::rename(&stranger, &key).unwrap();
    let again = home.ok(&["cluster", "define", &file]);
    assert_eq!(
        (&again["created"], &again["drift"][0]["path"]),
        (&false.into(), &"ssh.key_path".into())
    );
    let port = |info: &Value| info["port"].as_u64().unwrap();
    assert!(log_in(&key, "ops", port(&info)).is_err());
    assert_eq!(by_pando("pair/b"), "ops\nb\n");
    home.ok(&["branch", "pair", "--name", "copy"]);
    assert_eq!(by_pando("pair@copy/a"), "ops\na\n");
    home.ok(&["cluster", "destroy", "pair", "--remove-overlays"]);
    home.assert_nothing_left();
}
