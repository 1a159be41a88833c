//! What differs, as a script that does it again: the recorded commands, then what the differences
//! themselves tell how to do. What cannot be done by a script is said in it.

use pando_api::state::StateDiffResult;
use pando_model::capture::Aspect;
use pando_model::change::{Change, ChangeKind};

use crate::output::Ui;
use crate::output::table::printable;

/// Writes the script.
pub fn script(ui: &Ui, view: &StateDiffResult) {
    for line in lines(view) {
        ui.line(line);
    }
}

fn lines(view: &StateDiffResult) -> Vec<String> {
    let mut lines = vec![
        "#!/bin/sh".to_owned(),
        format!("# Makes {} what {} is, as far as a script can.", view.from, view.to),
        "set -eu".to_owned(),
    ];
    let replayed: Vec<&str> = view
        .commands
        .iter()
        .filter(|command| command.act == "exec" && !command.command.ends_with('…'))
        .map(|command| command.id.as_str())
        .collect();
    for command in &view.commands {
        let changes = if command.changes == 1 { "change" } else { "changes" };
        lines.push(format!("# {}: {} {changes}", command.id, command.changes));
        if replayed.contains(&command.id.as_str()) {
            lines.push(printable(&command.command));
        } else {
            lines.push(format!("# not here in full: {}", printable(&command.command)));
        }
    }
    let again = |change: &Change| change.causes.iter().any(|by| replayed.contains(&by.id.as_str()));
    let rest: Vec<&Change> = view.differences.iter().filter(|change| !again(change)).collect();
    if !rest.is_empty() {
        lines.push("# What no command above does.".to_owned());
    }
    for change in rest {
        lines.push(match remedy(change) {
            Some(line) => line,
            None => by_hand(view, change),
        });
    }
    lines
}

/// Returns text as one word of a shell.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Returns the line that makes a change, if one does.
fn remedy(change: &Change) -> Option<String> {
    // A line break would begin another command, a leading dash an option.
    let safe = |text: &str| !text.chars().any(char::is_control) && !text.starts_with('-');
    let subject = Some(change.subject.as_str()).filter(|text| safe(text)).map(word)?;
    let after = change.after.as_deref().filter(|text| safe(text));
    match (change.aspect, change.change) {
        (Aspect::Packages, ChangeKind::Removed) => Some(format!("apt-get remove -y {subject}")),
        (Aspect::Packages, _) => {
            let version = after?.split([',', ' ']).next()?;
            Some(format!("apt-get install -y {}", word(&format!("{}={version}", change.subject))))
        }
        (Aspect::Users, kind) => user(change, kind),
        (Aspect::Services, _) => {
            let verb = if after?.starts_with("active") { "start" } else { "stop" };
            Some(format!("systemctl {verb} {subject}"))
        }
        (Aspect::Files | Aspect::Config, kind) => file(change, kind, &subject),
        (Aspect::Env, ChangeKind::Added) => {
            let name = change.subject.strip_prefix("login:")?;
            let value = after.filter(|value| !value.starts_with('('))?;
            Some(format!("echo {} >>/etc/environment", word(&format!("{name}={value}"))))
        }
        (Aspect::Network, ChangeKind::Added | ChangeKind::Changed) => {
            let name = change.subject.strip_prefix("setting ")?;
            Some(format!("sysctl -w {}", word(&format!("{name}={}", after?))))
        }
        _ => None,
    }
}

fn user(change: &Change, kind: ChangeKind) -> Option<String> {
    let (group, name) = match change.subject.strip_prefix("group ") {
        Some(name) => (true, name),
        None => (false, change.subject.as_str()),
    };
    let name = word(name);
    let after = change.after.as_deref();
    match (kind, group) {
        (ChangeKind::Removed, true) => Some(format!("groupdel {name}")),
        (ChangeKind::Removed, false) => Some(format!("userdel {name}")),
        (_, true) => {
            let gid = after?.strip_prefix("gid ")?.split(',').next()?;
            let verb = if kind == ChangeKind::Added { "groupadd" } else { "groupmod" };
            gid.parse::<u32>().ok().map(|gid| format!("{verb} -g {gid} {name}"))
        }
        (_, false) => {
            let mut fields = after?.split(", ");
            let uid: u32 = fields.next()?.strip_prefix("uid ")?.parse().ok()?;
            let (home, shell) = (word(fields.nth(1)?), word(fields.next()?));
            let verb = if kind == ChangeKind::Added { "useradd" } else { "usermod" };
            Some(format!("{verb} -u {uid} -d {home} -s {shell} {name}"))
        }
    }
}

