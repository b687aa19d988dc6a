//! Agents as everyone sees them: what was minted, and what their processes said of themselves.

use actors::presence::{AgentPresence, OnlineState};
use cql::accounts::Agent;
use domain::id::{AgentId, ProjectId};
use domain::time::Timestamp;
use serde::Serialize;

/// An agent's row.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AgentView {
    #[schema(value_type = String, format = "uuid")]
    id: AgentId,
    /// The same, in the word of commands.
    #[schema(value_type = String, format = "uuid")]
    agent_id: AgentId,
    #[schema(value_type = String, format = "uuid")]
    project_id: ProjectId,
    name: String,
    /// `online`, `offline`, or `unknown` when it never connected.
    #[schema(example = "online")]
    state: &'static str,
    #[schema(example = "2")]
    protocol_version: String,
    #[schema(example = "bare")]
    framework_adapter: String,
    #[schema(example = json!(["celery"]))]
    engine_adapters: Vec<String>,
    /// The same, in the word of commands.
    #[schema(example = json!(["celery"]))]
    engines: Vec<String>,
    scheduler_adapters: Vec<String>,
    /// Actions by engine.
    #[schema(value_type = std::collections::HashMap<String, Vec<String>>)]
    capabilities: std::collections::BTreeMap<String, Vec<String>>,
    #[schema(value_type = Option<String>, format = "date-time")]
    last_seen_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = "date-time")]
    last_connect_at: Option<Timestamp>,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    is_outdated: bool,
    host_name: Option<String>,
    agent_version: Option<String>,
    /// `current`, or `unknown` when it never connected.
    version_status: &'static str,
    /// What is wrong with it and what to do, in words.
    problems: Vec<String>,
}

/// An agent as its processes show it; `None` when none ever connected.
pub fn agent_state(agent: &Agent, presence: Option<AgentPresence>) -> AgentView {
    let presence = presence.unwrap_or_else(AgentPresence::never);
    let newest = presence.newest.as_ref();
    AgentView {
        id: agent.id,
        agent_id: agent.id,
        project_id: agent.project,
        name: agent.name.clone(),
        state: OnlineState::as_str(presence.state),
        protocol_version: newest.map_or_else(|| "0".to_owned(), |row| row.protocol_version.clone()),
        framework_adapter: newest.map_or_else(|| "unknown".to_owned(), |row| row.framework.clone()),
        scheduler_adapters: newest.map(|row| row.schedulers.clone()).unwrap_or_default(),
        host_name: newest.and_then(|row| row.host_name.clone()),
        agent_version: newest.map(|row| row.agent_version.clone()),
        version_status: if newest.is_some() { "current" } else { "unknown" },
        engine_adapters: presence.engines.clone(),
        engines: presence.engines,
        capabilities: presence.capabilities,
        last_seen_at: presence.last_seen_at,
        last_connect_at: presence.last_connect_at,
        created_at: agent.created_at,
        is_outdated: false,
        problems: presence.problems,
    }
}
