//! The proof that a caller may act in a project. Only the guard makes one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use cql::accounts::project::is_slug;
use cql::accounts::{Project, Role, membership, project};
use domain::id::ProjectId;

use super::Caller;
use crate::edge::app::App;
use crate::edge::error::{ApiError, ApiResult, Denied};

/// A caller in a project, with the role that counts there.
#[derive(Clone, Debug)]
pub struct ProjectScope {
    pub project_id: ProjectId,
    pub project: Arc<Project>,
    pub role: Role,
    pub caller: Caller,
}

impl ProjectScope {
    /// Finds the project and the caller's role. Unknown, archived and foreign projects look alike (contract D26).
    pub(super) async fn resolve(app: &App, caller: &Caller, slug: &str) -> ApiResult<Self> {
        let project = if is_slug(slug) { project::by_slug(app.store.as_ref(), slug).await? } else { None };
        let project = project.filter(|project| project.is_active);
        // A bound key hears the same about every project but its own, existing or not.
        if caller.bound_to().is_some_and(|bound| project.as_ref().map(|project| project.id) != Some(bound)) {
            return Err(ApiError::Forbidden(Denied::KeyBoundElsewhere));
        }
        let project = project.ok_or_else(ApiError::no_project)?;
        let role = if caller.is_admin() {
            Role::Admin
        } else {
            let membership = membership::get(app.store.as_ref(), project.id, caller.user_id()).await?;
            membership.ok_or_else(ApiError::no_project)?.role
        };
        Ok(Self { project_id: project.id, project: Arc::new(project), role, caller: caller.clone() })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ProjectScope {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let scope = parts.extensions.get::<Self>().cloned();
        scope.ok_or_else(|| ApiError::Internal("the route's row names no project role".into()))
    }
}
