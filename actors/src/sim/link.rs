//! The connection between an agent's process and its session: frames in order, late, lost, or cut off.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cql::engine::memory::Dice;
use domain::command::Claim;
use domain::id::SessionId;
use futures_util::{Sink, Stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::world::{World, lock};

/// Frames on their way in one direction.
const UNDER_WAY: usize = 1024;
const DELAY_MAX: Duration = Duration::from_millis(150);

/// A frame, and when it arrives.
type Late = (Instant, Bytes);

/// What both ends of a connection share.
pub(super) struct Wire {
    pub(super) session: SessionId,
    /// What is sent is swallowed, in both directions, and nobody is told.
    dead: AtomicBool,
    /// The delivery that the process has not answered.
    busy: Mutex<Option<Claim>>,
}

/// The process's end.
pub(super) struct Line {
    pub(super) wire: Arc<Wire>,
    to_brain: mpsc::Sender<Late>,
    from_brain: mpsc::Receiver<Late>,
    arriving: Option<Late>,
    last_sent: Instant,
}

/// The session's end.
pub(super) struct Pipe {
    world: Arc<World>,
    wire: Arc<Wire>,
    dice: Dice,
    inbound: mpsc::Receiver<Late>,
    arriving: Option<(Pin<Box<Sleep>>, Bytes)>,
    outbound: mpsc::Sender<Late>,
    last_sent: Instant,
    stall: Option<Pin<Box<Sleep>>>,
}

/// The connection broke under a write.
#[derive(Debug)]
pub(super) struct Broken;

pub(super) fn connect(world: &Arc<World>, session: SessionId, dice: Dice) -> (Line, Pipe) {
    let wire = Arc::new(Wire { session, dead: AtomicBool::new(false), busy: Mutex::new(None) });
    let (to_brain, inbound) = mpsc::channel(UNDER_WAY);
    let (outbound, from_brain) = mpsc::channel(UNDER_WAY);
    let now = Instant::now();
    let line = Line { wire: Arc::clone(&wire), to_brain, from_brain, arriving: None, last_sent: now };
    let world = Arc::clone(world);
    let pipe = Pipe { world, wire, dice, inbound, arriving: None, outbound, last_sent: now, stall: None };
    (line, pipe)
}

impl Wire {
    pub(super) fn answered(&self, claim: Claim) {
        let mut busy = lock(&self.busy);
        if busy.is_some_and(|held| held.command == claim.command) {
            *busy = None;
        }
    }
}

impl Line {
    /// The next frame, when it arrives. `None`: the brain has closed.
    pub(super) async fn receive(&mut self) -> Option<Bytes> {
        if self.arriving.is_none() {
            self.arriving = Some(self.from_brain.recv().await?);
        }
        if let Some((at, _)) = &self.arriving {
            sleep_until(*at).await;
        }
        self.arriving.take().map(|(_, frame)| frame)
    }

    pub(super) fn send(&mut self, frame: Vec<u8>, dice: &mut Dice) {
        if self.wire.dead.load(Ordering::Relaxed) {
            return;
        }
        self.last_sent = arrival(self.last_sent, dice);
        // A session that is gone hears nothing.
        let _ = self.to_brain.try_send((self.last_sent, frame.into()));
    }

    /// The connection dies, and the session learns of it only after `time`.
    pub(super) fn go_dark(self, time: Duration) {
        self.wire.dead.store(true, Ordering::Relaxed);
        tokio::spawn(async move {
            sleep(time).await;
            drop(self);
        });
    }
}

fn arrival(last: Instant, dice: &mut Dice) -> Instant {
    last.max(Instant::now() + dice.duration(&(Duration::ZERO..=DELAY_MAX)))
}

/// The claim of a command frame; other frames have none.
fn claim_in(frame: &[u8]) -> Option<Claim> {
    let text = std::str::from_utf8(frame).ok()?;
    let (_, rest) = text.split_once("\"delivery_claim_token\":\"")?;
    rest.split_once('"')?.0.parse().ok()
}

impl Pipe {
    fn note_left(&self, claim: Claim) {
        let mut judge = self.world.judge();
        let held = lock(&self.wire.busy).replace(claim);
        if let Some(held) = held.filter(|held| judge.is_awaited(*held)) {
            judge.accuse(format!("{claim} left to a session that is at {held}"));
        }
        judge.left(claim, self.wire.session);
    }

    fn forward(&mut self, frame: Bytes) -> Result<(), Broken> {
        self.last_sent = arrival(self.last_sent, &mut self.dice);
        self.outbound.try_send((self.last_sent, frame)).map_err(|_| Broken)
    }

    fn send_command(&mut self, claim: Claim, frame: Bytes) -> Result<(), Broken> {
        self.note_left(claim);
        let luck = if self.world.is_calm() { 100 } else { self.dice.below(100) };
        match luck {
            0..=2 => {
                self.world.count("link: frame lost, connection dark");
                self.wire.dead.store(true, Ordering::Relaxed);
                Ok(())
            }
            3..=5 => {
                self.world.count("link: write failed, frame arrived");
                self.forward(frame)?;
                Err(Broken)
            }
            6..=8 => {
                self.world.count("link: write failed, frame lost");
                Err(Broken)
            }
            _ => self.forward(frame),
        }
    }
}

impl Stream for Pipe {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some((due, _)) = &mut self.arriving {
                std::task::ready!(due.as_mut().poll(context));
                return Poll::Ready(self.arriving.take().map(|(_, frame)| frame));
            }
            match std::task::ready!(self.inbound.poll_recv(context)) {
                Some((at, frame)) => self.arriving = Some((Box::pin(sleep_until(at)), frame)),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Sink<Bytes> for Pipe {
    type Error = Broken;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.stall.is_none() && !self.world.is_calm() && self.dice.chance(0.01) {
            self.world.count("link: socket takes nothing for a while");
            let time = self.dice.duration(&(Duration::from_secs(1)..=Duration::from_secs(90)));
            self.stall = Some(Box::pin(sleep(time)));
        }
        if let Some(stall) = &mut self.stall {
            std::task::ready!(stall.as_mut().poll(context));
            self.stall = None;
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Bytes) -> Result<(), Broken> {
        let is_dead = self.wire.dead.load(Ordering::Relaxed);
        match claim_in(&frame) {
            Some(claim) if is_dead => {
                self.note_left(claim);
                Ok(())
            }
            Some(claim) => self.send_command(claim, frame),
            None if is_dead => Ok(()),
            None => self.forward(frame),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }
}
