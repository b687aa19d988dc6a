//! Who has which role in a project.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cql::accounts::{AccountError, Membership, Role, membership, user};
use domain::id::{MembershipId, ProjectId, UserId};
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::audit::{self, Doer};
use super::auth::ProjectScope;
use super::error::{ApiError, ApiResult};
use super::extract::path::PathId;
use super::extract::{Body, Fields, FromFields, parse};
use super::openapi::Errors;
use super::route::Route;
use super::words;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/projects/{slug}/memberships").member(Role::Admin, "memberships"),
    Route::post("/api/v1/projects/{slug}/memberships").member(Role::Admin, "memberships"),
    Route::patch("/api/v1/projects/{slug}/memberships/{id}").member(Role::Admin, "memberships"),
    Route::delete("/api/v1/projects/{slug}/memberships/{id}").member(Role::Admin, "memberships"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(change, remove))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct MembershipView {
    #[schema(value_type = String, format = "uuid")]
    id: MembershipId,
    #[schema(value_type = String, format = "uuid")]
    user_id: UserId,
    #[schema(value_type = String, format = "uuid")]
    project_id: ProjectId,
    user_email: Option<String>,
    user_display_name: Option<String>,
    #[schema(value_type = String, example = "operator")]
    role: Role,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
}

async fn view(app: &App, membership: Membership) -> ApiResult<MembershipView> {
    let user = user::get(app.store.as_ref(), membership.user).await?;
    Ok(MembershipView {
        id: membership.id,
        user_id: membership.user,
        project_id: membership.project,
        user_display_name: user.as_ref().and_then(|user| user.display_name.clone()),
        user_email: user.map(|user| user.email),
        role: membership.role,
        created_at: membership.created_at,
    })
}

/// The members of a project.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/memberships", tag = "memberships",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)),
    responses((status = 200, body = Vec<MembershipView>), Errors))]
async fn list(State(app): State<App>, scope: ProjectScope) -> ApiResult<Json<Vec<MembershipView>>> {
    let mut views = Vec::new();
    for membership in membership::of_project(app.store.as_ref(), scope.project_id).await? {
        views.push(view(&app, membership).await?);
    }
    Ok(Json(views))
}

#[derive(Debug, utoipa::ToSchema)]
struct AddMember {
    #[schema(value_type = String, format = "uuid")]
    user_id: UserId,
    #[schema(value_type = words::Role, inline, example = "viewer")]
    role: String,
}

impl FromFields for AddMember {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let user_id = fields.required("user_id", parse::id);
        let role = fields.required("role", parse::text(1..=40));
        Some(Self { user_id: user_id?, role: role? })
    }
}

/// Reference clients expect 409 for a role that does not exist.
fn role(text: &str) -> ApiResult<Role> {
    text.parse().map_err(|unknown: cql::accounts::role::UnknownRole| ApiError::Conflict {
        message: unknown.to_string(),
        details: json!({ "field": "role", "allowed": Role::ALL }),
    })
}

/// Gives a user a role.
#[utoipa::path(post, path = "/api/v1/projects/{slug}/memberships", tag = "memberships",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)), request_body = AddMember,
    responses((status = 201, body = MembershipView), Errors))]
async fn create(
    State(app): State<App>,
    scope: ProjectScope,
    Body(request): Body<AddMember>,
) -> ApiResult<(StatusCode, Json<MembershipView>)> {
    let store = app.store.as_ref();
    let role = role(&request.role)?;
    let _turn = app.accounts.lock().await;
    let user = user::get(store, request.user_id).await?.ok_or(ApiError::NotFound("user"))?;
    let now = app.clock.now();
    let membership =
        Membership { id: MembershipId::mint(now), user: user.id, project: scope.project_id, role, created_at: now };
    membership::create(store, &membership).await.map_err(|error| match error {
        AccountError::Taken(_) => ApiError::conflict("the user is a member already"),
        AccountError::Store(error) => error.into(),
    })?;
    changed(&app, &scope, user.id, None, Some(role)).await;
    Ok((StatusCode::CREATED, Json(view(&app, membership).await?)))
}

async fn changed(app: &App, scope: &ProjectScope, user: UserId, before: Option<Role>, after: Option<Role>) {
    let note = audit::role_changed(user, before.map(Role::as_str), after.map(Role::as_str));
    audit::note(app, scope.project_id, Doer::from(&scope.caller), note).await;
}

async fn find(app: &App, project: ProjectId, id: MembershipId) -> ApiResult<Membership> {
    let members = membership::of_project(app.store.as_ref(), project).await?;
    members.into_iter().find(|membership| membership.id == id).ok_or(ApiError::NotFound("membership"))
}

#[derive(Debug, utoipa::ToSchema)]
struct ChangeMember {
    #[schema(value_type = words::Role, inline, example = "operator")]
    role: String,
}

impl FromFields for ChangeMember {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let role = fields.required("role", parse::text(1..=40));
        Some(Self { role: role? })
    }
}

/// Changes a member's role.
#[utoipa::path(patch, path = "/api/v1/projects/{slug}/memberships/{id}", tag = "memberships",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("id" = String, Path, format = "uuid")), request_body = ChangeMember,
    responses((status = 200, body = MembershipView), Errors))]
async fn change(
    State(app): State<App>,
    scope: ProjectScope,
    PathId(id): PathId<MembershipId>,
    Body(request): Body<ChangeMember>,
) -> ApiResult<Json<MembershipView>> {
    let role = role(&request.role)?;
    let _turn = app.accounts.lock().await;
    let before = find(&app, scope.project_id, id).await?;
    let after = Membership { role, ..before.clone() };
    membership::put(app.store.as_ref(), &after).await?;
    if before.role != role {
        changed(&app, &scope, after.user, Some(before.role), Some(role)).await;
    }
    Ok(Json(view(&app, after).await?))
}

/// Takes a member's role away.
#[utoipa::path(delete, path = "/api/v1/projects/{slug}/memberships/{id}", tag = "memberships",
    security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path), ("id" = String, Path, format = "uuid")),
    responses((status = 204, description = "Removed"), Errors))]
async fn remove(
    State(app): State<App>,
    scope: ProjectScope,
    PathId(id): PathId<MembershipId>,
) -> ApiResult<StatusCode> {
    let _turn = app.accounts.lock().await;
    let membership = find(&app, scope.project_id, id).await?;
    membership::remove(app.store.as_ref(), &membership).await?;
    changed(&app, &scope, membership.user, Some(membership.role), None).await;
    Ok(StatusCode::NO_CONTENT)
}
