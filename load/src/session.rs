//! An open, signed session: what every simulated agent starts with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use domain::wire::client::{AgentSide, BrainFrame, Payload, hello_text};
use domain::wire::{Hello, HelloAck};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};

use crate::clock;
use crate::events::Clues;
use crate::target::{Credentials, Target};

/// Sessions that dial from one loopback address: fewer than a server lets one address open in a minute, and far fewer
/// than the ports an address has.
const PER_ADDRESS: u32 = 500;

pub(crate) struct Session {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) side: AgentSide,
    pub(crate) beat_every: Duration,
}

/// What a session may buffer.
#[derive(Clone, Copy)]
pub(crate) enum Buffers {
    /// For a session that streams.
    Large,
    /// For one of thousands that only beat.
    Small,
}

impl Session {
    /// Connects and shakes hands; `place` counts the sessions of this run.
    pub(crate) async fn open(
        target: &Target,
        credentials: &Credentials,
        clues: Clues,
        place: u32,
        buffers: Buffers,
    ) -> Result<Self> {
        let host = target.host()?;
        let stream = dial(&host, place).await.with_context(|| format!("cannot connect to {host}"))?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{host}/ws/agent").into_client_request()?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", credentials.token))?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let config = match buffers {
            Buffers::Large => WebSocketConfig::default().write_buffer_size(256 << 10),
            Buffers::Small => WebSocketConfig::default().read_buffer_size(2 << 10).write_buffer_size(0),
        };
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
            beat_every: Duration::from_secs(ack.heartbeat_interval_seconds.into()),
        })
    }

    /// Sends one batch and waits for its ack.
    pub(crate) async fn report(&mut self, events: &Payload, id: &str) -> Result<()> {
        let mut frame = Vec::new();
        self.side.event_batch(&mut frame, id, events, clock::now());
        self.socket.send(Message::Binary(frame.into())).await?;
        loop {
            let message = self.socket.next().await.context("the server went away")??;
            match message {
                Message::Text(_) | Message::Binary(_) => {}
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
                Message::Close(close) => bail!("closed by the server: {close:?}"),
            }
            match self.side.accept(&message.into_data(), clock::now())? {
                BrainFrame::EventBatchAck { acked_id, accepted, received, .. } if acked_id == id => {
                    ensure!(accepted == received, "{accepted} of {received} events were accepted");
                    return Ok(());
                }
                BrainFrame::Error { code, message, .. } => bail!("error {code}: {message}"),
                BrainFrame::EventBatchAck { .. } | BrainFrame::Command(_) | BrainFrame::Ignored => {}
            }
        }
    }

    /// Writes a heartbeat; it leaves with the next flush.
    pub(crate) async fn beat(&mut self, heartbeat: &Payload) -> Result<()> {
        let mut frame = Vec::new();
        self.side.heartbeat(&mut frame, "hb_000000000001", heartbeat, clock::now());
        self.socket.feed(Message::Binary(frame.into())).await?;
        Ok(())
    }
}

/// Connects; to a server on this machine from one of many loopback addresses, so that neither its limit of connects
/// per address nor the ports of one address end a run.
async fn dial(host: &str, place: u32) -> Result<TcpStream> {
    let address = tokio::net::lookup_host(host).await?.next().context("no such host")?;
    if !matches!(address.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
        return Ok(TcpStream::connect(address).await?);
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((loopback(place), 0)))?;
    Ok(socket.connect(address).await?)
}

/// Each run has addresses of its own: the limit counts a minute, whoever connects in it.
fn loopback(place: u32) -> Ipv4Addr {
    static FIRST: LazyLock<[u8; 2]> = LazyLock::new(domain::id::random);
    let [high, low] = *FIRST;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, high.clamp(1, 254), low, 1)) + place / PER_ADDRESS)
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

/// A heartbeat as a Celery agent's, with the details of one worker.
pub(crate) fn heartbeat(clues: Clues) -> Result<Payload> {
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
mod tests {
    use super::*;

    #[test]
    fn thousands_of_sessions_dial_from_many_loopback_addresses() {
        assert_eq!(loopback(0), loopback(499));
        assert_ne!(loopback(499), loopback(500));
        assert!(loopback(u32::from(u16::MAX)).is_loopback());
    }
}
