//! Where packages come from: what this machine's own apt is configured with, in both of its
//! formats (sources.list(5)). No host name is ever known to the code itself.

use std::fmt::Write as _;
use std::path::Path;

use pando_driver::ImageError;

/// One configured source of binary packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Base addresses.
    pub uris: Vec<String>,
    /// Suites below each of them, such as `bookworm` and `bookworm-updates`.
    pub suites: Vec<String>,
    /// Components of each suite.
    pub components: Vec<String>,
    /// Key file, or key in place, that signs it; apt's trusted keys otherwise.
    pub signed_by: Option<String>,
}

/// The pocket of a release that a suite is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pocket {
    /// The release itself, or its updates.
    Release,
    /// Newer packages on request, such as kernels.
    Backports,
}

/// What a build takes packages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Everything but the kernel.
    pub sources: Vec<Source>,
    /// Suite of backports, if this machine uses it, with its source: a newer kernel tells its guest
    /// that it was branched (vmgenid), which older ones cannot.
    pub backports: Option<(String, Source)>,
}

/// Returns where to take a release from: `given` if there is one, what this machine uses otherwise.
///
/// # Errors
/// `NoMirror` if this machine uses none, `Invalid` if `given` is no address.
pub fn choose(
    configured: &[Source],
    own_release: Option<&str>,
    release: &str,
    given: Option<&str>,
) -> Result<Mirror, ImageError> {
    if let Some(uri) = given {
        check_uri(uri)?;
        let source = Source {
            uris: vec![uri.to_owned()],
            suites: vec![release.to_owned()],
            components: vec!["main".to_owned()],
            signed_by: None,
        };
        return Ok(Mirror { sources: vec![source], backports: None });
    }
    let official = |source: &&Source| is_official(source);
    let pockets = |wanted: Pocket| {
        move |source: &Source| {
            let mut source = source.clone();
            source.suites.retain(|suite| pocket_of(suite, release) == Some(wanted));
            (!source.suites.is_empty()).then_some(source)
        }
    };
    let has_release = |sources: &[Source]| {
        sources.iter().any(|source| source.suites.iter().any(|suite| suite == release))
    };
    let mut sources: Vec<_> =
        configured.iter().filter(official).filter_map(pockets(Pocket::Release)).collect();
    if !has_release(&sources) {
        // A mirror of a distribution that signs with a key of its own.
        sources = configured.iter().filter_map(pockets(Pocket::Release)).collect();
    }
    if !has_release(&sources) {
        sources = own_release
            .and_then(|own| {
                configured.iter().find(|source| source.suites.iter().any(|suite| suite == own))
            })
            .map(|source| Source { suites: vec![release.to_owned()], ..source.clone() })
            .into_iter()
            .collect();
    }
    if sources.is_empty() {
        return Err(ImageError::NoMirror { release: release.to_owned() });
    }
    let backports = configured
        .iter()
        .filter(official)
        .filter_map(pockets(Pocket::Backports))
        .find_map(|source| Some((source.suites.first()?.clone(), source)));
    Ok(Mirror { sources, backports })
}

/// Returns the pocket of `release` that a suite is, if it is one of its.
fn pocket_of(suite: &str, release: &str) -> Option<Pocket> {
    match suite.strip_prefix(release)? {
        "" | "-updates" | "-security" | "/updates" => Some(Pocket::Release),
        "-backports" => Some(Pocket::Backports),
        _ => None,
    }
}

/// Third parties use the distribution's suite names too; they bring a key of their own.
fn is_official(source: &Source) -> bool {
    source.components.iter().any(|component| component == "main")
        && source.signed_by.as_deref().is_none_or(|key| {
            let file = key.rsplit('/').next().unwrap_or(key);
            file.starts_with("debian-archive-") || file.starts_with("ubuntu-archive-")
        })
}

/// Refuses what apt or mmdebstrap would take for something else than an address.
fn check_uri(uri: &str) -> Result<(), ImageError> {
    let schemes = ["http://", "https://", "file:///", "copy:///"];
    let plain = |c: char| c.is_ascii_graphic() && !"[]\"'\\#".contains(c);
    if schemes.iter().any(|scheme| uri.starts_with(scheme)) && uri.chars().all(plain) {
        return Ok(());
    }
    Err(ImageError::Invalid(format!("`{}` is not a mirror's address", uri.escape_default())))
}

/// Returns the sources as a deb822 file.
pub fn to_deb822(sources: &[Source], default_key: Option<&str>) -> String {
    let mut text = String::new();
    for source in sources {
        let mut field = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}: {value}");
        };
        field("Types", "deb");
        field("URIs", &source.uris.join(" "));
        field("Suites", &source.suites.join(" "));
        field("Components", &source.components.join(" "));
        if let Some(key) = source.signed_by.as_deref().or(default_key) {
            field("Signed-By", key);
        }
        text.push('\n');
    }
    text
}

