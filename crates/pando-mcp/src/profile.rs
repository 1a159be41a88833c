//! Which verbs a server offers. A profile is chosen by the process's arguments, or by the URL over
//! HTTP, and never changes.
//!
//! Two questions, two answers: what a profile *permits* may be called; what it *lists* is shown as
//! a tool. The default lists the everyday verbs and permits all; `tool_find` leads to the rest.

use std::collections::BTreeSet;

use pando_api::{ApiError, Effect, Toolset, Verb, catalogue};
use pando_model::ErrorCode;

/// What most sessions need: machines, clusters, networks that break, and what makes them branch.
/// Everything else is a `tool_find` away.
const EVERYDAY: &[&str] = &[
    "vm_create",
    "vm_list",
    "vm_status",
    "vm_control",
    "vm_delete",
    "cluster_define",
    "cluster_start",
    "cluster_status",
    "branch_create",
    "branch_list",
    "branch_rollback",
    "branch_delete",
    "commit_create",
    "commit_list",
    "exec_run",
    "exec_fanout",
    "file_push",
    "file_pull",
    "state_diff",
    "net_partition",
    "net_heal_all",
    "operation_wait",
    "operation_cancel",
];

/// What every profile permits, since any call may turn into an operation.
const FOLLOW: &[&str] = &["operation_get", "operation_wait", "operation_cancel"];

/// What runs commands in machines outside the toolset for that.
const RUNS_COMMANDS: &[&str] = &["node_exec", "node_exec_all"];

/// What somebody does with machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Works in machines: changes machines, branches, commits and what is in them.
    Dev,
    /// Looks after machines: changes machines, branches, commits, images and the host, and runs
    /// nothing in them.
    Ops,
    /// Everything, all of it listed.
    Admin,
    /// Shows what there is to somebody: reads, and changes nothing.
    Ui,
    /// Experiments: builds images, makes machines and does to them what it likes. Changes
    /// everything but the host, all of it listed.
    Lab,
}

impl Role {
    /// Every role with its name.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("dev", Self::Dev),
        ("ops", Self::Ops),
        ("admin", Self::Admin),
        ("ui", Self::Ui),
        ("lab", Self::Lab),
    ];

    /// Returns the role of a name.
    ///
    /// # Errors
    /// `invalid_parameter` with the names that exist.
    pub fn named(name: &str) -> Result<Self, ApiError> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, role)| *role).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            let known: Vec<&str> = Self::ALL.iter().map(|(known, _)| *known).collect();
            ApiError::parameter("role", format!("there is no role `{shown}`"))
                .hint(format!("one of {}", known.join(", ")))
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Ops => "ops",
            Self::Admin => "admin",
            Self::Ui => "ui",
            Self::Lab => "lab",
        }
    }

    /// Returns whether the role may change things of a toolset. Reading is open to all.
    fn changes(self, verb: &Verb) -> bool {
        let toolset = verb.toolset;
        match self {
            Self::Admin => true,
            Self::Dev => !matches!(toolset, Toolset::Image | Toolset::System),
            Self::Ops => toolset != Toolset::Exec && !RUNS_COMMANDS.contains(&verb.name),
            Self::Ui => false,
            Self::Lab => !matches!(toolset, Toolset::System),
        }
    }
}

/// Whether anything may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// What the role allows.
    #[default]
    Full,
    /// Nothing.
    ReadOnly,
}

/// Under which names verbs are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Names {
    /// Their own.
    #[default]
    Own,
    /// Those of earlier systems, where a verb has such a name.
    Compat,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Profile {
    /// Only these toolsets, all of them listed; `None` leaves it to the role.
    pub toolsets: Option<BTreeSet<Toolset>>,
    /// Whose work it is; `None` permits everything and lists the everyday verbs.
    pub role: Option<Role>,
    /// Whether anything may be changed.
    pub access: Access,
    /// Under which names verbs are listed.
    pub names: Names,
}

impl Profile {
    /// Returns the toolsets that a comma-separated list names.
    ///
    /// # Errors
    /// `invalid_parameter` with the names that exist.
    pub fn toolsets(list: &str) -> Result<BTreeSet<Toolset>, ApiError> {
        let parsed = list.split(',').map(|name| {
            let name = name.trim();
            let found = Toolset::ALL.iter().copied().find(|toolset| toolset.as_str() == name);
            found.ok_or_else(|| {
                let known: Vec<&str> = Toolset::ALL.iter().map(|known| known.as_str()).collect();
                let shown: String = name.chars().take(64).collect();
                ApiError::parameter("toolset", format!("there is no toolset `{shown}`"))
                    .hint(format!("one or more of {}", known.join(",")))
            })
        });
        parsed.collect()
    }

