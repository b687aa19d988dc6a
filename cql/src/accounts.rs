//! Who may do what: typed tables of users, their logins and keys, projects, memberships and agents.
//!
//! Written once over `&dyn Store`. Values are a format byte and a MessagePack map, so a member can be added
//! without touching stored rows. Names that must be unique are claimed in `unique` before the row is written.
//!
//! ```text
//! unique      slugs, e-mail addresses and agent names, claimed by conditional commits
//! role        viewer < auditor < operator < admin
//! user        people, and the lock after failed logins
//! login       web sessions by the hash of their secret
//! api_key     keys for programs
//! project     the tenant boundary
//! membership  a user's role in a project, kept in both directions
//! agent       credentials of agents, found by token hash
//! setting     facts about the whole installation
//! ```

pub mod agent;
pub mod api_key;
pub mod login;
pub mod membership;
pub mod project;
pub mod role;
pub mod setting;
mod unique;
pub mod user;

pub use agent::{Agent, AgentCredential, agent_by_token};
pub use api_key::ApiKey;
pub use login::Login;
pub use membership::Membership;
pub use project::Project;
pub use role::Role;
pub use user::User;

use crate::store::StoreError;

/// Why an account change was refused or did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Somebody else holds this name.
    #[error("{0} is already taken")]
    Taken(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The one partition of a table that lists a whole installation; CQL has no empty partition key.
const ALL: &[u8] = b"*";
/// The clustering key of a partition with one row.
const ONLY: &[u8] = b"-";
