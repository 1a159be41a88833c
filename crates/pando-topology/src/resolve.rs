//! From what is written to what it means: defaults, addresses, and everything that single values
//! cannot say. All errors of a text are found in one pass; a wrong value is replaced by a harmless
//! one, so that it does not cause further errors.

mod addresses;
mod bridges;
mod forwards;
mod networks;
mod nodes;
mod texts;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use pando_model::Name;
use pando_model::cluster::SshDefaults;

pub use self::texts::{is_clean_path, is_user_name};
use crate::error::Place;
use crate::input::{SshInput, TopologyInput};
use crate::record::{Entries, List};
use crate::report::{At, Report};
use crate::scalar::{Integer, Named};
use crate::topology::{ImageRef, Ssh, Topology};

/// The image of nodes when nothing is said.
const DEFAULT_IMAGE: &str = "default";

/// Returns what `input` means; what is wrong with it is in `report`.
pub fn topology(
    report: &mut Report<'_>,
    root: Place,
    input: TopologyInput,
    defaults: &SshDefaults,
) -> Option<Topology> {
    let whole = At { path: String::new(), place: root, value: () };
    let name = either(report, input.name, input.cluster_name);
    if name.is_none() {
        report.wrong(&whole, "`name` is missing", "add `name: …`, the cluster's name");
    }
    if let Some(at) = &input.overlay_dir {
        report.note(at, "not used: pando keeps disks in its home (`PANDO_HOME`)");
    }
    let image = either(report, input.image, input.base_image)
        .and_then(|at| texts::image(report, &at))
        .unwrap_or_else(|| ImageRef { name: DEFAULT_IMAGE.to_owned(), file: None });
    let networks = networks::networks(report, &whole, input.network, input.networks);
    let drafts = nodes::nodes(report, input.nodes, &image, &networks);
    let (nodes, node_forwards) = addresses::assign(report, &networks, drafts);
    let names: Vec<&Name> = nodes.iter().map(|node| &node.name).collect();
    let forwards = forwards::forwards(report, &names, input.forwards, node_forwards);
    let ssh = ssh(report, input.ssh, defaults);
    let snapshots = snapshots(report, input.snapshots);
    let labels = texts::labels(report, input.labels);
    Some(Topology {
        name: name?.value.0,
        description: input.description.map(|at| at.value.0).unwrap_or_default(),
        networks: networks.into_iter().map(|planned| planned.network).collect(),
        nodes,
        forwards,
        ssh,
        snapshots,
        labels,
        notes: Vec::new(),
    })
}

/// Returns the one of two keys that is given.
fn either<T>(
    report: &mut Report<'_>,
    first: Option<At<T>>,
    second: Option<At<T>>,
) -> Option<At<T>> {
    if let (Some(first), Some(second)) = (&first, &second) {
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let (one, other) = (last(&first.path), last(&second.path));
        let message = format!("`{other}` says the same as `{one}` at {}", first.place);
        report.wrong(second, message, "keep one of the two");
    }
    first.or(second)
}

/// Returns a number within `range`.
fn ranged<T>(
    report: &mut Report<'_>,
    at: &At<Integer>,
    range: RangeInclusive<i64>,
    fix: &str,
) -> Option<T>
where
    T: TryFrom<i64>,
{
    let Integer(number) = at.value;
    if range.contains(&number) {
        return T::try_from(number).ok();
    }
    let (least, most) = range.into_inner();
    report.wrong(at, format!("{number} is out of range: {least} to {most}"), fix);
    None
}

/// Returns the entries of a list that are within its limit.
fn limited<T>(
    report: &mut Report<'_>,
    list: Option<At<List<T>>>,
    most: usize,
    what: &str,
) -> Vec<At<T>> {
    let Some(list) = list else { return Vec::new() };
    let count = list.value.0.len();
    if count > most {
        report.wrong(
            &list,
            format!("there are {count} {what}, but at most {most} are possible"),
            format!("keep {most}"),
        );
        return Vec::new();
    }
    list.value.0
}

/// Names that are taken, and where.
#[derive(Default)]
struct Taken(BTreeMap<String, Place>);

impl Taken {
    /// Takes a name, unless it is taken.
    fn take<T>(&mut self, report: &mut Report<'_>, at: &At<T>, what: &str, name: &str) -> bool {
        let Some(first) = self.0.get(name) else {
            self.0.insert(name.to_owned(), at.place);
            return true;
        };
        report.wrong(
            at,
            format!("{what} `{name}` is there twice; first at {first}"),
            "choose another",
        );
        false
    }
}

fn ssh(report: &mut Report<'_>, input: Option<At<SshInput>>, defaults: &SshDefaults) -> Ssh {
    let mut ssh = Ssh { key_path: defaults.key_path.clone(), ..Ssh::default() };
    if let Some(user) = &defaults.user {
        ssh.user.clone_from(user);
    }
    let Some(At { value: input, .. }) = input else { return ssh };
    if let Some(path) = input.key_path.and_then(|at| texts::key_path(report, &at)) {
        ssh.key_path = Some(path);
    }
    if let Some(user) = input.user.and_then(|at| texts::user_name(report, &at)) {
        ssh.user = user;
    }
    if let Some(at) = input.connect_timeout_s {
        let fix = "write whole seconds";
        ssh.connect_timeout_s = ranged(report, &at, 1..=3600, fix).unwrap_or(ssh.connect_timeout_s);
    }
    ssh
}

fn snapshots(report: &mut Report<'_>, input: Option<At<Entries<Named>>>) -> BTreeMap<Name, Name> {
    let entries = texts::entries(report, input);
    let mut snapshots = BTreeMap::new();
    for (key, At { value: Named(tag), .. }) in entries {
        match key.value.parse::<Name>() {
            Ok(name) => drop(snapshots.insert(name, tag)),
            Err(source) => {
                let fix = "use lower-case letters, digits and `-`";
                report.wrong(&key, source.to_string(), fix);
            }
        }
    }
    snapshots
}
