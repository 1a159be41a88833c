//! How the commands made by hand take their verbs' parameters: which argument each one is, or why
//! it is none. Tests hold this against the command line and the catalogue, the reference shows it.

/// How a command takes a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// As the argument of this id.
    As(&'static str),
    /// In another way; why there is no argument for it.
    Otherwise(&'static str),
}

/// A verb's command that is made by hand.
#[derive(Debug, Clone, Copy)]
pub struct ByHand {
    /// The verb.
    pub verb: &'static str,
    /// A command line that makes the verb's example call. Files that it names need not exist.
    pub line: &'static str,
    /// How each of the verb's parameters is taken.
    pub parameters: &'static [(&'static str, Taken)],
}

use Taken::{As, Otherwise};

/// Every command made by hand, in the catalogue's order.
pub const COMMANDS: &[ByHand] = &[
    ByHand {
        verb: "branch_rollback",
        line: "pando rollback shop@try-1 clean",
        parameters: &[
            ("branch", As("words")),
            ("exact", As("exact")),
            ("save", As("no_save")),
            ("target", As("words")),
        ],
    },
    ByHand {
        verb: "branch_delete",
        line: "pando rm shop@try-1",
        parameters: &[("branch", As("targets")), ("force", As("force"))],
    },
    ByHand {
        verb: "commit_list",
        line: "pando log shop",
        parameters: &[
            ("branch", As("address")),
            ("cluster", As("address")),
            ("cursor", As("cursor")),
            ("limit", As("limit")),
        ],
    },
    ByHand {
        verb: "commit_delete",
        line: "pando rm cm_0123456789ab",
        parameters: &[("commit", As("targets")), ("force", As("force"))],
    },
    ByHand {
        verb: "exec_run",
        line: "pando exec shop --timeout 5m -- apt-get install -y nginx",
        parameters: &[
            ("address", As("address")),
            ("argv", As("words")),
            ("command", As("line")),
            ("cwd", As("cwd")),
            ("detach", As("detach")),
            ("env", As("env")),
            ("max_output_bytes", As("max_output")),
            ("stdin", Otherwise("the command's own standard input")),
            ("timeout_s", As("timeout")),
            ("user", As("user")),
        ],
    },
    ByHand {
        verb: "exec_fanout",
        line: "pando fanout shop@try-1 shop@try-2 -c 'nginx -t'",
        parameters: &[
            ("argv", As("words")),
            ("branches", As("branches")),
            ("cluster", As("all")),
            ("command", As("line")),
            ("cwd", As("cwd")),
            ("env", As("env")),
            ("max_output_bytes", As("max_output")),
            ("stdin", As("stdin")),
            ("timeout_s", As("timeout")),
            ("user", As("user")),
        ],
    },
    ByHand {
        verb: "file_push",
        line: "pando cp motd shop:/etc/motd",
        parameters: &[
            ("address", As("to")),
            ("content", As("from")),
            ("content_base64", Otherwise("a file's bytes are sent as they are")),
            ("make_parents", As("parents")),
            ("mode", As("mode")),
            ("owner", As("owner")),
            ("path", As("to")),
        ],
    },
    ByHand {
        verb: "file_pull",
        line: "pando cp shop:/etc/os-release -",
        parameters: &[
            ("address", As("from")),
            ("max_bytes", Otherwise("a file is streamed, whatever its size")),
            ("path", As("from")),
        ],
    },
    ByHand {
        verb: "console_read",
        line: "pando console shop --bytes 4096",
        parameters: &[
            ("address", As("address")),
            ("offset", As("offset")),
            ("tail_bytes", As("bytes")),
        ],
    },
    ByHand {
        verb: "state_diff",
        line: "pando diff shop@clean shop@try-1",
        parameters: &[
            ("aspects", As("aspect")),
            ("cursor", As("cursor")),
            ("from", As("from")),
            ("hunks", As("hunks")),
            ("max_bytes", As("max")),
            ("since", As("since")),
            ("to", As("to")),
        ],
    },
    ByHand {
        verb: "net_capture",
        line: "pando net capture shop@try-1 start",
        parameters: &[
            ("action", As("action")),
            ("cluster_name", As("cluster_name")),
            ("limit", As("limit")),
            ("max_bytes", As("max_bytes")),
            ("max_frames", As("max_frames")),
            ("offset", As("offset")),
            ("snap_bytes", As("snap_bytes")),
        ],
    },
];

/// Returns how a verb's command is made by hand, if it is.
pub fn of(verb: &str) -> Option<&'static ByHand> {
    COMMANDS.iter().find(|command| command.verb == verb)
}
