//! What an engine can do: one table of ours, joined with what the agent said (contract D16).
//!
//! The hello alone is wrong as a gate: arq and TaskIQ list only `submit_task` and do run a retry with both
//! override halves; `restart_worker` is listed by engines for which it ends the host process (WIRE 12.15, 12.17).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action::Action;
use crate::engine::Engine;

/// What an agent said in its hello.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Advertised {
    pub engines: Vec<String>,
    /// Action words by engine; one copy for all processes that list the same.
    pub capabilities: Arc<BTreeMap<String, Vec<String>>>,
    /// False over long-poll, where there is no hello: then nothing is known.
    pub said_hello: bool,
}

/// Whether to dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Supported,
    /// Ends `failed` with reason `unsupported`, without dispatch.
    Unsupported,
    /// Dispatched; the agent decides.
    Unknown,
}

/// Our own knowledge of an engine's agent (WIRE section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Can {
    Yes,
    No,
    /// Depends on how the engine is set up there.
    AgentKnows,
}

const fn can(engine: Engine, action: Action) -> Can {
    match (engine, action) {
        (Engine::Celery, _) => Can::Yes,
        // Both override halves; by reference too where Request allows it.
        (_, Action::RetryTask) => Can::Yes,
        // Ends the agent's own process, which may be a web server.
        (_, Action::RestartWorker)
        | (
            _,
            Action::PoolGrow | Action::PoolShrink | Action::AddConsumer | Action::CancelConsumer | Action::RateLimit,
        ) => Can::No,
        (Engine::Rq, Action::BulkRetry | Action::CancelTask | Action::PurgeQueue) => Can::Yes,
        (_, Action::BulkRetry) => Can::No,
        (Engine::Dramatiq, Action::PurgeQueue) => Can::Yes,
        (_, Action::PurgeQueue) => Can::No,
        (Engine::Huey, Action::CancelTask) => Can::Yes,
        // With the abort middleware, or where jobs may be aborted.
        (Engine::Dramatiq | Engine::Arq, Action::CancelTask) => Can::AgentKnows,
        (Engine::Taskiq, Action::CancelTask) => Can::No,
    }
}

impl Advertised {
    pub fn lists(&self, engine: Engine, action: Action) -> bool {
        self.capabilities.get(engine.as_str()).is_some_and(|tokens| tokens.iter().any(|token| token == action.as_str()))
    }

    pub fn has(&self, engine: Engine) -> bool {
        self.engines.iter().any(|name| name == engine.as_str())
    }
}

/// Joins the table with the hello. Without an engine the agent chooses, so it decides.
pub fn support(engine: Option<Engine>, action: Action, advertised: &Advertised) -> Support {
    let Some(engine) = engine else { return Support::Unknown };
    if advertised.said_hello && !advertised.has(engine) {
        return Support::Unsupported;
    }
    match can(engine, action) {
        Can::Yes => Support::Supported,
        Can::No => Support::Unsupported,
        Can::AgentKnows if advertised.lists(engine, action) => Support::Supported,
        Can::AgentKnows => Support::Unknown,
    }
}

/// Whether an agent's error says that it cannot do such a thing at all.
pub fn says_unsupported(error: &str) -> bool {
    error.contains("does not support action") || error.contains("no engine adapter registered for")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(engine: &str, actions: &[&str]) -> Advertised {
        Advertised {
            engines: vec![engine.to_owned()],
            capabilities: Arc::new(
                [(engine.to_owned(), actions.iter().map(|&action| action.to_owned()).collect())].into(),
            ),
            said_hello: true,
        }
    }

    #[test]
    fn the_table_of_the_six_engines() {
        let yes = |engine: Engine| {
            Action::ALL.into_iter().filter(|action| can(engine, *action) == Can::Yes).collect::<Vec<_>>()
        };
        assert_eq!(yes(Engine::Celery), Action::ALL);
        assert_eq!(yes(Engine::Rq), [Action::RetryTask, Action::CancelTask, Action::BulkRetry, Action::PurgeQueue]);
        assert_eq!(yes(Engine::Dramatiq), [Action::RetryTask, Action::PurgeQueue]);
        assert_eq!(yes(Engine::Huey), [Action::RetryTask, Action::CancelTask]);
        assert_eq!(yes(Engine::Arq), [Action::RetryTask]);
        assert_eq!(yes(Engine::Taskiq), [Action::RetryTask]);
    }

    #[test]
    fn restart_worker_never_reaches_another_engine_whatever_its_hello_says() {
        for engine in Engine::ALL.into_iter().filter(|engine| *engine != Engine::Celery) {
            let advertised = hello(engine.as_str(), &["restart_worker"]);
            assert_eq!(support(Some(engine), Action::RestartWorker, &advertised), Support::Unsupported);
        }
    }

    #[test]
    fn a_hello_that_lists_only_submit_task_does_not_gate_a_retry() {
        let advertised = hello("arq", &["submit_task"]);
        assert_eq!(support(Some(Engine::Arq), Action::RetryTask, &advertised), Support::Supported);
        assert_eq!(support(Some(Engine::Arq), Action::CancelTask, &advertised), Support::Unknown);
        let advertised = hello("dramatiq", &["cancel_task"]);
        assert_eq!(support(Some(Engine::Dramatiq), Action::CancelTask, &advertised), Support::Supported);
    }

    #[test]
    fn an_engine_the_agent_lacks_is_unsupported_unless_nothing_is_known() {
        assert_eq!(support(Some(Engine::Rq), Action::RetryTask, &hello("celery", &[])), Support::Unsupported);
        assert_eq!(support(Some(Engine::Rq), Action::RetryTask, &Advertised::default()), Support::Supported);
        assert_eq!(support(None, Action::PurgeQueue, &hello("celery", &[])), Support::Unknown);
    }

    #[test]
    fn refusals_of_real_agents_are_recognised() {
        assert!(says_unsupported("adapter 'celery' does not support action 'pool_resize'"));
        assert!(says_unsupported("no engine adapter registered for 'rq'"));
        assert!(!says_unsupported("no scheduler adapter registered for None"));
    }
}
