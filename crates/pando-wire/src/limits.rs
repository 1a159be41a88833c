//! Limits of the wire protocols: value, unit, reason.

/// Version of the guest protocol. Raised when an older guest program could misunderstand a host.
pub const GUEST_PROTOCOL: u32 = 3;
/// Most bytes of one frame on the wire, delimiters included: one virtio-serial write in the guest
/// kernel, so that a frame is never cut in two by it.
pub const MAX_FRAME_BYTES: usize = 32 * 1024;
/// Most bytes of a message inside a frame: a frame's size without delimiters, header, checksum and
/// the encoding's one byte in 254.
pub const MAX_MESSAGE_BYTES: usize = 32_000;
/// Most bytes of stream data in one message; leaves room for the message's own fields.
pub const MAX_CHUNK_BYTES: usize = MAX_MESSAGE_BYTES - 64;
/// Bytes that may be under way in one stream in one direction before the receiver grants more:
/// four times a Linux pipe, which keeps the channel busy over one round trip.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Most bytes of an encoded request, sent in parts: a longest argv and as much environment.
pub const MAX_REQUEST_BYTES: usize = 512 * 1024;
/// Most bytes of an encoded reply, sent in parts: a longest directory listing.
pub const MAX_REPLY_BYTES: usize = 512 * 1024;
/// Most streams open at once on one channel: a fan-out of 256 commands, twice over.
pub const MAX_STREAMS: usize = 512;
/// Entropy that a host sends with a new epoch, in bytes: the pool's own size.
pub const ENTROPY_BYTES: usize = 32;
/// Most running commands that a guest lists as inherited.
pub const MAX_INHERITED: usize = 64;
/// Longest command line in that list, in bytes.
pub const MAX_INHERITED_COMMAND_BYTES: usize = 200;
/// Most entries in a directory listing.
pub const MAX_LISTED_ENTRIES: usize = 4096;
/// Longest message of a refusal, in bytes.
pub const MAX_REFUSAL_BYTES: usize = 1024;
/// Longest record of a capture, in bytes: a path and a command line.
pub const MAX_RECORD_BYTES: usize = 16 * 1024;
/// Longest path in a capture, in bytes: Linux's own.
pub const MAX_PATH_BYTES: usize = 4096;
/// Most bytes of a whole capture: a million files, as they are in practice.
pub const MAX_CAPTURE_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of a capture that was put together, paths in full: what a daemon has room for.
pub const MAX_CAPTURE_KEPT_BYTES: usize = 4 * MAX_CAPTURE_BYTES;
/// Bytes that each record of a capture counts for beside its path.
pub const RECORD_BYTES: usize = 64;
/// Most paths whose contents are digested by one request; they fit a request.
pub const MAX_DIGESTS: usize = 4096;
