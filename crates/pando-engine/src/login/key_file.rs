//! Files of keys, as far as a public half is to be had from them without a passphrase: OpenSSH's
//! format of private keys has it in the clear, whatever the algorithm; the older ones do not.
//!
//! The format: OpenSSH's PROTOCOL.key; the wire's strings: RFC 4251, section 5.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// How a file in OpenSSH's format begins, once decoded.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Longest name of an algorithm, in bytes (RFC 4251, section 6).
const MAX_ALGORITHM: usize = 64;

/// A public half, if it is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// As one line: an algorithm and a key in base64.
    Known(String),
    /// The format hides it.
    Hidden,
}

/// What a private key's file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Private {
    pub public: Kind,
    pub has_passphrase: bool,
}

/// Returns what the text of a private key tells; `None` if it is none.
pub(super) fn private(text: &str) -> Option<Private> {
    let text = text.trim();
    let (label, rest) = text.strip_prefix("-----BEGIN ")?.split_once("-----")?;
    let body = rest.strip_suffix("-----")?.strip_suffix(label)?.strip_suffix("-----END ")?;
    match label {
        "OPENSSH PRIVATE KEY" => openssh(body),
        _ if !label.ends_with("PRIVATE KEY") => None,
        _ => Some(Private {
            public: Kind::Hidden,
            has_passphrase: label.starts_with("ENCRYPTED") || body.contains("4,ENCRYPTED"),
        }),
    }
}

fn openssh(body: &str) -> Option<Private> {
    let body: String = body.split_ascii_whitespace().collect();
    let bytes = BASE64.decode(body).ok()?;
    let rest = bytes.strip_prefix(MAGIC)?;
    let (cipher, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let (_, rest) = string(rest)?;
    let (count, rest) = rest.split_first_chunk()?;
    if u32::from_be_bytes(*count) != 1 {
        return None;
    }
    let (public, rest) = string(rest)?;
    string(rest)?;
    Some(Private { public: Kind::Known(line(public)?), has_passphrase: cipher != b"none" })
}

/// Returns the public key in a `.pub` file, as one line without its comment.
pub(super) fn public(text: &str) -> Option<String> {
    let mut words = text.split_ascii_whitespace();
    let (algorithm, key) = (words.next()?, words.next()?);
    let line = line(&BASE64.decode(key).ok()?)?;
    line.strip_prefix(algorithm)?.starts_with(' ').then_some(line)
}

/// Returns a public key as one line; its algorithm is its first string.
fn line(key: &[u8]) -> Option<String> {
    let (algorithm, _) = string(key)?;
    let algorithm = std::str::from_utf8(algorithm).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '@');
    let is_one = (1..=MAX_ALGORITHM).contains(&algorithm.len()) && algorithm.chars().all(plain);
    is_one.then(|| format!("{algorithm} {}", BASE64.encode(key)))
}

/// Returns the string that the bytes begin with, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&[u8]]) -> Vec<u8> {
        let one = |text: &&[u8]| {
            let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend_from_slice(text);
            bytes
        };
        texts.iter().flat_map(one).collect()
    }

    /// Returns a private key of this algorithm in OpenSSH's format.
    fn file(cipher: &str, count: u32, algorithm: &str) -> String {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(strings(&[cipher.as_bytes(), b"bcrypt", b"salt"]));
        bytes.extend(count.to_be_bytes());
        bytes.extend(strings(&[&strings(&[algorithm.as_bytes(), b"point"]), b"secret"]));
        let body = BASE64.encode(bytes);
        format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n")
    }

    #[test]
    fn any_algorithm_is_read_and_a_passphrase_noticed() {
        for (cipher, has_passphrase) in [("none", false), ("aes256-ctr", true)] {
            let algorithm = "sk-ecdsa-sha2-nistp256@openssh.com";
            let read = private(&file(cipher, 1, algorithm)).unwrap();
            let key = BASE64.encode(strings(&[algorithm.as_bytes(), b"point"]));
            let line = format!("{algorithm} {key}");
            assert_eq!(read, Private { public: Kind::Known(line.clone()), has_passphrase });
            assert_eq!(public(&format!("{line} a comment\n")), Some(line));
        }
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAA==\n\
                   -----END RSA PRIVATE KEY-----";
        assert!(private(pem).unwrap().has_passphrase);
        let pkcs = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----";
        let expected = Private { public: Kind::Hidden, has_passphrase: false };
        assert_eq!(private(pkcs), Some(expected));
    }

    #[test]
    fn a_line_holds_nothing_but_a_key() {
        for algorithm in ["a\nb", "a b", "", "ü", &"a".repeat(65)] {
            assert_eq!(private(&file("none", 1, algorithm)), None, "{algorithm}");
        }
        assert_eq!(private(&file("none", 2, "ssh-rsa")), None);
        let key = BASE64.encode(strings(&[b"ssh-rsa", b"key"]));
        for text in ["", "ssh-rsa", "ssh-rsa !", &format!("ssh-dss {key}"), &format!("ssh {key}")] {
            assert_eq!(public(text), None, "{text}");
        }
    }

    #[test]
    fn any_beginning_and_any_changed_byte_is_read_without_harm() {
        let whole = file("none", 1, "ssh-ed25519");
        for end in 0..whole.len() {
            assert_eq!(
                private(whole.get(..end).unwrap()),
                (end + 1 == whole.len()).then(|| private(&whole).unwrap())
            );
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1;
            if let Some(read) = private(&String::from_utf8(bytes).unwrap())
                && let Kind::Known(line) = read.public
            {
                assert_eq!(public(&line), Some(line.clone()));
            }
        }
        assert_eq!(string(&[0xff; 8]), None);
    }
}
