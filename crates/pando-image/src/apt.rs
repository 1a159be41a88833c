//! A private apt: the machine's own ways to reach the network, our sources, and nothing else of its
//! state. Finds and downloads kernel packages, which are unpacked here and never installed.

use std::path::{Path, PathBuf};

use pando_driver::{ImageError, Reporter};

use crate::limits;
use crate::sources::{self, Mirror, Source};
use crate::tool::Tool;
use crate::work::{Work, io_error};

/// Packages that name the newest kernel for virtual machines: Debian's, Ubuntu's.
const KERNEL_NAMES: &[&str] = &["linux-image-cloud-amd64", "linux-image-virtual"];

/// Settings of this machine's apt that are taken over, by the start of their names: how to reach
/// mirrors, and what age of package lists to accept.
const TAKEN_OVER: &[&str] = &[
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Max-FutureTime",
    "Acquire::ForceIPv",
    "Acquire::Retries",
];

/// Returns the settings of this machine's apt that say how to reach a mirror, as lines of apt.conf.
///
/// # Errors
/// `ToolMissing`, `ToolFailed`, `Cancelled`.
pub async fn own_settings(reporter: &Reporter) -> Result<Vec<String>, ImageError> {
    let dump = Tool::new("apt-config", "apt")
        .args(["dump", "--no-empty", "--format", "%f \"%v\";%n"])
        .run(limits::LOCAL_DEADLINE, reporter)
        .await?;
    Ok(taken_over(&String::from_utf8_lossy(&dump)))
}

fn taken_over(dump: &str) -> Vec<String> {
    dump.lines()
        .filter(|line| {
            let lower = line.to_ascii_lowercase();
            TAKEN_OVER.iter().any(|start| lower.starts_with(&start.to_ascii_lowercase()))
        })
        .map(str::to_owned)
        .collect()
}

/// Returns the key that signs this machine's distribution, for sources that name none.
pub fn default_key() -> Option<&'static str> {
    [
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    ]
    .into_iter()
    .find(|path| Path::new(path).is_file())
}

/// A private apt in a scratch directory.
pub struct Apt {
    config: PathBuf,
    /// `-t SUITE`, if the kernel comes from another suite than the rest.
    target: Option<String>,
}

impl Apt {
    /// Sets one up for a mirror, backports included, and reads its package lists.
    ///
    /// # Errors
    /// `ToolMissing`, `ToolFailed`, `DiskFull`, `Cancelled`, `Io`.
    pub async fn new(
        work: &Work,
        mirror: &Mirror,
        settings: &[String],
        reporter: &Reporter,
    ) -> Result<Self, ImageError> {
        let root = work.directory("apt")?;
        for directory in ["state/lists/partial", "cache/archives/partial", "etc/parts"] {
            work.directory(&format!("apt/{directory}"))?;
        }
        let (target, backports): (_, Vec<Source>) = match &mirror.backports {
            Some((suite, source)) => (Some(suite.clone()), vec![source.clone()]),
            None => (None, Vec::new()),
        };
        let all: Vec<_> = mirror.sources.iter().cloned().chain(backports).collect();
        write(&root.join("etc/pando.sources"), &sources::to_deb822(&all, default_key()))?;
        write(&root.join("state/status"), "")?;
        let config = root.join("apt.conf");
        write(&config, &configuration(&root, settings))?;
        let apt = Self { config, target };
        reporter.report("reading package lists", 0, 0);
        apt.run("apt-get", &["update"], work.path(), limits::DOWNLOAD_DEADLINE, reporter).await?;
        Ok(apt)
    }

    /// Downloads the newest kernel for virtual machines into `directory`, unless it is there;
    /// returns the packages that hold it and its modules.
    ///
    /// # Errors
    /// `ToolFailed` if the mirror has none; `DiskFull`, `Cancelled`.
    pub async fn download_kernel(
        &self,
        work: &Work,
        directory: &Path,
        reporter: &Reporter,
    ) -> Result<Vec<PathBuf>, ImageError> {
        let names = self.kernel_packages(directory, reporter).await?;
        reporter.report("downloading the kernel", 0, 0);
        let mut args = vec!["download"];
        args.extend(names.iter().map(String::as_str));
        self.run("apt-get", &args, directory, limits::DOWNLOAD_DEADLINE, reporter).await?;
        // Others may have been there before, of these packages as well: ask for the very files.
        let mut args = vec!["download", "--print-uris"];
        args.extend(names.iter().map(String::as_str));
        let listed =
            self.run("apt-get", &args, work.path(), limits::LOCAL_DEADLINE, reporter).await?;
        let files: Vec<_> = file_names(&String::from_utf8_lossy(&listed))
            .map(|name| directory.join(name))
            .collect();
        match files.iter().find(|path| !path.is_file()) {
            Some(missing) => Err(ImageError::ToolFailed {
                tool: "apt-get".to_owned(),
                detail: format!("it did not download {}", missing.display()),
            }),
            None => Ok(files),
        }
    }

