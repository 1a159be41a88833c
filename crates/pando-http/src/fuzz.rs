//! Entry points for fuzzers: functions of bytes that must neither panic nor take unbounded time or
//! memory. `cargo test` runs them over `corpus/`, and over mutations of it.

use axum::extract::Query;
use axum::http::{HeaderName, HeaderValue, Request, Uri, header};
use pando_api::{Call, catalogue};

use crate::door;
use crate::frames::Decoder;
use crate::limits::MAX_FRAME_BYTES;
use crate::request::parameters;

/// What comes in on an upgraded connection, in two pieces.
pub fn frames(bytes: &[u8]) {
    let mut decoder = Decoder::default();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        decoder.push(piece);
        while let Ok(Some(frame)) = decoder.next_frame() {
            assert!(frame.to_bytes().len() <= MAX_FRAME_BYTES * 2);
        }
    }
}

/// A query string, as parameters of every verb.
pub fn query(bytes: &[u8]) {
    let Ok(uri) = format!("/v1/x?{}", String::from_utf8_lossy(bytes)).parse::<Uri>() else {
        return;
    };
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&uri) else { return };
    for verb in catalogue() {
        let _ = Call::parse(verb.name, parameters(verb, &pairs));
    }
}

/// A request's target, and below it its headers, as the door of port 7717 meets them.
pub fn door(bytes: &[u8]) {
    const PORT: u16 = 7717;
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let target = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let Ok(request) = Request::builder().uri(target).body(()) else { return };
    let (mut head, ()) = request.into_parts();
    for line in lines {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            head.headers.append(name, value);
        }
    }
    if !door::is_from_here(&head, PORT) {
        return;
    }
    // Whatever came in was for a loopback address, as a stricter reader sees it too.
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default().to_ascii_lowercase();
    let bare = host.strip_suffix(":7717").unwrap_or_default();
    let bare = bare.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(bare);
    let address = bare.parse::<std::net::IpAddr>();
    assert!(bare == "localhost" || address.is_ok_and(|address| address.is_loopback()), "{host}");
}
