//! `pando net capture`: a branch's frames as a pcap file, or on their way to Wireshark.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Arg, ArgMatches, Command};
use pando_api::ApiError;
use pando_api::network::NetCaptureResult;
use pando_model::ErrorCode;
use serde_json::{Map, Value, json};

use crate::app::{App, Ending};
use crate::commands::{text, typed};
use crate::limits::FOLLOW_INTERVAL;
use crate::output::Format;

const VERB: &str = "net_capture";
/// Parameters that are numbers.
const NUMBERS: [(&str, &str); 5] = [
    ("max_frames", "End after so many frames [default: 100000]"),
    ("max_bytes", "End when the file has so many bytes [default: 16777216]"),
    ("snap_bytes", "Bytes kept of each frame [default: 65535]"),
    ("offset", "With `read`: from this byte on"),
    ("limit", "With `read`: at most so many bytes at once [default: 1048576]"),
];

/// Returns the command, which is one of `pando net`.
pub fn command() -> Command {
    let command = Command::new("capture")
        .about("Copy a branch's frames to a pcap file")
        .after_help(
            "Examples:\n  pando net capture shop@try-1 -w shop.pcap\n  \
             pando net capture shop -w - | wireshark -k -i -\n  \
             pando net capture shop start    and later: pando net capture shop read -w shop.pcap",
        )
        .arg(
            Arg::new("cluster_name")
                .value_name("CLUSTER")
                .required(true)
                .help("`CLUSTER[@BRANCH]`"),
        )
        .arg(
            Arg::new("action")
                .value_name("ACTION")
                .value_parser(["start", "stop", "read"])
                .help("Only this step; without one, frames are written until Ctrl-C or a limit"),
        )
        .arg(
            Arg::new("write")
                .long("write")
                .short('w')
                .value_name("FILE")
                .help("Where to; - is standard output"),
        );
    NUMBERS.iter().fold(command, |command, (name, help)| {
        command.arg(
            Arg::new(*name)
                .long(name.replace('_', "-"))
                .value_name("N")
                .value_parser(clap::value_parser!(u64))
                .help(*help),
        )
    })
}

/// Captures.
pub async fn capture(app: &App, matches: &ArgMatches) -> Ending {
    let mut params = Map::new();
    params.insert("cluster_name".to_owned(), json!(text(matches, "cluster_name")));
    for (name, _) in NUMBERS {
        if let Some(number) = matches.get_one::<u64>(name) {
            params.insert(name.to_owned(), json!(number));
        }
    }
    let capture = Capture { app, params };
    match matches.get_one::<String>("action").map(String::as_str) {
        Some("read") => capture.read(matches).await,
        Some(action) => {
            let result = app.call(VERB, capture.with(action, None)).await?;
            match action {
                "stop" => capture.ended(&result, "nothing was being captured"),
                _ => app.show(VERB, &result),
            }
            Ok(0)
        }
        None => capture.follow(matches).await,
    }
}

struct Capture<'a> {
    app: &'a App,
    params: Map<String, Value>,
}

impl Capture<'_> {
    fn with(&self, action: &str, offset: Option<u64>) -> Value {
        let mut params = self.params.clone();
        params.insert("action".to_owned(), json!(action));
        params.extend(offset.map(|offset| ("offset".to_owned(), json!(offset))));
        Value::Object(params)
    }

    /// Writes what has been captured by now.
    async fn read(&self, matches: &ArgMatches) -> Ending {
        if self.app.ui.format == Format::Json && matches.get_one::<String>("write").is_none() {
            let result = self.app.call(VERB, self.with("read", None)).await?;
            self.app.show(VERB, &result);
            return Ok(0);
        }
        let mut to = Sink::new(matches)?;
        let from = matches.get_one("offset").copied().unwrap_or_default();
        let end = self.drain(&mut to, from).await?;
        if let (Sink::File { name, .. }, Some(end)) = (&to, end) {
            self.app.show("", &json!({ "file": name, "bytes": end - from, "next_offset": end }));
        }
        Ok(0)
    }

    /// Begins, writes what comes until Ctrl-C or a limit, and ends.
    async fn follow(&self, matches: &ArgMatches) -> Ending {
        let mut to = Sink::new(matches)?;
        self.app.call(VERB, self.with("start", None)).await?;
        let mut offset = 0;
        let mut written = Ok(true);
        // Losing a wait loses nothing: the file keeps what comes.
        while matches!(written, Ok(true)) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => break,
                () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            }
            written = self.drain(&mut to, offset).await.map(|next| {
                offset = next.unwrap_or(offset);
                next.is_some()
            });
        }
        let result = self.app.call(VERB, self.with("stop", None)).await?;
        if written? {
            self.drain(&mut to, offset).await?;
        }
        if matches!(to, Sink::File { .. }) {
            self.ended(&result, "the capture had ended: the branch was stopped or rolled back");
        }
        Ok(0)
    }

    /// Shows what a capture took, or says why there was none to end.
    fn ended(&self, result: &Value, why_none: &str) {
        let ui = &self.app.ui;
        if result["taken"].is_null() && ui.format != Format::Json {
            let branch = result["address"].as_str().unwrap_or_default();
            return ui.remark(format!("{branch}: {why_none}"));
        }
        self.app.show(VERB, result);
    }

    /// Writes all that there is from `offset`; returns where it ends, or nothing when nobody reads.
    async fn drain(&self, to: &mut Sink, mut offset: u64) -> Result<Option<u64>, ApiError> {
        loop {
            let result = self.app.call(VERB, self.with("read", Some(offset))).await?;
            let part: NetCaptureResult = typed(result)?;
            let bytes = part.content_base64.unwrap_or_default();
            let bytes = BASE64.decode(bytes).map_err(|error| {
                ApiError::new(ErrorCode::Internal, format!("the capture is no base64: {error}"))
            })?;
            if bytes.is_empty() {
                return Ok(Some(offset));
            }
            if !to.write(&bytes)? {
                return Ok(None);
            }
            offset = part.next_offset.unwrap_or(offset);
        }
    }
}

/// Where frames are written.
enum Sink {
    Stdout,
    /// It is made when there is something to write to it.
    File {
        name: PathBuf,
        file: Option<File>,
    },
}

impl Sink {
    fn new(matches: &ArgMatches) -> Result<Self, ApiError> {
        match matches.get_one::<String>("write").map(String::as_str) {
            Some("-") => Ok(Self::Stdout),
            None if !io::stdout().is_terminal() => Ok(Self::Stdout),
            None => Err(ApiError::parameter("write", "a terminal cannot show frames")
                .hint("-w FILE writes them to a file, `-w - | wireshark -k -i -` shows them")),
            Some(name) => Ok(Self::File { name: name.into(), file: None }),
        }
    }

    /// Writes; false when nobody reads any more.
    fn write(&mut self, bytes: &[u8]) -> Result<bool, ApiError> {
        let (name, written) = match self {
            Self::Stdout => ("standard output".to_owned(), put(io::stdout(), bytes)),
            Self::File { name, file: Some(file) } => (name.display().to_string(), put(file, bytes)),
            Self::File { name, file } => {
                let created = File::create(&*name).map_err(|source| {
                    let message = format!("cannot create {}: {source}", name.display());
                    ApiError::parameter("write", message)
                })?;
                (name.display().to_string(), put(file.insert(created), bytes))
            }
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => {
                Err(ApiError::new(ErrorCode::DiskFull, format!("cannot write {name}: {error}")))
            }
        }
    }
}

fn put(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).and_then(|()| to.flush())
}
