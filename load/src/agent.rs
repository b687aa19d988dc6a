//! One simulated agent: a real signed session that streams events, answers commands and beats.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use domain::wire::client::{AgentSide, BrainFrame, Command, Payload, hello_text};
use domain::wire::{Hello, HelloAck};
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, http};

use crate::clock;
use crate::events::{Clues, Events};
use crate::histogram::Histogram;
use crate::pace::Pace;
use crate::target::{Credentials, Target};
use crate::window::Window;

/// Messages read before the window is refilled.
const DRAIN_MAX: usize = 256;
/// How long an agent waits for its last acks.
const DRAIN_FOR: Duration = Duration::from_secs(60);

pub(crate) struct Agent {
    socket: WebSocketStream<TcpStream>,
    side: AgentSide,
    events: Events,
    clues: Clues,
    window: Window,
    payload: Payload,
    heartbeat: Payload,
    beat_every: Duration,
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
    pub(crate) async fn connect(target: &Target, credentials: &Credentials, clues: Clues) -> Result<Self> {
        let host = target.host()?;
        let stream = TcpStream::connect(&host).await.with_context(|| format!("cannot connect to {host}"))?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{host}/ws/agent").into_client_request()?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", credentials.token))?;
        request.headers_mut().insert(http::header::AUTHORIZATION, bearer);
        let config = WebSocketConfig::default().write_buffer_size(256 << 10);
        let (mut socket, _) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await.context("upgrade")?;
        socket.send(Message::text(hello_text("hello_0000000000000000", &hello(clues)))).await?;
        let ack = loop {
            match socket.next().await.context("closed before hello_ack")?? {
                Message::Text(text) => break HelloAck::parse(text.as_bytes())?,
                Message::Binary(bytes) => break HelloAck::parse(&bytes)?,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                Message::Close(close) => bail!("closed in the handshake: {close:?}"),
            }
        };
        Ok(Self {
            socket,
            side: AgentSide::opened(&credentials.secret, &ack),
            events: Events::new(clues)?,
            clues,
            window: Window::default(),
            payload: Payload::default(),
            heartbeat: heartbeat(clues)?,
            beat_every: Duration::from_secs(ack.heartbeat_interval_seconds.into()),
            run: u64::from_be_bytes(domain::id::random()),
            frame_id: String::new(),
            totals: Totals::default(),
        })
    }

    /// Streams as `pace` allows until it ends, then waits for the last ack.
    pub(crate) async fn run(mut self, mut pace: Pace) -> Result<Finished> {
        let mut beat = tokio::time::interval(self.beat_every);
        let mut over: Option<Instant> = None;
        loop {
            let wait = self.fill(&mut pace).await?;
            self.socket.flush().await?;
            if pace.is_over() {
                let since = *over.get_or_insert_with(Instant::now);
                if self.window.is_empty() {
                    break;
                }
                ensure!(since.elapsed() < DRAIN_FOR, "acks are missing {DRAIN_FOR:?} after the last frame");
            }
            tokio::select! {
                message = self.socket.next() => self.drain(message).await?,
                _ = beat.tick() => self.beat().await?,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.socket.close(None).await.ok(); // All acks are here: how the farewell ends does not matter.
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
            self.side.event_batch(&mut frame, &self.frame_id, &self.payload, stamp);
            self.socket.feed(Message::Binary(frame.into())).await?;
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
            next = self.socket.next().now_or_never();
        }
        Ok(())
    }

    async fn on_frame(&mut self, wire: &Bytes, now: Instant, stamp: domain::time::Timestamp) -> Result<()> {
        match self.side.accept(wire, stamp)? {
            BrainFrame::EventBatchAck { acked_id, .. } => {
                let number = acked_id.get(19..).and_then(|text| u64::from_str_radix(text, 16).ok());
                let number = number.with_context(|| format!("ack of a foreign frame {acked_id}"))?;
                if let Some(settled) = self.window.ack(number, now) {
                    self.totals.acked_events += u64::from(settled.events);
                    self.totals.acked_frames += 1;
                    self.totals.ack_latency.record(settled.latency);
                }
            }
            BrainFrame::Command(command) => {
                let answers = answer(&mut self.side, &command, stamp);
                for frame in answers {
                    self.socket.feed(Message::Binary(frame.into())).await?;
                }
                self.totals.commands += 1;
            }
            BrainFrame::Error { code, message, fatal } => bail!("error {code} (fatal: {fatal}): {message}"),
            BrainFrame::Ignored => {}
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<()> {
        let mut frame = Vec::new();
        self.side.heartbeat(&mut frame, "hb_000000000001", &self.heartbeat, clock::now());
        self.socket.feed(Message::Binary(frame.into())).await?;
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

fn hello(clues: Clues) -> Hello {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let actions = texts(&[
        "add_consumer",
        "bulk_retry",
        "cancel_consumer",
        "cancel_task",
        "pool_grow",
        "pool_shrink",
        "purge_queue",
        "rate_limit",
        "restart_worker",
        "retry_by_reference_v1",
        "retry_task",
        "submit_task",
    ]);
    Hello {
        protocol_version: "2".to_owned(),
        agent_version: "1.13.0".to_owned(),
        framework: "bare".to_owned(),
        engines: texts(&["celery"]),
        schedulers: Vec::new(),
        capabilities: [("celery".to_owned(), actions)].into(),
        host: serde_json::Map::new(),
        worker_id: Some(format!("bare-{}-{}", clues.agent(), clues.run())),
        worker_role: Some("task".to_owned()),
        worker_pid: Some(i64::from(std::process::id())),
        worker_started_at: Some(clock::now().to_string()),
        runtime_features: texts(&["retry_by_reference", "external_schedule_protocol_v1"]),
    }
}

fn heartbeat(clues: Clues) -> Result<Payload> {
    let worker = json!({clues.worker(): {
        "stats": {"pid": 4711, "pool": {"max-concurrency": 4, "processes": [1, 2, 3, 4]}, "total": {}},
        "active": [],
        "active_queues": [{"name": crate::events::QUEUE}],
        "registered": [crate::events::TASK_NAME],
        "conf": {},
    }});
    let payload = json!({"buffer_size": 0, "last_flush_at": null, "dropped_events": 0, "telemetry_loss": null,
        "adapter_health": {"celery.broker_type": "redis", "celery.broker_connected": "True",
            "celery.queue_depths": "{}", "celery.worker_details": worker.to_string()}});
    Ok(Payload::new(payload.to_string())?)
}

#[cfg(test)]
mod tests;
