//! What the catalogue promises to every front end that is generated from it.

#![allow(
    clippy::expect_used,
    clippy::expect_fun_call,
    clippy::needless_pass_by_value,
    reason = "a test ends where it fails"
)]

use std::collections::BTreeSet;

use pando_api::{ApiError, Call, Envelope, Verb, catalogue};
use pando_model::ErrorCode;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Returns parameters that a verb accepts: all that it requires and nothing else.
fn minimal(verb: &Verb) -> Value {
    let text = |name: &str| match name {
        "path" => json!("/etc/hosts"),
        "id" => json!("op_0123456789ab"),
        "action" => json!("pause"),
        "kind" => json!("disk"),
        _ => json!("shop"),
    };
    let required = verb.params["required"].as_array().into_iter().flatten();
    let mut params: serde_json::Map<String, Value> =
        required.filter_map(Value::as_str).map(|name| (name.to_owned(), text(name))).collect();
    match verb.name {
        "exec_run" | "exec_fanout" => {
            params.insert("command".into(), json!("true"));
        }
        "cluster_define" => {
            params.insert("topology_name".into(), json!("shop"));
        }
        "file_push" => {
            params.insert("content".into(), json!("hello"));
        }
        "net_partition" => {
            params.insert("partition_a".into(), json!(["db"]));
            params.insert("partition_b".into(), json!(["web"]));
        }
        "net_impair" => {
            params.insert("latency_ms".into(), json!(50));
        }
        "net_capture" => {
            params.insert("action".into(), json!("start"));
        }
        _ => {}
    }
    if verb.name == "exec_fanout" {
        params.insert("branches".into(), json!(["shop@a", "shop@b"]));
    }
    Value::Object(params)
}

fn refused(verb: &str, params: Value) -> ApiError {
    Call::parse(verb, params.clone()).expect_err(&format!("{verb} {params}"))
}

#[test]
fn schemas_are_rooted_at_objects_and_describe_every_parameter() {
    for verb in catalogue() {
        assert_eq!(verb.params["type"], "object", "{}", verb.name);
        assert_eq!(verb.result["type"], "object", "{}", verb.name);
        assert!(!verb.summary.is_empty() && !verb.description().is_empty(), "{}", verb.name);
        for schemas in [&verb.params, &verb.result] {
            for (name, schema) in schemas["properties"].as_object().into_iter().flatten() {
                assert!(schema["description"].is_string(), "{}: {name}", verb.name);
            }
        }
    }
}

#[test]
fn schemas_have_no_references_and_no_null() {
    for verb in catalogue() {
        for schema in [&verb.params, &verb.result] {
            let text = schema.to_string();
            assert!(!text.contains("$ref"), "{}: {text}", verb.name);
            assert!(!text.contains("\"null\""), "{}: {text}", verb.name);
        }
    }
}

#[test]
fn commands_name_parameters_that_exist_and_do_not_collide() {
    let mut paths = BTreeSet::new();
    for verb in catalogue() {
        let known = |name: &str| verb.properties().is_some_and(|known| known.contains_key(name));
        let cli = verb.cli;
        let named = cli.positionals.iter().copied();
        let named = named.chain(cli.shorts.iter().map(|(_, name)| *name));
        for name in named.chain(cli.hints.iter().map(|(name, _)| *name)) {
            assert!(known(name), "{}: {name}", verb.name);
        }
        let letters: BTreeSet<char> = cli.shorts.iter().map(|(letter, _)| *letter).collect();
        assert_eq!(letters.len(), cli.shorts.len(), "{}", verb.name);
        assert!(cli.by_hand || paths.insert(cli.path), "{:?}", cli.path);
    }
}

#[test]
fn names_and_aliases_are_unique_and_lead_to_their_verb() {
    let mut names = BTreeSet::new();
    for verb in catalogue() {
        assert!(names.insert(verb.name));
        for alias in verb.aliases {
            assert!(names.insert(alias.name), "{}", alias.name);
            assert_eq!(Verb::find(alias.name).map(|found| found.name), Some(verb.name));
            for (theirs, ours) in alias.renames {
                let properties = verb.properties().expect("parameters");
                assert!(properties.contains_key(*ours), "{}: {ours}", alias.name);
                assert!(!properties.contains_key(*theirs), "{}: {theirs}", alias.name);
            }
        }
    }
}

#[test]
fn every_call_is_written_as_json_that_parses_back() {
    for verb in catalogue() {
        let call = Call::parse(verb.name, minimal(verb)).expect(verb.name);
        assert_eq!(call.name(), verb.name);
        assert_eq!(call.verb().name, verb.name);
        let params = call.params().expect("JSON");
        assert_eq!(Call::parse(verb.name, params).expect(verb.name), call);
    }
}

