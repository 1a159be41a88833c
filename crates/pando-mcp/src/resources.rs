//! Things as resources: `pando://` addresses that a person can point a client at. Each is one
//! read of the catalogue, so nothing is readable here that a tool would not show.

use std::collections::BTreeMap;

use pando_api::{ApiError, Call};
use pando_model::ErrorCode;
use serde_json::{Value, json};

use crate::calls::Calls;
use crate::limits::{MAX_URI_BYTES, RESOURCES_PER_KIND, TEXT_BYTES};

const SCHEME: &str = "pando://";

/// A kind of resource.
pub struct Template {
    /// Its URI template.
    pub uri: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// What its text is.
    pub mime: &'static str,
}

/// Every kind that needs an argument.
pub const TEMPLATES: &[Template] = &[
    Template {
        uri: "pando://machine/{address}",
        name: "machine",
        description: "What a machine is doing: state, health, resources, network. \
            CLUSTER[@BRANCH][/NODE].",
        mime: "application/json",
    },
    Template {
        uri: "pando://cluster/{address}",
        name: "cluster",
        description: "What a cluster's nodes and network are doing. CLUSTER[@BRANCH].",
        mime: "application/json",
    },
    Template {
        uri: "pando://faults/{address}",
        name: "faults",
        description: "What is broken in a branch's network, and what that did. CLUSTER[@BRANCH].",
        mime: "application/json",
    },
    Template {
        uri: "pando://topology/{name}",
        name: "topology",
        description: "A topology that clusters are defined from, complete.",
        mime: "application/json",
    },
    Template {
        uri: "pando://branches/{cluster}",
        name: "branches",
        description: "The branches of a cluster.",
        mime: "application/json",
    },
    Template {
        uri: "pando://commits/{cluster}",
        name: "commits",
        description: "The commits of a cluster, newest first, with their parents.",
        mime: "application/json",
    },
    Template {
        uri: "pando://commit/{id}",
        name: "commit",
        description: "One commit: an id or CLUSTER@TAG.",
        mime: "application/json",
    },
    Template {
        uri: "pando://operation/{id}",
        name: "operation",
        description: "One operation with its steps, and its result or error.",
        mime: "application/json",
    },
    Template {
        uri: "pando://image/{name}",
        name: "image",
        description: "An image that machines are made from.",
        mime: "application/json",
    },
    Template {
        uri: "pando://console/{address}",
        name: "console",
        description: "The end of a machine's serial console: boot messages and the kernel's log.",
        mime: "text/plain",
    },
];

/// One resource of a list.
pub struct Entry {
    /// Where it is.
    pub uri: String,
    /// Its name.
    pub name: String,
    /// What it shows.
    pub description: String,
    /// What its text is.
    pub mime: &'static str,
}

/// What a resource holds.
pub struct Contents {
    /// The text.
    pub text: String,
    /// What the text is.
    pub mime: &'static str,
}

