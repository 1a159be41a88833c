//! How much of what was written to a socket its reader has not read.

use std::os::fd::AsFd;

use rustix::io;
use rustix::ioctl::{Getter, ioctl};

/// `SIOCOUTQ` of `linux/sockios.h`.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

/// Returns the kernel's memory for what was written to a unix stream socket and not read, in bytes:
/// zero if, and only if, all of it was read; otherwise at least as many bytes as were not.
pub fn unread(socket: impl AsFd) -> io::Result<usize> {
    // SAFETY: the kernel writes one int for this request.
    #[expect(unsafe_code, reason = "rustix has no call for this request")]
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, std::ffi::c_int>::new()) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn it_is_zero_when_all_was_read() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        assert_eq!(unread(&one), Ok(0));
        one.write_all(&[0; 100]).unwrap();
        assert!(unread(&one).unwrap() >= 100);
        other.read_exact(&mut [0; 99]).unwrap();
        assert!(unread(&one).unwrap() >= 1);
        other.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(unread(&one), Ok(0));
    }
}
