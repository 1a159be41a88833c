//! Units of systemd, asked over its private socket in D-Bus's own words: one call, one answer, no
//! bus and no child process.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use pando_model::capture::{Aspect, CaptureRecord, Coverage, Service};

use super::{Teller, Told, short};
use crate::limits::{MAX_CAPTURED_ITEMS, MAX_UNITS_BYTES, UNITS_TIMEOUT};

/// Kinds of units that are worth a line: devices, mounts and slices follow from others.
const KINDS: &[&str] = &[".service", ".socket", ".timer", ".path"];

/// Tells the state of units.
pub fn services(root: &Path, teller: &mut Teller<'_>) -> Told {
    let socket = root.join("run/systemd/private");
    if !socket.exists() {
        let why = "there is no systemd to ask".to_owned();
        return teller.covered(Aspect::Services, Coverage::Absent(why));
    }
    let units = match ask(&socket, &[]) {
        Ok(units) => units,
        Err(error) => {
            let why = format!("systemd does not list its units: {error}");
            return teller.covered(Aspect::Services, Coverage::Absent(why));
        }
    };
    for unit in units.into_iter().take(MAX_CAPTURED_ITEMS) {
        teller.tell(&CaptureRecord::Service(unit))?;
    }
    teller.covered(Aspect::Services, Coverage::Complete)
}

/// States of a unit that does not do its work: one that is to be started again ended just now.
const FAILED: &[&str] = &["failed", "auto-restart"];

/// Returns the names of units that failed; none where there is no systemd to ask.
pub fn failed_units(root: &Path) -> Vec<String> {
    let units = ask(&root.join("run/systemd/private"), FAILED).unwrap_or_default();
    units.into_iter().map(|unit| unit.name).collect()
}

