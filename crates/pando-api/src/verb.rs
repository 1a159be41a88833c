//! The description of one verb: all that a front end needs to offer it.

use serde_json::{Map, Value};

/// A group of verbs that are shown together.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Toolset {
    /// Virtual machines.
    Machine,
    /// Clusters of several machines: topologies, nodes, snapshots.
    Cluster,
    /// Branches.
    Branch,
    /// Commits and tags.
    Commit,
    /// Commands, files and consoles inside machines.
    Exec,
    /// Images.
    Image,
    /// What was done, what the state is, what differs.
    State,
    /// Networks and what they are made to do wrong.
    Fault,
    /// Operations.
    Operation,
    /// The daemon and the host.
    System,
}

impl Toolset {
    /// Every toolset, in the order of the reference.
    pub const ALL: &'static [Self] = &[
        Self::Machine,
        Self::Cluster,
        Self::Branch,
        Self::Commit,
        Self::Exec,
        Self::Image,
        Self::State,
        Self::Fault,
        Self::Operation,
        Self::System,
    ];

    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Cluster => "cluster",
            Self::Branch => "branch",
            Self::Commit => "commit",
            Self::Exec => "exec",
            Self::Image => "image",
            Self::State => "state",
            Self::Fault => "fault",
            Self::Operation => "operation",
            Self::System => "system",
        }
    }

    /// Returns what its verbs are about, as a sentence.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Machine => "Create, look at and control virtual machines.",
            Self::Cluster => {
                "Several machines and their networks, from one text: define, start, snapshot."
            }
            Self::Branch => "Live copies of running machines: make them, switch, roll back.",
            Self::Commit => "Whole states of a machine, to come back to, and their names.",
            Self::Exec => "Commands, files and consoles inside machines.",
            Self::Image => "What machines start from.",
            Self::State => "What was done, what the state is, what differs and because of what.",
            Self::Fault => "Break a branch's network on purpose, measure it, heal it.",
            Self::Operation => "Every change is an operation, which can be watched and cancelled.",
            Self::System => "The daemon and its host.",
        }
    }
}

/// What a verb does to pando's objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing.
    Read,
    /// Makes or changes; nothing is lost.
    Write,
    /// May lose what is not committed or tagged.
    Destructive,
}

impl Effect {
    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
        }
    }
}

/// Whether a verb is an operation, which can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runs {
    /// Answers directly.
    Directly,
    /// Answers directly, and is an operation where it is started or has an idempotency key: commands.
    Either,
    /// Is recorded as an operation first; [`crate::Control::start`] returns it at once.
    AsOperation,
}

/// Another name under which a verb can be called, with the parameter names of its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// The other name.
    pub name: &'static str,
    /// Its parameter names that differ: (theirs, ours).
    pub renames: &'static [(&'static str, &'static str)],
    /// Parameters that it implies: (ours, a JSON value).
    pub presets: &'static [(&'static str, &'static str)],
}

/// How a text argument of the CLI becomes a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// A path on this machine: made absolute, since the daemon's directory is another.
    HostPath,
    /// `@FILE` stands for the file's contents.
    Contents,
    /// A path (with a `/`, or ending in `.yaml`, `.yml` or `.json`) stands for the file's contents;
    /// anything else is a topology's name.
    Topology,
}

/// How a verb looks as a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cli {
    /// The words of the command: `["vm", "create"]`.
    pub path: &'static [&'static str],
    /// Parameters that are given by position, in order; the last may be a list.
    pub positionals: &'static [&'static str],
    /// One-letter flags: (letter, parameter).
    pub shorts: &'static [(char, &'static str)],
    /// Parameters whose text needs more than parsing.
    pub hints: &'static [(&'static str, Hint)],
    /// Whether the CLI has a hand-written command in place of the generated one.
    pub by_hand: bool,
}

/// One verb.
#[derive(Debug, Clone)]
pub struct Verb {
    /// `noun_verb`.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [Alias],
    /// Its group.
    pub toolset: Toolset,
    /// What it does to pando's objects.
    pub effect: Effect,
    /// Whether it is an operation.
    pub runs: Runs,
    /// One line.
    pub summary: &'static str,
    /// How it looks as a command.
    pub cli: Cli,
    /// JSON schema of its parameters; the root is an object.
    pub params: Value,
    /// JSON schema of its result; the root is an object.
    pub result: Value,
}

/// Verbs that change something and, called again with the same parameters, change nothing more.
const IDEMPOTENT: &[&str] = &[
    "vm_delete",
    "cluster_define",
    "cluster_start",
    "cluster_stop",
    "cluster_destroy",
    "branch_checkout",
    "branch_delete",
    "commit_delete",
    "tag_set",
    "tag_delete",
    "file_push",
    "image_remove",
    "net_heal_all",
    "operation_cancel",
    "gc",
];

impl Verb {
    /// Returns its summary as a title: without the full stop.
    pub fn title(&self) -> &'static str {
        self.summary.trim_end_matches('.')
    }

    /// Returns whether calling it again with the same parameters changes nothing more.
    pub fn is_idempotent(&self) -> bool {
        self.effect == Effect::Read || IDEMPOTENT.contains(&self.name)
    }

    /// Returns the verb that has this name or alias.
    pub fn find(name: &str) -> Option<&'static Verb> {
        Self::resolve(name).map(|(verb, _)| verb)
    }

    /// Returns the verb that has this name or alias, and the alias if it was one.
    pub fn resolve(name: &str) -> Option<(&'static Verb, Option<&'static Alias>)> {
        crate::catalogue().iter().find_map(|verb| {
            if verb.name == name {
                return Some((verb, None));
            }
            let alias = verb.aliases.iter().find(|alias| alias.name == name)?;
            Some((verb, Some(alias)))
        })
    }

    /// Returns the whole description: the doc text of its parameters' type.
    pub fn description(&self) -> &str {
        self.params.get("description").and_then(Value::as_str).unwrap_or(self.summary)
    }

    /// Returns the schemas of its parameters by name.
    pub fn properties(&self) -> Option<&Map<String, Value>> {
        self.params.get("properties").and_then(Value::as_object)
    }

    /// Returns whether a parameter must be given.
    pub fn is_required(&self, parameter: &str) -> bool {
        self.params
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|names| names.iter().any(|name| name == parameter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotent_verbs_exist_and_do_more_than_read() {
        for name in IDEMPOTENT {
            let verb = crate::catalogue().iter().find(|verb| verb.name == *name);
            assert!(verb.is_some_and(|verb| verb.effect != Effect::Read), "{name}");
        }
    }
}
