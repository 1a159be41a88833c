//! `pando rm`: deletes what its arguments name, each by its kind.

use clap::{Arg, ArgAction, ArgMatches, Command};
use pando_model::{BranchId, CommitId, ImageId};
use serde_json::{Value, json};

use crate::app::{App, Ending};
use crate::commands::texts;
use crate::output::Format;

/// Returns the command.
pub fn command() -> Command {
    Command::new("rm")
        .about("Delete branches (NAME@BRANCH, br_…), commits (cm_…) and images (im_…); stop machines (NAME), or delete them with --disks")
        .arg(
            Arg::new("targets")
                .value_name("TARGET")
                .required(true)
                .num_args(1..)
                .help("What to delete"),
        )
        .arg(
            Arg::new("force")
                .long("force")
                .short('f')
                .action(ArgAction::SetTrue)
                .help("Also what runs, is tagged, or holds changes that no commit has; guests are not asked first"),
        )
        .arg(
            Arg::new("disks")
                .long("disks")
                .alias("remove-overlays")
                .action(ArgAction::SetTrue)
                .help(
                    "With a machine, remove its disks and commits too; they cannot be brought back",
                ),
        )
}

/// Returns the verb and parameters that delete a target.
fn plan(target: &str, force: bool, disks: bool) -> (&'static str, Value) {
    if target.parse::<CommitId>().is_ok() {
        return ("commit_delete", json!({ "commit": target, "force": force }));
    }
    if target.parse::<ImageId>().is_ok() {
        return ("image_remove", json!({ "image": target, "force": force }));
    }
    if target.contains('@') || target.parse::<BranchId>().is_ok() {
        return ("branch_delete", json!({ "branch": target, "force": force }));
    }
    ("vm_delete", json!({ "name": target, "force": force, "remove_overlays": disks }))
}

/// Deletes them, in order, up to the first that cannot be.
pub async fn run(app: &App, matches: &ArgMatches) -> Ending {
    let (force, disks) = (matches.get_flag("force"), matches.get_flag("disks"));
    for target in texts(matches, "targets") {
        let (verb, params) = plan(&target, force, disks);
        let result = app.call(verb, params).await?;
        match app.ui.format {
            Format::Json => app.show(verb, &result),
            Format::Human if verb == "vm_delete" => app.show(verb, &result),
            Format::Human => app.ui.line(format!("{target} is deleted")),
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::plan;

    #[test]
    fn targets_are_deleted_by_their_kind() {
        for (target, verb) in [
            ("shop", "vm_delete"),
            ("shop@try", "branch_delete"),
            ("br_0123456789ab", "branch_delete"),
            ("cm_0123456789ab", "commit_delete"),
            ("im_0123456789ab", "image_remove"),
        ] {
            assert_eq!(plan(target, false, false).0, verb);
        }
    }
}
