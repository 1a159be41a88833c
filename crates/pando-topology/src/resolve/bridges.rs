//! Networks that the kernel carries: what their bridges are called, and what they cannot have.

use pando_model::{BridgeName, Uplink};

use crate::input::{Carrier, NetworkInput};
use crate::report::{At, Report};
use crate::resolve::networks::Planned;
use crate::topology::Network;

/// Returns the bridge of a network that the kernel is to carry.
pub fn bridge(
    report: &mut Report<'_>,
    number: usize,
    at: &At<()>,
    input: &NetworkInput,
) -> Option<BridgeName> {
    let kernel = input.mode.as_ref().is_some_and(|mode| mode.value.0 == Carrier::Kernel);
    if !kernel {
        return None;
    }
    if let Some(at) = input.uplink.as_ref().filter(|at| at.value.0 == Uplink::Nat) {
        let message = "a network that the kernel carries has no way to the outside";
        report.wrong(at, message, "remove it, or `mode: kernel`");
    }
    let (at, text) = match &input.bridge {
        Some(named) => (named.with(()), named.value.0.clone()),
        None => (at.with(()), format!("br{number}")),
    };
    match text.parse() {
        Ok(bridge) => Some(bridge),
        Err(error) => {
            let error: pando_model::bridge::BridgeNameError = error;
            report.wrong(&at, error.to_string(), "write a short one, such as `br0`");
            None
        }
    }
}

/// One switch carries all networks of a branch, or the kernel does.
pub fn refuse_mixture<'n>(
    report: &mut Report<'_>,
    mut others: impl Iterator<Item = &'n Network>,
    planned: &Planned,
) {
    let (network, at) = (&planned.network, &planned.at);
    let wrong = others.find_map(|other| match (&other.bridge, &network.bridge) {
        (None, None) => None,
        (Some(one), Some(two)) => (one == two).then(|| {
            let message = format!("`{}` and `{}` name one bridge", other.name, network.name);
            (message, "give each a `bridge` of its own")
        }),
        _ => {
            let message = format!("`{}` and `{}` have different modes", other.name, network.name);
            Some((message, "write the same `mode` in all networks"))
        }
    });
    if let Some((message, fix)) = wrong {
        report.wrong(at, message, fix);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Limits, parse};
    use pando_model::cluster::SshDefaults;

    #[test]
    fn the_kernel_carries_only_what_asks_for_it() {
        let read = |network: &str| {
            let text = format!("name: a\nnetwork: {network}\nnodes: [{{name: x}}]\n");
            parse(&text, &Limits::default(), &SshDefaults::default()).unwrap()
        };
        let bridge = |network: &str| {
            let topology = read(network);
            assert_eq!(
                parse(&topology.to_yaml(), &Limits::default(), &SshDefaults::default()).unwrap(),
                topology
            );
            topology.networks[0].bridge.as_ref().map(ToString::to_string)
        };
        assert_eq!(bridge("{mode: kernel}").as_deref(), Some("br0"));
        assert_eq!(bridge("{mode: kernel, bridge: virbr-x}").as_deref(), Some("virbr-x"));
        assert_eq!(bridge("{mode: switch}"), None);
        let of_vmcluster = read("{bridge: virbr-x}");
        assert_eq!(of_vmcluster.networks[0].bridge, None);
        assert!(of_vmcluster.notes[0].message.contains("`mode: kernel`"));
    }
}
