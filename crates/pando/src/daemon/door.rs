//! The daemon's way in over TCP: binds its port before anything else is begun, and audits who was
//! turned away.

use std::net::SocketAddr;
use std::sync::Arc;

use pando_api::ApiError;
use pando_engine::{Engine, TurnedAway};
use pando_http::token::TokenError;
use pando_http::{Lock, Loopback, OnRefused, Refused, TokenFile};
use pando_model::{ErrorCode, Layout};
use serde_json::json;

use crate::settings::HttpListen;

/// What a request must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The token of the home.
    Token,
    /// Nothing.
    #[cfg(feature = "conformance")]
    Nothing,
}

/// A port that is bound, and what opens it.
pub struct Port {
    /// The port.
    pub loopback: Loopback,
    /// What opens it.
    pub lock: Lock,
}

/// Binds the port that the setting names, if it names one, and makes its token if there is none.
///
/// # Errors
/// `daemon_unreachable` when the port is taken, `config_invalid` when the token is no secret.
pub async fn bind(
    layout: &Layout,
    listen: HttpListen,
    demand: Demand,
) -> Result<Option<Port>, ApiError> {
    let HttpListen::At(address) = listen else { return Ok(None) };
    let lock = match demand {
        Demand::Token => {
            let file = TokenFile::new(layout.http_token());
            file.read_or_make().map_err(|source| unusable_token(&source))?;
            Lock::Token(file)
        }
        #[cfg(feature = "conformance")]
        Demand::Nothing => Lock::Open,
    };
    let loopback = Loopback::bind(address).await.map_err(|source| taken(address, &source))?;
    Ok(Some(Port { loopback, lock }))
}

fn taken(address: SocketAddr, source: &std::io::Error) -> ApiError {
    ApiError::new(
        ErrorCode::DaemonUnreachable,
        format!("cannot listen on {address} (the setting `http.listen`): {source}"),
    )
    .subject("http.listen")
    .hint(
        "another port: pando config set http.listen PORT\n\
         none: pando config unset http.listen",
    )
}

/// Returns the error of a token that cannot be used.
pub fn unusable_token(error: &TokenError) -> ApiError {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}"));
    let message = format!("{error}{}", cause.unwrap_or_default());
    ApiError::new(ErrorCode::ConfigInvalid, message).hint("pando token rotate")
}

/// Returns what logs and audits requests that were turned away.
pub fn auditing(engine: Engine) -> OnRefused {
    Arc::new(move |refused: &Refused| {
        let Refused { peer, request, error, unreported } = refused;
        tracing::warn!(%peer, request, code = %error.code, %error, unreported, "turned away");
        engine.audit_turned_away(TurnedAway {
            session: format!("http:{peer}"),
            request: json!({
                "request": request, "why": error.message, "unreported": unreported,
            }),
            error: error.code,
        });
    })
}
