//! Makes a root file system of a distribution's packages with mmdebstrap, which needs no root where
//! the distribution lets users have namespaces.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pando_driver::{ImageError, Reporter};

use crate::cache::PackageCache;
use crate::sources::{self, Mirror};
use crate::tool::{Tool, find};
use crate::work::{Work, io_error};
use crate::{apt, limits, system};

/// Hooks of mmdebstrap's that merge `/usr` where a release's packages do not: else they bring a Perl
/// program for it, which is larger than the rest of the image.
const MERGE_HOOKS: &str = "/usr/share/mmdebstrap/hooks/maybe-merged-usr";

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The release.
    pub release: &'a str,
    /// Where its packages are.
    pub mirror: &'a Mirror,
    /// Settings of apt that say how to reach the mirror.
    pub settings: &'a [String],
    /// Packages beyond [`system::PACKAGES`]; checked names.
    pub packages: &'a [String],
}

/// Packages that were downloaded before, and the kernel's.
pub const BORROWED: &str = "packages";
/// All that mmdebstrap used.
const DOWNLOADED: &str = "downloaded";

/// The packages of a build, borrowed from the home's cache.
pub struct Debs {
    cache: PackageCache,
}

impl Debs {
    /// Borrows what the cache has.
    ///
    /// # Errors
    /// `Cancelled`, `DiskFull`, `Io`.
    pub async fn borrow(
        work: &Work,
        cache: PackageCache,
        reporter: &Reporter,
    ) -> Result<Self, ImageError> {
        let to = work.directory(BORROWED)?;
        work.directory(DOWNLOADED)?;
        let lent = cache.clone();
        work.run(reporter, move |_| {
            if let Err(error) = lent.lend(&to) {
                tracing::info!(%error, "packages are downloaded again");
            }
            Ok(())
        })
        .await?;
        Ok(Self { cache })
    }

    /// Keeps what was downloaded for the next build.
    ///
    /// # Errors
    /// `Cancelled`.
    pub async fn give_back(self, work: &Work, reporter: &Reporter) -> Result<(), ImageError> {
        work.run(reporter, move |work| {
            for directory in [BORROWED, DOWNLOADED] {
                if let Err(error) = self.cache.keep(&work.join(directory)) {
                    tracing::info!(%error, "packages are not kept for the next build");
                }
            }
            Ok(())
        })
        .await
    }
}

/// Runs mmdebstrap; returns its archive.
///
/// # Errors
/// `ToolMissing`, `ToolFailed`, `DiskFull`, `Cancelled`, `Io`.
pub async fn run(
    work: &Work,
    request: &Request<'_>,
    reporter: &Reporter,
) -> Result<PathBuf, ImageError> {
    let sources = work.join("bootstrap.sources");
    let text = sources::to_deb822(&request.mirror.sources, apt::default_key());
    std::fs::write(&sources, text)
        .map_err(|source| io_error(format!("write {}", sources.display()), source))?;
    let archive = work.join("bootstrap.tar");
    let mut include = system::PACKAGES.join(",");
    for package in request.packages {
        include.push(',');
        include.push_str(package);
    }
    let mut tool = Tool::new("mmdebstrap", "mmdebstrap")
        .args(["--mode=auto", "--variant=apt", "--format=tar"])
        .arg(format!("--include={include}"))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        // A build that a power cut ends is thrown away.
        .arg("--dpkgopt=force-unsafe-io");
    if Path::new(MERGE_HOOKS).is_dir() {
        tool = tool.arg(format!("--hook-dir={MERGE_HOOKS}"));
    }
    for line in request.settings {
        tool = tool.arg(format!("--aptopt={line}"));
    }
    for path in system::EXCLUDED_PATHS {
        tool = tool.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    let confinement = Confinement::probe(reporter).await?;
    let scratch = confinement.scratch_directory(work)?;
    tool = confinement.apply(tool).env("TMPDIR", scratch.path());
    if confinement.can_copy() {
        // The mode without privileges or namespaces cannot copy anything into a tree that has no programs yet. The
        // paths are relative because nothing quotes them.
        tool = tool
            .directory(work.path())
            .arg("--skip=essential/unlink")
            .arg("--setup-hook=mkdir -p \"$1/var/cache/apt/archives\"")
            .arg(format!("--setup-hook=sync-in {BORROWED} /var/cache/apt/archives"))
            .arg(format!("--customize-hook=sync-out /var/cache/apt/archives {DOWNLOADED}"));
    }
    let made = tool
        .args([request.release.as_ref(), archive.as_os_str(), sources.as_os_str()])
        .run_with(limits::BOOTSTRAP_DEADLINE, reporter, |line| {
            if let Some((number, step)) = step_of(line) {
                reporter.report(step, number, STEPS.len() as u64);
            }
        })
        .await;
    if made.is_err() {
        confinement.clean(scratch.path()).await;
    }
    made?;
    Ok(archive)
}

/// What holds the processes and mounts of a bootstrap together, so that they end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confinement {
    /// As root, in namespaces that we make.
    OwnNamespaces,
    /// As a user, in namespaces that mmdebstrap makes; the owners of its files are users of those.
    ItsNamespaces,
    /// Nothing: a container that forbids namespaces, or a user without sub-ids.
    ProcessGroup,
}

