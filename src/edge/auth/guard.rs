//! Enforces the route table: one place decides who gets through, before any handler runs.
//!
//! Order: who is calling (401), CSRF and origin (403), what the key may do (403), the project (404), the role
//! (403). A member's 403, for whatever reason, is noted in the project's ledger (contract D25).

use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cql::accounts::{Project, Role};

use super::{Caller, ProjectScope, Via, authenticate, cookie, project, scope};
use crate::edge::app::App;
use crate::edge::audit;
use crate::edge::error::{ApiError, ApiResult, Denied};
use crate::edge::extract::body::{Rest, discard};
use crate::edge::extract::path;
use crate::edge::route::{Access, Found, Route, find};

/// Runs a request if the route table lets its caller.
pub async fn guard(app: &App, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match decide(app, &mut parts).await {
        Ok(()) => {
            let (body, rest) = Rest::of(body);
            let response = next.run(Request::from_parts(parts, body)).await;
            rest.discard().await;
            response
        }
        Err(refused) => {
            let error = refused.noted(app).await;
            discard(body).await;
            error.into_response()
        }
    }
}

/// Asks again what a request that is under way for some time was let in by: what was taken away meanwhile is so at once.
/// `None` for a route that is not below a project.
pub async fn again(app: &App, parts: &mut Parts) -> ApiResult<Option<ProjectScope>> {
    match decide(app, parts).await {
        Ok(()) => Ok(parts.extensions.remove::<ProjectScope>()),
        Err(refused) => Err(refused.noted(app).await),
    }
}

/// [`again`] for a request that has been done and is not refused any more, so nothing of it is noted.
pub async fn still(app: &App, parts: &mut Parts) -> Option<ProjectScope> {
    decide(app, parts).await.ok()?;
    parts.extensions.remove::<ProjectScope>()
}

/// Why a request does not get through.
enum Refused {
    Error(ApiError),
    /// A 403, and the caller's standing in the project of the path, if there is one.
    Denied {
        route: &'static Route,
        scope: Option<ProjectScope>,
        denied: Denied,
    },
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

impl Refused {
    /// Notes a member's 403 in the project's ledger.
    async fn noted(self, app: &App) -> ApiError {
        match self {
            Self::Error(error) => error,
            Self::Denied { route, scope, denied } => {
                if let Some(scope) = &scope {
                    audit::refused(app, scope, route, &denied).await;
                }
                ApiError::Forbidden(denied)
            }
        }
    }
}

/// What the table says of this request.
async fn decide(app: &App, parts: &mut Parts) -> Result<(), Refused> {
    let Some(matched) = parts.extensions.get::<MatchedPath>().cloned() else {
        return Err(ApiError::NotFound("route").into());
    };
    match find(&parts.method, matched.as_str()) {
        Found::Route(route) => admit(app, route, parts).await,
        Found::OtherMethods(allow) => Err(ApiError::MethodNotAllowed { allow }.into()),
        Found::Nothing => {
            Err(ApiError::Internal(format!("{} has no row in the route table", matched.as_str()).into()).into())
        }
    }
}

async fn admit(app: &App, route: &'static Route, parts: &mut Parts) -> Result<(), Refused> {
    if matches!(route.access, Access::Public | Access::Own) {
        return Ok(());
    }
    let caller = authenticate(app, parts, route.csrf).await?;
    let project = if route.is_below_project() { named(app, parts).await? } else { None };
    let scope = match &project {
        Some(project) => ProjectScope::of(app, &caller, project).await?,
        None => None,
    };
    let unfit = unfit(app, parts, route, &caller).or_else(|| bound_elsewhere(route, &caller, project.as_deref()));
    if let Some(denied) = unfit {
        return Err(Refused::Denied { route, scope, denied });
    }
    if route.is_below_project() && scope.is_none() {
        return Err(ApiError::no_project().into());
    }
    if let Some(denied) = too_little(route, &caller, scope.as_ref().map(|scope| scope.role)) {
        return Err(Refused::Denied { route, scope, denied });
    }
    if let Some(scope) = scope {
        parts.extensions.insert(scope);
    }
    parts.extensions.insert(caller);
    Ok(())
}

/// The project of the path. A slug that does not even decode is a project that does not exist.
async fn named(app: &App, parts: &mut Parts) -> ApiResult<Option<Arc<Project>>> {
    match path::parameter(parts, "slug").await {
        Ok(slug) => project::named(app, &slug).await,
        Err(_) => Ok(None),
    }
}

/// What is wrong with the credential, whoever holds it.
fn unfit(app: &App, parts: &Parts, route: &Route, caller: &Caller) -> Option<Denied> {
    match &caller.via {
        Via::Session { .. } if !route.csrf => None,
        Via::Session { .. } if !is_own_origin(app, parts) => Some(Denied::ForeignOrigin),
        Via::Session { .. } => (!cookie::csrf_fits(app, &parts.headers)).then_some(Denied::CsrfMismatch),
        Via::Key { from_allowed_address: false, .. } => Some(Denied::AddressNotAllowed),
        Via::Key { scopes, .. } => match route.scope() {
            None => Some(Denied::KeyNotAccepted),
            Some(required) => (!scope::grants(scopes, &required)).then_some(Denied::ScopeMissing { required }),
        },
    }
}

/// A bound key hears the same about every project but its own, existing or not.
fn bound_elsewhere(route: &Route, caller: &Caller, project: Option<&Project>) -> Option<Denied> {
    let bound = caller.bound_to()?;
    let elsewhere = if route.is_below_project() {
        project.map(|project| project.id) != Some(bound)
    } else {
        matches!(route.access, Access::GlobalAdmin)
    };
    elsewhere.then_some(Denied::KeyBoundElsewhere)
}

/// What the caller lacks in standing; `role` is the one in the path's project.
fn too_little(route: &Route, caller: &Caller, role: Option<Role>) -> Option<Denied> {
    match (route.access, role) {
        (Access::GlobalAdmin, have) => (!caller.is_admin()).then_some(Denied::NotGlobalAdmin { have }),
        (Access::Member(need), Some(have)) => (have < need).then_some(Denied::RoleTooLow { have, need }),
        (Access::Auditor, Some(have)) => {
            (!matches!(have, Role::Auditor | Role::Admin)).then_some(Denied::NotAuditor { have })
        }
        (Access::Member(_) | Access::Auditor | Access::Public | Access::Own | Access::Session | Access::User, _) => {
            None
        }
    }
}

/// A browser says where a request was made; another site's page is refused even with a right token.
pub fn same_origin(app: &App, parts: &Parts) -> ApiResult<()> {
    if is_own_origin(app, parts) { Ok(()) } else { Err(ApiError::Forbidden(Denied::ForeignOrigin)) }
}

fn is_own_origin(app: &App, parts: &Parts) -> bool {
    let Some(origin) = parts.headers.get(ORIGIN) else { return true };
    let origin = origin.to_str().unwrap_or_default();
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    origin == app.config.public_url.to_string()
        || authority == Some(app.config.listen.to_string().as_str())
        || (authority.is_some() && authority == host)
}
