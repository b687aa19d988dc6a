//! What the command routes answer.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use actors::presence::OnlineState;
use cql::accounts::Role;
use domain::command::{Command, CommandView, Sight};
use domain::id::{AgentId, ProjectId};
use domain::secret::{KeyUse, MasterSecret, SiteKey};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::edge::app::App;
use crate::edge::auth::ProjectScope;
use crate::edge::error::ApiResult;

/// A page of the list.
#[derive(Serialize)]
pub(super) struct Page {
    pub(super) items: Vec<CommandView>,
    pub(super) next_cursor: Option<String>,
}

/// Shows commands as one caller may see them.
pub(super) struct Viewer<'a> {
    sight: Sight,
    master: &'a MasterSecret,
    project: ProjectId,
    key: OnceCell<SiteKey>,
    states: BTreeMap<AgentId, OnlineState>,
}

impl<'a> Viewer<'a> {
    /// For these commands: looks up whether their agents are online.
    pub(super) async fn of(app: &'a App, scope: &ProjectScope, commands: &[Command]) -> ApiResult<Self> {
        let mut states = BTreeMap::new();
        for agent in commands.iter().map(|command| command.agent).collect::<BTreeSet<_>>() {
            states.insert(agent, app.mesh.presence().state(scope.project_id, agent).await?);
        }
        Ok(Self::with(app, scope, states))
    }

    /// With the agents' states at hand.
    pub(super) fn with(app: &'a App, scope: &ProjectScope, states: BTreeMap<AgentId, OnlineState>) -> Self {
        let sight = if scope.role >= Role::Operator { Sight::Full } else { Sight::Outline };
        Self { sight, master: &app.master, project: scope.project_id, key: OnceCell::new(), states }
    }

    pub(super) fn show(&self, command: &Command) -> CommandView {
        let state = self.states.get(&command.agent).copied().unwrap_or(OnlineState::Unknown);
        let is_sealed = command.sealed.is_some() && self.sight == Sight::Full;
        // Most commands hold no secrets, and the key costs two hashes.
        let key = || self.key.get_or_init(|| self.master.site_key(KeyUse::Data, self.project));
        let secrets = if is_sealed { command.shown_secrets(key()) } else { None };
        command.view(self.sight, secrets.as_deref(), state.as_str())
    }
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `Page` to OpenAPI")]
pub(super) struct CommandPage {
    items: Vec<CommandPublic>,
    /// Null on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A command. Viewers and auditors see neither payload nor issuer nor result.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `CommandView` to OpenAPI")]
pub(super) struct CommandPublic {
    #[schema(format = "uuid")]
    id: String,
    #[schema(format = "uuid")]
    project_id: String,
    #[schema(format = "uuid")]
    agent_id: String,
    #[schema(required, format = "uuid")]
    issued_by: Option<String>,
    #[schema(example = "retry_task")]
    action: String,
    /// task, bulk, queue or worker.
    #[schema(example = "task")]
    target_type: String,
    #[schema(required, example = "celery:9d2c")]
    target_id: Option<String>,
    #[schema(value_type = Object)]
    payload: Value,
    /// issued, dispatched, succeeded, failed or timed_out; the last three are final.
    #[schema(example = "succeeded")]
    status: String,
    #[schema(required, value_type = Option<Object>)]
    result: Option<Value>,
    #[schema(required)]
    error: Option<String>,
    #[schema(format = "date-time")]
    issued_at: String,
    #[schema(required, format = "date-time")]
    dispatched_at: Option<String>,
    #[schema(required, format = "date-time")]
    completed_at: Option<String>,
    /// When it ends as timed_out if no result was recorded.
    #[schema(format = "date-time")]
    timeout_at: String,
    /// A rate limit for every worker on the broker.
    global_throttle: bool,
    /// Whether the agent heard of it: yes, no or unknown.
    #[schema(example = "yes")]
    delivered: String,
    /// What a result that came after the end said; the status does not change.
    #[schema(required)]
    late_status: Option<String>,
    #[schema(required, value_type = Option<Object>)]
    late_result: Option<Value>,
    /// online, offline or unknown, as the agent is now.
    #[schema(example = "online")]
    agent_state: String,
    attempt: u32,
    audit: Audit,
    /// Only of a bulk command.
    progress: Option<Progress>,
}

/// Where a command stands in the audit chain.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `AuditSeqs` to OpenAPI")]
struct Audit {
    issued_seq: u64,
    #[schema(required)]
    outcome_seq: Option<u64>,
}

/// How far a bulk command is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `Progress` to OpenAPI")]
struct Progress {
    total: u32,
    succeeded: u32,
    failed: u32,
    skipped: u32,
    pending: u32,
}
