//! What a user may hold open at a time on this node.

use dashmap::DashMap;
use domain::id::UserId;

/// Seats of one kind, counted by user.
#[derive(Debug)]
pub struct Seats {
    taken: DashMap<UserId, usize>,
    per_user: usize,
}

/// Counts while it lives.
#[derive(Debug)]
pub struct Seat<'a>(&'a Seats, UserId);

impl Seats {
    pub fn new(per_user: usize) -> Self {
        Self { taken: DashMap::new(), per_user }
    }

    /// `None`: the user has all there are.
    pub fn take(&self, user: UserId) -> Option<Seat<'_>> {
        let mut count = self.taken.entry(user).or_default();
        (*count < self.per_user).then(|| {
            *count += 1;
            Seat(self, user)
        })
    }

    /// Whether nobody holds anything.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Seat(Seats { taken, .. }, user) = self;
        if let Some(mut count) = taken.get_mut(user) {
            *count = count.saturating_sub(1);
        }
        taken.remove_if(user, |_, count| *count == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_seats_of_their_own_and_gives_them_back() {
        let seats = Seats::new(2);
        let (one, two) = (UserId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        let held = (seats.take(one), seats.take(one));
        assert!(held.0.is_some() && held.1.is_some() && seats.take(one).is_none());
        assert!(seats.take(two).is_some());
        drop(held);
        assert!(seats.is_empty());
        assert!(seats.take(one).is_some());
    }
}
