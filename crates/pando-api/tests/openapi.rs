//! The OpenAPI document: that it is one, that its schemas are schemas, and that nothing in it
//! points at nothing.

#![allow(clippy::expect_used, clippy::panic, reason = "a test ends where it fails")]

use std::collections::BTreeSet;

use boon::{Compiler, Draft, Schemas};
use pando_api::{Effect, catalogue, openapi};
use serde_json::{Value, json};

const METHODS: &[&str] = &["get", "put", "post", "delete", "patch", "head", "options", "trace"];

/// What OpenAPI 3.1.1 (section 4) says of the objects that our document is made of, as a schema.
/// Fields that we do not use are left out, so that a misspelt one is refused.
fn shape() -> Value {
    let reference = json!({
        "type": "object", "required": ["$ref"], "additionalProperties": false,
        "properties": { "$ref": { "type": "string", "pattern": "^#/components/" } },
    });
    let or_reference = |name: &str| {
        json!({
            "if": { "required": ["$ref"] },
            "then": reference,
            "else": { "$ref": format!("#/$defs/{name}") },
        })
    };
    let map_of = |schema: Value| json!({ "type": "object", "additionalProperties": schema });
    let closed = |required: &[&str], properties: Value| {
        json!({
            "type": "object", "required": required, "properties": properties,
            "patternProperties": { "^x-": true }, "additionalProperties": false,
        })
    };
    let text = json!({ "type": "string", "minLength": 1 });
    let operation = closed(
        &["operationId", "summary", "responses", "tags"],
        json!({
            "operationId": { "type": "string", "pattern": "^[a-z][a-z_]*$" },
            "summary": text, "description": text,
            "tags": { "type": "array", "items": text, "minItems": 1, "uniqueItems": true },
            "parameters": { "type": "array", "items": or_reference("parameter") },
            "requestBody": closed(&["content"], json!({
                "required": { "type": "boolean" }, "content": { "$ref": "#/$defs/content" },
            })),
            "responses": {
                "type": "object", "minProperties": 1,
                "propertyNames": { "pattern": "^([1-5][0-9][0-9]|default)$" },
                "additionalProperties": or_reference("response"),
            },
        }),
    );
    let methods: serde_json::Map<String, Value> = METHODS
        .iter()
        .map(|method| ((*method).to_owned(), json!({ "$ref": "#/$defs/operation" })))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["openapi", "info", "paths", "components"],
        "additionalProperties": false,
        "properties": {
            "openapi": { "type": "string", "pattern": "^3\\.1\\.[0-9]+$" },
            "info": closed(&["title", "version"], json!({
                "title": text, "summary": text, "description": text, "version": text,
                "license": closed(&["name"], json!({ "name": text, "identifier": text })),
            })),
            "servers": { "type": "array", "items": closed(&["url"], json!({
                "url": text, "description": text,
            })) },
            "security": { "type": "array", "items": map_of(json!({ "type": "array" })) },
            "tags": { "type": "array", "items": closed(&["name"], json!({
                "name": text, "description": text,
            })) },
            "paths": {
                "type": "object", "propertyNames": { "pattern": "^/" },
                "additionalProperties": { "$ref": "#/$defs/item" },
            },
            "components": closed(&[], json!({
                "schemas": map_of(json!({ "type": ["object", "boolean"] })),
                "parameters": map_of(json!({ "$ref": "#/$defs/parameter" })),
                "headers": map_of(json!({ "$ref": "#/$defs/header" })),
                "responses": map_of(json!({ "$ref": "#/$defs/response" })),
                "securitySchemes": map_of(closed(&["type", "scheme"], json!({
                    "type": { "const": "http" }, "scheme": { "const": "bearer" },
                    "description": text,
                }))),
            })),
        },
        "$defs": {
            "item": {
                "type": "object", "minProperties": 1, "properties": methods,
                "additionalProperties": false,
            },
            "operation": operation,
            "parameter": {
                "if": { "properties": { "in": { "const": "path" } } },
                "then": { "properties": { "required": { "const": true } } },
                "allOf": [closed(&["name", "in", "schema"], json!({
                    "name": text, "in": { "enum": ["query", "header", "path"] },
                    "required": { "type": "boolean" }, "description": text,
                    "schema": { "type": "object" },
                }))],
            },
            "header": closed(&["schema"], json!({
                "description": text, "schema": { "type": "object" },
            })),
            "response": closed(&["description"], json!({
                "description": text, "headers": map_of(or_reference("header")),
                "content": { "$ref": "#/$defs/content" },
            })),
            "content": {
                "type": "object", "minProperties": 1,
                "propertyNames": { "pattern": "^[a-z]+/[a-z.+-]+$" },
                "additionalProperties": closed(&[], json!({
                    "schema": { "type": "object" }, "example": true,
                })),
            },
        },
    })
}

