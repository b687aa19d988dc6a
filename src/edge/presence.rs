//! What an agent said about itself and whether it is connected.

use cql::accounts::Agent;
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::app::App;
use super::error::ApiResult;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    Online,
    Offline,
    /// It never connected.
    Unknown,
}

/// The facts of an agent's newest hello, and its state.
#[derive(Clone, Debug)]
pub struct AgentPresence {
    pub state: AgentState,
    pub protocol_version: String,
    pub framework_adapter: String,
    pub engine_adapters: Vec<String>,
    pub scheduler_adapters: Vec<String>,
    /// Actions by engine.
    pub capabilities: Value,
    pub last_seen_at: Option<Timestamp>,
    pub last_connect_at: Option<Timestamp>,
    pub host_name: Option<String>,
    pub agent_version: Option<String>,
}

impl AgentPresence {
    fn never(state: AgentState) -> Self {
        Self {
            state,
            protocol_version: "0".to_owned(),
            framework_adapter: "unknown".to_owned(),
            engine_adapters: Vec::new(),
            scheduler_adapters: Vec::new(),
            capabilities: json!({}),
            last_seen_at: None,
            last_connect_at: None,
            host_name: None,
            agent_version: None,
        }
    }
}

/// An agent as its sessions show it.
pub async fn agent_state(app: &App, agent: &Agent) -> ApiResult<AgentPresence> {
    let connected = app.directory.is_connected(agent.id);
    Ok(AgentPresence::never(if connected { AgentState::Online } else { AgentState::Unknown }))
}
