//! From a JSON value to parameters: total, and every refusal names the parameter.

use pando_model::{ErrorCode, suggest};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::verb::{Alias, Verb};

/// Most characters of somebody else's text in one of our messages.
const MAX_QUOTED_CHARS: usize = 240;

/// Returns the parameters under our names, all of them known and none that is required missing.
pub(crate) fn prepare(
    verb: &'static Verb,
    alias: Option<&Alias>,
    params: Value,
) -> Result<Value, ApiError> {
    let mut object = match params {
        Value::Object(object) => object,
        Value::Null => Map::new(),
        other => {
            return Err(ApiError::new(
                ErrorCode::InvalidParameter,
                format!("the parameters of {} are {}, not an object", verb.name, kind(&other)),
            )
            .hint(usage(verb)));
        }
    };
    if let Some(alias) = alias {
        rename(alias, &mut object)?;
    }
    let known = verb.properties();
    for name in object.keys() {
        if known.is_none_or(|known| !known.contains_key(name)) {
            return Err(unknown_parameter(verb, name));
        }
    }
    let required = verb.params.get("required").and_then(Value::as_array);
    let missing: Vec<&str> = required
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|name| object.get(*name).is_none_or(Value::is_null))
        .collect();
    if let [first, ..] = missing.as_slice() {
        let list = missing.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(
            ApiError::parameter(first, format!("{} needs {list}", verb.name)).hint(usage(verb))
        );
    }
    object.retain(|_, value| !value.is_null());
    Ok(Value::Object(object))
}

fn rename(alias: &Alias, object: &mut Map<String, Value>) -> Result<(), ApiError> {
    for (theirs, ours) in alias.renames {
        if let Some(value) = object.remove(*theirs)
            && object.insert((*ours).to_owned(), value).is_some()
        {
            return Err(ApiError::parameter(
                ours,
                format!("`{theirs}` and `{ours}` are the same parameter; give one of them"),
            ));
        }
    }
    for (name, value) in alias.presets {
        if !object.contains_key(*name) {
            let value = serde_json::from_str(value)
                .map_err(|source| ApiError::new(ErrorCode::Internal, source.to_string()))?;
            object.insert((*name).to_owned(), value);
        }
    }
    Ok(())
}

fn unknown_parameter(verb: &Verb, name: &str) -> ApiError {
    let shown: String = name.chars().take(64).collect();
    let error = ApiError::parameter(&shown, format!("{} has no parameter `{shown}`", verb.name));
    let known = verb.properties().into_iter().flat_map(Map::keys).map(String::as_str);
    match suggest::nearest(name, known) {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint(usage(verb)),
    }
}

/// Returns the parameters of a verb as a line: `vm_create{name, image?, …}`.
fn usage(verb: &Verb) -> String {
    let names = verb.properties().into_iter().flat_map(Map::keys);
    let mut names: Vec<String> = names
        .map(|name| if verb.is_required(name) { name.clone() } else { format!("{name}?") })
        .collect();
    names.sort_by_key(|name| name.ends_with('?'));
    format!("{}{{{}}}", verb.name, names.join(", "))
}

/// Returns the typed parameters.
pub(crate) fn decode<T: DeserializeOwned>(verb: &Verb, params: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(params).map_err(|source| {
        let path = source.path().to_string();
        if let Some(wrong) = wrong_type(verb, params, &path) {
            return ApiError::parameter(&path, wrong);
        }
        let detail: String = source.inner().to_string().chars().take(MAX_QUOTED_CHARS).collect();
        if path == "." {
            return ApiError::new(ErrorCode::InvalidParameter, format!("{}: {detail}", verb.name))
                .hint(usage(verb));
        }
        ApiError::parameter(&path, format!("`{path}` of {}: {detail}", verb.name))
    })
}

/// Returns what is wrong with a parameter whose value is of another type than it has.
fn wrong_type(verb: &Verb, params: &Value, name: &str) -> Option<String> {
    let (schema, value) = (verb.properties()?.get(name)?, params.get(name)?);
    let types = match schema.get("type")? {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => vec![one.as_str()?],
    };
    let [wanted] = types.into_iter().filter(|name| *name != "null").collect::<Vec<_>>()[..] else {
        return None;
    };
    let (fits, wanted) = match wanted {
        "boolean" => (value.is_boolean(), "true or false"),
        "integer" => (value.is_u64() || value.is_i64(), "a whole number"),
        "number" => (value.is_number(), "a number"),
        "string" => (value.is_string(), "a string"),
        "array" => (value.is_array(), "a list"),
        "object" => (value.is_object(), "an object"),
        _ => return None,
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    let range = match (wanted, bound("minimum"), bound("maximum")) {
        ("a whole number", Some(least), Some(most)) => format!(" from {least} to {most}"),
        ("a whole number", Some(least), None) => format!(" of at least {least}"),
        _ => String::new(),
    };
    let is = match value {
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    };
    let is_outside = value.as_i64().is_some_and(|number| {
        bound("minimum").is_some_and(|least| number < least)
            || bound("maximum").is_some_and(|most| number > most)
    });
    (!fits || is_outside)
        .then(|| format!("`{name}` of {} is {is}; it must be {wanted}{range}", verb.name))
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
