//! Makes the seed disk of a machine whose image boots by itself: a NoCloud data source for
//! cloud-init, and the guest program with it. The host gives it to QEMU as a read-only raw disk.
//!
//! The user's own user data is passed on byte for byte. What installs the guest program is vendor
//! data, which cloud-init processes beside it: a boothook, run early and at each boot, that copies
//! the program from the seed disk, adds a unit for it, and starts it; and settings that keep
//! cloud-init from what the guest program does, which user data may overrule.

use std::collections::BTreeMap;

use crate::iso::{self, IsoError, IsoFile};

/// Volume name by which cloud-init recognises the disk.
pub const VOLUME: &str = "cidata";

/// Name of the guest program on the seed disk.
pub const GUEST_PROGRAM: &str = "pando-guest";

/// User data of a machine that nobody gave any: without, cloud-init would look elsewhere.
const NO_USER_DATA: &str = "#cloud-config\n{}\n";

/// Meta data likewise; JSON is YAML.
const NO_META_DATA: &str = "{}\n";

/// Without, cloud-init would ask for an address on every interface and hold up the boot until it has
/// one; a machine whose ready state is made has no network. The guest program sets addresses.
const NETWORK_CONFIG: &str = "config: disabled\n";

/// A machine from a ready state sees its own instance id first when it reboots: without these
/// settings it would then lose the host key and the name by which it is known.
const SETTINGS: &str = "#cloud-config
ssh_deletekeys: false
ssh_genkeytypes: [ed25519]
manage_etc_hosts: false
";

/// Between the parts of the vendor data.
const BOUNDARY: &str = "pando-part";

/// Runs early at each boot, before cloud-init's own modules; ends in the same state however often.
const BOOTHOOK: &str = "#cloud-boothook
#!/bin/sh
set -eu
program=/usr/local/sbin/pando-guest
mounted=/run/pando-seed
mkdir -p \"$mounted\" /usr/local/sbin
mount -o ro -t iso9660 /dev/disk/by-label/cidata \"$mounted\" ||
    mount -o ro -t iso9660 LABEL=cidata \"$mounted\"
if ! cmp -s \"$mounted/pando-guest\" \"$program\"; then
    cp \"$mounted/pando-guest\" \"$program.new\"
    chmod 0755 \"$program.new\"
    mv \"$program.new\" \"$program\"
fi
umount \"$mounted\"
cat > /etc/systemd/system/pando-guest.service <<'UNIT'
[Unit]
Description=Pando guest program
DefaultDependencies=no
After=local-fs.target network-pre.target
Wants=network-pre.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/usr/local/sbin/pando-guest --port pando.0
Restart=always
OOMScoreAdjust=-1000
KillMode=process

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable pando-guest.service
systemctl start --no-block pando-guest.service
";

/// Returns the vendor data: all parts, as mail has them (RFC 2046 §5.1).
fn vendor_data() -> String {
    let part = |kind: &str, text: &str| {
        format!("--{BOUNDARY}\nContent-Type: text/{kind}; charset=\"us-ascii\"\n\n{text}\n")
    };
    format!(
        "Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n{}{}--{BOUNDARY}--\n",
        part("cloud-boothook", BOOTHOOK),
        part("cloud-config", SETTINGS),
    )
}

/// Returns the bytes of a seed disk: the data source's own files (`meta-data`, `user-data`, and
/// whatever else cloud-init knows), the vendor data of ours unless there is some, and the guest
/// program.
///
/// # Errors
/// If a name cannot be stored, or the files are too large.
pub fn seed_image(
    files: &BTreeMap<String, String>,
    guest_program: &[u8],
) -> Result<Vec<u8>, IsoError> {
    let text = |text: &str| IsoFile { bytes: text.as_bytes().to_vec(), mode: 0o444 };
    let vendor_data = vendor_data();
    let defaults = [
        ("vendor-data", vendor_data.as_str()),
        ("user-data", NO_USER_DATA),
        ("meta-data", NO_META_DATA),
        ("network-config", NETWORK_CONFIG),
    ];
    let mut all = defaults
        .into_iter()
        .map(|(name, contents)| (name.to_owned(), text(contents)))
        .collect::<BTreeMap<_, _>>();
    all.extend(files.iter().map(|(name, contents)| (name.clone(), text(contents))));
    let program = IsoFile { bytes: guest_program.to_vec(), mode: 0o555 };
    all.insert(GUEST_PROGRAM.to_owned(), program);
    iso::write(VOLUME, &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(image: &[u8], text: &str) -> bool {
        image.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[test]
    fn user_data_is_passed_on_as_it_is() {
        let given = "## template: jinja\n#!/bin/sh\necho \"$HOME\" 'ü'\n";
        let files = BTreeMap::from([("user-data".to_owned(), given.to_owned())]);
        let image = seed_image(&files, b"\x7fELF the program").unwrap();
        assert!(holds(&image, given));
        for ours in [BOOTHOOK, SETTINGS, NETWORK_CONFIG, "ELF the program"] {
            assert!(holds(&image, ours), "{ours}");
        }
        assert_eq!(image.len() % iso::SECTOR, 0);
    }

    #[test]
    fn vendor_data_that_is_given_wins() {
        let files = BTreeMap::from([("vendor-data".to_owned(), "#cloud-config\n".to_owned())]);
        assert!(!holds(&seed_image(&files, b"").unwrap(), BOOTHOOK));
    }

    #[test]
    fn the_guest_program_cannot_be_replaced() {
        let files = BTreeMap::from([(GUEST_PROGRAM.to_owned(), "evil".to_owned())]);
        assert!(!holds(&seed_image(&files, b"good").unwrap(), "evil"));
    }
}
