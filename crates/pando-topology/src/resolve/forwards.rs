//! Forwards: ports of this host that lead to nodes.

use pando_model::Name;

use crate::input::{ForwardInput, ForwardRecord};
use crate::record::List;
use crate::report::{At, Report};
use crate::resolve::addresses::NodeForwards;
use crate::resolve::{Taken, limited, ranged};
use crate::topology::Forward;

/// Ports that are forwarded, and where.
#[derive(Default)]
struct Ports {
    of_host: Taken,
    /// Handles name one port of this host for each of these.
    of_nodes: Taken,
}

/// Returns the forwards of the cluster and of its nodes.
pub fn forwards(
    report: &mut Report<'_>,
    nodes: &[&Name],
    input: Option<At<List<ForwardInput>>>,
    of_nodes: NodeForwards,
) -> Vec<Forward> {
    let most = report.limits.forwards;
    let mut ports = Ports::default();
    let mut forwards = Vec::new();
    for at in limited(report, input, most, "forwards") {
        let Some(node) = named(report, nodes, &at) else { continue };
        forwards.extend(forward(report, &mut ports, at, node));
    }
    for (node, own) in of_nodes {
        for at in own {
            let other = at.value.0.node.as_ref().filter(|named| named.value.0 != node);
            if let Some(other) = other {
                let message =
                    format!("the forward is below `{node}` and names `{}`", other.value.0);
                report.wrong(other, message, "remove `node`, or move the forward");
                continue;
            }
            if forwards.len() >= most {
                let message = format!("there are more than {most} forwards");
                report.wrong(&at, message, format!("keep {most}"));
                return forwards;
            }
            forwards.extend(forward(report, &mut ports, at, node.clone()));
        }
    }
    forwards
}

/// A forward of the cluster names its node, unless there is only one.
fn named(report: &mut Report<'_>, nodes: &[&Name], at: &At<ForwardInput>) -> Option<Name> {
    let known = || {
        let names: Vec<&str> = nodes.iter().map(|name| name.as_str()).collect();
        format!("the nodes are: {}", names.join(", "))
    };
    let Some(node) = &at.value.0.node else {
        if let [only] = nodes {
            return Some((*only).clone());
        }
        let fix = format!("write `node: …`, or the forward below its node; {}", known());
        report.wrong(at, "the forward names no node", fix);
        return None;
    };
    if !nodes.contains(&&node.value.0) {
        report.wrong(node, format!("there is no node `{}`", node.value.0), known());
        return None;
    }
    Some(node.value.0.clone())
}

fn forward(
    report: &mut Report<'_>,
    ports: &mut Ports,
    at: At<ForwardInput>,
    node: Name,
) -> Option<Forward> {
    let ForwardRecord { host_port, guest_port, .. } = at.value.0;
    let fix = "write a TCP port";
    let host_port = match host_port {
        None => None,
        Some(at) => {
            let port: u16 = ranged(report, &at, 1..=65535, fix)?;
            if !ports.of_host.take(report, &at, "the port of this host", &port.to_string()) {
                return None;
            }
            Some(port)
        }
    };
    let at = guest_port;
    let guest_port = ranged(report, &at, 1..=65535, fix)?;
    if !ports.of_nodes.take(report, &at, "the forward to", &format!("{node}:{guest_port}")) {
        return None;
    }
    Some(Forward { host_port, node, guest_port })
}
