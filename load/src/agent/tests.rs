use domain::id::{AgentId, ProjectId, SessionId};
use domain::wire::{CommandBody, Frame, Hello, HelloAck, Outbound, Receiver, ResultStatus, Sender, SessionKey};
use serde_json::value::RawValue;
use tokio::net::TcpListener;

use super::*;
use crate::report::Output;

const SECRET: [u8; 32] = [7; 32];

/// What a stub brain saw of one session.
#[derive(Default)]
struct Seen {
    events: u64,
    heartbeats: u64,
    results: u64,
}

/// Answers one session as a brain does: an ack per batch, and one command.
async fn brain(listener: TcpListener) -> Seen {
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut socket = tokio_tungstenite::accept_async(stream).await.expect("an upgrade");
    let hello = socket.next().await.expect("a frame").expect("sound").into_data();
    assert!(Hello::parse(&hello).is_ok_and(|hello| hello.lists("celery", "retry_by_reference_v1")));
    let ack = HelloAck {
        agent: AgentId::from_bytes([1; 16]),
        project: ProjectId::from_bytes([2; 16]),
        session: SessionId::from_bytes([3; 16]),
        brain_version: "0.1.0".to_owned(),
        heartbeat_interval_seconds: 10,
        max_frame_size_bytes: 1 << 20,
    };
    let key = SessionKey::new(&SECRET, ack.agent, ack.project, &ack.session.to_string());
    let (mut receiver, mut sender) = (Receiver::new(key.clone()), Sender::new(key));
    socket.send(Message::text(ack.to_text(clock::now()))).await.expect("open");
    let nothing: &RawValue = serde_json::from_str("{}").expect("valid JSON");
    let body = CommandBody::new("retry_task", nothing, nothing, 60, None, Some("claim")).expect("signable");
    let command = sender.seal(&Outbound::Command { id: "c1", body: &body }, clock::now());
    socket.send(Message::Binary(command)).await.expect("open");

    let mut seen = Seen::default();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { break };
        match receiver.accept(&bytes, clock::now()).expect("a good frame") {
            Frame::EventBatch(batch) => {
                let received = batch.received() as u64;
                seen.events += received;
                let ack = Outbound::EventBatchAck { acked_id: &batch.id, received, accepted: received };
                socket.send(Message::Binary(sender.seal(&ack, clock::now()))).await.expect("open");
            }
            Frame::Heartbeat(_) => seen.heartbeats += 1,
            Frame::CommandResult(result) => {
                assert_eq!((result.status, result.claim.as_deref()), (ResultStatus::Success, Some("claim")));
                seen.results += 1;
            }
            Frame::CommandAck(ack) => assert_eq!(ack.id, "c1"),
            other => panic!("{other:?}"),
        }
    }
    seen
}

#[tokio::test]
async fn a_session_streams_beats_answers_and_ends_with_all_acked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let target = Target {
        url: format!("http://{}", listener.local_addr().expect("bound")),
        admin_email: String::new(),
        admin_password: String::new(),
        project: "load".to_owned(),
        server_pid: None,
        server_data: None,
        output: Output::default(),
    };
    let credentials = Credentials { agent_id: String::new(), token: "token".to_owned(), secret: SECRET.to_vec() };
    let brain = tokio::spawn(brain(listener));
    let progress = Progress::default();
    let agent = Agent::connect(&target, &credentials, Clues::new(0), Arc::clone(&progress)).await.expect("a session");
    let finished = agent.run(Pace::new(Instant::now(), None, Some(3000), None, 1)).await.expect("all acked");
    let seen = brain.await.expect("the brain ends with the session");
    let totals = finished.totals;
    assert_eq!((totals.sent_events, totals.acked_events, totals.acked_frames), (3000, 3000, 3000));
    assert_eq!(progress.load(Ordering::Relaxed), 3000);
    assert_eq!((seen.events, seen.heartbeats, seen.results), (3000, 1, 1));
    assert_eq!((totals.commands, totals.ack_latency.count()), (1, 3000));
    assert!(finished.events.is_complete(0));
}
