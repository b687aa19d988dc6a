//! The words that parameters and bodies take, for OpenAPI only: `domain` reads them and knows nothing of documents.
//!
//! A test holds each list against the reader of its kind.

#![expect(dead_code, reason = "describes words to OpenAPI")]

use utoipa::ToSchema;

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Engine {
    Celery,
    Rq,
    Dramatiq,
    Huey,
    Arq,
    Taskiq,
}

/// The seven states, then the words of the reference for them.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum State {
    Received,
    Started,
    Succeeded,
    Failed,
    Cancelled,
    Retried,
    Lost,
    Pending,
    Success,
    Failure,
    Rejected,
    Revoked,
    Retry,
    Unknown,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Priority {
    Critical,
    High,
    Normal,
    Low,
}

/// The five statuses, then the words of the reference for them.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Status {
    Issued,
    Dispatched,
    Succeeded,
    Failed,
    TimedOut,
    Pending,
    Completed,
    Timeout,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Role {
    Viewer,
    Auditor,
    Operator,
    Admin,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum OnlineState {
    Online,
    Offline,
}

#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Outcome {
    Success,
    Failure,
    Allow,
    Deny,
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn words<T: ToSchema>() -> Vec<String> {
        let schema = serde_json::to_value(<T as utoipa::PartialSchema>::schema()).unwrap();
        schema["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    /// The documented words are read, and every value has one.
    fn holds<D: ToSchema, T: FromStr + PartialEq + std::fmt::Debug>(all: &[T]) {
        let read: Vec<T> = words::<D>()
            .iter()
            .map(|word| word.parse().unwrap_or_else(|_| panic!("{word} is documented and not read")))
            .collect();
        for value in all {
            assert!(read.contains(value), "{value:?} is not documented");
        }
    }

    #[test]
    fn documented_words_are_the_ones_that_are_read() {
        holds::<Engine, domain::engine::Engine>(&domain::engine::Engine::ALL);
        holds::<State, domain::task::State>(&domain::task::State::ALL);
        holds::<Priority, domain::task::Priority>(&domain::task::Priority::ALL);
        holds::<Role, cql::accounts::Role>(&cql::accounts::Role::ALL);
        holds::<Status, domain::command::Status>(&domain::command::Status::ALL);
    }
}
