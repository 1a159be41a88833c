//! Names that exist, for whoever fills in the variable of a resource's address or the argument of a
//! prompt. Each kind of name is one or two reads of the catalogue; nothing is named here that a
//! tool would not show.

use pando_api::{ApiError, Call};
use pando_model::ErrorCode;
use serde_json::{Value, json};

use crate::calls::Calls;
use crate::limits::{COMPLETIONS, MAX_URI_BYTES, NAMES_PER_KIND};
use crate::prompts::PROMPTS;
use crate::resources::TEMPLATES;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `CLUSTER`.
    Cluster,
    /// `CLUSTER` or `CLUSTER@BRANCH`.
    Machine,
    /// `CLUSTER@TAG` or a commit's id.
    Commit,
    /// An operation's id.
    Operation,
    /// An image's name.
    Image,
    /// A topology's name.
    Topology,
}

/// What is filled in.
#[derive(Debug, Clone, Copy)]
pub enum Of<'a> {
    /// A variable of a resource's address.
    Resource(&'a str),
    /// An argument of a prompt.
    Prompt(&'a str),
}

/// Names that begin with what was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The first of them.
    pub values: Vec<String>,
    /// How many there are, as far as they were read.
    pub total: usize,
    /// Whether there are more than these.
    pub has_more: bool,
}

/// Returns the names that `argument` may stand for and that begin with `typed`. `cluster` is what
/// was filled in for a cluster before.
///
/// # Errors
/// `not_found` for a prompt or template that does not exist, `invalid_parameter` for an argument
/// that it does not have, and those of the reads.
pub async fn names(
    calls: &Calls,
    of: Of<'_>,
    argument: &str,
    typed: &str,
    cluster: Option<&str>,
) -> Result<Names, ApiError> {
    if typed.len() > MAX_URI_BYTES || cluster.is_some_and(|name| name.len() > MAX_URI_BYTES) {
        let message = format!("`{argument}` has more than {MAX_URI_BYTES} bytes");
        return Err(ApiError::parameter("argument", message));
    }
    let (mut found, mut has_more) = match kind(of, argument)? {
        None => (Vec::new(), false),
        Some(Kind::Cluster) => clusters(calls).await?,
        Some(Kind::Machine) => machines(calls).await?,
        Some(Kind::Commit) => commits(calls, typed, cluster).await?,
        Some(Kind::Operation) => column(calls, "operation_list", json!({}), "operation_id").await?,
        Some(Kind::Image) => column(calls, "image_list", json!({}), "name").await?,
        Some(Kind::Topology) => column(calls, "topology_list", json!({}), "name").await?,
    };
    found.retain(|name| name.starts_with(typed));
    let total = found.len();
    has_more |= total > COMPLETIONS;
    found.truncate(COMPLETIONS);
    Ok(Names { values: found, total, has_more })
}

/// Returns what an argument stands for; `None` for one that is free text.
fn kind(of: Of<'_>, argument: &str) -> Result<Option<Kind>, ApiError> {
    let unknown = |what: &str, name: &str, known: Vec<&str>| {
        let shown: String = name.chars().take(120).collect();
        ApiError::new(ErrorCode::NotFound, format!("there is no {what} `{shown}`"))
            .hint(format!("one of {}", known.join(", ")))
    };
    let no_argument = |known: Vec<&str>| {
        let shown: String = argument.chars().take(120).collect();
        ApiError::parameter("argument", format!("it has no argument `{shown}`"))
            .hint(format!("one of {}", known.join(", ")))
    };
    match of {
        Of::Prompt(name) => {
            let prompt = PROMPTS.iter().find(|prompt| prompt.name == name).ok_or_else(|| {
                unknown("prompt", name, PROMPTS.iter().map(|prompt| prompt.name).collect())
            })?;
            let names = || prompt.arguments.iter().map(|argument| argument.name);
            if !names().any(|name| name == argument) {
                return Err(no_argument(names().collect()));
            }
            Ok(match argument {
                "cluster" => Some(Kind::Cluster),
                "topology" => Some(Kind::Topology),
                "machine" => Some(Kind::Machine),
                "good" | "bad" => Some(Kind::Commit),
                _ => None,
            })
        }
        Of::Resource(uri) => {
            let template =
                TEMPLATES.iter().find(|template| template.uri == uri).ok_or_else(|| {
                    let known = TEMPLATES.iter().map(|template| template.uri);
                    unknown("resource template", uri, known.collect())
                })?;
            let variable = template.uri.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            let variable = variable.map_or("", |(name, _)| name);
            if variable != argument {
                return Err(no_argument(vec![variable]));
            }
            Ok(match (template.name, variable) {
                (_, "address") => Some(Kind::Machine),
                (_, "cluster") => Some(Kind::Cluster),
                ("commit", _) => Some(Kind::Commit),
                ("operation", _) => Some(Kind::Operation),
                ("image", _) => Some(Kind::Image),
                ("topology", _) => Some(Kind::Topology),
                _ => None,
            })
        }
    }
}

