//! Assembles the initramfs of a directly booted image: the guest program as `/init`, the modules
//! that reach the root disk, and the order to load them in.
//!
//! It is not compressed: under TCG unpacking costs more than reading two megabytes.

use crate::cpio::{CpioError, Entry, Writer};

/// File in the initramfs that lists modules, one absolute path a line, in loading order. The guest
/// program reads it.
pub const MODULE_LIST: &str = "etc/pando/modules";

/// A kernel module, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, as [`crate::modules::name_of`] gives it.
    pub name: String,
    /// Its bytes: an ELF object.
    pub bytes: Vec<u8>,
}

/// Returns the archive. `modules` are in loading order.
///
/// # Errors
/// If a module's name cannot be stored.
pub fn assemble(guest_program: Vec<u8>, modules: Vec<Module>) -> Result<Vec<u8>, CpioError> {
    let mut archive = Writer::default();
    for directory in
        ["dev", "etc", "etc/pando", "lib", "lib/modules", "proc", "root", "run", "sys", "sysroot"]
    {
        archive.add(directory, 0o755, &Entry::Directory)?;
    }
    // The kernel opens it for init's standard streams before init can mount anything.
    archive.add("dev/console", 0o600, &Entry::CharDevice { major: 5, minor: 1 })?;
    let mut list = String::new();
    for module in &modules {
        list.push_str(&format!("/lib/modules/{}.ko\n", module.name));
    }
    archive.add(MODULE_LIST, 0o644, &Entry::File(list.into_bytes()))?;
    archive.add("init", 0o755, &Entry::File(guest_program))?;
    for module in modules {
        archive.add(
            &format!("lib/modules/{}.ko", module.name),
            0o644,
            &Entry::File(module.bytes),
        )?;
    }
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_give_equal_bytes_and_the_order_is_kept() {
        let modules =
            ["b", "a"].map(|name| Module { name: name.to_owned(), bytes: vec![1, 2, 3] }).to_vec();
        let archive = assemble(vec![7; 100], modules.clone()).unwrap();
        assert_eq!(archive, assemble(vec![7; 100], modules).unwrap());
        let text = String::from_utf8_lossy(&archive);
        assert!(text.contains("/lib/modules/b.ko\n/lib/modules/a.ko\n"));
    }
}
