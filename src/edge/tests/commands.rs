//! Commands from the request to the frame and back (contract M70 to M131, D2, D3, D15 to D25).

mod issuing;
mod listing;
mod posting;
mod refusals;
mod saturated;
mod traces;
mod waiting;

use axum::http::StatusCode;
use cql::Table;
use cql::accounts::{Project, Role};
use cql::ledger::{entries, projection};
use domain::id::AgentId;
use serde_json::{Value, json};

use super::node::{Answer, Caller, Node};
use super::process::Process;

const SLUG: &str = "billing";
const WORKER: &str = "w1@host";
/// Failed tasks that the agent has reported.
const FAILED: [&str; 3] = ["t-1", "t-2", "t-3"];
const KEY: &str = "key-1";

/// Every verb, the lowest role that may use it, and a body that is accepted.
fn verbs() -> [(&'static str, Role, Value); 9] {
    [
        ("retry-task", Role::Operator, json!({ "engine": "celery", "task_id": "t-1" })),
        ("cancel-task", Role::Operator, json!({ "engine": "celery", "task_id": "t-1" })),
        ("bulk-retry", Role::Operator, json!({ "filter": { "state": "failed" }, "max": 10 })),
        ("purge-queue", Role::Admin, json!({ "queue": "mail", "force": true })),
        ("restart-worker", Role::Admin, json!({ "worker_name": WORKER })),
        ("pool-resize", Role::Admin, json!({ "worker_name": WORKER, "delta": 1 })),
        ("add-consumer", Role::Admin, json!({ "worker_name": WORKER, "queue": "mail" })),
        ("cancel-consumer", Role::Admin, json!({ "worker_name": WORKER, "queue": "mail" })),
        ("rate-limit", Role::Admin, json!({ "task_name": "email.send", "rate": "10/m" })),
    ]
}

fn body_of(verb: &str) -> Value {
    verbs().into_iter().find(|(name, _, _)| *name == verb).unwrap().2
}

/// A project with one Celery agent that is connected, has reported its worker and some failed tasks.
struct World {
    node: Node,
    project: Project,
    admin: Caller,
    agent: AgentId,
    process: Process,
}

/// What a refusal must leave as it was.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    /// In every table that a command may write to.
    rows: [usize; 4],
    entries: usize,
}

/// Commands and the days they are listed under, frozen ids, idempotency keys, projects with open commands.
const TABLES: [Table; 4] = [Table::Command, Table::CommandChunk, Table::Idem, Table::Open];

impl World {
    async fn make() -> Self {
        Self::on(Node::start().await).await
    }

    /// On a store that other nodes may share.
    async fn make_shared() -> Self {
        Self::on(Node::start_shared().await).await
    }

    async fn on(node: Node) -> Self {
        let project = node.project(SLUG).await;
        let root = node.user("root@example.org", true).await;
        let admin = node.session(&root).await;
        let agent = node.agent(&project, "agent-1").await;
        let mut process = node.connect(&project, agent, &["celery"]).await;
        process.report_failed(&FAILED, WORKER).await;
        Self { node, project, admin, agent, process }
    }

    async fn member(&self, role: Role) -> Caller {
        let user = self.node.user(&format!("{role}@example.org"), false).await;
        self.node.join(&user, &self.project, role).await;
        self.node.session(&user).await
    }

    /// Posts a body as it is.
    async fn post(&self, caller: &Caller, verb: &str, body: Value) -> Answer {
        self.node.post(&format!("/api/v1/projects/{SLUG}/commands/{verb}"), caller, body).await
    }

    /// Posts a body as the administrator, to our agent unless it says otherwise.
    async fn ask(&self, verb: &str, mut body: Value) -> Answer {
        let members = body.as_object_mut().unwrap();
        members.entry("agent_id").or_insert_with(|| json!(self.agent));
        self.post(&self.admin, verb, body).await
    }

    /// A command that is accepted.
    async fn issue(&self, verb: &str, body: Value) -> Value {
        let answer = self.ask(verb, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{verb}: {}", answer.text);
        answer.json()
    }

    async fn detail(&self, caller: &Caller, command: &Value) -> Value {
        let id = command["id"].as_str().unwrap();
        let answer = self.node.get(&format!("/api/v1/projects/{SLUG}/commands/{id}"), caller).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    async fn list(&self, query: &str) -> Answer {
        self.node.get(&format!("/api/v1/projects/{SLUG}/commands{query}"), &self.admin).await
    }

    async fn kept(&self) -> Kept {
        let store = self.node.app.store.as_ref();
        let entries = entries::tail(store, self.project.id, 1, 1000).await.unwrap().len();
        Kept { rows: TABLES.map(|table| self.node.memory.count(table)), entries }
    }

    async fn key_is_free(&self, key: &str) -> bool {
        projection::key_holder(self.node.app.store.as_ref(), self.project.id, key).await.unwrap().is_none()
    }
}
