//! Networks of two machines that can do nothing but carry bytes: what the switch is measured against.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use pando_machine::{PortNumber, SavedSwitch, Settled, Switch, SwitchError, Switches};
use pando_model::Name;
use pando_model::fault::Fault;
use pando_model::network::{CaptureLimits, FrameCapture, NetworkObservation, NetworkSpec};

/// Bytes that are read at once, as many as the switch reads.
const BUFFER: usize = 128 << 10;

/// One socket from machine to machine.
pub struct Wire;

/// A thread for each direction, which reads and writes and looks at nothing.
pub struct Relay;

/// The network of two machines, while it lives.
struct Plain(Vec<UnixStream>);

fn pair() -> Result<(UnixStream, UnixStream), SwitchError> {
    UnixStream::pair().map_err(|source| SwitchError::System { what: "make a socket", source })
}

impl Switches for Wire {
    fn open(
        &self,
        _: &NetworkSpec,
        _: Option<&Path>,
    ) -> Result<(Box<dyn Switch>, Vec<OwnedFd>), SwitchError> {
        let (one, other) = pair()?;
        Ok((Box::new(Plain(Vec::new())), vec![one.into(), other.into()]))
    }
}

impl Switches for Relay {
    fn open(
        &self,
        _: &NetworkSpec,
        _: Option<&Path>,
    ) -> Result<(Box<dyn Switch>, Vec<OwnedFd>), SwitchError> {
        let ((one, ours), (other, theirs)) = (pair()?, pair()?);
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || relay(from, to));
        }
        Ok((Box::new(Plain(vec![ours, theirs])), vec![one.into(), other.into()]))
    }
}

fn relay(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        for end in &self.0 {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn no<T>() -> Result<T, SwitchError> {
    Err(SwitchError::Misused("do more than carry bytes".into()))
}

impl Switch for Plain {
    fn hold(&mut self) -> Result<(), SwitchError> {
        Ok(())
    }

    fn drain(&mut self, _: Instant) -> Result<Vec<PortNumber>, SwitchError> {
        no()
    }

    fn settle(&mut self) -> Result<Settled, SwitchError> {
        no()
    }

    fn save(&mut self, _: &Path) -> Result<SavedSwitch, SwitchError> {
        no()
    }

    fn release(&mut self) -> Result<(), SwitchError> {
        Ok(())
    }

    fn set_faults(&mut self, _: Vec<Fault>) -> Result<(), SwitchError> {
        no()
    }

    fn observe(&mut self) -> Result<NetworkObservation, SwitchError> {
        Ok(NetworkObservation::default())
    }

    fn replug(&mut self, _: &Name) -> Result<Vec<OwnedFd>, SwitchError> {
        no()
    }

    fn attach_uplink(&mut self, _: &Name, _: UnixStream) -> Result<(), SwitchError> {
        no()
    }

    fn begin_capture(&mut self, _: File, _: CaptureLimits) -> Result<(), SwitchError> {
        no()
    }

    fn end_capture(&mut self) -> Result<Option<FrameCapture>, SwitchError> {
        Ok(None)
    }
}
