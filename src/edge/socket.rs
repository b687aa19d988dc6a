//! The agents' WebSocket (WIRE sections 1 to 5): who is it, hello, then a session of the mesh.
//!
//! The upgrade always completes; what is wrong is told by a close code, which agents understand.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actors::Mesh;
use actors::session::{Opening, SessionFacts, SessionHandle, run};
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use cql::accounts::{AgentCredential, agent_by_token};
use domain::id::{AgentId, SessionId};
use domain::wire::{CloseCode, FRAME_BYTES_MAX, Hello, HelloAck, SessionKey};
use futures_util::{Sink, Stream, StreamExt};
use utoipa_axum::router::OpenApiRouter;

use super::app::App;
use super::auth::{Client, bearer};
use super::error::ApiResult;
use super::listener;
use super::route::Route;

/// How long an agent may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// How long a closing socket may take to hear why.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Agents warn when the brain's major and minor version differ from their own.
pub const BRAIN_VERSION: &str = "1.13.0";
/// What the WebSocket reads at once. What the connection reads is larger: see [`listener`].
const READ_BUFFER: usize = listener::SMALL;
/// Frames up to here are read and refused with 4400; larger ones end the connection with 1009.
const MESSAGE_MAX: usize = 2 * FRAME_BYTES_MAX;

pub const ROUTES: &[Route] = &[Route::get("/ws/agent").own()];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().route("/ws/agent", axum::routing::get(connect))
}

async fn connect(
    State(app): State<App>,
    client: Client,
    parts: Parts,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let upgrade = upgrade.read_buffer_size(READ_BUFFER).max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        let sessions = app.mesh.sessions().clone();
        let connecting = Box::new(Connecting { app, client, parts, socket: AgentSocket::new(socket) });
        // A task of its own: a session lives for days, and what the upgrade needed goes with its task.
        sessions.spawn(serve(connecting));
    }))
}

/// A connection of which nothing is known yet but what its request said.
struct Connecting {
    app: App,
    client: Client,
    parts: Parts,
    socket: AgentSocket,
}

/// A connection from its upgrade to its end. What opens and closes it is kept apart from what it holds meanwhile.
async fn serve(connecting: Box<Connecting>) {
    let (mut socket, mesh, opening) = Box::pin(open(connecting)).await;
    let (session, code) = match opening {
        Ok(opening) => {
            let session = (opening.handle.facts.agent, opening.handle.id());
            (Some(session), run(mesh, opening, &mut *socket).await)
        }
        Err(code) => (None, code),
    };
    Box::pin(socket.close(session, code)).await;
}

/// Finds out who connects and hears the hello; the socket comes back, as whoever is refused is told why.
async fn open(connecting: Box<Connecting>) -> (Box<AgentSocket>, Mesh, Result<Box<Opening>, CloseCode>) {
    let Connecting { app, client, parts, socket } = *connecting;
    let mut socket = Box::new(socket);
    let opening = greet(&app, client, parts, &mut socket).await;
    (socket, app.mesh.clone(), opening.map(Box::new))
}

/// Who connects, or why not.
async fn admit(app: &App, client: &Client, parts: &Parts) -> Result<AgentCredential, CloseCode> {
    app.connects.check(client.ip).map_err(|_| CloseCode::TooManyConnections)?;
    let token = bearer(parts).ok_or(CloseCode::Unauthenticated)?;
    let hash = app.master.agent_token_hash(token).bytes();
    let credential = agent_by_token(app.store.as_ref(), &hash).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "agent's credential not readable");
        CloseCode::Internal
    })?;
    let credential = credential.filter(|agent| !agent.revoked && !agent.project_archived);
    if credential.is_none() {
        tracing::warn!(ip = %client.ip, "agent connects with an unknown or revoked token");
    }
    credential.ok_or(CloseCode::Unauthenticated)
}

