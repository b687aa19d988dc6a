//! The proof that a caller may act in a project. Only the guard makes one.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use cql::accounts::project::is_slug;
use cql::accounts::{Project, Role, membership, project};
use domain::id::ProjectId;

use super::Caller;
use crate::edge::app::App;
use crate::edge::error::{ApiError, ApiResult};

/// A caller in a project, with the role that counts there.
#[derive(Clone, Debug)]
pub struct ProjectScope {
    pub project_id: ProjectId,
    pub project: Arc<Project>,
    pub role: Role,
    pub caller: Caller,
}

impl ProjectScope {
    /// The caller's standing in a project, `None` for who is no member. A global administrator acts as its admin.
    pub(super) async fn of(app: &App, caller: &Caller, project: &Arc<Project>) -> ApiResult<Option<Self>> {
        let role = if caller.is_admin() {
            Some(Role::Admin)
        } else {
            membership::get(app.store.as_ref(), project.id, caller.user_id()).await?.map(|membership| membership.role)
        };
        Ok(role.map(|role| Self { project_id: project.id, project: Arc::clone(project), role, caller: caller.clone() }))
    }
}

/// The project of a slug; one that is archived is as unknown as one that never was (contract D26).
pub(super) async fn named(app: &App, slug: &str) -> ApiResult<Option<Arc<Project>>> {
    if !is_slug(slug) {
        return Ok(None);
    }
    let (store, memo) = (app.store.as_ref(), &app.memos.projects);
    let version = store.accounts_version();
    if let Some(project) = memo.known(version, slug) {
        return Ok(Some(project));
    }
    let project = project::by_slug(store, slug).await?.filter(|project| project.is_active).map(Arc::new);
    if let Some(project) = &project {
        memo.keep(version, slug.to_owned(), project);
    }
    Ok(project)
}

impl<S: Send + Sync> FromRequestParts<S> for ProjectScope {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let scope = parts.extensions.get::<Self>().cloned();
        scope.ok_or_else(|| ApiError::Internal("the route's row names no project role".into()))
    }
}
