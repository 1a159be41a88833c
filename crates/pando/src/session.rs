//! A caller's end of the control, for programs that make many calls: the demo and the benchmark.

use std::time::{Duration, Instant};

use pando_api::{ApiError, Call, Caller, Control};
use pando_model::ErrorCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Makes calls as one local user.
pub struct Session<'a> {
    control: &'a dyn Control,
    uid: u32,
}

impl<'a> Session<'a> {
    /// Returns a session of the user who runs this process.
    pub fn new(control: &'a dyn Control) -> Self {
        Self { control, uid: rustix::process::getuid().as_raw() }
    }

    /// Calls a verb and returns its result, typed.
    pub async fn ask<T: DeserializeOwned>(&self, verb: &str, params: Value) -> Result<T, ApiError> {
        let call = Call::parse(verb, params)?;
        let value = self.control.call(&Caller::local(self.uid), call).await?;
        serde_json::from_value(value).map_err(|error| {
            ApiError::new(
                ErrorCode::Internal,
                format!("the result of {verb} has another shape: {error}"),
            )
        })
    }

    /// Calls a verb and returns its result and how long the call took.
    pub async fn timed<T: DeserializeOwned>(
        &self,
        verb: &str,
        params: Value,
    ) -> Result<(T, Duration), ApiError> {
        let began = Instant::now();
        let result = self.ask(verb, params).await?;
        Ok((result, began.elapsed()))
    }
}
