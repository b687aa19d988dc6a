//! A user's role in a project, kept in both directions.

use bytes::Bytes;
use domain::id::{MembershipId, ProjectId, UserId};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::unique::{self, Claim, Claimed, Kind};
use super::{AccountError, Role};
use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub id: MembershipId,
    pub user: UserId,
    pub project: ProjectId,
    pub role: Role,
    pub created_at: Timestamp,
}

const WHAT: &str = "membership";

fn key(project: ProjectId, user: UserId) -> Key {
    Key::new(Table::Membership, project.bytes().to_vec(), user.bytes().to_vec())
}

fn user_key(user: UserId, project: ProjectId) -> Key {
    Key::new(Table::MembershipOfUser, user.bytes().to_vec(), project.bytes().to_vec())
}

fn rows(membership: &Membership) -> Vec<Write> {
    let value = record::encode(membership);
    vec![
        Write::put(key(membership.project, membership.user), value.clone()),
        Write::put(user_key(membership.user, membership.project), value),
    ]
}

/// Makes a user a member; of several at once one succeeds.
pub async fn create(store: &dyn Store, membership: &Membership) -> Result<(), AccountError> {
    let taken = Err(AccountError::Taken("membership"));
    if get(store, membership.project, membership.user).await?.is_some() {
        return taken;
    }
    let (scope, name) = (membership.project.bytes(), membership.user.to_string());
    let mine = Claim { owner: membership.id.bytes(), at: membership.created_at };
    match unique::claim(store, Kind::Membership, scope, &name, mine, rows(membership)).await? {
        Claimed::Mine => Ok(()),
        // The row that this claim announces never came, or is gone.
        Claimed::Held(other) if other.is_due(membership.created_at) => {
            match unique::take_over(store, Kind::Membership, scope, &name, (other, mine), rows(membership)).await? {
                Claimed::Mine => Ok(()),
                Claimed::Held(_) => taken,
            }
        }
        Claimed::Held(_) => taken,
    }
}

/// Stores a changed membership.
pub async fn put(store: &dyn Store, membership: &Membership) -> Result<(), StoreError> {
    store.write(rows(membership)).await
}

/// The membership that decides a request.
pub async fn get(store: &dyn Store, project: ProjectId, user: UserId) -> Result<Option<Membership>, StoreError> {
    record::read(store, &key(project, user), WHAT).await
}

pub async fn of_project(store: &dyn Store, project: ProjectId) -> Result<Vec<Membership>, StoreError> {
    record::records(store, Table::Membership, Bytes::copy_from_slice(&project.bytes()), WHAT).await
}

pub async fn of_user(store: &dyn Store, user: UserId) -> Result<Vec<Membership>, StoreError> {
    record::records(store, Table::MembershipOfUser, Bytes::copy_from_slice(&user.bytes()), WHAT).await
}

pub async fn remove(store: &dyn Store, membership: &Membership) -> Result<(), StoreError> {
    store
        .write(vec![
            Write::delete(key(membership.project, membership.user)),
            Write::delete(user_key(membership.user, membership.project)),
        ])
        .await?;
    let (scope, name) = (membership.project.bytes(), membership.user.to_string());
    unique::release(store, Kind::Membership, scope, &name, membership.id.bytes()).await
}
