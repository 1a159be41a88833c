//! Prompts that start real work: each is a plan in the tools' own words.

use pando_api::ApiError;
use pando_model::ErrorCode;

use crate::limits::MAX_PROMPT_ARGUMENT_BYTES;

/// One argument of a prompt.
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// What stands in its place when it is left out; `None` if it must be given.
    pub default: Option<&'static str>,
}

/// One prompt. `{name}` in its text stands for an argument.
pub struct Prompt {
    /// Its name.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What it starts.
    pub description: &'static str,
    /// Its arguments.
    pub arguments: &'static [Argument],
    text: &'static str,
}

/// Every prompt.
pub const PROMPTS: &[Prompt] = &[
    Prompt {
        name: "reproduce_bug",
        title: "Reproduce a bug in branches",
        description: "Try several ways to provoke a bug at once, each in its own live copy.",
        arguments: &[
            Argument {
                name: "machine",
                description: "Where it happens: CLUSTER[@BRANCH].",
                default: None,
            },
            Argument { name: "symptom", description: "What goes wrong.", default: None },
            Argument {
                name: "attempts",
                description: "How many copies to try in.",
                default: Some("4"),
            },
        ],
        text: "Reproduce this bug on `{machine}`: {symptom}\n\n\
            1. Look first: vm_status, then exec_run for logs and versions. Change nothing in `{machine}` itself.\n\
            2. commit_create on `{machine}` with a tag such as `before-bug`: every attempt starts from that instant.\n\
            3. branch_create from that tag with count {attempts}. Every copy has the same memory, disk and addresses.\n\
            4. Try one hypothesis in each copy with exec_run; use exec_fanout where all should do the same. \
            Write down which command provokes the symptom, and what it prints.\n\
            5. Repeat the shortest sequence that provokes it in a fresh branch of the tag, at least twice, to be sure.\n\
            6. commit_create in the branch where it happened, with a tag such as `bug`, so that it can be looked at again.\n\
            7. branch_delete the copies that show nothing. Report: the sequence, how often it provokes the bug, \
            the evidence, and the address and tag where it can be seen.",
    },
    Prompt {
        name: "compare_fixes",
        title: "Compare two fixes",
        description: "Apply two fixes to two copies of the same instant and judge them by the same test.",
        arguments: &[
            Argument {
                name: "machine",
                description: "Where the problem is: CLUSTER[@BRANCH or TAG].",
                default: None,
            },
            Argument { name: "fix_a", description: "The first fix.", default: None },
            Argument { name: "fix_b", description: "The second fix.", default: None },
            Argument {
                name: "test",
                description: "The command that tells whether it works.",
                default: Some("find out from the machine what shows whether it works"),
            },
        ],
        text: "Compare two fixes on `{machine}`.\nA: {fix_a}\nB: {fix_b}\nTest: {test}\n\n\
            1. Run the test in `{machine}` once: it must fail now, or there is nothing to fix.\n\
            2. branch_create from `{machine}` with names [\"fix-a\", \"fix-b\", \"control\"]: three copies of one instant.\n\
            3. Apply A in fix-a and B in fix-b with exec_run and file_push. Leave control alone.\n\
            4. Run the test in all three with exec_fanout, several times; then look for side effects: state_diff against control, failed services, \
            errors in logs, memory, and how long the test takes.\n\
            5. Restart what the fix touches (vm_control restart in each copy) and test again: does it last?\n\
            6. Report a table: test before, after, after a restart, duration, side effects; recommend one and say why. \
            Keep the better branch, and delete the others with branch_delete once they are no longer needed.",
    },
    Prompt {
        name: "bisect_commits",
        title: "Bisect over commits",
        description: "Find the commit after which something went wrong, by trying commits as live machines.",
        arguments: &[
            Argument { name: "cluster", description: "The cluster.", default: None },
            Argument { name: "good", description: "A commit or tag that works.", default: None },
            Argument { name: "bad", description: "A commit or tag that does not.", default: None },
            Argument {
                name: "test",
                description: "A command that exits with 0 where it works.",
                default: None,
            },
        ],
        text: "Find the first bad commit of `{cluster}` between {good} (works) and {bad} (does not).\nTest: {test}\n\n\
            1. commit_list {\"cluster\": \"{cluster}\"}: follow parents from {bad} back to {good}. That path is the list to search; \
            go on with next_cursor if it is truncated.\n\
            2. Check the ends: branch each with branch_create (from the commit's id, exact true) and run the test. \
            {good} must pass and {bad} must fail, otherwise stop and say so.\n\
            3. Branch the commit in the middle, run the test with exec_run, delete that branch, and go on with the half that \
            contains the change. With many commits left, branch three at once and test them with exec_fanout.\n\
            4. Run the test twice at each boundary: a test that is not steady finds the wrong commit.\n\
            5. Show the first bad commit with commit_show, and what differs from the last good one with state_diff, \
            which also names the commands that caused it.\n\
            6. Delete the branches made here. Report both commits, the difference and the evidence.",
    },
    Prompt {
        name: "break_network",
        title: "Break one branch of a cluster",
        description: "Break the network of one live copy of a cluster, leave another alone, and compare.",
        arguments: &[
            Argument { name: "cluster", description: "The cluster.", default: None },
            Argument {
                name: "topology",
                description: "What to define it from, if it is not there: a name or the YAML.",
                default: Some("the topology of that name, or write one"),
            },
            Argument {
                name: "fault",
                description: "What to break.",
                default: Some("cut one node off from all others"),
            },
            Argument {
                name: "test",
                description: "The command that tells whether the system works.",
                default: Some("find out from the nodes what shows whether the system works"),
            },
        ],
        text: "Break the network of one branch of `{cluster}`, and compare it with one that is left alone.\n\
            Topology: {topology}\nFault: {fault}\nTest: {test}\n\n\
            1. cluster_status {\"cluster_name\": \"{cluster}\"}. Is there none? cluster_define from the topology (topology_list has the \
            names; YAML is passed as text), then cluster_start. Does it not run? cluster_start.\n\
            2. Run the test on `{cluster}@main/NODE` with exec_run: it must pass. Note who leads, and what was written.\n\
            3. commit_create with the tag `whole`: all nodes and their network at one instant.\n\
            4. branch_create from `{cluster}@whole` with names [\"alone\", \"broken\"]: two copies with the same addresses.\n\
            5. Break `{cluster}@broken` only, with net_partition or net_impair. They return once the fault works; \
            net_probe shows who still reaches whom.\n\
            6. Run the test on the nodes of both branches, on both sides of the fault. Who leads now, in which term? \
            Which writes are acknowledged, and which side refuses them?\n\
            7. state_diff from `{cluster}@alone` to `{cluster}@broken`: faults and reachability first, then what differs in each node.\n\
            8. net_heal_all in `{cluster}@broken`. How long until the test passes everywhere, and is every acknowledged write there?\n\
            9. branch_rollback `{cluster}@broken` to `whole` with save false brings the instant back for another fault. \
            At the end delete both branches with branch_delete. Report: what each side saw, how long it took to recover, what was lost.",
    },
];