    /// Returns the profile that the query of a URL names.
    ///
    /// # Errors
    /// `invalid_parameter` for what is unknown, repeated or not understood: a profile that was
    /// meant to permit less must not permit more.
    pub fn of_query(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        let mut profile = Self::default();
        let mut seen = BTreeSet::new();
        for (name, value) in pairs {
            if !seen.insert(name) {
                return Err(ApiError::parameter(name, format!("`{name}` is given twice")));
            }
            let yes = || match value.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(ApiError::parameter(name, format!("`{name}` must be true or false"))),
            };
            match name.as_str() {
                "role" => profile.role = Some(Role::named(value)?),
                "toolset" => profile.toolsets = Some(Self::toolsets(value)?),
                "read_only" if yes()? => profile.access = Access::ReadOnly,
                "compat" if yes()? => profile.names = Names::Compat,
                "read_only" | "compat" => {}
                _ => {
                    let shown: String = name.chars().take(64).collect();
                    let message = format!("the URL has no parameter `{shown}`");
                    return Err(ApiError::parameter(&shown, message)
                        .hint("any of role, toolset, read_only and compat"));
                }
            }
        }
        Ok(profile)
    }

    /// Returns whether a verb may be called.
    pub fn permits(&self, verb: &Verb) -> bool {
        if self.access == Access::ReadOnly && verb.effect != Effect::Read {
            return false;
        }
        if FOLLOW.contains(&verb.name) {
            return true;
        }
        let in_toolset = self.toolsets.as_ref().is_none_or(|sets| sets.contains(&verb.toolset));
        let in_role =
            verb.effect == Effect::Read || self.role.is_none_or(|role| role.changes(verb));
        in_toolset && in_role
    }

    /// Returns whether a verb is shown as a tool.
    pub fn lists(&self, verb: &Verb) -> bool {
        let shown = match (&self.toolsets, self.role) {
            (Some(_), _) | (None, Some(Role::Admin)) => true,
            (None, Some(Role::Ops)) => verb.toolset != Toolset::Exec,
            (None, Some(Role::Lab)) => verb.toolset != Toolset::System,
            (None, None | Some(Role::Dev | Role::Ui)) => EVERYDAY.contains(&verb.name),
        };
        shown && self.permits(verb)
    }

    /// Returns every verb that may be called.
    pub fn permitted(&self) -> impl Iterator<Item = &'static Verb> + '_ {
        catalogue().iter().filter(|verb| self.permits(verb))
    }

    /// Returns whether there are verbs that may be called and are not shown.
    pub fn has_unlisted(&self) -> bool {
        self.permitted().any(|verb| !self.lists(verb))
    }

    /// Refuses a verb that may not be called, saying which argument would permit it.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check(&self, verb: &Verb) -> Result<(), ApiError> {
        if self.permits(verb) {
            return Ok(());
        }
        let (why, remedy) = if self.access == Access::ReadOnly && verb.effect != Effect::Read {
            (
                "it only reads".to_owned(),
                "`pando mcp` without `--read-only`, or a URL without `read_only=true`".to_owned(),
            )
        } else if self.toolsets.as_ref().is_some_and(|sets| !sets.contains(&verb.toolset)) {
            let name = verb.toolset.as_str();
            (
                format!("the toolset `{name}` is not open"),
                format!("`pando mcp --toolset {name}`, or `toolset={name}` in the URL"),
            )
        } else {
            let role = self.role.map_or("", Role::name);
            (
                format!("the role `{role}` does not do that"),
                "`pando mcp --role admin`, or `role=admin` in the URL".to_owned(),
            )
        };
        Err(ApiError::new(
            ErrorCode::Forbidden,
            format!("this server does not permit `{}`: {why}", verb.name),
        )
        .subject(verb.name)
        .hint(format!("whoever configured this server can permit it: {remedy}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyday_verbs_exist() {
        for name in EVERYDAY.iter().chain(FOLLOW).chain(RUNS_COMMANDS) {
            assert!(catalogue().iter().any(|verb| verb.name == *name), "{name}");
        }
    }

    #[test]
    fn a_cluster_is_made_broken_and_healed_with_the_everyday_verbs() {
        for toolset in [Toolset::Cluster, Toolset::Fault, Toolset::Branch, Toolset::Commit] {
            let of_it = |name: &&&str| Verb::find(name).is_some_and(|verb| verb.toolset == toolset);
            assert!(EVERYDAY.iter().filter(of_it).count() >= 2, "{toolset:?}");
        }
        for name in ["cluster_define", "cluster_start", "net_partition", "net_heal_all"] {
            assert!(EVERYDAY.contains(&name), "{name}");
        }
    }

    #[test]
    fn what_is_listed_is_permitted_and_reading_changes_nothing() {
        let sets = [None, Profile::toolsets("exec").ok(), Profile::toolsets("image,commit").ok()];
        let named = Role::ALL.iter().map(|(_, role)| Some(*role));
        let roles: Vec<Option<Role>> = named.chain([None]).collect();
        for toolsets in sets {
            for role in roles.iter().copied() {
                for access in [Access::Full, Access::ReadOnly] {
                    let names = Names::Own;
                    let profile = Profile { toolsets: toolsets.clone(), role, access, names };
                    for verb in catalogue() {
                        assert!(!profile.lists(verb) || profile.permits(verb), "{profile:?}");
                        assert_eq!(profile.permits(verb), profile.check(verb).is_ok());
                        let writes = verb.effect != Effect::Read;
                        assert!(!(access == Access::ReadOnly && writes && profile.permits(verb)));
                    }
                }
            }
        }
    }

    #[test]
    fn roles_permit_their_work_and_no_more() {
        let changes = |role: &str| -> BTreeSet<&str> {
            let role = Role::named(role).ok();
            let profile = Profile { role, ..Profile::default() };
            let changing = profile.permitted().filter(|verb| verb.effect != Effect::Read);
            changing.map(|verb| verb.toolset.as_str()).collect()
        };
        let changing = catalogue().iter().filter(|verb| verb.effect != Effect::Read);
        let all: BTreeSet<&str> = changing.map(|verb| verb.toolset.as_str()).collect();
        let without = |names: &[&'static str]| &all - &names.iter().copied().collect();
        assert_eq!(changes("dev"), without(&["image", "system"]));
        assert_eq!(changes("ops"), without(&["exec"]));
        assert_eq!(changes("admin"), all);
        // Asking an operation to end is open to all: any call may have become one.
        assert_eq!(changes("ui"), BTreeSet::from(["operation"]));
        assert_eq!(changes("lab"), without(&["system"]));
        for wrong in ["root", "Admin", "", "admin "] {
            assert_eq!(Role::named(wrong).unwrap_err().subject.as_deref(), Some("role"), "{wrong}");
        }
    }

    #[test]
    fn toolsets_are_named_one_by_one() {
        assert_eq!(
            Profile::toolsets("exec, commit").ok(),
            Some([Toolset::Exec, Toolset::Commit].into())
        );
        let error = Profile::toolsets("exec,disk").err();
        assert!(error.is_some_and(|error| error.message.contains("`disk`")));
    }

    #[test]
    fn a_url_that_is_not_understood_permits_nothing() {
        let of = |query: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> =
                query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            Profile::of_query(&pairs)
        };
        assert_eq!(of(&[]), Ok(Profile::default()));
        let all = of(&[("role", "dev"), ("toolset", "exec"), ("read_only", "true")]).unwrap();
        assert_eq!((all.role, all.access), (Some(Role::Dev), Access::ReadOnly));
        assert_eq!(all.toolsets, Some([Toolset::Exec].into()));
        assert_eq!(of(&[("compat", "true")]).unwrap().names, Names::Compat);
        assert_eq!(of(&[("read_only", "false")]), Ok(Profile::default()));
        let wrong: &[(&[(&str, &str)], &str)] = &[
            (&[("role", "root")], "role"),
            (&[("toolset", "exec,disk")], "toolset"),
            (&[("toolset", "")], "toolset"),
            (&[("read_only", "1")], "read_only"),
            (&[("readonly", "true")], "readonly"),
            (&[("role", "dev"), ("role", "admin")], "role"),
        ];
        for (query, subject) in wrong {
            let error = of(query).err().unwrap();
            assert_eq!(error.subject.as_deref(), Some(*subject), "{query:?}");
        }
    }
}
