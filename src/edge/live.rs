//! The dashboards' WebSocket: says that something changed, so that clients fetch again (REST section 4).
//!
//! First message within 10 s: `{"type":"subscribe","project_id":"<uuid>"}`; answer `{"type":"ready"}`. Then one
//! `{"type":"event","topic":...}` per topic and quarter of a second at most. `{"type":"ping"}` is answered with
//! `{"type":"pong"}`; a client that says nothing for 90 s is closed.

use std::time::Duration;

use actors::changes::Topic;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::response::Response;
use cql::accounts::{membership, project};
use domain::id::ProjectId;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until, timeout};
use utoipa_axum::router::OpenApiRouter;

use super::app::App;
use super::auth::{self, Caller, Via, guard};
use super::route::Route;

pub const ROUTES: &[Route] = &[Route::get("/ws/dashboard").own()];

const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(90);
/// A topic is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Whether the session still holds and the user is still a member is asked again this often.
const RECHECK_EVERY: Duration = Duration::from_secs(10);
pub const SUBSCRIPTIONS_PER_USER: usize = 50;
const MESSAGE_MAX: usize = 4 << 10;

const MALFORMED: u16 = 4400;
const NO_SESSION: u16 = 4401;
const TOO_MANY: u16 = 4402;
const NOT_ALLOWED: u16 = 4403;
const SILENT: u16 = 4408;
const GOING_AWAY: u16 = 1001;
const NORMAL: u16 = 1000;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().route("/ws/dashboard", axum::routing::get(connect))
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    Subscribe { project_id: String },
    Ping,
}

async fn connect(State(app): State<App>, upgrade: WebSocketUpgrade, parts: Parts) -> Response {
    let sessions = app.mesh.sessions().clone();
    upgrade.max_message_size(MESSAGE_MAX).on_upgrade(move |socket| {
        sessions.track_future(async move {
            let mut socket = socket;
            let code = admit_and_serve(&app, &parts, &mut socket).await;
            let frame = CloseFrame { code, reason: Utf8Bytes::default() };
            // A client that is gone needs no goodbye.
            drop(timeout(Duration::from_secs(2), socket.send(Message::Close(Some(frame)))).await);
        })
    })
}

async fn admit_and_serve(app: &App, parts: &Parts, socket: &mut WebSocket) -> u16 {
    // Browsers send cookies to any host; only a page of ours may use them.
    if guard::same_origin(app, parts).is_err() {
        return NOT_ALLOWED;
    }
    let Some(caller) = session(app, parts).await else { return NO_SESSION };
    let project = match timeout(SUBSCRIBE_PATIENCE, hear(socket)).await {
        Ok(Some(Ok(Said::Subscribe { project_id }))) => match project_id.parse::<ProjectId>() {
            Ok(project) => project,
            Err(_) => return MALFORMED,
        },
        Ok(Some(Ok(Said::Ping) | Err(()))) | Err(_) => return MALFORMED,
        Ok(None) => return NORMAL,
    };
    if !is_member(app, &caller, project).await {
        return NOT_ALLOWED;
    }
    let Some(_seat) = app.subscriptions.take(caller.user_id()) else { return TOO_MANY };
    serve(app, parts, project, socket).await
}

/// A browser session; keys are not accepted here.
async fn session(app: &App, parts: &Parts) -> Option<Caller> {
    let caller = auth::authenticate(app, parts, false).await.ok()?;
    matches!(caller.via, Via::Session { .. }).then_some(caller)
}

async fn is_member(app: &App, caller: &Caller, id: ProjectId) -> bool {
    let store = app.store.as_ref();
    let active = matches!(project::get(store, id).await, Ok(Some(project)) if project.is_active);
    active && (caller.is_admin() || matches!(membership::get(store, id, caller.user_id()).await, Ok(Some(_))))
}

/// The next message; an error is one that we do not understand, `None` the end.
async fn hear(socket: &mut WebSocket) -> Option<Result<Said, ()>> {
    loop {
        match socket.recv().await?.ok()? {
            Message::Text(text) => return Some(serde_json::from_str(&text).map_err(drop)),
            Message::Binary(_) => return Some(Err(())),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return None,
        }
    }
}

async fn serve(app: &App, parts: &Parts, project: ProjectId, socket: &mut WebSocket) -> u16 {
    let mut changes = app.mesh.changes().watch(project);
    let drain = app.mesh.drain();
    let mut told = [None::<Instant>; Topic::ALL.len()];
    let mut owed = [false; Topic::ALL.len()];
    let (mut idle_at, mut recheck_at) = (Instant::now() + IDLE, Instant::now() + RECHECK_EVERY);
    if say(socket, json!({ "type": "ready" })).await.is_err() {
        return NORMAL;
    }
    loop {
        let due = (0..owed.len()).filter(|place| owed[*place]).filter_map(|place| told[place]).min();
        let tell_at = due.map_or(idle_at, |told| told + TELL_EVERY);
        tokio::select! {
            () = drain.cancelled() => return GOING_AWAY,
            said = hear(socket) => match said {
                Some(Ok(Said::Ping)) => {
                    idle_at = Instant::now() + IDLE;
                    if say(socket, json!({ "type": "pong" })).await.is_err() {
                        return NORMAL;
                    }
                }
                // A second subscription on one socket is not part of the protocol.
                Some(Ok(Said::Subscribe { .. }) | Err(())) => return MALFORMED,
                None => return NORMAL,
            },
            change = changes.recv() => match change {
                Ok(topic) => mark(&mut owed, topic),
                // Some words were missed: whatever they were, everything may have changed.
                Err(RecvError::Lagged(_)) => owed = [true; Topic::ALL.len()],
                Err(RecvError::Closed) => return GOING_AWAY,
            },
            () = sleep_until(tell_at) => {}
            () = sleep_until(recheck_at) => {
                recheck_at = Instant::now() + RECHECK_EVERY;
                match session(app, parts).await {
                    Some(caller) if is_member(app, &caller, project).await => {}
                    Some(_) => return NOT_ALLOWED,
                    None => return NO_SESSION,
                }
            }
        }
        let now = Instant::now();
        if now >= idle_at {
            return SILENT;
        }
        for (place, topic) in Topic::ALL.into_iter().enumerate() {
            if owed[place] && told[place].is_none_or(|told| now >= told + TELL_EVERY) {
                (owed[place], told[place]) = (false, Some(now));
                if say(socket, json!({ "type": "event", "topic": topic.as_str() })).await.is_err() {
                    return NORMAL;
                }
            }
        }
    }
}

fn mark(owed: &mut [bool; Topic::ALL.len()], topic: Topic) {
    if let Some(place) = Topic::ALL.iter().position(|known| *known == topic) {
        owed[place] = true;
    }
}

async fn say(socket: &mut WebSocket, message: serde_json::Value) -> Result<(), axum::Error> {
    socket.send(Message::Text(message.to_string().into())).await
}