/// Reads the hello and makes the session that answers it, or says why there is none.
async fn greet(app: &App, client: Client, parts: Parts, socket: &mut AgentSocket) -> Result<Opening, CloseCode> {
    let credential = admit(app, &client, &parts).await?;
    let first = match tokio::time::timeout(HELLO_PATIENCE, socket.next()).await {
        Ok(Some(first)) => first,
        Ok(None) if socket.too_big => return Err(CloseCode::TooBig),
        Ok(None) => return Err(CloseCode::Normal),
        Err(_) => return Err(CloseCode::Malformed),
    };
    let mut hello = match Hello::parse(&first) {
        Ok(hello) => hello,
        Err(error) => {
            tracing::warn!(agent.id = %credential.agent, error = &error as &dyn std::error::Error, "hello refused");
            return Err(error.close_code());
        }
    };
    let now = app.clock.now();
    let session = SessionId::mint(now);
    let ack = HelloAck {
        agent: credential.agent,
        project: credential.project,
        session,
        brain_version: BRAIN_VERSION.to_owned(),
        heartbeat_interval_seconds: u16::try_from(app.config.heartbeat.as_secs()).unwrap_or(u16::MAX),
        max_frame_size_bytes: FRAME_BYTES_MAX as u32,
    };
    let secret = app.master.project_secret(credential.project);
    let key = SessionKey::new(secret.as_bytes(), credential.agent, credential.project, &session.to_string());
    let (handle, orders) = SessionHandle::new(SessionFacts {
        session,
        project: credential.project,
        agent: credential.agent,
        worker_id: hello.worker_id.clone(),
        worker_role: hello.worker_role.clone(),
        engines: hello.engines.clone(),
        capabilities: app.mesh.presence().share(std::mem::take(&mut hello.capabilities)),
        said_hello: true,
        connected_at: now,
    });
    actors::meters::name_project(credential.project, &credential.project_slug);
    tracing::info!(
        agent.id = %credential.agent, session.id = %session, project = credential.project_slug,
        worker = hello.worker_id.as_deref(), "agent connected"
    );
    Ok(Opening { handle, orders, hello, key, greeting: ack.to_text(now).into() })
}

/// An agent's socket as frames of bytes: text and binary alike, pings left to the library.
struct AgentSocket {
    socket: WebSocket,
    /// The connection ended because of a message beyond [`MESSAGE_MAX`].
    too_big: bool,
    /// There was no frame when one was looked for last.
    idle: bool,
    /// The frame that came to an idle session, until the next is looked for. It fills the buffer that it was read into,
    /// and a full buffer that somebody holds is let go: an idle session has none.
    held: Option<Bytes>,
}

impl AgentSocket {
    fn new(socket: WebSocket) -> Self {
        Self { socket, too_big: false, idle: true, held: None }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            return match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => Poll::Ready(Some(bytes)),
                Poll::Ready(Some(Ok(Message::Text(text)))) => Poll::Ready(Some(text.into())),
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
                Poll::Ready(Some(Ok(Message::Close(_))) | None) => Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => {
                    self.too_big |= is_capacity(&error);
                    Poll::Ready(None)
                }
                Poll::Pending => Poll::Pending,
            };
        }
    }

    /// Says why the connection ends; `session` is whose it was, if it came to one.
    async fn close(mut self, session: Option<(AgentId, SessionId)>, code: CloseCode) {
        let code = if self.too_big { CloseCode::TooBig } else { code };
        if let Some((agent, session)) = session {
            tracing::info!(agent.id = %agent, session.id = %session, code = code.code(), "agent disconnected");
        }
        let frame = CloseFrame { code: code.code(), reason: axum::extract::ws::Utf8Bytes::default() };
        let goodbye = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                // Wait for the agent's own close, so that it reads the code before the connection is gone.
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        // An agent that does not answer is left alone.
        drop(tokio::time::timeout(CLOSE_PATIENCE, goodbye).await);
    }
}

impl Stream for AgentSocket {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let frame = self.poll_frame(context);
        self.held = match &frame {
            Poll::Ready(Some(bytes)) if self.idle => Some(bytes.clone()),
            Poll::Ready(_) | Poll::Pending => None,
        };
        self.idle = frame.is_pending();
        frame
    }
}

fn is_capacity(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    let library = source.and_then(|source| source.downcast_ref::<tokio_tungstenite::tungstenite::Error>());
    matches!(library, Some(tokio_tungstenite::tungstenite::Error::Capacity(_)))
}

impl Sink<Bytes> for AgentSocket {
    type Error = axum::Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.socket).poll_ready(context)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Bytes) -> Result<(), axum::Error> {
        Pin::new(&mut self.socket).start_send(Message::Binary(frame))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        Pin::new(&mut self.socket).poll_close(context)
    }
}
