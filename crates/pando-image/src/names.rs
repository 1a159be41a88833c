//! Checks names that end in a command line or a path of somebody else's program.

use pando_driver::ImageError;

use crate::limits;

/// Checks a package name against Debian's grammar (Policy §5.6.1), so that it is never an option, a
/// pattern or a removal to apt.
///
/// # Errors
/// `Invalid` if it is none.
pub fn check_package(name: &str) -> Result<(), ImageError> {
    let tail = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let head = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let sized = (2..=128).contains(&name.len());
    // apt reads `name-` as a wish to remove the package.
    if sized && name.starts_with(head) && name.chars().all(tail) && !name.ends_with('-') {
        return Ok(());
    }
    Err(ImageError::Invalid(format!("`{}` is not the name of a package", shown(name))))
}

/// Checks the packages of a build and returns them sorted, each once.
///
/// # Errors
/// `Invalid` if one is no package name, or there are too many.
pub fn check_packages(names: &[String]) -> Result<Vec<String>, ImageError> {
    if names.len() > limits::MAX_PACKAGES {
        return Err(ImageError::Invalid(format!(
            "{} packages are more than {}",
            names.len(),
            limits::MAX_PACKAGES
        )));
    }
    for name in names {
        check_package(name)?;
    }
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Checks the name of a release, such as `bookworm`.
///
/// # Errors
/// `Invalid` if it is none.
pub fn check_release(name: &str) -> Result<(), ImageError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    if starts && name.len() <= 32 && name.chars().all(good) {
        return Ok(());
    }
    Err(ImageError::Invalid(format!("`{}` is not the name of a release", shown(name))))
}

fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_from_options() {
        for name in ["less", "g++", "libstdc++6", "python3.11", "0ad", "a1"] {
            assert!(check_package(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "a",
            "-o",
            "--option",
            "Upper",
            "a b",
            "a,b",
            "a/bookworm",
            "a=1",
            "a:amd64",
            "?all",
            "~i",
            "a*",
            "./a",
            "a-",
            "a\n",
            "é1",
            "^a",
            "a$",
            "a_b",
        ] {
            assert!(check_package(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn packages_are_sorted_and_counted_once() {
        let names = ["vim", "curl", "vim"].map(str::to_owned);
        assert_eq!(check_packages(&names).unwrap(), ["curl", "vim"]);
        let many = vec!["curl".to_owned(); limits::MAX_PACKAGES + 1];
        assert!(check_packages(&many).is_err());
    }

    #[test]
    fn releases_are_plain_words() {
        for name in ["bookworm", "noble", "bookworm-backports"] {
            assert!(check_release(name).is_ok(), "{name}");
        }
        for name in ["", "-t", "../x", "a/b", "a b", "Bookworm", "12"] {
            assert!(check_release(name).is_err(), "{name:?}");
        }
    }
}
