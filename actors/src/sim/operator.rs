//! Who issues commands: with keys and without, at any node or at two at once, again and again until answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cql::engine::memory::Dice;
use domain::command::{Actor, Advertised, Asked, Command, Draft, FrozenTask, Request, Resolved, Source, Verb};
use domain::engine::Engine;
use domain::id::{AgentId, UserId};
use domain::ledger::entry::DeleteBegun;
use domain::ledger::{Json, Kind, Proposal, Refusal, Route};
use tokio::time::sleep;

use super::world::{AGENTS, USERS, World};
use crate::mesh::Mesh;
use crate::project::{IssueError, NoteError};

/// How often a caller tries again who was not answered.
const TRIES: usize = 4;

pub(super) fn draft(verb: Verb, agent: AgentId, user: UserId, body: &str) -> Draft {
    let body = body.replacen('{', &format!("{{\"agent_id\":\"{agent}\","), 1);
    let asked = Asked::parse(verb, body.as_bytes()).expect("bodies of the simulation are right");
    let engines = vec!["celery".to_owned()];
    let advertised = Advertised { engines, capabilities: Default::default(), said_hello: true };
    let resolved = Resolved { engine: Some(Engine::Celery), advertised, ..Resolved::default() };
    Draft::new(asked, Actor::User(user), Source::default(), resolved)
}

pub(super) fn task(verb: Verb, agent: AgentId, user: UserId, task: &str) -> Draft {
    draft(verb, agent, user, &format!(r#"{{"engine":"celery","task_id":"{task}"}}"#))
}

/// The n-th thing that somebody wants.
pub(super) fn any_draft(dice: &mut Dice, n: usize) -> Draft {
    let agent = AGENTS[dice.below(AGENTS.len())];
    let user = USERS[dice.below(USERS.len())];
    if dice.chance(0.3) {
        // Few keys, so that they meet; now and then one of them for something else.
        let key = dice.below(6);
        let target = if dice.chance(0.1) { "other" } else { "keyed" };
        let verb = if key.is_multiple_of(2) { Verb::CancelTask } else { Verb::RetryTask };
        let mut draft = task(verb, AGENTS[key % 2], USERS[0], target);
        draft.idempotency_key = Some(format!("key-{key}"));
        return draft;
    }
    match dice.below(20) {
        0..7 => task(Verb::RetryTask, agent, user, &format!("t{n}")),
        7..12 => task(Verb::CancelTask, agent, user, &format!("t{n}")),
        12..15 => draft(Verb::PurgeQueue, agent, user, r#"{"queue":"q","force":true}"#),
        15 => draft(Verb::PoolResize, agent, user, r#"{"worker_name":"w","delta":1}"#),
        16 => draft(Verb::AddConsumer, agent, user, r#"{"worker_name":"w","queue":"q"}"#),
        17 => draft(Verb::RateLimit, agent, user, r#"{"task_name":"t","rate":"1/s"}"#),
        _ => bulk(agent, user, n, [1, 40, 260][dice.below(3)]),
    }
}

/// What is limited, wanted several times at once.
pub(super) fn burst(dice: &mut Dice, n: usize) -> Vec<Draft> {
    let (agent, user) = (AGENTS[dice.below(AGENTS.len())], USERS[dice.below(USERS.len())]);
    let is_bulk = dice.chance(0.7);
    let one = |k: usize| match is_bulk {
        true => bulk(agent, user, 1000 + n * 10 + k, 3),
        false => draft(Verb::PurgeQueue, agent, user, r#"{"queue":"q","force":true}"#),
    };
    (0..2 + dice.below(4)).map(one).collect()
}

fn bulk(agent: AgentId, user: UserId, n: usize, ids: usize) -> Draft {
    let mut draft = draft(Verb::BulkRetry, agent, user, r#"{"filter":{"state":"failed"},"max":10000}"#);
    draft.resolved.tasks = (0..ids).map(|id| FrozenTask::new(format!("b{n}-{id}"), None, None)).collect();
    draft
}

/// Issues a draft at a node, and holds the answer to the ledger. Without an answer it is tried again if it has a
/// key, at any node.
pub(super) async fn issue(world: Arc<World>, mut node: usize, draft: Draft, seed: u64) {
    let mut dice = Dice::new(seed);
    for _ in 0..TRIES {
        let answer = match world.nodes[node].mesh() {
            Some(mesh) => ask(&world, &mesh, &draft).await,
            None => None,
        };
        if answer.is_some() || draft.idempotency_key.is_none() {
            return;
        }
        world.count("operator: not answered, asks again");
        sleep(dice.duration(&(Duration::from_millis(100)..=Duration::from_secs(5)))).await;
        node = dice.below(world.nodes.len());
    }
}

/// `None`: what became of it is not known.
pub(super) async fn ask(world: &World, mesh: &Mesh, draft: &Draft) -> Option<Command> {
    let answer = mesh.issue(super::world::PROJECT, draft.clone()).await;
    let mut judge = world.judge();
    match answer {
        Ok(command) => {
            if judge.case(command.id).is_none() {
                judge.accuse(format!("{} was answered, and is not in the ledger", command.id));
            }
            let holder = draft.idempotency_key.as_deref().map(|key| judge.key(key).map(|(holder, _)| *holder));
            if holder.is_some_and(|holder| holder != Some(command.id)) {
                judge.accuse(format!("a key of {holder:?} was answered with {}", command.id));
            }
            return Some(command);
        }
        Err(IssueError::Refused(Refusal::Limited(_))) => {
            world.count("operator: limited");
            let route = match draft.request {
                Request::BulkRetry { .. } => Route::BulkRetry,
                _ => Route::PurgeQueue,
            };
            if let Some(user) = draft.actor.user() {
                judge.told_limited(route, user, world.clock.now());
            }
        }
        Err(IssueError::Refused(Refusal::KeyConflict)) => {
            world.count("operator: key conflict");
            let hash = hex::encode(draft.hash());
            let is_right = draft.idempotency_key.as_deref().and_then(|key| judge.key(key));
            if is_right.is_none_or(|(_, held)| *held == hash) {
                judge.accuse(format!("a conflict of key {:?} that is none", draft.idempotency_key));
            }
        }
        Err(IssueError::Saturated | IssueError::Unavailable | IssueError::Store(_)) => {
            world.count("operator: not answered");
            if matches!(draft.request, Request::BulkRetry { .. }) {
                world.may_leave_ids.store(true, Ordering::Relaxed);
            }
            return None;
        }
    }
    None
}

/// Somebody deletes tasks.
pub(super) async fn delete(world: Arc<World>, node: usize, user: UserId, deletion: [u8; 16]) {
    let kind = Kind::DeleteBegun(DeleteBegun {
        deletion: uuid::Uuid::from_bytes(deletion),
        filter: Json::new("{}").expect("it is JSON"),
    });
    let proposal = Proposal { actor: Actor::User(user), source: Source::default(), kind };
    let Some(mesh) = world.nodes[node].mesh() else { return };
    let answer = mesh.note(super::world::PROJECT, proposal).await;
    let mut judge = world.judge();
    match answer {
        Ok(seq) if seq > judge.seq() => judge.accuse(format!("entry {seq} was answered, and is not durable")),
        Ok(_) => {}
        Err(NoteError::Limited(_)) => {
            world.count("operator: limited");
            judge.told_limited(Route::BulkDelete, user, world.clock.now());
        }
        Err(NoteError::Saturated | NoteError::Unavailable | NoteError::Store(_)) => {
            world.count("operator: not answered");
        }
    }
}