/// Returns what is wrong with `instance`, if anything is.
fn complaint(schema: Value, instance: &Value) -> Option<String> {
    let mut compiler = Compiler::new();
    compiler.set_default_draft(Draft::V2020_12);
    compiler.add_resource("memory:schema", schema).expect("a resource");
    let mut schemas = Schemas::new();
    let index = match compiler.compile("memory:schema", &mut schemas) {
        Ok(index) => index,
        Err(error) => return Some(format!("no schema: {error:#}")),
    };
    schemas.validate(instance, index).err().map(|error| format!("{error:#}"))
}

/// Calls `look` for every value in the document.
fn walk<'a>(value: &'a Value, path: &str, look: &mut dyn FnMut(&str, &'a Value)) {
    look(path, value);
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                walk(inner, &format!("{path}/{key}"), look);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                walk(inner, &format!("{path}/{index}"), look);
            }
        }
        _ => {}
    }
}

#[test]
fn the_document_has_the_shape_of_openapi() {
    assert_eq!(complaint(shape(), &openapi()), None);
}

#[test]
fn a_document_of_another_shape_is_noticed() {
    let broken: [fn(&mut Value); 4] = [
        |document| document["openapi"] = json!("3.0.0"),
        |document| document["paths"]["/v1/gc"]["post"]["sumary"] = json!("misspelt"),
        |document| document["paths"]["/v1/gc"]["post"]["responses"] = json!({ "2xx": {} }),
        |document| document["components"]["parameters"]["Prefer"]["in"] = json!("body"),
    ];
    for (number, change) in broken.into_iter().enumerate() {
        let mut document = openapi();
        change(&mut document);
        assert!(complaint(shape(), &document).is_some(), "{number}");
    }
}

#[test]
fn every_schema_in_the_document_is_a_schema() {
    let document = openapi();
    let components = document["components"]["schemas"].as_object().expect("schemas");
    assert!(components.len() > 2 * catalogue().len());
    let mut inline = Vec::new();
    walk(&document["paths"], "", &mut |path, value| {
        if path.ends_with("/schema") {
            inline.push(value.clone());
        }
    });
    assert!(inline.len() > catalogue().len());
    // References inside lead to the document's own components.
    for schema in components.values().cloned().chain(inline) {
        let mut whole = schema.clone();
        if let Some(object) = whole.as_object_mut() {
            object.insert("components".to_owned(), document["components"].clone());
        }
        if let Some(complaint) = complaint(whole, &Value::Null)
            && complaint.starts_with("no schema")
        {
            panic!("{complaint} in {schema}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = openapi();
    let mut used = BTreeSet::new();
    walk(&document, "", &mut |path, value| {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return };
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{path}: {reference}");
        used.insert(pointer.to_owned());
    });
    for (kind, parts) in document["components"].as_object().expect("components") {
        for name in parts.as_object().expect("parts").keys() {
            let is_used =
                kind == "securitySchemes" || used.contains(&format!("/components/{kind}/{name}"));
            assert!(is_used, "nothing uses {kind}/{name}");
        }
    }
}

#[test]
fn every_verb_is_a_route_and_only_reads_are_got() {
    let document = openapi();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            assert!(ids.insert(id.clone()), "{method} {path}: {id} is taken");
            let declared = operation["parameters"].as_array().into_iter().flatten();
            let in_path: Vec<&Value> = declared.filter(|one| one["in"] == "path").collect();
            let braces = path.matches('{').count();
            assert_eq!(in_path.len(), braces, "{method} {path}");
        }
    }
    for verb in catalogue() {
        let item = &document["paths"][format!("/v1/{}", verb.name)];
        assert_eq!(item["post"]["operationId"], verb.name);
        assert_eq!(item.get("get").is_some(), verb.effect == Effect::Read, "{}", verb.name);
    }
}

#[test]
fn examples_fit_their_schemas() {
    for verb in catalogue() {
        assert_eq!(complaint(verb.params.clone(), &verb.example()), None, "{}", verb.name);
    }
}

/// A query holds texts and lists of texts; a parameter that is an object could not be given.
#[test]
fn parameters_of_reads_fit_into_a_query() {
    for verb in catalogue().iter().filter(|verb| verb.effect == Effect::Read) {
        for (name, schema) in verb.properties().into_iter().flatten() {
            let fits = match schema["type"].as_str() {
                Some("array") => schema["items"]["type"] == "string",
                Some(kind) => kind != "object",
                None => false,
            };
            assert!(fits, "{} {name}: {schema}", verb.name);
        }
    }
}
