//! JSON schemas of parameters and results, cut down to what helps a reader: no `$ref`, no
//! formats, no null branches, enumerations as plain lists.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

pub(crate) fn params<T: JsonSchema>() -> Value {
    tidied(SchemaSettings::draft2020_12().for_deserialize().into_generator_schema::<T>())
}

pub(crate) fn result<T: JsonSchema>() -> Value {
    tidied(SchemaSettings::draft2020_12().for_serialize().into_generator_schema::<T>())
}

trait IntoSchema {
    fn into_generator_schema<T: JsonSchema>(self) -> Schema;
}

impl IntoSchema for SchemaSettings {
    fn into_generator_schema<T: JsonSchema>(mut self) -> Schema {
        self.inline_subschemas = true;
        self.into_generator().into_root_schema_for::<T>()
    }
}

fn tidied(schema: Schema) -> Value {
    let mut value = schema.to_value();
    tidy(&mut value);
    value
}

/// Returns the text of a doc comment with its lines joined; an empty line stays a paragraph.
fn unwrapped(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn tidy(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            for key in ["$schema", "title", "format"] {
                if object.get(key).is_some_and(Value::is_string) {
                    object.remove(key);
                }
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = unwrapped(text);
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            flatten_alternatives(object);
            object.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// Turns `oneOf` of constants into `enum`, and `anyOf` of something and null into that thing.
fn flatten_alternatives(object: &mut serde_json::Map<String, Value>) {
    if let Some(Value::Array(any)) = object.get("anyOf") {
        let null = |schema: &Value| schema.get("type").is_some_and(|name| name == "null");
        let mut rest = any.iter().filter(|schema| !null(schema));
        if let (Some(Value::Object(only)), None, true) =
            (rest.next(), rest.next(), any.iter().any(null))
        {
            let only = only.clone();
            object.remove("anyOf");
            for (key, inner) in only {
                object.entry(key).or_insert(inner);
            }
        }
    }
    if let Some(Value::Array(one)) = object.get("oneOf") {
        let mut constants = Vec::new();
        for schema in one {
            match (schema.get("const"), schema.get("enum")) {
                (Some(constant), _) => constants.push(constant.clone()),
                (None, Some(Value::Array(values))) => constants.extend(values.iter().cloned()),
                _ => return,
            }
        }
        object.remove("oneOf");
        object.insert("type".to_owned(), Value::from("string"));
        object.insert("enum".to_owned(), Value::from(constants));
    }
}
