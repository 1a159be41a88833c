//! What the `net_*` verbs are not asked: faults that do nothing, or that no frame could obey.

use pando_model::fault::Distribution;

use super::{Checked, at_most, not_empty, range};
use crate::error::ApiError;
use crate::limits;
use crate::network::{
    ALL, GATEWAY, NetCaptureParams, NetImpairParams, NetPartitionParams, NetProbeParams,
};

pub(super) fn partition(params: &NetPartitionParams) -> Checked {
    if params.partition_a.is_empty() {
        let message = "`partition_a` is empty: a partition needs two groups of nodes";
        return Err(ApiError::parameter("partition_a", message));
    }
    for (name, group) in
        [("partition_a", &params.partition_a), ("partition_b", &params.partition_b)]
    {
        at_most(name, group.len() as u64, pando_model::limits::MAX_NODES as u64, "nodes")?;
    }
    if let Some(both) = params.partition_a.iter().find(|one| params.partition_b.contains(one)) {
        let message = format!("`{both}` is in both groups");
        return Err(ApiError::parameter("partition_b", message)
            .hint("a node is on one side of a partition or the other"));
    }
    of_any_fault(params.label.as_deref(), params.expires_s)
}

pub(super) fn impair(params: &NetImpairParams) -> Checked {
    let (source, target) = (&params.source_node, &params.target_node);
    not_empty("source_node", source)?;
    not_empty("target_node", target)?;
    if source == ALL {
        let message = "`source_node` is one node: its own links are impaired";
        return Err(ApiError::parameter("source_node", message)
            .hint(format!("give {GATEWAY} or a node; `both_directions` also takes the way back")));
    }
    if source == target {
        let message = format!("`{source}` is source and target: a node reaches itself by no link");
        return Err(ApiError::parameter("target_node", message));
    }
    let most = f64::from(limits::MAX_LATENCY_MS);
    for (name, value, most) in [
        ("latency_ms", params.latency_ms, most),
        ("jitter_ms", params.jitter_ms, most),
        ("loss_pct", params.loss_pct, 100.0),
        ("duplicate_pct", params.duplicate_pct, 100.0),
        ("corrupt_pct", params.corrupt_pct, 100.0),
        ("reorder_pct", params.reorder_pct, 100.0),
    ] {
        // NaN is in no range.
        if !(0.0..=most).contains(&value) {
            let message = format!("`{name}` is {value}, but must be 0 to {most}");
            return Err(ApiError::parameter(name, message));
        }
    }
    if let Some(frames) = params.loss_burst {
        range("loss_burst", frames.into(), 1, limits::MAX_LOSS_BURST.into())?;
    }
    if let Some(rate) = params.rate_kbit {
        range("rate_kbit", rate, 1, limits::MAX_RATE_KBIT)?;
    }
    if let Some(seed) = params.seed {
        range("seed", seed, 0, limits::MAX_SEED)?;
    }
    makes_sense(params)?;
    of_any_fault(params.label.as_deref(), params.expires_s)
}

fn makes_sense(params: &NetImpairParams) -> Checked {
    let effects = [
        params.latency_ms,
        params.jitter_ms,
        params.loss_pct,
        params.duplicate_pct,
        params.corrupt_pct,
        params.reorder_pct,
    ];
    if params.rate_kbit.is_none() && effects.iter().all(|effect| *effect == 0.0) {
        let message = "nothing is impaired: give at least one of `latency_ms`, `jitter_ms`, \
                       `loss_pct`, `duplicate_pct`, `corrupt_pct`, `reorder_pct`, `rate_kbit`";
        return Err(ApiError::parameter("latency_ms", message));
    }
    if params.distribution == Distribution::Uniform && params.jitter_ms > params.latency_ms {
        let message = format!(
            "`jitter_ms` is {}, more than `latency_ms` ({}): no frame arrives before it was sent",
            params.jitter_ms, params.latency_ms
        );
        return Err(ApiError::parameter("jitter_ms", message));
    }
    if params.reorder_pct > 0.0 && params.latency_ms == 0.0 {
        let message = "`reorder_pct` needs `latency_ms`: only what is delayed can be overtaken";
        return Err(ApiError::parameter("reorder_pct", message));
    }
    if params.loss_burst.is_some() && params.loss_pct == 0.0 {
        let message = "`loss_burst` needs `loss_pct`: it says how losses come together";
        return Err(ApiError::parameter("loss_pct", message));
    }
    Ok(())
}

