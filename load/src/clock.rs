//! The generator's clock. It measures real servers, so it reads real time.

use std::time::{SystemTime, UNIX_EPOCH};

use domain::time::Timestamp;

#[expect(clippy::disallowed_methods, reason = "a load generator stamps frames with real time")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