/// Returns what there is: the lists, and every machine, branch and operation under way.
///
/// # Errors
/// Those of the reads.
pub async fn list(calls: &Calls) -> Result<Vec<Entry>, ApiError> {
    let fixed = |uri: &str, name: &str, description: &str| Entry {
        uri: uri.to_owned(),
        name: name.to_owned(),
        description: description.to_owned(),
        mime: "application/json",
    };
    let mut entries = vec![
        fixed("pando://machines", "machines", "All machines."),
        fixed("pando://clusters", "clusters", "All clusters."),
        fixed("pando://topologies", "topologies", "What clusters can be defined from by name."),
        fixed("pando://branches", "branches", "All branches."),
        fixed("pando://operations", "operations", "Operations, newest first."),
    ];
    let rows = async |verb: &str, list: &str, params: Value| -> Result<Vec<Value>, ApiError> {
        let call = Call::parse(verb, params)?;
        if !calls.profile.permits(call.verb()) {
            return Ok(Vec::new());
        }
        let page = calls.control.call(&calls.caller(), call).await?;
        Ok(page.get(list).and_then(Value::as_array).cloned().unwrap_or_default())
    };
    let text = |row: &Value, name: &str| {
        row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    // A row is a node.
    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows("vm_list", "vms", json!({"limit": RESOURCES_PER_KIND})).await? {
        *nodes.entry(text(&row, "name")).or_default() += 1;
    }
    for name in nodes.keys() {
        entries.push(fixed(
            &format!("{SCHEME}commits/{name}"),
            &format!("{name}: commits"),
            "Its commits, newest first.",
        ));
    }
    for row in rows("branch_list", "branches", json!({"limit": RESOURCES_PER_KIND})).await? {
        let (address, state) = (text(&row, "address"), text(&row, "state"));
        let description = format!("A branch, {state}.");
        let cluster = address.split_once('@').map_or(address.as_str(), |(cluster, _)| cluster);
        if nodes.get(cluster).is_some_and(|nodes| *nodes > 1) {
            entries.push(fixed(&format!("{SCHEME}cluster/{address}"), &address, &description));
            entries.push(fixed(
                &format!("{SCHEME}faults/{address}"),
                &format!("{address}: faults"),
                "What is broken in its network.",
            ));
            continue;
        }
        entries.push(fixed(&format!("{SCHEME}machine/{address}"), &address, &description));
        entries.push(Entry {
            uri: format!("{SCHEME}console/{address}"),
            name: format!("{address}: console"),
            description: "The end of its serial console.".to_owned(),
            mime: "text/plain",
        });
    }
    let running = json!({"status": "running", "limit": RESOURCES_PER_KIND});
    for row in rows("operation_list", "operations", running).await? {
        let id = text(&row, "operation_id");
        let verb = text(&row, "verb");
        entries.push(fixed(
            &format!("{SCHEME}operation/{id}"),
            &format!("{verb} {id}"),
            "Under way.",
        ));
    }
    Ok(entries)
}

/// Returns what a resource holds.
///
/// # Errors
/// `not_found` for what is no resource of ours, and those of the read.
pub async fn read(calls: &Calls, uri: &str) -> Result<Contents, ApiError> {
    let call = call(uri)?;
    calls.profile.check(call.verb())?;
    let is_console = matches!(call, Call::ConsoleRead(_));
    let result = calls.control.call(&calls.caller(), call).await?;
    if is_console {
        let text = result.get("text").and_then(Value::as_str).unwrap_or_default();
        return Ok(Contents { text: text.to_owned(), mime: "text/plain" });
    }
    Ok(Contents { text: result.to_string(), mime: "application/json" })
}

/// Returns the read that a URI stands for.
///
/// # Errors
/// `not_found` for what is no resource of ours, `invalid_parameter` for what is no address or id.
pub fn call(uri: &str) -> Result<Call, ApiError> {
    let (verb, params) = of_uri(uri)?;
    Call::parse(verb, params)
}

fn of_uri(uri: &str) -> Result<(&'static str, Value), ApiError> {
    let unknown = || {
        let shown: String = uri.chars().take(120).collect();
        let known: Vec<&str> = TEMPLATES.iter().map(|template| template.uri).collect();
        ApiError::new(ErrorCode::NotFound, format!("there is no resource {shown}"))
            .hint(format!("pando://machines, pando://clusters, {}", known.join(", ")))
    };
    if uri.len() > MAX_URI_BYTES {
        return Err(unknown());
    }
    let path = decoded(uri.strip_prefix(SCHEME).ok_or_else(unknown)?).ok_or_else(unknown)?;
    let path = path.trim_end_matches('/');
    let (kind, of) = path.split_once('/').unwrap_or((path, ""));
    Ok(match (kind, of) {
        ("machines", "") => ("vm_list", json!({"limit": RESOURCES_PER_KIND})),
        ("clusters", "") => ("cluster_list", json!({"limit": RESOURCES_PER_KIND})),
        ("topologies", "") => ("topology_list", json!({"limit": RESOURCES_PER_KIND})),
        ("branches", "") => ("branch_list", json!({"limit": RESOURCES_PER_KIND})),
        ("operations", "") => ("operation_list", json!({"limit": RESOURCES_PER_KIND})),
        (_, "") => return Err(unknown()),
        ("machine" | "branch", address) => ("vm_status", json!({"address": address})),
        ("cluster", address) => ("cluster_status", json!({"cluster_name": address})),
        ("faults", address) => ("net_fault_list", json!({"cluster_name": address})),
        ("topology", name) => ("topology_show", json!({"topology": name})),
        ("branches", cluster) => {
            ("branch_list", json!({"cluster": cluster, "limit": RESOURCES_PER_KIND}))
        }
        ("commits", cluster) => {
            ("commit_list", json!({"cluster": cluster, "limit": RESOURCES_PER_KIND}))
        }
        ("commit", commit) => ("commit_show", json!({"commit": commit})),
        ("operation", id) => ("operation_get", json!({"id": id})),
        ("image", image) => ("image_show", json!({"image": image})),
        ("console", address) => {
            ("console_read", json!({"address": address, "tail_bytes": TEXT_BYTES}))
        }
        _ => return Err(unknown()),
    })
}

/// Returns a text with its `%XX` decoded; `None` if that is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_reads() {
        let cases = [
            ("pando://machines", Some("vm_list")),
            ("pando://machine/shop@main/db", Some("vm_status")),
            ("pando://machine/shop%40main", Some("vm_status")),
            ("pando://clusters", Some("cluster_list")),
            ("pando://cluster/trio@left", Some("cluster_status")),
            ("pando://faults/trio@left", Some("net_fault_list")),
            ("pando://topologies", Some("topology_list")),
            ("pando://topology/etcd", Some("topology_show")),
            ("pando://branches/shop", Some("branch_list")),
            ("pando://commit/cm_0123456789ab", Some("commit_show")),
            ("pando://operation/op_0123456789ab", Some("operation_get")),
            ("pando://console/shop", Some("console_read")),
            ("pando://image/default", Some("image_show")),
            ("pando://machine", None),
            ("pando://cluster", None),
            ("pando://secrets/x", None),
            ("file:///etc/passwd", None),
            ("pando://machine/%zz", None),
            ("pando://machine/%c3", None),
        ];
        for (uri, verb) in cases {
            assert_eq!(of_uri(uri).ok().map(|(verb, _)| verb), verb, "{uri}");
        }
        assert!(of_uri(&format!("pando://machine/{}", "x".repeat(1 << 20))).is_err());
    }

    #[test]
    fn templates_are_readable() {
        for template in TEMPLATES {
            let uri = template
                .uri
                .replace("{address}", "shop")
                .replace("{cluster}", "shop")
                .replace("{name}", "default")
                .replace("{id}", "op_0123456789ab");
            let (verb, params) = of_uri(&uri).unwrap();
            assert!(Call::parse(verb, params).is_ok(), "{uri}");
        }
    }
}
