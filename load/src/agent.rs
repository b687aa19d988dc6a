//! One simulated agent: a real signed session that streams events, answers commands and beats.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use domain::wire::UNACKED_MAX;
use domain::wire::client::{AgentSide, BrainFrame, Command, Payload};
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::json;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::clock;
use crate::events::{Clues, Events};
use crate::histogram::Histogram;
use crate::pace::Pace;
use crate::session::{Buffers, Session, heartbeat};
use crate::target::{Credentials, Target};
use crate::window::Window;

/// Events acked so far, counted by all agents of a run together.
pub(crate) type Progress = Arc<AtomicU64>;

/// Messages read before the window is refilled.
const DRAIN_MAX: usize = 256;
/// How long an agent waits for its last acks.
const DRAIN_FOR: Duration = Duration::from_secs(120);

pub(crate) struct Agent {
    session: Session,
    events: Events,
    clues: Clues,
    window: Window,
    payload: Payload,
    heartbeat: Payload,
    /// Events acked so far by all agents of the run.
    progress: Progress,
    run: u64,
    frame_id: String,
    totals: Totals,
}

/// What one agent has seen.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) sent_events: u64,
    pub(crate) acked_events: u64,
    pub(crate) acked_frames: u64,
    pub(crate) commands: u64,
    pub(crate) ack_latency: Histogram,
}

/// What an agent leaves behind, for checks.
pub(crate) struct Finished {
    pub(crate) totals: Totals,
    pub(crate) events: Events,
    pub(crate) clues: Clues,
}

impl Agent {
    /// Connects and shakes hands.
    pub(crate) async fn connect(
        target: &Target,
        credentials: &Credentials,
        clues: Clues,
        progress: Progress,
    ) -> Result<Self> {
        let session = Session::open(target, credentials, clues, clues.agent().into(), Buffers::Large).await?;
        Ok(Self {
            session,
            events: Events::new(clues)?,
            clues,
            window: Window::new(UNACKED_MAX),
            payload: Payload::default(),
            heartbeat: heartbeat(clues)?,
            progress,
            run: u64::from_be_bytes(domain::id::random()),
            frame_id: String::new(),
            totals: Totals::default(),
        })
    }

    /// Leaves `open` of a hundred tasks open.
    pub(crate) fn leaving(mut self, open: u8) -> Self {
        self.events = self.events.leaving(open);
        self
    }

    /// The same agent with at most `frames` waiting for an ack.
    pub(crate) fn with_window(self, frames: usize) -> Self {
        Self { window: Window::new(frames), ..self }
    }

    /// Streams as `pace` allows until it ends, then waits for the last ack.
    pub(crate) async fn run(mut self, mut pace: Pace) -> Result<Finished> {
        let mut beat = tokio::time::interval(self.session.beat_every);
        let mut over: Option<Instant> = None;
        loop {
            let wait = self.fill(&mut pace).await?;
            self.session.socket.flush().await?;
            if pace.is_over() {
                let since = *over.get_or_insert_with(Instant::now);
                if self.window.is_empty() {
                    break;
                }
                ensure!(since.elapsed() < DRAIN_FOR, "acks are missing {DRAIN_FOR:?} after the last frame");
            }
            tokio::select! {
                message = self.session.socket.next() => self.drain(message).await?,
                _ = beat.tick() => self.session.beat(&self.heartbeat).await?,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.session.socket.close(None).await.ok(); // All acks are here: how the farewell ends does not matter.
        Ok(Finished { totals: self.totals, events: self.events, clues: self.clues })
    }

    /// Sends what window and pace allow; gives how long to wait if nothing arrives.
    async fn fill(&mut self, pace: &mut Pace) -> Result<Duration> {
        let now = Instant::now();
        let stamp = clock::now();
        let per_frame = pace.events_per_frame();
        while !self.window.is_full() && pace.take(now) {
            self.events.batch(&mut self.payload, per_frame as usize, stamp);
            let number = self.window.send(now, per_frame);
            self.frame_id.clear();
            write!(self.frame_id, "ev_{:016x}{number:016x}", self.run)?;
            let mut frame = Vec::with_capacity(self.payload.wire.len() + 320);
            self.session.side.event_batch(&mut frame, &self.frame_id, &self.payload, stamp);
            self.session.socket.feed(Message::Binary(frame.into())).await?;
            self.totals.sent_events += u64::from(per_frame);
        }
        Ok(if self.window.is_full() { Duration::from_secs(1) } else { pace.wait(now) })
    }

    /// Handles a message and whatever else has arrived.
    async fn drain(&mut self, first: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>) -> Result<()> {
        let (now, stamp) = (Instant::now(), clock::now());
        let mut next = Some(first);
        for _ in 0..DRAIN_MAX {
            let Some(message) = next else { return Ok(()) };
            match message.context("the server went away")?? {
                Message::Binary(bytes) => self.on_frame(&bytes, now, stamp).await?,
                Message::Text(text) => self.on_frame(&Bytes::from(text), now, stamp).await?,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                Message::Close(close) => bail!("closed by the server: {close:?}"),
            }
            next = self.session.socket.next().now_or_never();
        }
        Ok(())
    }

    async fn on_frame(&mut self, wire: &Bytes, now: Instant, stamp: domain::time::Timestamp) -> Result<()> {
        match self.session.side.accept(wire, stamp)? {
            BrainFrame::EventBatchAck { acked_id, .. } => {
                let number = acked_id.get(19..).and_then(|text| u64::from_str_radix(text, 16).ok());
                let number = number.with_context(|| format!("ack of a foreign frame {acked_id}"))?;
                if let Some(settled) = self.window.ack(number, now) {
                    self.totals.acked_events += u64::from(settled.events);
                    self.totals.acked_frames += 1;
                    self.progress.fetch_add(settled.events.into(), Ordering::Relaxed);
                    self.totals.ack_latency.record(settled.latency);
                }
            }
            BrainFrame::Command(command) => {
                let answers = answer(&mut self.session.side, &command, stamp);
                for frame in answers {
                    self.session.socket.feed(Message::Binary(frame.into())).await?;
                }
                self.totals.commands += 1;
            }
            BrainFrame::Error { code, message, fatal } => bail!("error {code} (fatal: {fatal}): {message}"),
            BrainFrame::Ignored => {}
        }
        Ok(())
    }
}

/// Ack and result of a command that was done at once.
fn answer(side: &mut AgentSide, command: &Command<'_>, stamp: domain::time::Timestamp) -> [Vec<u8>; 2] {
    let [mut ack, mut result] = [const { Vec::new() }; 2];
    let claim = command.claim.as_deref();
    side.command_ack(&mut ack, &command.id, claim, stamp);
    let outcome = json!({"new_task_id": command.id, "task_name": crate::events::TASK_NAME, "priority": null});
    side.command_result(&mut result, &command.id, Some(&outcome), None, claim, stamp);
    [ack, result]
}

#[cfg(test)]
mod tests;
