//! People, and the lock after failed logins.

use bytes::Bytes;
use domain::id::UserId;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::unique::{self, Claim, Claimed, Kind};
use super::{ALL, AccountError};
use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

/// A person who can log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    pub email: String,
    /// Argon2id, as a PHC string.
    pub password_hash: String,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub display_name: Option<String>,
    pub timezone: String,
    /// Acts as admin in every project and manages users.
    pub is_admin: bool,
    pub is_active: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Failed logins of one user since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    pub count: u32,
    pub last_at: Timestamp,
    pub locked_until: Option<Timestamp>,
}

/// The partition of [`Failures`] rows, apart from the users themselves.
const FAILURES: &[u8] = b"failures";
const WHAT: &str = "user";

/// The form in which addresses are compared.
pub fn normal_email(email: &str) -> String {
    email.trim().to_lowercase()
}

fn key(id: UserId) -> Key {
    Key::new(Table::User, ALL, id.bytes().to_vec())
}

fn failures_key(id: UserId) -> Key {
    Key::new(Table::User, FAILURES, id.bytes().to_vec())
}

/// Stores a new user under an address that nobody else has.
pub async fn create(store: &dyn Store, user: &User) -> Result<(), AccountError> {
    let email = normal_email(&user.email);
    let mine = Claim { owner: user.id.bytes(), at: user.created_at };
    let put = vec![Write::put(key(user.id), record::encode(user))];
    match unique::claim(store, Kind::Email, [0; 16], &email, mine, put.clone()).await? {
        Claimed::Mine => Ok(()),
        Claimed::Held(other) => {
            let orphan = get(store, UserId::from_bytes(other.owner)).await?.is_none() && other.is_due(user.created_at);
            if !orphan {
                return Err(AccountError::Taken("email"));
            }
            match unique::take_over(store, Kind::Email, [0; 16], &email, (other, mine), put).await? {
                Claimed::Mine => Ok(()),
                Claimed::Held(_) => Err(AccountError::Taken("email")),
            }
        }
    }
}

pub async fn get(store: &dyn Store, id: UserId) -> Result<Option<User>, StoreError> {
    record::read(store, &key(id), WHAT).await
}

pub async fn by_email(store: &dyn Store, email: &str) -> Result<Option<User>, StoreError> {
    match unique::holder(store, Kind::Email, [0; 16], &normal_email(email)).await? {
        Some(claim) => get(store, UserId::from_bytes(claim.owner)).await,
        None => Ok(None),
    }
}

/// Every user, oldest first.
pub async fn list(store: &dyn Store) -> Result<Vec<User>, StoreError> {
    record::records(store, Table::User, Bytes::from_static(ALL), WHAT).await
}

/// Replaces the row of an existing user; the address does not change here.
pub async fn put(store: &dyn Store, user: &User) -> Result<(), StoreError> {
    store.write(vec![Write::put(key(user.id), record::encode(user))]).await
}

/// Removes a user and gives the address back. Memberships, keys and logins are removed by the caller first.
pub async fn remove(store: &dyn Store, user: &User) -> Result<(), StoreError> {
    store.write(vec![Write::delete(key(user.id)), Write::delete(failures_key(user.id))]).await?;
    unique::release(store, Kind::Email, [0; 16], &normal_email(&user.email), user.id.bytes()).await
}

pub async fn failures(store: &dyn Store, id: UserId) -> Result<Failures, StoreError> {
    Ok(record::read(store, &failures_key(id), "failed logins").await?.unwrap_or_default())
}

pub async fn put_failures(store: &dyn Store, id: UserId, failures: Failures) -> Result<(), StoreError> {
    store.write(vec![Write::put(failures_key(id), record::encode(&failures))]).await
}

pub async fn clear_failures(store: &dyn Store, id: UserId) -> Result<(), StoreError> {
    store.write(vec![Write::delete(failures_key(id))]).await
}
