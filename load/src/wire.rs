//! What the protocol costs without a network: verify and read an event frame, seal an ack.

use std::hint::black_box;

use anyhow::{Context, Result, anyhow};
use domain::id::{AgentId, ProjectId};
use domain::wire::client::{AgentSide, Payload};
use domain::wire::{Frame, Outbound, Receiver, Sender, SessionKey};
use tokio::time::Instant;

use crate::clock;
use crate::events::{Clues, Events};

/// Frames per round: short, so that on a busy machine some rounds run undisturbed.
const ROUND: usize = 500;

pub(crate) fn run(rounds: usize) -> Result<String> {
    let key = SessionKey::new(&[7; 32], AgentId::from_bytes([1; 16]), ProjectId::from_bytes([2; 16]), "session");
    let mut agent = AgentSide::new(key.clone());
    let mut events = Events::new(Clues::new(0))?;
    let mut payload = Payload::default();
    let (mut sealing, mut accepting, mut acking) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    let mut receiver = Receiver::new(key.clone());
    let mut sender = Sender::new(key);
    for _ in 0..rounds {
        let started = Instant::now();
        let mut frames = Vec::with_capacity(ROUND);
        for _ in 0..ROUND {
            let mut frame = Vec::with_capacity(1024);
            events.batch(&mut payload, 1, clock::now());
            agent.event_batch(&mut frame, "ev_00000000000000000000000000000001", &payload, clock::now());
            frames.push(frame);
        }
        sealing.push(started.elapsed());
        bytes = frames.iter().map(Vec::len).sum::<usize>() / ROUND;

        let now = clock::now();
        let started = Instant::now();
        for frame in &frames {
            match receiver.accept(frame, now)? {
                Frame::EventBatch(batch) => black_box(batch),
                other => return Err(anyhow!("read as {other:?}")),
            };
        }
        accepting.push(started.elapsed());

        let started = Instant::now();
        for _ in 0..ROUND {
            let ack =
                Outbound::EventBatchAck { acked_id: "ev_00000000000000000000000000000001", received: 1, accepted: 1 };
            black_box(sender.seal(&ack, now));
        }
        acking.push(started.elapsed());
    }
    let best = |times: &[std::time::Duration]| -> Result<u128> {
        Ok(times.iter().min().context("at least one round")?.as_nanos() / ROUND as u128)
    };
    Ok(format!(
        "frame of {bytes} bytes on average, best of {rounds} rounds\n\
         agent: render and seal   {:>6} ns\nbrain: verify and read   {:>6} ns\nbrain: seal an ack       {:>6} ns",
        best(&sealing)?,
        best(&accepting)?,
        best(&acking)?
    ))
}
