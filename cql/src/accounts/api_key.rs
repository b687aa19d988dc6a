//! Keys for programs. Only the hash of a key's token is stored (WIRE section 1.1).

use bytes::Bytes;
use domain::id::{ApiKeyId, ProjectId, UserId};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ALL, ONLY};
use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

/// A key of one user, limited to scopes and, if bound, to one project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub user: UserId,
    pub name: String,
    /// The first characters of the token, to recognise it by.
    pub prefix: String,
    #[serde(with = "serde_bytes")]
    pub token_hash: [u8; 32],
    pub scopes: Vec<String>,
    pub project: Option<ProjectId>,
    pub allowed_cidrs: Vec<String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub revoked_reason: Option<String>,
    /// Rewritten at most once a minute.
    pub last_used_at: Option<Timestamp>,
    pub last_used_ip: Option<String>,
}

const WHAT: &str = "API key";

fn key(id: ApiKeyId) -> Key {
    Key::new(Table::ApiKey, ALL, id.bytes().to_vec())
}

fn secret_key(hash: &[u8; 32]) -> Key {
    let mut partition = vec![b'k'];
    partition.extend_from_slice(hash);
    Key::new(Table::Secret, partition, ONLY)
}

/// Stores a key, new or changed, and the way from its token to it.
pub async fn put(store: &dyn Store, api_key: &ApiKey) -> Result<(), StoreError> {
    let row = Write::put(key(api_key.id), record::encode(api_key));
    let secret = Write::put(secret_key(&api_key.token_hash), api_key.id.bytes().to_vec());
    store.write(vec![row, secret]).await
}

pub async fn get(store: &dyn Store, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
    record::read(store, &key(id), WHAT).await
}

/// The key with this token, also when it is revoked or expired: the caller says which.
pub async fn by_token(store: &dyn Store, token_hash: &[u8; 32]) -> Result<Option<ApiKey>, StoreError> {
    match store.get(&secret_key(token_hash)).await? {
        Some(id) => get(store, ApiKeyId::from_bytes(record::id_bytes(&id, WHAT)?)).await,
        None => Ok(None),
    }
}

/// A user's keys that are not revoked, oldest first.
pub async fn of_user(store: &dyn Store, user: UserId) -> Result<Vec<ApiKey>, StoreError> {
    let mut keys: Vec<ApiKey> = record::records(store, Table::ApiKey, Bytes::from_static(ALL), WHAT).await?;
    keys.retain(|key| key.user == user && key.revoked_at.is_none());
    Ok(keys)
}

pub async fn remove(store: &dyn Store, api_key: &ApiKey) -> Result<(), StoreError> {
    store.write(vec![Write::delete(secret_key(&api_key.token_hash)), Write::delete(key(api_key.id))]).await
}
