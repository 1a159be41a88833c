//! Fuzz targets: total functions over arbitrary bytes. `tests/corpus.rs` runs them over the
//! committed corpus; a fuzzer can call them unchanged.

use crate::frame::{Decoder, Frame};
use crate::guest::{GuestMessage, HostMessage, Request, decode_answer};
use crate::limits::MAX_FRAME_BYTES;

/// Decodes `bytes` as a stream of frames to a guest; every message that is found must survive
/// being encoded again.
pub fn frames_to_guest(bytes: &[u8]) {
    let mut decoder = Decoder::new();
    let mut input = bytes;
    while let Some(frame) = decoder.next(&mut input) {
        assert!(frame.message.len() <= MAX_FRAME_BYTES, "a frame longer than its limit");
        let mut again = Vec::new();
        if frame.encode(&mut again).is_ok() {
            assert_eq!(Decoder::new().next(&mut again.as_slice()), Some(frame));
        }
        host_message(frame.message);
    }
}

/// Decodes `bytes` as a message to a guest, and as the request inside it.
pub fn host_message(bytes: &[u8]) {
    if let Ok(message) = HostMessage::decode(bytes)
        && let Ok(again) = message.encode()
    {
        assert_eq!(HostMessage::decode(&again).as_ref(), Ok(&message));
    }
    if let Ok(request) = Request::decode(bytes)
        && let Ok(again) = request.encode()
    {
        assert_eq!(Request::decode(&again), Ok(request));
    }
}

/// Decodes `bytes` as a message from a guest, and as the answer inside it.
pub fn guest_message(bytes: &[u8]) {
    if let Ok(message) = GuestMessage::decode(bytes)
        && let Ok(again) = message.encode()
    {
        assert_eq!(GuestMessage::decode(&again).as_ref(), Ok(&message));
    }
    if let Ok(answer) = decode_answer(bytes)
        && let Ok(again) = crate::guest::encode_answer(&answer)
    {
        assert_eq!(decode_answer(&again), Ok(answer));
    }
}

/// Encodes `bytes` as a frame and finds it again behind themselves as garbage.
pub fn frame_after_garbage(bytes: &[u8]) {
    let frame = Frame { epoch: 1, sequence: 2, message: bytes };
    let mut stream = bytes.to_vec();
    if frame.encode(&mut stream).is_err() {
        return;
    }
    let mut decoder = Decoder::new();
    let mut input = stream.as_slice();
    let mut found = false;
    while let Some(seen) = decoder.next(&mut input) {
        found |= seen == frame;
    }
    assert!(found, "garbage cost the frame after it");
}
