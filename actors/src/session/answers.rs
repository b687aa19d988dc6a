//! What an agent says about commands, on its way to the project that issued them.

use std::sync::Arc;

use domain::ledger::Json;
use domain::ledger::decide::Answer;
use domain::redact;
use domain::wire::{CommandAck, CommandResult, ResultStatus};

use super::SessionFacts;
use crate::mesh::Mesh;
use crate::project::Heard;

/// Acks and results of one turn; an idle session keeps nothing.
pub(super) struct Answers {
    mesh: Mesh,
    facts: Arc<SessionFacts>,
    waiting: Vec<Waiting>,
}

struct Waiting {
    frame_id: String,
    claim: Option<String>,
    heard: Heard,
}

impl Answers {
    pub(super) fn new(mesh: Mesh, facts: Arc<SessionFacts>) -> Self {
        Self { mesh, facts, waiting: Vec::new() }
    }

    pub(super) fn ack(&mut self, ack: CommandAck<'_>) {
        self.waiting.push(Waiting {
            frame_id: ack.id.into_owned(),
            claim: ack.claim.map(|claim| claim.into_owned()),
            heard: Heard::Ack,
        });
    }

    pub(super) fn result(&mut self, result: CommandResult<'_>) {
        let scrubbed = result.result.and_then(|json| Json::new(redact::json(json.get()).into_owned()).ok());
        let answer = Answer {
            success: result.status == ResultStatus::Success,
            result: scrubbed,
            error: result.error.map(|error| redact::text(&error).into_owned()),
        };
        self.waiting.push(Waiting {
            frame_id: result.id.into_owned(),
            claim: result.claim.map(|claim| claim.into_owned()),
            heard: Heard::Result(answer),
        });
    }

    /// Passes on what was heard in this turn. Waits while the project is behind.
    pub(super) async fn hand_over(&mut self) {
        for Waiting { frame_id, claim, heard } in std::mem::take(&mut self.waiting) {
            let facts = &self.facts;
            let Ok(project) = self.mesh.project(facts.project).await else {
                tracing::warn!(project.id = %facts.project, frame.id = frame_id, "answer lost, the project is not available");
                continue;
            };
            let known = project.heard(facts.agent, facts.session, &frame_id, claim.as_deref(), heard).await;
            if !known {
                tracing::debug!(project.id = %facts.project, frame.id = frame_id, "answer to no command of ours");
            }
        }
    }
}
