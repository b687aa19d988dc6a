//! Enforces the route table: one place decides who gets through, before any handler runs.
//!
//! Order: who is calling (401), CSRF and origin (403), what the key may do (403), the project (404), the role
//! (403). A member's refusal for lack of a role is noted in the project's ledger (contract D25).

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cql::accounts::Role;

use super::{Caller, ProjectScope, Via, authenticate, cookie, scope};
use crate::edge::app::App;
use crate::edge::audit;
use crate::edge::error::{ApiError, ApiResult, Denied};
use crate::edge::extract::body::discard;
use crate::edge::extract::path;
use crate::edge::route::{Access, Found, Route, find};

pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match decide(&app, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => {
            discard(body).await;
            error.into_response()
        }
    }
}

/// What the table says of this request.
async fn decide(app: &App, parts: &mut Parts) -> ApiResult<()> {
    let Some(matched) = parts.extensions.get::<MatchedPath>().cloned() else {
        return Err(ApiError::NotFound("route"));
    };
    match find(&parts.method, matched.as_str()) {
        Found::Route(route) => admit(app, route, parts).await,
        Found::OtherMethods(allow) => Err(ApiError::MethodNotAllowed { allow }),
        Found::Nothing => Err(ApiError::Internal(format!("{} has no row in the route table", matched.as_str()).into())),
    }
}

async fn admit(app: &App, route: &Route, parts: &mut Parts) -> ApiResult<()> {
    if matches!(route.access, Access::Public | Access::Own) {
        return Ok(());
    }
    let caller = authenticate(app, parts, route.csrf).await?;
    match &caller.via {
        Via::Session { .. } if route.csrf => {
            same_origin(app, parts)?;
            if !cookie::csrf_fits(app, &parts.headers) {
                return Err(ApiError::Forbidden(Denied::CsrfMismatch));
            }
        }
        Via::Session { .. } => {}
        Via::Key { scopes, .. } => {
            let required = route.scope().ok_or(ApiError::Forbidden(Denied::KeyNotAccepted))?;
            if !scope::grants(scopes, &required) {
                return Err(ApiError::Forbidden(Denied::ScopeMissing { required }));
            }
        }
    }
    match route.access {
        Access::Public | Access::Own | Access::Session | Access::User => {}
        Access::GlobalAdmin => {
            if caller.bound_to().is_some() {
                return Err(ApiError::Forbidden(Denied::KeyBoundElsewhere));
            }
            if !caller.is_admin() {
                return Err(ApiError::Forbidden(Denied::NotGlobalAdmin));
            }
        }
        Access::Member(need) => {
            let scope = project(app, parts, &caller).await?;
            require(app, &scope, route, scope.role >= need, Denied::RoleTooLow { have: scope.role, need }).await?;
            parts.extensions.insert(scope);
        }
        Access::Auditor => {
            let scope = project(app, parts, &caller).await?;
            let may = matches!(scope.role, Role::Auditor | Role::Admin);
            require(app, &scope, route, may, Denied::NotAuditor { have: scope.role }).await?;
            parts.extensions.insert(scope);
        }
    }
    parts.extensions.insert(caller);
    Ok(())
}

async fn project(app: &App, parts: &mut Parts, caller: &Caller) -> ApiResult<ProjectScope> {
    // A slug that does not even decode is a project that does not exist.
    let slug = path::parameter(parts, "slug").await.map_err(|_| ApiError::no_project())?;
    ProjectScope::resolve(app, caller, &slug).await
}

async fn require(app: &App, scope: &ProjectScope, route: &Route, may: bool, denied: Denied) -> ApiResult<()> {
    if may {
        return Ok(());
    }
    audit::refused(app, scope, route, &denied).await;
    Err(ApiError::Forbidden(denied))
}

/// A browser says where a request was made; another site's page is refused even with a right token.
pub fn same_origin(app: &App, parts: &Parts) -> ApiResult<()> {
    let Some(origin) = parts.headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let own = origin == app.config.public_url.to_string()
        || authority == Some(app.config.listen.to_string().as_str())
        || (authority.is_some() && authority == host);
    if own { Ok(()) } else { Err(ApiError::Forbidden(Denied::ForeignOrigin)) }
}