/// Returns a prompt's text with its arguments in place.
///
/// # Errors
/// `not_found` and `invalid_parameter`, with what there is.
pub fn text(
    name: &str,
    argument: &dyn Fn(&str) -> Option<String>,
) -> Result<(&'static Prompt, String), ApiError> {
    let Some(prompt) = PROMPTS.iter().find(|prompt| prompt.name == name) else {
        let shown: String = name.chars().take(64).collect();
        let known: Vec<&str> = PROMPTS.iter().map(|prompt| prompt.name).collect();
        return Err(ApiError::new(ErrorCode::NotFound, format!("there is no prompt `{shown}`"))
            .hint(format!("one of {}", known.join(", "))));
    };
    let mut values = Vec::new();
    for wanted in prompt.arguments {
        let given = argument(wanted.name).filter(|value| !value.trim().is_empty());
        let value = match (given, wanted.default) {
            (Some(value), _) if value.len() > MAX_PROMPT_ARGUMENT_BYTES => {
                let message =
                    format!("`{}` has more than {MAX_PROMPT_ARGUMENT_BYTES} bytes", wanted.name);
                return Err(ApiError::parameter(wanted.name, message));
            }
            (Some(value), _) => value,
            (None, Some(default)) => default.to_owned(),
            (None, None) => {
                let message = format!("{name} needs `{}`: {}", wanted.name, wanted.description);
                return Err(ApiError::parameter(wanted.name, message));
            }
        };
        values.push((wanted.name, value));
    }
    Ok((prompt, filled(prompt.text, &values)))
}

/// Returns a text with every `{name}` replaced, once: what an argument says is not read again.
fn filled(text: &str, values: &[(&str, String)]) -> String {
    let mut rest = text;
    let mut whole = String::new();
    while let Some((before, after)) = rest.split_once('{') {
        whole.push_str(before);
        let known = after.split_once('}').and_then(|(name, after)| {
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| (value, after))
        });
        match known {
            Some((value, after)) => {
                whole.push_str(value);
                rest = after;
            }
            None => {
                whole.push('{');
                rest = after;
            }
        }
    }
    whole.push_str(rest);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_take_their_place_and_are_not_read_again() {
        let argument = |name: &str| match name {
            "machine" => Some("shop".to_owned()),
            "symptom" => Some("{attempts} {x".to_owned()),
            _ => None,
        };
        let (_, text) = text("reproduce_bug", &argument).unwrap();
        assert!(text.contains("on `shop`: {attempts} {x\n"), "{text}");
        assert!(text.contains("count 4"), "{text}");
    }

    #[test]
    fn every_place_has_an_argument_and_every_argument_a_place() {
        for prompt in PROMPTS {
            for argument in prompt.arguments {
                assert!(prompt.text.contains(&format!("{{{}}}", argument.name)), "{}", prompt.name);
            }
        }
        let none = |_: &str| None;
        assert_eq!(text("bisect_commits", &none).err().unwrap().subject.unwrap(), "cluster");
        assert!(text("nothing", &none).is_err());
    }

    #[test]
    fn prompts_name_tools_that_exist() {
        for prompt in PROMPTS {
            for word in prompt.text.split(|c: char| !c.is_ascii_lowercase() && c != '_') {
                let first = word.split('_').next().unwrap_or_default();
                let families = [
                    "vm", "cluster", "branch", "commit", "exec", "file", "state", "net", "tag",
                    "topology",
                ];
                let is_parameter = word == "cluster_name";
                if families.contains(&first) && word.contains('_') && !is_parameter {
                    assert!(pando_api::Verb::find(word).is_some(), "{}: {word}", prompt.name);
                }
            }
        }
    }
}
