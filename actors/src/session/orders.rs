//! Orders on their way to a session. A session needs this for seconds and has it for days, so it takes no memory while
//! it is empty; a channel of tokio's keeps room for 32.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::handle::SessionMessage;

/// One command is in flight per session, so a short queue never fills in health.
const WAITING_MAX: usize = 8;

/// A way to a session, and its end.
pub(super) fn channel() -> (OrderSender, Orders) {
    let line = Arc::new(Line::default());
    (OrderSender(Arc::clone(&line)), Orders(line))
}

#[derive(Debug, Default)]
struct Line {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    orders: VecDeque<SessionMessage>,
    closed: bool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives orders to a session; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct OrderSender(Arc<Line>);

impl OrderSender {
    /// Hands an order over, or gives it back: the session has ended, or is far behind. There is always room to end it.
    pub(super) fn send(&self, order: SessionMessage) -> Result<(), SessionMessage> {
        let mut waiting = self.0.lock();
        let room = waiting.orders.len() < WAITING_MAX || matches!(order, SessionMessage::Close(_));
        if waiting.closed || !room {
            return Err(order);
        }
        waiting.orders.push_back(order);
        drop(waiting);
        self.0.wake.notify_one();
        Ok(())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

/// The receiving end. Orders that wait when it is dropped are dropped with it, which tells who gave them.
#[derive(Debug)]
pub struct Orders(Arc<Line>);

impl Orders {
    /// The next order, in the order they were given. Nothing is lost when the caller stops waiting.
    pub async fn recv(&mut self) -> SessionMessage {
        loop {
            if let Some(order) = self.take() {
                return order;
            }
            self.0.wake.notified().await;
        }
    }

    fn take(&self) -> Option<SessionMessage> {
        let mut waiting = self.0.lock();
        let order = waiting.orders.pop_front();
        if waiting.orders.is_empty() {
            waiting.orders = VecDeque::new();
        }
        order
    }

    /// Takes no more orders, and drops those that wait.
    pub(super) fn close(&self) {
        let orders = {
            let mut waiting = self.0.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.orders)
        };
        // Outside of the lock: whoever waits for an answer is woken by this.
        drop(orders);
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::wire::CloseCode;
    use tokio::time::timeout;

    use super::*;

    const CLOSE: SessionMessage = SessionMessage::Close(CloseCode::Displaced);

    #[tokio::test(start_paused = true)]
    async fn an_order_is_taken_once_however_often_the_receiver_stopped_waiting() {
        let (sender, mut orders) = channel();
        for _ in 0..3 {
            assert!(timeout(Duration::from_millis(1), orders.recv()).await.is_err());
        }
        let sending = sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            sending.send(CLOSE).expect("the session is there");
        });
        assert!(timeout(Duration::from_secs(1), orders.recv()).await.is_ok());
        assert!(timeout(Duration::from_secs(1), orders.recv()).await.is_err());
    }

    #[tokio::test]
    async fn a_session_that_ended_takes_nothing() {
        let (sender, orders) = channel();
        assert!(!sender.is_closed());
        sender.send(CLOSE).expect("the session is there");
        drop(orders);
        assert!(sender.is_closed());
        assert!(sender.send(CLOSE).is_err());
    }

    #[tokio::test]
    async fn there_is_room_to_end_a_session_that_is_behind() {
        let (sender, mut orders) = channel();
        let mut replies = Vec::new();
        let mut command = || {
            let (frame, reply, answer) = crate::session::handle::tests::command();
            replies.push(answer);
            SessionMessage::Command { frame, reply }
        };
        for _ in 0..WAITING_MAX {
            sender.send(command()).expect("room");
        }
        assert!(sender.send(command()).is_err());
        sender.send(CLOSE).expect("room to end it");
        for _ in 0..WAITING_MAX {
            assert!(matches!(orders.recv().await, SessionMessage::Command { .. }));
        }
        assert!(matches!(orders.recv().await, SessionMessage::Close(_)));
    }
}