/// Some names, and whether there are more.
type Found = (Vec<String>, bool);

/// Returns the rows of a list, and whether there are more.
async fn rows(
    calls: &Calls,
    verb: &str,
    mut params: Value,
) -> Result<(Vec<Value>, bool), ApiError> {
    if let Some(params) = params.as_object_mut() {
        params.insert("limit".to_owned(), json!(NAMES_PER_KIND));
    }
    let call = Call::parse(verb, params)?;
    // What may not be read has no names.
    if !calls.profile.permits(call.verb()) {
        return Ok((Vec::new(), false));
    }
    let page = calls.control.call(&calls.caller(), call).await?;
    let has_more = page.get("truncated") == Some(&Value::Bool(true));
    let rows = page.as_object().into_iter().flatten().find_map(|(_, value)| value.as_array());
    Ok((rows.cloned().unwrap_or_default(), has_more))
}

/// Returns one field of the rows of a list.
async fn column(calls: &Calls, verb: &str, params: Value, field: &str) -> Result<Found, ApiError> {
    let (rows, has_more) = rows(calls, verb, params).await?;
    Ok((rows.iter().filter_map(|row| text(row, field)).collect(), has_more))
}

fn text(row: &Value, field: &str) -> Option<String> {
    row.get(field).and_then(Value::as_str).map(str::to_owned)
}

async fn clusters(calls: &Calls) -> Result<Found, ApiError> {
    let (mut names, has_more) = column(calls, "vm_list", json!({}), "name").await?;
    // A row is a node; those of one cluster follow one another.
    names.dedup();
    Ok((names, has_more))
}

async fn machines(calls: &Calls) -> Result<Found, ApiError> {
    let (mut names, more_clusters) = clusters(calls).await?;
    let (branches, more_branches) = column(calls, "branch_list", json!({}), "address").await?;
    names.extend(branches);
    Ok((names, more_clusters || more_branches))
}

/// Returns the commits of the cluster that is typed or was filled in before; without one, the
/// clusters whose commits can be named next.
async fn commits(calls: &Calls, typed: &str, before: Option<&str>) -> Result<Found, ApiError> {
    let typed_cluster = typed.split_once('@').map(|(cluster, _)| cluster);
    let Some(cluster) = typed_cluster.or(before).filter(|name| !name.is_empty()) else {
        let (names, has_more) = clusters(calls).await?;
        return Ok((names.into_iter().map(|name| format!("{name}@")).collect(), has_more));
    };
    let (rows, has_more) = match rows(calls, "commit_list", json!({"cluster": cluster})).await {
        Err(error) if error.code == ErrorCode::NotFound => return Ok((Vec::new(), false)),
        other => other?,
    };
    let mut names = Vec::new();
    for row in &rows {
        let tags = row.get("tags").and_then(Value::as_array).into_iter().flatten();
        names.extend(tags.filter_map(|tag| Some(format!("{cluster}@{}", tag.as_str()?))));
    }
    names.extend(rows.iter().filter_map(|row| text(row, "id")));
    Ok((names, has_more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_has_names() {
        for template in TEMPLATES {
            let variable = template.uri.split(['{', '}']).nth(1).unwrap();
            assert!(kind(Of::Resource(template.uri), variable).unwrap().is_some());
            assert!(kind(Of::Resource(template.uri), "other").is_err());
        }
        for prompt in PROMPTS {
            for argument in prompt.arguments {
                assert!(kind(Of::Prompt(prompt.name), argument.name).is_ok());
            }
            assert!(kind(Of::Prompt(prompt.name), "other").is_err());
        }
        assert_eq!(kind(Of::Prompt("reproduce_bug"), "symptom").unwrap(), None);
        assert!(kind(Of::Prompt("nothing"), "machine").is_err());
        assert!(kind(Of::Resource("file:///{path}"), "path").is_err());
    }
}