#[test]
fn aliases_take_the_parameters_of_their_origin() {
    let cases = [
        ("vm.create", json!({"name": "web", "memory_mb": 1024, "disk_gb": 10}), "vm_create"),
        ("vm.control", json!({"id": "web", "operation": "restart"}), "vm_control"),
        ("vers_branch_create", json!({"alias": "try-1"}), "branch_create"),
        ("vers_execute", json!({"command": "id", "timeout": 5}), "exec_run"),
        ("vers_commit", json!({"tag": "before"}), "commit_create"),
        ("vers_rollback", json!({"target": "before"}), "branch_rollback"),
        ("from_commit_vm", json!({"commit_id": "cm_0123456789ab"}), "branch_create"),
        ("vers_parallel_execute", json!({"branches": ["a"], "command": "id"}), "exec_fanout"),
        ("delete_vm", json!({"vm_id": "web"}), "vm_delete"),
    ];
    for (alias, params, verb) in cases {
        assert_eq!(Call::parse(alias, params).expect(alias).name(), verb);
    }
    let both = refused("vm.create", json!({"name": "a", "memory_mb": 512, "memory_mib": 512}));
    assert!(both.message.contains("memory_mb"), "{both}");
}

#[test]
fn unknown_words_are_refused_with_the_nearest_one() {
    let error = refused("vm_create", json!({"name": "web", "memory": 512}));
    assert_eq!(error.code, ErrorCode::InvalidParameter);
    assert_eq!(error.subject.as_deref(), Some("memory"));
    assert_eq!(error.hint.as_deref(), Some("did you mean `memory_mib`?"));

    let error = refused("vm_craete", json!({}));
    assert_eq!(error.code, ErrorCode::UnknownVerb);
    assert_eq!(error.hint.as_deref(), Some("did you mean `vm_create`?"));
}

#[test]
fn wrong_values_name_their_parameter() {
    let cases = [
        ("vm_create", json!({"name": "web", "vcpus": "two"}), "vcpus"),
        ("vm_create", json!({"name": "x; touch p"}), "name"),
        ("vm_create", json!({"name": "web", "vcpus": 0}), "vcpus"),
        ("vm_create", json!({"name": "web", "memory_mib": 513}), "memory_mib"),
        ("vm_create", json!({"name": "web", "memory_mib": u64::MAX}), "memory_mib"),
        ("vm_create", json!({"name": "web", "disk_gib": u64::MAX}), "disk_gib"),
        ("vm_create", json!({"name": "web", "uplink": "nat", "nics": 0}), "uplink"),
        ("vm_create", json!({"name": "web", "uplink": "host"}), "uplink"),
        ("vm_create", json!({"name": "web", "env": {"A=B": "c"}}), "env"),
        ("vm_control", json!({"address": "web", "action": "explode"}), "action"),
        ("vm_status", json!({"address": "../etc"}), "address"),
        ("branch_create", json!({"name": "a", "count": 2}), "names"),
        ("branch_create", json!({"count": 0}), "count"),
        ("branch_create", json!({"names": ["a", "a"]}), "names"),
        ("branch_create", json!({"names": ["a", "B"]}), "names[1]"),
        ("exec_run", json!({}), "command"),
        ("exec_run", json!({"command": "id", "argv": ["id"]}), "command"),
        ("exec_run", json!({"command": "id\u{0}"}), "command"),
        ("exec_run", json!({"command": "id", "timeout_s": 0}), "timeout_s"),
        ("exec_run", json!({"argv": vec!["x".repeat(1000); 200]}), "argv"),
        ("exec_fanout", json!({"command": "id"}), "branches"),
        ("file_push", json!({"address": "a", "path": "etc", "content": ""}), "path"),
        ("file_push", json!({"address": "a", "path": "/a", "content": "", "mode": "9"}), "mode"),
        ("image_import", json!({"name": "a", "path": "/a", "kind": "rootfs"}), "kernel"),
        ("image_import", json!({"name": "a", "path": "a", "kind": "disk"}), "path"),
        ("image_build", json!({"name": "../a"}), "name"),
        ("operation_get", json!({"id": "br_0123456789ab"}), "id"),
        ("vm_list", json!({"limit": 0}), "limit"),
    ];
    for (verb, params, subject) in cases {
        let error = refused(verb, params.clone());
        assert_eq!(error.code, ErrorCode::InvalidParameter, "{params}");
        assert_eq!(error.subject.as_deref(), Some(subject), "{params}: {error}");
    }
}

