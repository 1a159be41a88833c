//! `pando` alone, where nothing was made yet: what to type first.

use std::path::Path;

use crate::home;

/// Returns what somebody is told who types `pando` and has no image; `None` where help is better.
pub fn words() -> Option<String> {
    // Somebody else's daemon has its own images.
    let elsewhere = ["PANDO_SOCKET", "PANDO_URL"];
    if elsewhere.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return None;
    }
    let layout = home::layout(None).ok()?;
    if has_entries(&layout.images()) {
        return None;
    }
    Some(format!(
        "pando: whole running systems that behave like git.\n\
         \n\
         Nothing is here yet ({}). Begin with:\n\
         \n\
         \x20 pando doctor               what this machine has and lacks, and how to fix it\n\
         \x20 pando image build          a Debian image, once; it takes some minutes\n\
         \x20 pando vm create shop       a machine from it\n\
         \x20 pando cluster define FILE  several and their network, from a topology\n\
         \x20 pando demo                 a cluster committed, branched, broken and rolled back\n\
         \n\
         `pando --help` lists every command.",
        layout.home().display()
    ))
}

fn has_entries(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}