    async fn kernel_packages(
        &self,
        directory: &Path,
        reporter: &Reporter,
    ) -> Result<Vec<String>, ImageError> {
        for name in KERNEL_NAMES {
            let args = ["depends", "--important", "--recurse", name];
            let listed =
                self.run("apt-cache", &args, directory, limits::LOCAL_DEADLINE, reporter).await;
            let listed = match listed {
                Ok(listed) => String::from_utf8_lossy(&listed).into_owned(),
                // It exits with 100 for a name that the mirror does not have.
                Err(ImageError::ToolFailed { .. }) => continue,
                Err(error) => return Err(error),
            };
            let packages = kernel_packages(name, &listed);
            if !packages.is_empty() {
                return Ok(packages);
            }
        }
        Err(ImageError::ToolFailed {
            tool: "apt-cache".to_owned(),
            detail: format!("the mirror has none of the packages {}", KERNEL_NAMES.join(", ")),
        })
    }

    async fn run(
        &self,
        program: &'static str,
        args: &[&str],
        directory: &Path,
        deadline: std::time::Duration,
        reporter: &Reporter,
    ) -> Result<Vec<u8>, ImageError> {
        let mut tool = Tool::new(program, "apt").env("APT_CONFIG", &self.config).arg("-qq");
        if let Some(suite) = &self.target {
            tool = tool.arg("-t").arg(suite);
        }
        tool.args(args).directory(directory).run(deadline, reporter).await
    }
}

/// Returns the names of files in what `--print-uris` says: `'ADDRESS' NAME SIZE DIGEST` a line.
fn file_names(listed: &str) -> impl Iterator<Item = &str> {
    listed
        .lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once("' "))
        .filter_map(|(_, rest)| rest.split(' ').next())
        .filter(|name| name.ends_with(".deb") && !name.contains('/') && !name.starts_with('.'))
}

/// Picks the packages that hold the kernel and its modules out of a recursive list of what `name`
/// depends on: one package a line, what each depends on indented below it.
fn kernel_packages(name: &str, listed: &str) -> Vec<String> {
    let mut packages: Vec<String> = listed
        .lines()
        .filter(|line| line.starts_with("linux-image-") || line.starts_with("linux-modules-"))
        .filter(|line| *line != name && crate::names::check_package(line).is_ok())
        .map(str::to_owned)
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

fn configuration(root: &Path, settings: &[String]) -> String {
    let root = root.display();
    let mut text = format!(
        "Dir \"{root}\";\n\
         Dir::State \"{root}/state\";\n\
         Dir::State::status \"{root}/state/status\";\n\
         Dir::Cache \"{root}/cache\";\n\
         Dir::Etc::main \"/dev/null\";\n\
         Dir::Etc::parts \"{root}/etc/parts\";\n\
         Dir::Etc::sourcelist \"{root}/etc/pando.sources\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"{root}/etc/parts\";\n\
         Dir::Etc::trusted \"/etc/apt/trusted.gpg\";\n\
         Dir::Etc::trustedparts \"/etc/apt/trusted.gpg.d\";\n\
         Acquire::Languages \"none\";\n\
         APT::Sandbox::User \"root\";\n"
    );
    for line in settings {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn write(path: &Path, text: &str) -> Result<(), ImageError> {
    std::fs::write(path, text)
        .map_err(|source| io_error(format!("write {}", path.display()), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_and_modules_are_picked() {
        let debian = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.9-cloud-amd64\n\
                      linux-image-6.12.9-cloud-amd64\n  Depends: kmod\n |Depends: initramfs-tools\n\
                      kmod\n<linux-initramfs-tool>\n";
        assert_eq!(
            kernel_packages("linux-image-cloud-amd64", debian),
            ["linux-image-6.12.9-cloud-amd64"]
        );
        let ubuntu = "linux-image-virtual\n  Depends: linux-image-6.8.0-1-generic\n\
                      linux-image-6.8.0-1-generic\n  Depends: linux-modules-6.8.0-1-generic\n\
                      linux-modules-6.8.0-1-generic\n";
        assert_eq!(
            kernel_packages("linux-image-virtual", ubuntu),
            ["linux-image-6.8.0-1-generic", "linux-modules-6.8.0-1-generic"]
        );
    }

    #[test]
    fn files_are_named_by_apt_and_stay_in_their_directory() {
        let listed = "'http://m.test/l_1%2b2.deb' l_1+2_amd64.deb 33925512 SHA256:00\n\
                      'http://m.test/x' ../x.deb 1 SHA256:00\nW: something\n";
        assert_eq!(file_names(listed).collect::<Vec<_>>(), ["l_1+2_amd64.deb"]);
    }

    #[test]
    fn only_settings_about_the_network_are_taken_over() {
        let dump = "APT::Update::Post-Invoke:: \"rm -rf /\";\n\
                    Acquire::http::Proxy \"http://proxy.test:3128\";\n\
                    Acquire::Check-Valid-Until \"false\";\nDir::Etc \"x\";\n";
        assert_eq!(
            taken_over(dump),
            [
                "Acquire::http::Proxy \"http://proxy.test:3128\";",
                "Acquire::Check-Valid-Until \"false\";"
            ]
        );
    }
}
