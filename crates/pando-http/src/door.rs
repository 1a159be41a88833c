//! Who may come in over TCP. A web page that a user happens to visit can send requests to this
//! host's loopback, and can make a name of its own lead there (DNS rebinding); any user of this
//! host can connect. So a request passes three checks, in this order, before anything of it is
//! read: its `Host` is a loopback name with our port, its `Origin` (which browsers send) is a
//! loopback one, and its token is right.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use pando_api::ApiError;
use pando_model::ErrorCode;

use crate::limits::{REFUSAL_INTERVAL, REFUSALS_AT_ONCE};
use crate::token::{TokenError, TokenFile};

/// The port of a URL that names none.
const HTTP_PORT: u16 = 80;

/// A request that was not let in, for the log and the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Who connected.
    pub peer: SocketAddr,
    /// Method and path, shortened.
    pub request: String,
    /// Why not.
    pub error: ApiError,
    /// How many others were refused since the last one that was reported.
    pub unreported: u64,
}

/// What is told of refused requests: never more often than the limits say.
pub type OnRefused = Arc<dyn Fn(&Refused) + Send + Sync>;

/// What opens the door.
#[derive(Debug, Clone)]
pub enum Lock {
    /// The token in this file.
    Token(TokenFile),
    /// Nothing is needed: for programs that check a server and send no token.
    #[cfg(feature = "conformance")]
    Open,
}

/// See the module.
pub(crate) struct Door {
    port: u16,
    lock: Lock,
    on_refused: OnRefused,
    /// Held to count only.
    reports: Mutex<Reports>,
}

/// Why a request is not let in.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("a request needs one `Host`, and this one has {0}")]
    Hosts(usize),
    #[error("`Host` is `{0}`, which is no loopback name with this server's port")]
    Host(String),
    #[error("the request is for `{0}`, which is no loopback name with this server's port")]
    Target(String),
    #[error("`Origin` is `{0}`, which is not of this host")]
    Origin(String),
    #[error("the request has no token")]
    NoToken,
    #[error("`Authorization` is not `Bearer TOKEN`")]
    NotBearer,
    #[error("the token is wrong")]
    WrongToken,
    #[error("no token can be right: {0}")]
    Unusable(#[from] TokenError),
}

impl From<Closed> for ApiError {
    fn from(closed: Closed) -> Self {
        let message = closed.to_string();
        match closed {
            Closed::Hosts(_) | Closed::Host(_) | Closed::Target(_) => {
                Self::new(ErrorCode::Forbidden, message)
                    .subject("host")
                    .hint("use the URL that `pando daemon status` shows")
            }
            Closed::Origin(_) => Self::new(ErrorCode::Forbidden, message)
                .subject("origin")
                .hint("web pages of other hosts may not call this server"),
            Closed::NoToken | Closed::NotBearer | Closed::WrongToken => {
                Self::new(ErrorCode::Unauthenticated, message)
                    .subject("authorization")
                    .hint("send `Authorization: Bearer TOKEN`; `pando token show` shows the token")
            }
            Closed::Unusable(TokenError::Absent(_)) => {
                Self::new(ErrorCode::Unauthenticated, message).hint("pando token show")
            }
            Closed::Unusable(_) => {
                Self::new(ErrorCode::Unauthenticated, message).hint("pando token rotate")
            }
        }
    }
}

impl Door {
    /// Returns the door of a listener on `port`.
    pub(crate) fn new(port: u16, lock: Lock, on_refused: OnRefused) -> Self {
        let reports = Mutex::new(Reports { tokens: REFUSALS_AT_ONCE, since: None, unreported: 0 });
        Self { port, lock, on_refused, reports }
    }

    /// Lets a request in, or returns why not, after having told whoever listens.
    ///
    /// # Errors
    /// `forbidden` for another host's name or origin, `unauthenticated` without the token.
    pub(crate) fn admit(&self, peer: SocketAddr, head: &Parts) -> Result<(), ApiError> {
        let Err(closed) = self.check(head) else { return Ok(()) };
        let error = ApiError::from(closed);
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let report = reports.take(Instant::now());
        drop(reports);
        if let Some(unreported) = report {
            let path: String = head.uri.path().chars().take(120).collect();
            let request = format!("{} {path}", head.method);
            (self.on_refused)(&Refused { peer, request, error: error.clone(), unreported });
        }
        Err(error)
    }

    fn check(&self, head: &Parts) -> Result<(), Closed> {
        check_host(head, self.port)?;
        check_origin(&head.headers)?;
        match &self.lock {
            Lock::Token(file) => check_token(file, &head.headers),
            #[cfg(feature = "conformance")]
            Lock::Open => Ok(()),
        }
    }
}

/// Returns whether a request names this host with `port`, and comes from no page of another.
pub(crate) fn is_from_here(head: &Parts, port: u16) -> bool {
    check_host(head, port).is_ok() && check_origin(&head.headers).is_ok()
}