impl Confinement {
    async fn probe(reporter: &Reporter) -> Result<Self, ImageError> {
        if !rustix::process::geteuid().is_root() {
            let has_sub_ids = find("newuidmap", "uidmap").is_ok();
            return Ok(if has_sub_ids { Self::ItsNamespaces } else { Self::ProcessGroup });
        }
        let probe = Tool::new("true", "coreutils").isolated();
        match probe.run(limits::INSPECT_DEADLINE, reporter).await {
            Ok(_) => Ok(Self::OwnNamespaces),
            Err(ImageError::ToolFailed { .. }) => Ok(Self::ProcessGroup),
            Err(error) => Err(error),
        }
    }

    fn apply(self, tool: Tool) -> Tool {
        match self {
            Self::OwnNamespaces => tool.isolated(),
            Self::ItsNamespaces => tool,
            Self::ProcessGroup => tool.grace(limits::STOP_GRACE),
        }
    }

    /// Whether files can be copied into a tree that has no programs yet.
    fn can_copy(self) -> bool {
        self != Self::ProcessGroup || rustix::process::geteuid().is_root()
    }

    /// Returns the directory that mmdebstrap works in. Users of namespaces must be able to enter
    /// it, which they may not a home.
    fn scratch_directory(self, work: &Work) -> Result<tempfile::TempDir, ImageError> {
        let parent = match self {
            Self::ItsNamespaces => std::env::temp_dir(),
            Self::OwnNamespaces | Self::ProcessGroup => work.path().to_owned(),
        };
        tempfile::Builder::new()
            .prefix("pando-bootstrap-")
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir_in(&parent)
            .map_err(|source| io_error(format!("make a directory in {}", parent.display()), source))
    }

    /// Removes what a killed mmdebstrap left and only users of its namespaces may remove. The empty
    /// directories at the top are ours.
    async fn clean(self, scratch: &Path) {
        if self != Self::ItsNamespaces {
            return;
        }
        for entry in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
            let removed = Tool::new("mmdebstrap", "mmdebstrap")
                .args(["--unshare-helper", "rm", "-rf", "--"])
                .arg(entry.path())
                .run(limits::LOCAL_DEADLINE, &Reporter::silent())
                .await;
            if let Err(error) = removed {
                tracing::debug!(%error, "the top of a bootstrap's tree is left to its owner");
            }
        }
    }
}

/// What mmdebstrap says, and what that means to a person.
const STEPS: &[(&str, &str)] = &[
    ("running apt-get update", "reading package lists"),
    ("downloading packages with apt", "downloading packages"),
    ("extracting archives", "unpacking packages"),
    ("installing essential packages", "installing essential packages"),
    ("installing remaining packages", "installing packages"),
    ("cleaning package lists", "tidying up"),
    ("creating tarball", "collecting files"),
];

fn step_of(line: &str) -> Option<(u64, &'static str)> {
    let position = STEPS.iter().position(|(said, _)| line.contains(said))?;
    STEPS.get(position).map(|(_, step)| (position as u64 + 1, *step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mmdebstrap_says_becomes_a_step() {
        assert_eq!(step_of("I: extracting archives..."), Some((3, "unpacking packages")));
        assert_eq!(step_of("W: something else"), None);
    }
}
