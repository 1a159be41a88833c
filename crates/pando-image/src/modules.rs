//! Chooses kernel modules and the order to load them in, from the lists that `depmod` leaves
//! beside them: `modules.dep` (what each needs) and `modules.builtin` (what the kernel has inside).

use std::collections::{BTreeMap, BTreeSet};

/// Modules that an initramfs needs to reach its root disk and the guest channel.
pub const NEEDED: &[&str] = &["virtio_pci", "virtio_blk", "virtio_console", "ext4"];

/// Modules that a guest is better with: network, entropy, the note that it was branched, and a way to
/// say that its kernel panicked.
pub const WANTED: &[&str] = &["virtio_net", "virtio_rng", "vmgenid", "pvpanic_pci"];

/// Longest chain of modules that need one another; real ones have half a dozen.
const MAX_DEPTH: usize = 64;

/// Why modules cannot be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// The kernel has no such driver, neither inside nor as a module.
    #[error("the kernel has no driver `{0}`")]
    Absent(String),
    /// A module needs itself, by way of others.
    #[error("the module `{0}` needs itself")]
    Circle(String),
}

/// What a kernel's module directory holds.
#[derive(Debug, Default, Clone)]
pub struct Modules {
    /// Path below the module directory, by name.
    paths: BTreeMap<String, String>,
    /// Names of what each needs, by name.
    needs: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Modules {
    /// Reads both lists. Lines that make no sense are skipped: a module they hide is `Absent`.
    pub fn parse(dep: &str, builtin: &str) -> Self {
        let mut modules = Self::default();
        for line in dep.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let path = path.trim();
            // Such a path would be read from outside the module directory.
            if path.starts_with('/') || path.split('/').any(|part| part == "..") {
                continue;
            }
            let name = name_of(path);
            modules.needs.insert(name.clone(), needs.split_whitespace().map(name_of).collect());
            modules.paths.insert(name, path.to_owned());
        }
        modules.builtin = builtin.split_whitespace().map(name_of).collect();
        modules
    }

    /// Returns the paths of [`NEEDED`], [`WANTED`] and all that they depend on, each after what it
    /// needs.
    ///
    /// # Errors
    /// If one of the needed ones does not exist, or needs itself.
    pub fn for_initramfs(&self) -> Result<Vec<&str>, ModuleError> {
        let mut order = Vec::new();
        let mut done = BTreeSet::new();
        for name in NEEDED {
            self.visit(name, &mut done, &mut Vec::new(), &mut order)?;
        }
        for name in WANTED.iter().filter(|name| self.paths.contains_key(**name)) {
            self.visit(name, &mut done, &mut Vec::new(), &mut order)?;
        }
        Ok(order)
    }

    fn visit<'a>(
        &'a self,
        name: &str,
        done: &mut BTreeSet<String>,
        above: &mut Vec<String>,
        order: &mut Vec<&'a str>,
    ) -> Result<(), ModuleError> {
        if done.contains(name) || self.builtin.contains(name) {
            return Ok(());
        }
        if above.len() > MAX_DEPTH || above.iter().any(|above| above == name) {
            return Err(ModuleError::Circle(name.to_owned()));
        }
        let path =
            self.paths.get(name).ok_or_else(|| ModuleError::Absent(name.to_owned()))?.as_str();
        above.push(name.to_owned());
        for need in self.needs.get(name).into_iter().flatten() {
            self.visit(need, done, above, order)?;
        }
        above.pop();
        done.insert(name.to_owned());
        order.push(path);
        Ok(())
    }
}

/// Returns a module's name: that of its file without `.ko` and what follows, `-` as `_`.
pub fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let name = file.split_once(".ko").map_or(file, |(name, _)| name);
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/char/virtio_console.ko.zst: kernel/drivers/virtio/virtio.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko
../../evil.ko:
/etc/evil2.ko:
";

    #[test]
    fn each_module_comes_after_what_it_needs() {
        let modules = Modules::parse(DEP, "kernel/fs/ext4/ext4.ko\n");
        let order = modules.for_initramfs().unwrap();
        let names: Vec<_> = order.iter().map(|path| name_of(path)).collect();
        assert_eq!(
            names,
            ["virtio", "virtio_ring", "virtio_pci", "virtio_blk", "virtio_console", "virtio_rng"]
        );
    }

    #[test]
    fn a_driver_that_is_nowhere_is_named() {
        let error = Modules::parse(DEP, "").for_initramfs().unwrap_err();
        assert_eq!(error, ModuleError::Absent("ext4".to_owned()));
    }

    #[test]
    fn a_circle_is_refused() {
        let dep = "a/virtio_pci.ko: a/x.ko\na/x.ko: a/virtio_pci.ko\n";
        let error = Modules::parse(dep, "").for_initramfs().unwrap_err();
        assert_eq!(error, ModuleError::Circle("virtio_pci".to_owned()));
    }

    #[test]
    fn paths_outside_the_directory_are_not_modules() {
        let modules = Modules::parse(DEP, "");
        assert!(modules.paths.keys().all(|name| !name.starts_with("evil")));
    }
}
