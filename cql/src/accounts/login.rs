//! Web sessions, found by the hash of their secret. The secret itself is only in the browser.

use bytes::Bytes;
use domain::id::{UserId, WebSessionId};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::ONLY;
use crate::record;
use crate::store::{Key, Store, StoreError, Ttl, Write};
use crate::table::Table;

/// One login of one user on one browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    pub id: WebSessionId,
    pub user: UserId,
    pub created_at: Timestamp,
    /// Rewritten at most once a minute.
    pub last_seen_at: Timestamp,
    pub expires_at: Timestamp,
    pub ip: String,
    pub user_agent: Option<String>,
}

/// SHA-256 of a session secret.
pub type SecretHash = [u8; 32];

const WHAT: &str = "web session";

fn key(hash: &SecretHash) -> Key {
    Key::new(Table::WebSession, hash.to_vec(), ONLY)
}

fn user_key(user: UserId, id: WebSessionId) -> Key {
    Key::new(Table::WebSessionOfUser, user.bytes().to_vec(), id.bytes().to_vec())
}

/// Stores a session; both rows end by themselves where the engine knows a time to live.
pub async fn put(store: &dyn Store, hash: &SecretHash, login: &Login, now: Timestamp) -> Result<(), StoreError> {
    let seconds = u32::try_from(login.expires_at.since(now) / 1_000_000 + 1).ok().and_then(Ttl::new);
    let session = Write::put(key(hash), record::encode(login)).with_ttl(seconds);
    let index = Write::put(user_key(login.user, login.id), hash.to_vec()).with_ttl(seconds);
    store.write(vec![session, index]).await
}

pub async fn get(store: &dyn Store, hash: &SecretHash) -> Result<Option<Login>, StoreError> {
    record::read(store, &key(hash), WHAT).await
}

/// A user's sessions with their hashes, oldest first; those past their end are swept on the way.
pub async fn of_user(store: &dyn Store, user: UserId, now: Timestamp) -> Result<Vec<(SecretHash, Login)>, StoreError> {
    let mut alive = Vec::new();
    let mut swept = Vec::new();
    for row in record::rows(store, Table::WebSessionOfUser, Bytes::copy_from_slice(&user.bytes())).await? {
        let hash: SecretHash =
            row.value.as_ref().try_into().map_err(|_| StoreError::Corrupt { what: "web session index" })?;
        match get(store, &hash).await? {
            Some(login) if login.expires_at > now => alive.push((hash, login)),
            Some(_) | None => {
                swept.push(Write::delete(key(&hash)));
                swept.push(Write::delete(Key::new(Table::WebSessionOfUser, user.bytes().to_vec(), row.clustering)));
            }
        }
    }
    if !swept.is_empty() {
        store.write(swept).await?;
    }
    Ok(alive)
}

pub async fn remove(store: &dyn Store, hash: &SecretHash, login: &Login) -> Result<(), StoreError> {
    store.write(vec![Write::delete(key(hash)), Write::delete(user_key(login.user, login.id))]).await
}
