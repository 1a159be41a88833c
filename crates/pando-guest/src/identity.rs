//! x
use crate::config::Config;
use pando_model::guest::Identity;
use pando_wire::guest::{Answer, Reply};
pub fn set(_config: &Config, _identity: &Identity) -> Answer {
    Ok(Reply::Done)
}
