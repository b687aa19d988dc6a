//! Who waits for a command to end on this node.
//!
//! A word is no outcome: whoever hears it looks at the command's row. Hearing one too many is harmless; none is missed
//! by who listens before it looks.

use std::future::Future;
use std::sync::Arc;

use dashmap::DashMap;
use domain::id::CommandId;
use tokio::sync::Notify;

/// Listeners by command; an entry lives as long as somebody listens.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended(Arc<DashMap<CommandId, Listeners>>);

#[derive(Debug, Default)]
struct Listeners {
    bell: Arc<Notify>,
    count: usize,
}

/// Listens for the end of one command.
#[derive(Debug)]
pub struct Listener {
    ended: Ended,
    command: CommandId,
    bell: Arc<Notify>,
}

impl Ended {
    pub(super) fn listen(&self, command: CommandId) -> Listener {
        let mut listeners = self.0.entry(command).or_default();
        listeners.count += 1;
        Listener { ended: self.clone(), command, bell: Arc::clone(&listeners.bell) }
    }

    pub(super) fn tell(&self, command: CommandId) {
        if let Some(listeners) = self.0.get(&command) {
            listeners.bell.notify_waiters();
        }
    }

    pub(super) fn tell_all(&self) {
        for listeners in self.0.iter() {
            listeners.bell.notify_waiters();
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Listener {
    /// Resolves when the command has ended, or may have, since this was called.
    pub fn heard(&self) -> impl Future<Output = ()> + '_ {
        self.bell.notified()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(mut listeners) = self.ended.0.get_mut(&self.command) {
            listeners.count -= 1;
        }
        self.ended.0.remove_if(&self.command, |_, listeners| listeners.count == 0);
    }
}
