//! Decoded account rows, for as long as no account row changes.
//!
//! Each request needs its session or key, its user and its project. What was read of them holds until the store's
//! [`accounts_version`](cql::Store::accounts_version) is another one. That is asked before the rows are read, so what is
//! written meanwhile makes what was read useless. A store that shares its rows with other nodes has no version, and is
//! read each time. Times (an idle session, an expired one) are for the caller to look at.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;

use cql::accounts::login::SecretHash;
use cql::accounts::{ApiKey, Login, Project, User};
use dashmap::DashMap;

/// Rows of one kind that are kept before all are dropped and read anew.
const ROWS_MAX: usize = 4096;

/// What requests are let in by.
#[derive(Debug, Default)]
pub struct Memos {
    pub sessions: Memo<SecretHash, (Arc<Login>, Arc<User>)>,
    /// By the hash of the token.
    pub keys: Memo<[u8; 32], (Arc<ApiKey>, Arc<User>)>,
    /// By slug; active ones only.
    pub projects: Memo<String, Arc<Project>>,
}

/// What keys of one kind stand for, and the version it was read at.
#[derive(Debug)]
pub struct Memo<K: Eq + Hash, V>(DashMap<K, (u64, V)>);

impl<K: Eq + Hash, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(DashMap::new())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    /// What a key stands for at this version, if that was read.
    pub fn known<Q: Eq + Hash + ?Sized>(&self, version: Option<u64>, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let row = self.0.get(key)?;
        (Some(row.0) == version).then(|| row.1.clone())
    }

    /// Remembers what was read; `version` is the one from before that.
    pub fn keep(&self, version: Option<u64>, key: K, value: &V) {
        let Some(version) = version else { return };
        if self.0.len() >= ROWS_MAX {
            self.0.clear();
        }
        self.0.insert(key, (version, value.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_holds_for_its_version_only() {
        let memo = Memo::<u32, &str>::default();
        memo.keep(Some(2), 1, &"old");
        assert_eq!(memo.known(Some(2), &1), Some("old"));
        assert_eq!((memo.known(Some(4), &1), memo.known(None, &1), memo.known(Some(2), &2)), (None, None, None));
        memo.keep(None, 2, &"nobody knows for how long");
        assert_eq!(memo.known(None, &2), None);
        memo.keep(Some(4), 1, &"new");
        memo.keep(Some(2), 1, &"read long ago");
        assert_eq!(memo.known(Some(4), &1), None);
    }

    #[test]
    fn it_stays_small() {
        let memo = Memo::<usize, ()>::default();
        for key in 0..3 * ROWS_MAX {
            memo.keep(Some(0), key, &());
        }
        assert!(memo.0.len() <= ROWS_MAX && memo.known(Some(0), &(3 * ROWS_MAX - 1)).is_some());
    }
}