fn of_any_fault(label: Option<&str>, expires_s: Option<u64>) -> Checked {
    if let Some(label) = label {
        at_most("label", label.len() as u64, limits::MAX_LABEL_BYTES as u64, "bytes")?;
        if label.chars().any(char::is_control) {
            return Err(ApiError::parameter("label", "`label` has a control character in it"));
        }
    }
    match expires_s {
        Some(seconds) => range("expires_s", seconds, 1, limits::MAX_FAULT_EXPIRY_S),
        None => Ok(()),
    }
}

pub(super) fn probe(params: &NetProbeParams) -> Checked {
    range("count", params.count.into(), 1, limits::MAX_PROBE_COUNT.into())?;
    range("timeout_ms", params.timeout_ms, 10, limits::MAX_PROBE_TIMEOUT_MS)
}

pub(super) fn capture(params: &NetCaptureParams) -> Checked {
    range("max_frames", params.max_frames, 1, limits::MAX_CAPTURE_FRAMES)?;
    range("max_bytes", params.max_bytes, 1024, limits::MAX_CAPTURE_BYTES)?;
    range("snap_bytes", params.snap_bytes.into(), 14, limits::MAX_SNAP_BYTES.into())?;
    range("limit", params.limit, 1, limits::MAX_CAPTURE_READ_BYTES)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::Call;

    fn refused(verb: &str, params: &Value) -> String {
        match Call::parse(verb, params.clone()) {
            Ok(_) => panic!("{verb} {params} is taken"),
            Err(error) => error.message,
        }
    }

    #[test]
    fn a_partition_has_two_groups() {
        let with = |a: Value, b: Value| json!({"cluster_name": "shop", "partition_a": a, "partition_b": b});
        assert!(refused("net_partition", &with(json!([]), json!(["a"]))).contains("two groups"));
        let both = with(json!(["a", "b"]), json!(["c", "b"]));
        assert!(refused("net_partition", &both).contains("`b` is in both"));
        assert!(Call::parse("net_partition", with(json!(["a"]), json!(["b"]))).is_ok());
        assert!(Call::parse("net_partition", with(json!(["a"]), json!([]))).is_ok(), "all others");
    }

    #[test]
    fn an_impairment_does_something_that_can_be_done() {
        let with = |changes: Value| {
            let mut params = json!({"cluster_name": "shop", "source_node": "a"});
            params.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            params
        };
        for (changes, says) in [
            (json!({}), "nothing is impaired"),
            (json!({"label": "x"}), "nothing is impaired"),
            (json!({"loss_pct": 100.5}), "0 to 100"),
            (json!({"loss_pct": -1}), "0 to 100"),
            (json!({"latency_ms": 60001}), "0 to 60000"),
            (json!({"latency_ms": 1, "jitter_ms": 2}), "more than `latency_ms`"),
            (json!({"reorder_pct": 1}), "needs `latency_ms`"),
            (json!({"latency_ms": 1, "loss_burst": 3}), "needs `loss_pct`"),
            (json!({"loss_pct": 1, "loss_burst": 0}), "1 to"),
            (json!({"rate_kbit": 0}), "1 to"),
            (json!({"latency_ms": 1, "seed": 1u64 << 53}), "0 to"),
            (json!({"latency_ms": 1, "expires_s": 0}), "1 to"),
            (json!({"latency_ms": 1, "target_node": "a"}), "source and target"),
            (json!({"latency_ms": 1, "source_node": "all"}), "one node"),
            (json!({"latency_ms": 1, "label": "x".repeat(201)}), "at most 200"),
            (json!({"latency_ms": 1, "label": "a\nb"}), "control character"),
        ] {
            let message = refused("net_impair", &with(changes.clone()));
            assert!(message.contains(says), "{changes}: {message}");
        }
        for changes in [
            json!({"latency_ms": 0.5}),
            json!({"latency_ms": 1, "jitter_ms": 2, "distribution": "normal"}),
            json!({"rate_kbit": 1}),
            json!({"loss_pct": 10, "loss_burst": 3}),
        ] {
            assert!(Call::parse("net_impair", with(changes.clone())).is_ok(), "{changes}");
        }
    }
}