fn file(change: &Change, kind: ChangeKind, path: &str) -> Option<String> {
    let after = change.after.as_deref();
    // Words of a file: `12 B 0644 root:root …`, `directory 0755 root:root`, `-> target`.
    let fields: Vec<&str> = after.unwrap_or_default().split(' ').collect();
    let at = if fields.first() == Some(&"directory") { 1 } else { 2 };
    match kind {
        ChangeKind::Removed => {
            let directory = change.before.as_deref()?.starts_with("directory");
            Some(format!("rm {}{path}", if directory { "-r " } else { "" }))
        }
        ChangeKind::Moved => Some(format!("mv {path} {}", word(after?))),
        ChangeKind::Mode => Some(format!("chmod {} {path}", word(fields.get(at)?))),
        ChangeKind::Owner => Some(format!("chown {} {path}", word(fields.get(at + 1)?))),
        ChangeKind::Added | ChangeKind::Changed => match after?.strip_prefix("-> ") {
            Some(target) => Some(format!("ln -sfn {} {path}", word(target))),
            None if at == 1 && !after?.contains("entries") => {
                Some(format!("mkdir -p -m {} {path}", word(fields.get(1)?)))
            }
            None => None,
        },
    }
}

fn by_hand(view: &StateDiffResult, change: &Change) -> String {
    let what = format!("{} {}", change.change.sign(), printable(&change.id));
    match change.aspect {
        Aspect::Files | Aspect::Config if change.change != ChangeKind::Removed => {
            let subject = printable(&change.subject);
            format!("# by hand: {what} (pando cp {}:{subject} .)", view.to)
        }
        _ => format!("# by hand: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use pando_model::change::{Severity, Side};

    use super::*;

    fn change(
        aspect: Aspect,
        kind: ChangeKind,
        subject: &str,
        before: &str,
        after: &str,
    ) -> Change {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Change {
            id: format!("{}:{subject}", aspect.as_str()),
            node: None,
            aspect,
            change: kind,
            subject: subject.into(),
            before: some(before),
            after: some(after),
            severity: Severity::Low,
            side: Side::To,
            at: None,
            causes: Vec::new(),
        }
    }

    #[test]
    fn what_a_script_can_do_is_a_command_and_the_rest_is_said() {
        use Aspect::*;
        use ChangeKind::*;
        for (aspect, kind, subject, before, after, expected) in [
            (Packages, Added, "curl", "", "8.1-2, 12 files", Some("apt-get install -y curl=8.1-2")),
            (Packages, Removed, "curl", "8.1", "", Some("apt-get remove -y curl")),
            (
                Users,
                Added,
                "eva",
                "",
                "uid 7, gid 7, /home/eva, /bin/sh",
                Some("useradd -u 7 -d /home/eva -s /bin/sh eva"),
            ),
            (Users, Removed, "group staff", "gid 8", "", Some("groupdel staff")),
            (Services, Changed, "web.service", "x", "inactive", Some("systemctl stop web.service")),
            (Files, Removed, "/a b", "2 B 0644 root:root", "", Some("rm '/a b'")),
            (
                Files,
                Mode,
                "/a",
                "2 B 0644 root:root x",
                "2 B 4755 root:root x",
                Some("chmod 4755 /a"),
            ),
            (Files, Owner, "/d", "directory 0755 a:a", "directory 0755 b:b", Some("chown b:b /d")),
            (Files, Added, "/l", "", "-> it's", Some("ln -sfn 'it'\\''s' /l")),
            (Files, Added, "/f", "", "2 B 0644 root:root", None),
            (Files, Removed, "/a\nrm -r /", "2 B 0644 root:root", "", None),
            (Network, Changed, "setting net.a", "0", "1", Some("sysctl -w net.a=1")),
            (Network, Changed, "route default", "a", "b", None),
            (Database, Changed, "shop users rows", "1", "2", None),
            (Env, Added, "login:A", "", "b c", Some("echo 'A=b c' >>/etc/environment")),
            (Env, Added, "login:TOKEN", "", "(7 bytes)", None),
        ] {
            let line = remedy(&change(aspect, kind, subject, before, after));
            assert_eq!(line.as_deref(), expected, "{subject}");
        }
    }
}