/// Asks for the units in one of these states, or in any.
fn ask(socket: &Path, states: &[&str]) -> io::Result<Vec<Service>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(UNITS_TIMEOUT))?;
    stream.set_write_timeout(Some(UNITS_TIMEOUT))?;
    // The user's number in decimal, its digits in hex.
    let uid = rustix::process::geteuid().as_raw().to_string();
    let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes())?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
        if line.len() > 256 {
            return Err(malformed());
        }
    }
    if !line.starts_with(b"OK ") {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // Not earlier: what is read together with the handshake waits there for more to come.
    stream.write_all(&call(states))?;
    // Signals may come before the answer.
    for _ in 0..64 {
        if let Some(units) = message(&mut stream)? {
            return Ok(units);
        }
    }
    Err(malformed())
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Returns the call of `ListUnits`, or of `ListUnitsFiltered` with states, as message 1.
fn call(states: &[&str]) -> Vec<u8> {
    let method = if states.is_empty() { "ListUnits" } else { "ListUnitsFiltered" };
    let mut fields = Vec::new();
    for (code, signature, value) in [
        (1u8, "o", "/org/freedesktop/systemd1"),
        (2, "s", "org.freedesktop.systemd1.Manager"),
        (3, "s", method),
        (6, "s", "org.freedesktop.systemd1"),
    ] {
        pad(&mut fields, 8);
        fields.push(code);
        fields.push(1);
        fields.extend(signature.bytes());
        fields.push(0);
        text(&mut fields, value);
    }
    let mut body = Vec::new();
    if !states.is_empty() {
        // The signature's own signature has a length of one byte.
        pad(&mut fields, 8);
        fields.extend(b"\x08\x01g\0\x02as\0");
        let mut list = Vec::new();
        states.iter().for_each(|state| text(&mut list, state));
        body.extend(length(list.len()));
        body.extend(list);
    }
    // Little endian, a call, no flags, version 1; then the body's length, message 1.
    let mut message = vec![b'l', 1, 0, 1];
    message.extend(length(body.len()));
    message.extend(length(1));
    message.extend(length(fields.len()));
    message.extend(fields);
    pad(&mut message, 8);
    message.extend(body);
    message
}

/// Appends a string or an object path.
fn text(out: &mut Vec<u8>, text: &str) {
    pad(out, 4);
    out.extend(length(text.len()));
    out.extend(text.bytes());
    out.push(0);
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// Reads a message; returns the units if it is the answer to the call.
fn message(stream: &mut impl Read) -> io::Result<Option<Vec<Service>>> {
    let mut header = [0; 16];
    stream.read_exact(&mut header)?;
    let [endian, kind, _, _, b0, b1, b2, b3, _, _, _, _, f0, f1, f2, f3] = header;
    let (body, fields) = (
        u32::from_le_bytes([b0, b1, b2, b3]) as usize,
        u32::from_le_bytes([f0, f1, f2, f3]) as usize,
    );
    if endian != b'l' || body > MAX_UNITS_BYTES || fields > 64 * 1024 {
        return Err(malformed());
    }
    let mut rest = vec![0; fields.next_multiple_of(8) + body];
    stream.read_exact(&mut rest)?;
    let body = rest.get(fields.next_multiple_of(8)..).unwrap_or_default();
    match kind {
        2 => units(body).map(Some).ok_or_else(malformed),
        3 => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(None),
    }
}

/// Returns the units of an `a(ssssssouso)`.
fn units(body: &[u8]) -> Option<Vec<Service>> {
    let mut cursor = Cursor { bytes: body, at: 0 };
    let length = cursor.number()? as usize;
    cursor.align(8);
    let end = cursor.at.checked_add(length)?;
    let mut units = Vec::new();
    while cursor.at < end {
        cursor.align(8);
        let name = cursor.text()?;
        let _description = cursor.text()?;
        let load = cursor.text()?;
        let active = cursor.text()?;
        let sub = cursor.text()?;
        let _following = cursor.text()?;
        let _path = cursor.text()?;
        let _job = cursor.number()?;
        let _job_type = cursor.text()?;
        let _job_path = cursor.text()?;
        if load == "loaded" && KINDS.iter().any(|kind| name.ends_with(kind)) {
            units.push(Service { name: short(name), active: short(active), sub: short(sub) });
        }
    }
    Some(units)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.bytes.get(self.at..self.at.checked_add(4)?)?;
        self.at += 4;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// A string or an object path: both end with a zero that is not counted.
    fn text(&mut self) -> Option<&'a str> {
        let length = self.number()? as usize;
        let end = self.at.checked_add(length)?;
        let text = self.bytes.get(self.at..end)?;
        self.at = end.checked_add(1)?;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(rows: &[[&str; 4]]) -> Vec<u8> {
        let mut out = vec![0; 8];
        for [name, load, active, sub] in rows {
            pad(&mut out, 8);
            for part in [name, "A unit", load, active, sub, "", "/path"] {
                text(&mut out, part);
            }
            pad(&mut out, 4);
            out.extend(7u32.to_le_bytes());
            text(&mut out, "");
            text(&mut out, "/");
        }
        let bytes = length(out.len() - 8);
        out[..4].copy_from_slice(&bytes);
        out
    }

    #[test]
    fn loaded_services_are_read_from_the_answer() {
        let rows = [
            ["ssh.service", "loaded", "active", "running"],
            ["gone.service", "not-found", "inactive", "dead"],
            ["dev-vda.device", "loaded", "active", "plugged"],
            ["apt.timer", "loaded", "failed", "failed"],
        ];
        let found = units(&body(&rows)).unwrap();
        let names: Vec<_> =
            found.iter().map(|unit| (unit.name.as_str(), unit.sub.as_str())).collect();
        assert_eq!(names, [("ssh.service", "running"), ("apt.timer", "failed")]);
    }

    proptest! {
        #[test]
        fn any_answer_is_units_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = units(&bytes);
            let _ = message(&mut bytes.as_slice());
        }
    }
}
