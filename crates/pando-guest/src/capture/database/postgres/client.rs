//! As much of a client as is needed to ask a local server something: no passwords, no encryption,
//! results as text.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use crate::limits::{MAX_ANSWER_BYTES, MAX_ANSWER_ROWS, STATEMENT_TIMEOUT};

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 196_608;
/// Most messages of one answer that are no rows.
const MAX_NOTICES: usize = 1000;

/// Why a server does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server says so.
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server asks for a password")]
    Password,
    #[error("the server did not answer in time")]
    Late,
    #[error("the server's answer is too long")]
    TooLong,
    #[error("the server's answer was not understood")]
    Malformed,
    #[error("the server is not reached: {0}")]
    Io(io::ErrorKind),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            kind => Self::Io(kind),
        }
    }
}

/// A row: its values as text, without those that are null.
pub type Row = Vec<Option<String>>;

/// A connection to a database.
pub struct Client {
    stream: UnixStream,
    deadline: Instant,
}

/// A message: its kind and body.
type Message = (u8, Vec<u8>);

impl Client {
    /// Connects. Nothing can be changed over the connection.
    pub fn connect(
        socket: &Path,
        user: &str,
        database: &str,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let mut client = Self { stream: UnixStream::connect(socket)?, deadline };
        client.stream.write_all(&startup(user, database))?;
        for _ in 0..MAX_NOTICES {
            match client.message()? {
                (b'R', body) if body.first_chunk() == Some(&[0; 4]) => {}
                (b'R', _) => return Err(Error::Password),
                (b'E', body) => return Err(Error::Refused(reason(&body))),
                (b'Z', _) => return Ok(client),
                _ => {}
            }
        }
        Err(Error::Malformed)
    }

    /// Runs a statement and returns its rows.
    pub fn ask(&mut self, statement: &str) -> Result<Vec<Row>, Error> {
        let mut text = statement.as_bytes().to_vec();
        text.push(0);
        self.stream.write_all(&framed(Some(b'Q'), &text))?;
        let mut rows = Vec::new();
        let (mut size, mut notices) = (0usize, 0);
        let mut refused = None;
        loop {
            match self.message()? {
                (b'D', body) => {
                    size = size.saturating_add(body.len());
                    if size > MAX_ANSWER_BYTES || rows.len() == MAX_ANSWER_ROWS {
                        return Err(Error::TooLong);
                    }
                    rows.push(row(&body).ok_or(Error::Malformed)?);
                }
                (b'E', body) => refused = Some(reason(&body)),
                (b'Z', _) => return refused.map_or(Ok(rows), |why| Err(Error::Refused(why))),
                _ => {
                    notices += 1;
                    if notices > MAX_NOTICES {
                        return Err(Error::Malformed);
                    }
                }
            }
        }
    }

    fn message(&mut self) -> Result<Message, Error> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| Error::Malformed)?;
        let length = length.checked_sub(4).ok_or(Error::Malformed)?;
        if length > MAX_ANSWER_BYTES {
            return Err(Error::TooLong);
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        Ok((kind, body))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Late);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(rest)? {
                0 => return Err(Error::Io(io::ErrorKind::UnexpectedEof)),
                count => filled += count,
            }
        }
        Ok(())
    }
}

/// Returns a message; the first one of a connection has no kind.
fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap_or(i32::MAX);
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend(length.to_be_bytes());
    message.extend(body);
    message
}

fn startup(user: &str, database: &str) -> Vec<u8> {
    let limit = STATEMENT_TIMEOUT.as_millis();
    // Locks that somebody holds are not waited for: what they protect is unknown then.
    let options = format!(
        "-c default_transaction_read_only=on -c statement_timeout={limit} -c lock_timeout=200 \
         -c client_encoding=UTF8 -c jit=off"
    );
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for text in
        ["user", user, "database", database, "application_name", "pando", "options", &options]
    {
        body.extend(text.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    framed(None, &body)
}

/// Returns the values of a row.
fn row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length < 0 {
            values.push(None);
            rest = after;
            continue;
        }
        let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        values.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    Some(values)
}

/// Returns what an error says to people.
fn reason(body: &[u8]) -> String {
    let mut fields = body.split(|byte| *byte == 0);
    let message = fields.find_map(|field| field.strip_prefix(b"M"));
    message.map_or_else(
        || "for no reason".to_owned(),
        |text| String::from_utf8_lossy(text).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A server that says these bytes to whoever comes, then hangs up.
    fn server(says: Vec<u8>) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".s.PGSQL.1");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&says).unwrap();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        (directory, path)
    }

    fn asked(says: Vec<u8>) -> Result<Vec<Row>, Error> {
        let (_directory, path) = server(says);
        let deadline = Instant::now() + Duration::from_secs(10);
        Client::connect(&path, "postgres", "shop", deadline)?.ask("SELECT 1")
    }

    fn says(messages: &[(u8, &[u8])]) -> Vec<u8> {
        messages.iter().flat_map(|(kind, body)| framed(Some(*kind), body)).collect()
    }

    #[test]
    fn rows_are_read_between_other_messages() {
        let row = [0, 2, 0, 0, 0, 1, b'x', 255, 255, 255, 255];
        let answer = says(&[
            (b'R', &[0; 4]),
            (b'S', b"a\0b\0"),
            (b'Z', b"I"),
            (b'T', b"?"),
            (b'D', &row),
            (b'C', b"SELECT 1\0"),
            (b'Z', b"I"),
        ]);
        assert_eq!(asked(answer).unwrap(), [vec![Some("x".to_owned()), None]]);
    }

    #[test]
    fn whatever_is_no_answer_is_said() {
        let ready: &[(u8, &[u8])] = &[(b'R', &[0; 4]), (b'Z', b"I")];
        let after = |message: (u8, &[u8])| says(&[ready, &[message]].concat());
        for (answer, expected) in [
            (says(&[(b'R', &[0, 0, 0, 10])]), "the server asks for a password"),
            (says(&[(b'E', b"SFATAL\0Mno such role\0\0")]), "the server refuses: no such role"),
            (Vec::new(), "the server is not reached: unexpected end of file"),
            (after((b'D', &[0, 1, 0])), "the server's answer was not understood"),
            (vec![b'R', 127, 255, 255, 255], "the server's answer is too long"),
            (vec![b'R', 255, 255, 255, 255], "the server's answer was not understood"),
        ] {
            assert_eq!(asked(answer).unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_row_is_values_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = row(&bytes);
            let _ = reason(&bytes);
        }
    }
}