/// Reads what apt is configured with below `root`. Files that cannot be read are left out, like
/// apt's own backups and disabled ones.
pub fn read_configured(root: &Path) -> Vec<Source> {
    let apt = root.join("etc/apt");
    let mut files = vec![apt.join("sources.list")];
    let mut parts: Vec<_> = std::fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    parts.sort();
    files.extend(parts);
    let mut sources = Vec::new();
    for file in files {
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_list,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        if let Ok(text) = std::fs::read_to_string(&file) {
            sources.extend(parse(&text));
        }
    }
    sources
}

/// Parses one-line entries: `deb [option=value …] URI SUITE COMPONENT…`.
pub fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None;
    }
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(inside) = rest.strip_prefix('[') {
        let (options, after) = inside.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let source = Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    };
    is_usable(&source).then_some(source)
}

/// Parses stanzas of fields, with continuation lines and comments.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut stanza: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(source_of(&stanza));
            stanza.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                // Kept as it is: keys in place depend on it.
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn source_of(stanza: &[(String, String)]) -> Option<Source> {
    let field = |wanted: &str| {
        stanza.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    if field("enabled").is_some_and(|value| matches!(value, "no" | "false" | "0" | "off")) {
        return None;
    }
    if !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    let source = Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
    };
    is_usable(&source).then_some(source)
}

/// A CD that nobody inserts and a flat repository are of no use to a build.
fn is_usable(source: &Source) -> bool {
    !source.components.is_empty()
        && !source.suites.is_empty()
        && !source.uris.is_empty()
        && source.uris.iter().all(|uri| !uri.starts_with("cdrom:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
# deb http://commented.test/debian bookworm main
deb http://mirror.test/debian bookworm main contrib # trailing
deb\t[ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] http://sec.test/d bookworm-security main
deb-src http://mirror.test/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb http://flat.test/ ./
deb [signed-by=/etc/apt/keyrings/third.gpg] https://third.test/debian bookworm stable
deb
";

    const DEB822: &str = "\
Types: deb deb-src
# a comment inside
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xxx

Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main
Enabled: no

types: deb
uris: http://ports.test/debian
suites: bookworm-backports
components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg";

    fn source(uri: &str, suites: &[&str], key: Option<&str>) -> Source {
        Source {
            uris: vec![uri.to_owned()],
            suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
            components: vec!["main".to_owned()],
            signed_by: key.map(str::to_owned),
        }
    }

    fn uris(mirror: &Mirror) -> Vec<&str> {
        mirror.sources.iter().flat_map(|source| &source.uris).map(String::as_str).collect()
    }

    #[test]
    fn one_line_entries_are_read() {
        let sources = parse_list(LIST);
        let uris: Vec<_> = sources.iter().map(|source| source.uris[0].as_str()).collect();
        assert_eq!(
            uris,
            ["http://mirror.test/debian", "http://sec.test/d", "https://third.test/debian"]
        );
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert!(sources[1].signed_by.as_deref().unwrap().ends_with("debian-archive-keyring.gpg"));
    }

    #[test]
    fn stanzas_are_read_and_disabled_ones_are_not() {
        let sources = parse_deb822(DEB822);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert!(sources[0].signed_by.as_deref().unwrap().contains("\n -----BEGIN"));
        assert_eq!(parse_deb822(&to_deb822(&sources, None)), sources);
    }

    #[test]
    fn a_release_is_taken_from_the_sources_that_name_it() {
        let archive = Some("/usr/share/keyrings/debian-archive-keyring.gpg");
        let configured = [
            source("http://third.test/", &["bookworm"], Some("/etc/apt/keyrings/third.gpg")),
            source("http://a.test/", &["bookworm", "bookworm-updates", "sid"], archive),
            source("http://s.test/", &["bookworm-security"], None),
            source("http://b.test/", &["bookworm-backports"], archive),
        ];
        let mirror = choose(&configured, Some("bookworm"), "bookworm", None).unwrap();
        assert_eq!(uris(&mirror), ["http://a.test/", "http://s.test/"]);
        assert_eq!(mirror.sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(mirror.backports.unwrap().0, "bookworm-backports");

        let mirror = choose(&configured, Some("bookworm"), "trixie", None).unwrap();
        assert_eq!(mirror.sources[0].suites, ["trixie"], "the same mirror has other releases too");
        assert_eq!(mirror.backports, None);

        let mirror = choose(&configured[..1], Some("bookworm"), "bookworm", None).unwrap();
        assert_eq!(uris(&mirror), ["http://third.test/"], "a mirror with a key of its own");
    }

    #[test]
    fn no_mirror_is_said_to_be_none() {
        let configured = [source("http://a.test/", &["nodistro"], None)];
        let error = choose(&configured, Some("bookworm"), "bookworm", None).unwrap_err();
        assert!(matches!(error, ImageError::NoMirror { release } if release == "bookworm"));
    }

    #[test]
    fn a_given_mirror_must_be_an_address() {
        let mirror = choose(&[], None, "trixie", Some("http://m.test/debian")).unwrap();
        assert_eq!(uris(&mirror), ["http://m.test/debian"]);
        for given in ["", "-o x", "/etc/x", "http://a b", "http://a [trusted=yes]", "http://a\nb"] {
            assert!(choose(&[], None, "trixie", Some(given)).is_err(), "{given:?}");
        }
    }
}
