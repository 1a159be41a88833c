//! What the kernel's command line says to us: `pando.KEY=VALUE` words.

/// How to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootOptions {
    /// `pando.root`: the root file system's device.
    pub root: String,
    /// `pando.rootfstype`: its kind.
    pub file_system: String,
    /// `pando.init`: the system's first program.
    pub init: String,
}

impl BootOptions {
    /// Parses a command line; the last of several words wins, what is missing has its default.
    pub fn parse(cmdline: &str) -> Self {
        let mut options =
            Self { root: "/dev/vda".into(), file_system: "ext4".into(), init: "/sbin/init".into() };
        for word in cmdline.split_whitespace() {
            let field = match word.split_once('=') {
                Some(("pando.root", value)) => (&mut options.root, value),
                Some(("pando.rootfstype", value)) => (&mut options.file_system, value),
                Some(("pando.init", value)) => (&mut options.init, value),
                _ => continue,
            };
            field.1.clone_into(field.0);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_us_are_taken_and_others_ignored() {
        let line = "console=ttyS0 pando.root=/dev/vda1 quiet pando.ready=1 pando.init=/bin/x=y \
                    root=/dev/sda pando.root=/dev/vdb\n";
        let options = BootOptions::parse(line);
        assert_eq!(options.root, "/dev/vdb");
        assert_eq!(options.init, "/bin/x=y");
        assert_eq!(options.file_system, "ext4");
        assert_eq!(BootOptions::parse("").init, "/sbin/init");
    }
}
