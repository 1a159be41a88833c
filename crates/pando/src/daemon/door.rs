//! The daemon's way in over TCP: binds its port before anything else is begun, serves the API and
//! MCP on it, and audits who was turned away.

use std::net::SocketAddr;
use std::sync::Arc;

use pando_api::{ApiError, Control};
use pando_engine::{Engine, TurnedAway};
use pando_http::token::TokenError;
use pando_http::{About, Lock, Loopback, OnRefused, Refused, Server, TokenFile};
use pando_model::{ErrorCode, Layout};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::settings::HttpListen;

/// What the key of plans is derived for.
const PLAN_KEY: &str = "pando 2026 tokens of plans over http";

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
    loopback: Loopback,
    lock: Lock,
    /// Makes the tokens of plans this home's own.
    key: [u8; 32],
}

impl Port {
    /// Returns its URL.
    pub fn url(&self) -> String {
        self.loopback.url()
    }

    /// Serves an engine on it until `stop` is cancelled.
    pub async fn serve(self, engine: &Engine, about: About, stop: CancellationToken) {
        let control: Arc<dyn Control> = Arc::new(engine.clone());
        let options = pando_mcp::http::Options::loopback();
        let mcp = pando_mcp::http::Server::new(Arc::clone(&control), self.key, options);
        let on_refused = auditing(engine.clone());
        let server = Server::on_loopback(self.loopback, self.lock, on_refused, control, about)
            .with_routes(mcp.router());
        // Streams of agents would hold the server up: they end first.
        let closing = async {
            stop.cancelled().await;
            mcp.close().await;
        };
        tokio::join!(server.run(stop.clone()), closing);
    }
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
    let (lock, key) = match demand {
        Demand::Token => {
            let file = TokenFile::new(layout.http_token());
            let token = file.read_or_make().map_err(|source| unusable_token(&source))?;
            // A plan that was shown before a restart can be confirmed after it.
            (Lock::Token(file), blake3::derive_key(PLAN_KEY, token.as_bytes()))
        }
        #[cfg(feature = "conformance")]
        Demand::Nothing => (Lock::Open, crate::mcp::key()?),
    };
    let loopback = Loopback::bind(address).await.map_err(|source| taken(address, &source))?;
    Ok(Some(Port { loopback, lock, key }))
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
fn auditing(engine: Engine) -> OnRefused {
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
