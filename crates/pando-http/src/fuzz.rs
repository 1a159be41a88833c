//! Entry points for fuzzers: functions of bytes that must neither panic nor take unbounded time or
//! memory. `cargo test` runs them over `corpus/`, and over mutations of it.

use axum::extract::Query;
use axum::http::Uri;
use pando_api::{Call, catalogue};

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