fn check_host(head: &Parts, port: u16) -> Result<(), Closed> {
    let is_ours = |authority: &str| {
        loopback(authority).is_some_and(|named| named.unwrap_or(HTTP_PORT) == port)
    };
    // A target may name a host itself, and then counts in place of the header (RFC 9112 §3.2.2).
    if let Some(authority) = head.uri.authority()
        && !is_ours(authority.as_str())
    {
        return Err(Closed::Target(shortened(authority.as_str().as_bytes())));
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Closed::Hosts(head.headers.get_all(header::HOST).iter().count()));
    };
    match host.to_str() {
        Ok(text) if is_ours(text) => Ok(()),
        _ => Err(Closed::Host(shortened(host.as_bytes()))),
    }
}

/// Returns the port of a `HOST[:PORT]` whose host is this one's loopback; `None` for any other.
fn loopback(authority: &str) -> Option<Option<u16>> {
    let (is_loopback, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':')?),
            };
            (host.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()), port)
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            let address = || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback());
            (host.eq_ignore_ascii_case("localhost") || address(), port)
        }
    };
    // A sign would parse as well.
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        None => None,
        Some(text) => Some(Some(text).filter(|text| digits(text))?.parse().ok()?),
    };
    is_loopback.then_some(port)
}

fn check_origin(headers: &HeaderMap) -> Result<(), Closed> {
    for value in headers.get_all(header::ORIGIN) {
        let text = value.to_str().ok();
        let authority = text.and_then(|text| {
            text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))
        });
        if authority.and_then(loopback).is_none() {
            return Err(Closed::Origin(shortened(value.as_bytes())));
        }
    }
    Ok(())
}

fn check_token(file: &TokenFile, headers: &HeaderMap) -> Result<(), Closed> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(Closed::NoToken),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(Closed::NotBearer),
    };
    let token = bearer(value).ok_or(Closed::NotBearer)?;
    match file.accepts(token)? {
        true => Ok(()),
        false => Err(Closed::WrongToken),
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let bytes = value.as_bytes();
    let (scheme, rest) = bytes.split_at_checked("bearer ".len())?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(80).collect()
}

/// Returns the header that tells a client how to authenticate, with an answer that says it did not.
pub(crate) fn challenge(error: &ApiError) -> Option<(HeaderName, HeaderValue)> {
    (error.code == ErrorCode::Unauthenticated)
        .then(|| (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pando\"")))
}

/// Counts reports: some at once, then one in each interval, and how many were left out.
#[derive(Debug)]
struct Reports {
    tokens: u32,
    since: Option<Instant>,
    unreported: u64,
}

impl Reports {
    /// Returns whether one may be made at `now`, as the number that was left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let earned =
            now.saturating_duration_since(since).as_millis() / REFUSAL_INTERVAL.as_millis();
        if let Ok(earned @ 1..) = u32::try_from(earned.min(u128::from(REFUSALS_AT_ONCE))) {
            self.tokens = REFUSALS_AT_ONCE.min(self.tokens.saturating_add(earned));
            self.since = Some(now);
        }
        if self.tokens == 0 {
            self.unreported = self.unreported.saturating_add(1);
            return None;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.unreported))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        let cases: &[(&str, Option<Option<u16>>)] = &[
            ("localhost", Some(None)),
            ("LocalHost:7717", Some(Some(7717))),
            ("127.0.0.1:80", Some(Some(80))),
            ("127.9.8.7", Some(None)),
            ("[::1]", Some(None)),
            ("[::1]:7717", Some(Some(7717))),
            ("", None),
            (":7717", None),
            ("localhost.", None),
            ("localhost.evil.example", None),
            ("127.0.0.1.evil.example:7717", None),
            ("evil.example:7717", None),
            ("user@127.0.0.1:7717", None),
            ("127.0.0.1:7717@evil.example", None),
            ("127.0.0.1:", None),
            ("127.0.0.1:+80", None),
            ("127.0.0.1:99999", None),
            ("127.0.0.1:80:80", None),
            ("127.1", None),
            ("2130706433", None),
            ("0.0.0.0:7717", None),
            ("0177.0.0.1", None),
            ("[::ffff:127.0.0.1]:7717", None),
            ("[::]:7717", None),
            ("[::1", None),
            ("[::1]7717", None),
            ("::1", None),
            ("localhost/", None),
        ];
        for (authority, expected) in cases {
            assert_eq!(loopback(authority), *expected, "{authority}");
        }
    }

    #[test]
    fn reports_are_few_and_count_the_rest() {
        let mut reports = Reports { tokens: REFUSALS_AT_ONCE, since: None, unreported: 0 };
        let begun = Instant::now();
        for _ in 0..REFUSALS_AT_ONCE {
            assert_eq!(reports.take(begun), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(reports.take(begun), None);
        }
        let later = begun + REFUSAL_INTERVAL;
        assert_eq!(reports.take(later), Some(7));
        assert_eq!(reports.take(later), None);
        let much_later = later + REFUSAL_INTERVAL * (REFUSALS_AT_ONCE * 3);
        assert_eq!(reports.take(much_later), Some(1));
        assert_eq!(reports.tokens, REFUSALS_AT_ONCE - 1);
    }
}
