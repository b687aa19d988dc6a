//! The unsigned handshake: an agent introduces itself, the brain answers with the session's identity.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::envelope::{Envelope, Kind};
use super::{FRAME_BYTES_MAX, FrameError, PROTOCOL, VERSION};
use crate::id::{AgentId, ProjectId, SessionId};
use crate::redact;
use crate::time::Timestamp;

const VERSION_TEXT_MAX: usize = 40;
const LIST_MAX: usize = 64;
const WORKER_ID_MAX: usize = 128;
const ROLE_MAX: usize = 32;

/// What an agent says about itself when it connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol_version: String,
    #[serde(default = "unknown")]
    pub agent_version: String,
    #[serde(default = "unknown")]
    pub framework: String,
    #[serde(default)]
    pub engines: Vec<String>,
    #[serde(default)]
    pub schedulers: Vec<String>,
    /// By engine or scheduler: what it can be asked for.
    #[serde(default)]
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// Often empty; `name` is the configured agent name.
    #[serde(default)]
    pub host: serde_json::Map<String, serde_json::Value>,
    /// Stable for the life of the process; null is a slot of its own.
    #[serde(default)]
    pub worker_id: Option<String>,
    #[serde(default)]
    pub worker_role: Option<String>,
    #[serde(default)]
    pub worker_pid: Option<i64>,
    #[serde(default)]
    pub worker_started_at: Option<String>,
    #[serde(default)]
    pub runtime_features: Vec<String>,
}

fn unknown() -> String {
    "unknown".to_owned()
}

impl Hello {
    /// Reads the first frame of a connection.
    pub fn parse(wire: &[u8]) -> Result<Self, FrameError> {
        if wire.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge);
        }
        let envelope = Envelope::unsigned(wire).map_err(|error| match error {
            // Whatever is wrong, the first frame is not a hello we can read.
            FrameError::Version | FrameError::UnknownType | FrameError::Payload => FrameError::NotHello,
            other => other,
        })?;
        if envelope.kind != Kind::Hello {
            return Err(FrameError::NotHello);
        }
        let hello: Self = serde_json::from_str(envelope.payload).map_err(|_| FrameError::Member("payload"))?;
        hello.check()?;
        if hello.protocol_version == PROTOCOL { Ok(hello.scrubbed()) } else { Err(FrameError::Protocol) }
    }

    /// What is kept and logged of it: no secrets and no addresses (contract D29).
    fn scrubbed(mut self) -> Self {
        let clean = |text: &mut String| {
            if let Cow::Owned(clean) = redact::text(text) {
                *text = clean;
            }
        };
        [&mut self.agent_version, &mut self.framework].into_iter().for_each(clean);
        self.worker_role.iter_mut().for_each(clean);
        self.engines.iter_mut().chain(&mut self.schedulers).chain(&mut self.runtime_features).for_each(clean);
        self.capabilities = std::mem::take(&mut self.capabilities)
            .into_iter()
            .map(|(engine, mut actions)| {
                actions.iter_mut().for_each(clean);
                (redact::text(&engine).into_owned(), actions)
            })
            .collect();
        // Often `process@host`.
        self.worker_id = self.worker_id.map(|id| redact::name(&id).into_owned());
        if let Ok(host) = serde_json::to_string(&self.host)
            && let Cow::Owned(clean) = redact::json(&host)
        {
            // What a scrubbed object cannot be read back as is dropped.
            self.host = serde_json::from_str(&clean).unwrap_or_default();
        }
        self
    }

    /// The name the agent was configured with, if any.
    pub fn host_name(&self) -> Option<&str> {
        self.host.get("name").and_then(serde_json::Value::as_str)
    }

    pub fn started_at(&self) -> Option<Timestamp> {
        self.worker_started_at.as_deref().and_then(|text| Timestamp::parse(text).ok())
    }

    /// Whether the agent said that `engine` can do `action`.
    pub fn lists(&self, engine: &str, action: &str) -> bool {
        self.capabilities.get(engine).is_some_and(|actions| actions.iter().any(|listed| listed == action))
    }

    fn check(&self) -> Result<(), FrameError> {
        let texts = [
            ("protocol_version", Some(&self.protocol_version), VERSION_TEXT_MAX),
            ("agent_version", Some(&self.agent_version), VERSION_TEXT_MAX),
            ("framework", Some(&self.framework), VERSION_TEXT_MAX),
            ("worker_id", self.worker_id.as_ref(), WORKER_ID_MAX),
            ("worker_role", self.worker_role.as_ref(), ROLE_MAX),
        ];
        for (name, text, max) in texts {
            if text.is_some_and(|text| text.chars().count() > max) {
                return Err(FrameError::Member(name));
            }
        }
        let lists = [
            ("engines", &self.engines),
            ("schedulers", &self.schedulers),
            ("runtime_features", &self.runtime_features),
        ];
        match lists.into_iter().find(|(_, list)| list.len() > LIST_MAX) {
            Some((name, _)) => Err(FrameError::Member(name)),
            None => Ok(()),
        }
    }
}

/// The brain's answer: from here on both sides sign with this identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAck {
    pub agent: AgentId,
    pub project: ProjectId,
    pub session: SessionId,
    pub brain_version: String,
    /// 1 to 3600; the agent obeys it.
    pub heartbeat_interval_seconds: u16,
    pub max_frame_size_bytes: u32,
}

#[derive(Serialize, Deserialize)]
struct AckFrame<'a> {
    v: u8,
    id: String,
    ts: Option<String>,
    #[serde(rename = "type")]
    kind: &'a str,
    payload: AckPayload,
}

#[derive(Serialize, Deserialize)]
struct AckPayload {
    protocol_version: String,
    brain_version: String,
    agent_id: AgentId,
    project_id: ProjectId,
    session_id: SessionId,
    heartbeat_interval_seconds: u16,
    max_frame_size_bytes: u32,
}

impl HelloAck {
    /// The frame's text.
    pub fn to_text(&self, now: Timestamp) -> String {
        let frame = AckFrame {
            v: VERSION,
            id: format!("hack_{}", &self.session.uuid().simple().to_string()[..12]),
            ts: Some(now.to_string()),
            kind: Kind::HelloAck.as_str(),
            payload: AckPayload {
                protocol_version: PROTOCOL.to_owned(),
                brain_version: self.brain_version.clone(),
                agent_id: self.agent,
                project_id: self.project,
                session_id: self.session,
                heartbeat_interval_seconds: self.heartbeat_interval_seconds,
                max_frame_size_bytes: self.max_frame_size_bytes,
            },
        };
        serde_json::to_string(&frame).expect("strings and numbers always serialise")
    }

    /// Reads the answer, as an agent does: types are strict and the protocol must be ours.
    pub fn parse(wire: &[u8]) -> Result<Self, FrameError> {
        let envelope = Envelope::unsigned(wire)?;
        if envelope.kind != Kind::HelloAck {
            return Err(FrameError::Member("type"));
        }
        let payload: AckPayload = serde_json::from_str(envelope.payload).map_err(|_| FrameError::Member("payload"))?;
        if payload.protocol_version != PROTOCOL {
            return Err(FrameError::Protocol);
        }
        Ok(Self {
            agent: payload.agent_id,
            project: payload.project_id,
            session: payload.session_id,
            brain_version: payload.brain_version,
            heartbeat_interval_seconds: payload.heartbeat_interval_seconds,
            max_frame_size_bytes: payload.max_frame_size_bytes,
        })
    }
}
