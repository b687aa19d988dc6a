//! The tenant boundary. A slug belongs to one project for ever, also after it is archived.

use bytes::Bytes;
use domain::id::ProjectId;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::unique::{self, Claim, Claimed, Kind};
use super::{ALL, AccountError};
use crate::record;
use crate::store::{Key, Store, StoreError, Write};
use crate::table::Table;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub id: ProjectId,
    pub slug: String,
    pub name: String,
    pub description: Option<String>,
    pub environment: Option<String>,
    pub timezone: String,
    /// False once archived: the project is then hidden and its agents are refused.
    pub is_active: bool,
    pub default_scheduler_owner: Option<String>,
    pub allowed_schedulers: Option<Vec<String>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

const WHAT: &str = "project";

/// Whether a text can be a slug: `^[a-z0-9][a-z0-9-]{1,48}[a-z0-9]$`.
pub fn is_slug(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (3..=50).contains(&bytes.len())
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

fn key(id: ProjectId) -> Key {
    Key::new(Table::Project, ALL, id.bytes().to_vec())
}

/// Stores a new project under a slug that no other has or had.
pub async fn create(store: &dyn Store, project: &Project) -> Result<(), AccountError> {
    let mine = Claim { owner: project.id.bytes(), at: project.created_at };
    let put = vec![Write::put(key(project.id), record::encode(project))];
    match unique::claim(store, Kind::Slug, [0; 16], &project.slug, mine, put.clone()).await? {
        Claimed::Mine => Ok(()),
        Claimed::Held(other) => {
            let row = get(store, ProjectId::from_bytes(other.owner)).await?;
            if row.is_some() || !other.is_due(project.created_at) {
                return Err(AccountError::Taken("slug"));
            }
            match unique::take_over(store, Kind::Slug, [0; 16], &project.slug, (other, mine), put).await? {
                Claimed::Mine => Ok(()),
                Claimed::Held(_) => Err(AccountError::Taken("slug")),
            }
        }
    }
}

pub async fn get(store: &dyn Store, id: ProjectId) -> Result<Option<Project>, StoreError> {
    record::read(store, &key(id), WHAT).await
}

/// The project with this slug, archived or not.
pub async fn by_slug(store: &dyn Store, slug: &str) -> Result<Option<Project>, StoreError> {
    match unique::holder(store, Kind::Slug, [0; 16], slug).await? {
        Some(claim) => get(store, ProjectId::from_bytes(claim.owner)).await,
        None => Ok(None),
    }
}

/// Every project, archived ones too, oldest first.
pub async fn list(store: &dyn Store) -> Result<Vec<Project>, StoreError> {
    record::records(store, Table::Project, Bytes::from_static(ALL), WHAT).await
}

/// Replaces the row of an existing project; the slug does not change.
pub async fn put(store: &dyn Store, project: &Project) -> Result<(), StoreError> {
    store.write(vec![Write::put(key(project.id), record::encode(project))]).await
}
