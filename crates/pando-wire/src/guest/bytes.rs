//! Byte strings as serde's *bytes*, not as sequences of numbers: the same on the wire, but copied
//! at once, and borrowed from the frame where the type allows it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

/// Writes `value` as bytes.
pub fn serialize<T: AsRef<[u8]>, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(value.as_ref())
}

/// Reads bytes, borrowed from the input.
pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: From<&'de [u8]>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_bytes(Borrowed(PhantomData))
}

struct Borrowed<T>(PhantomData<T>);

impl<'de, T: From<&'de [u8]>> Visitor<'de> for Borrowed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("borrowed bytes")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<T, E> {
        Ok(T::from(bytes))
    }
}