/// What a schema says of a number or a list is what a call is refused for.
#[test]
fn bounds_in_schemas_are_those_that_are_enforced() {
    let refusal = |verb: &Verb, name: &str, value: &Value| {
        let mut params = verb.example();
        params[name] = value.clone();
        // What excludes the parameter.
        for (one, other) in [("argv", "command"), ("names", "count")] {
            if name == one {
                params.as_object_mut().expect("an object").remove(other);
            }
        }
        Call::parse(verb.name, params).err().filter(|error| error.subject.as_deref() == Some(name))
    };
    let mut bounded = 0;
    for verb in catalogue() {
        for (name, schema) in verb.properties().into_iter().flatten() {
            let (fine, refused) = match schema["type"].as_str() {
                // An offset counts from the beginning of something whose size nobody knows.
                Some("integer") if name != "offset" => {
                    let least = schema["minimum"].as_u64().expect(name);
                    let most = schema["maximum"].as_u64().expect(&format!("{}: {name}", verb.name));
                    let beyond = json!(most + 1);
                    let below = least.checked_sub(1).map_or(json!(-1), Value::from);
                    (vec![json!(least), json!(most)], vec![below, beyond])
                }
                Some("array") if schema.get("maxItems").is_some() => {
                    let most = schema["maxItems"].as_u64().expect(name);
                    let list = |count| (0..count).map(|index| format!("a{index}")).collect();
                    (vec![list(most)], vec![list(most + 1)])
                }
                _ => continue,
            };
            bounded += 1;
            for value in fine {
                assert!(refusal(verb, name, &value).is_none(), "{} {name} {value}", verb.name);
            }
            for value in refused {
                assert!(refusal(verb, name, &value).is_some(), "{} {name} {value}", verb.name);
            }
        }
    }
    assert!(bounded > 25, "{bounded}");
}

#[test]
fn what_is_missing_is_listed() {
    let error = refused("vm_control", json!({}));
    assert_eq!(error.message, "vm_control needs `address`, `action`");
    assert_eq!(error.hint.as_deref(), Some("vm_control{action, address, timeout_s?}"));
    assert_eq!(
        refused("vm_control", json!({"address": null, "action": "stop"})).subject.as_deref(),
        Some("address")
    );
}

#[test]
fn huge_and_odd_input_gives_a_short_error() {
    let huge = "x".repeat(10 << 20);
    for params in [
        json!({"name": huge}),
        json!({ &huge: 1 }),
        json!({"name": "a", "vcpus": huge}),
        json!([1, 2]),
        json!(huge),
        json!(1e300),
    ] {
        let error = refused("vm_create", params);
        assert!(error.to_string().len() < 600, "{} bytes", error.to_string().len());
    }
}

#[test]
fn every_code_is_documented() {
    for code in ErrorCode::ALL {
        let text = pando_api::error::describe(*code).expect(code.as_str());
        assert!(text.ends_with('.') && text.len() > 10, "{code}: {text}");
    }
}

#[test]
fn the_envelope_carries_either_a_result_or_an_error() {
    let fine = Envelope::from(Ok(json!({"a": 1})));
    assert_eq!(
        serde_json::to_value(&fine).unwrap(),
        json!({"success": true, "result": {"a": 1}, "error": null})
    );
    let error = ApiError::new(ErrorCode::NotFound, "no cluster `shop`").hint("pando ps");
    let failed = serde_json::to_value(Envelope::from(Err(error.clone()))).unwrap();
    assert_eq!(
        failed,
        json!({"success": false, "result": null, "error": {
            "code": "not_found", "message": "no cluster `shop`", "hint": "pando ps", "recoverable": true,
        }})
    );
    let back: Envelope = serde_json::from_value(failed).unwrap();
    assert_eq!(Result::<Value, ApiError>::from(back), Err(error));
}

#[test]
fn schemas_match_their_golden_files() {
    for verb in catalogue() {
        let aliases: Vec<_> = verb.aliases.iter().map(|alias| alias.name).collect();
        insta::assert_json_snapshot!(
            verb.name,
            json!({
                "name": verb.name, "aliases": aliases, "toolset": verb.toolset, "effect": verb.effect,
                "runs": verb.runs, "summary": verb.summary, "params": verb.params, "result": verb.result,
            })
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn parsing_is_total(index in 0..catalogue().len(), name in "[a-z_]{0,10}", value in any_json()) {
        let verb = &catalogue()[index];
        let mut params = minimal(verb);
        let known: Vec<String> = verb.properties().into_iter().flat_map(|map| map.keys().cloned()).collect();
        if let Some(object) = params.as_object_mut() {
            let key = known.iter().find(|known| known.starts_with(&name)).cloned().unwrap_or(name);
            object.insert(key, value);
        }
        if let Ok(call) = Call::parse(verb.name, params) {
            let again = Call::parse(verb.name, call.params().expect("JSON")).expect("own JSON");
            prop_assert_eq!(again, call);
        }
    }
}

#[test]
fn values_of_another_type_are_refused_in_plain_words() {
    for (params, said) in [
        (
            json!({"timeout_s": "soon"}),
            "`timeout_s` of exec_run is a string; it must be a whole number from 1",
        ),
        (json!({"timeout_s": 1.5}), "is 1.5; it must be a whole number"),
        (json!({"timeout_s": -1}), "is -1; it must be a whole number from 1"),
        (json!({"detach": "yes"}), "`detach` of exec_run is a string; it must be true or false"),
        (json!({"argv": "ls -l"}), "`argv` of exec_run is a string; it must be a list"),
        (json!({"env": ["A=1"]}), "`env` of exec_run is a list; it must be an object"),
    ] {
        let error = Call::parse("exec_run", params).unwrap_err();
        assert!(error.message.contains(said), "{}", error.message);
        assert!(error.subject.is_some());
    }
}
