//! Users, managed by global administrators.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cql::accounts::{User, api_key, membership, user};
use domain::id::UserId;
use domain::time::Timestamp;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::audit::{self, Doer};
use super::auth::Caller;
use super::error::{ApiError, ApiResult, Problem};
use super::extract::path::PathId;
use super::extract::{Body, Fields, FromFields, parse};
use super::login::{Names, TimeZone, new_password, timezone};
use super::openapi::Errors;
use super::route::Route;
use super::{api_keys, sessions};
use crate::config;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/users").global_admin("users"),
    Route::post("/api/v1/users").global_admin("users"),
    Route::get("/api/v1/users/{id}").global_admin("users"),
    Route::patch("/api/v1/users/{id}").global_admin("users"),
    Route::delete("/api/v1/users/{id}").global_admin("users"),
    Route::post("/api/v1/users/{id}/reset-password").global_admin("users"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, change, remove))
        .routes(routes!(reset_password))
}

/// A user as everyone who may see the account sees it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct UserView {
    #[schema(value_type = String, format = "uuid")]
    id: UserId,
    email: String,
    first_name: Option<String>,
    last_name: Option<String>,
    display_name: Option<String>,
    is_admin: bool,
    is_active: bool,
    timezone: String,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        Self {
            id: user.id,
            email: user.email.clone(),
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            display_name: user.display_name.clone(),
            is_admin: user.is_admin,
            is_active: user.is_active,
            timezone: user.timezone.clone(),
            created_at: user.created_at,
        }
    }
}

/// What the system chain calls an account's standing.
pub fn standing(user: &User) -> Option<&'static str> {
    match (user.is_active, user.is_admin) {
        (true, true) => Some("global_admin"),
        (true, false) => Some("user"),
        (false, _) => None,
    }
}

/// Every user, oldest first.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", security(("session" = []), ("api_key" = [])),
    responses((status = 200, body = Vec<UserView>), Errors))]
async fn list(State(app): State<App>) -> ApiResult<Json<Vec<UserView>>> {
    Ok(Json(user::list(app.store.as_ref()).await?.iter().map(UserView::from).collect()))
}

#[derive(Debug, utoipa::ToSchema)]
struct CreateUser {
    #[schema(min_length = 3, max_length = 320, pattern = r"^[^@\s]+@[^@\s]+$", example = "ann@example.org")]
    email: String,
    #[schema(min_length = 12, max_length = 256, example = "Wide-Field-7-Harvest")]
    password: String,
    #[schema(max_length = 100)]
    first_name: Option<String>,
    #[schema(max_length = 100)]
    last_name: Option<String>,
    #[schema(max_length = 200)]
    display_name: Option<String>,
    #[schema(value_type = Option<TimeZone>)]
    timezone: Option<String>,
    is_admin: Option<bool>,
}

impl FromFields for CreateUser {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let email = fields.required("email", email);
        let password = fields.required("password", new_password);
        let first_name = fields.optional("first_name", parse::text(0..=100));
        let last_name = fields.optional("last_name", parse::text(0..=100));
        let display_name = fields.optional("display_name", parse::text(0..=200));
        let timezone = fields.optional("timezone", timezone);
        let is_admin = fields.optional("is_admin", parse::boolean);
        Some(Self { email: email?, password: password?, first_name, last_name, display_name, timezone, is_admin })
    }
}

fn email(value: &serde_json::Value) -> Result<String, Problem> {
    let parsed = value.as_str().and_then(config::email);
    parsed.ok_or_else(|| parse::wrong("value_error", "Input should be an e-mail address of 3 to 320 characters"))
}

/// Creates a user.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", security(("session" = []), ("api_key" = [])),
    request_body = CreateUser, responses((status = 201, body = UserView), Errors))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<CreateUser>,
) -> ApiResult<(StatusCode, Json<UserView>)> {
    let now = app.clock.now();
    let user = User {
        id: UserId::mint(now),
        email: request.email,
        password_hash: app.passwords.hash(&request.password).await?,
        first_name: request.first_name,
        last_name: request.last_name,
        display_name: request.display_name,
        timezone: request.timezone.unwrap_or_else(|| "UTC".to_owned()),
        is_admin: request.is_admin.unwrap_or(false),
        is_active: true,
        created_at: now,
        updated_at: now,
    };
    user::create(app.store.as_ref(), &user).await?;
    changed(&app, &caller, user.id, None, standing(&user)).await;
    Ok((StatusCode::CREATED, Json(UserView::from(&user))))
}

async fn changed(app: &App, caller: &Caller, user: UserId, before: Option<&'static str>, after: Option<&'static str>) {
    let note = audit::role_changed(user, before, after);
    audit::note(app, audit::SYSTEM, Doer::from(caller), note).await;
}

pub(super) async fn find(app: &App, id: UserId) -> ApiResult<User> {
    user::get(app.store.as_ref(), id).await?.ok_or(ApiError::NotFound("user"))
}

/// One user.
#[utoipa::path(get, path = "/api/v1/users/{id}", tag = "users", security(("session" = []), ("api_key" = [])),
    params(("id" = String, Path, format = "uuid")), responses((status = 200, body = UserView), Errors))]
async fn get(State(app): State<App>, PathId(id): PathId<UserId>) -> ApiResult<Json<UserView>> {
    Ok(Json(UserView::from(&find(&app, id).await?)))
}

/// As clients write it; [`ChangeUser`] is what it is read into.
#[derive(utoipa::ToSchema)]
#[schema(as = ChangeUser)]
#[expect(dead_code, reason = "describes the body to OpenAPI")]
struct ChangeUserBody {
    #[schema(max_length = 100)]
    first_name: Option<String>,
    #[schema(max_length = 100)]
    last_name: Option<String>,
    #[schema(max_length = 200)]
    display_name: Option<String>,
    #[schema(value_type = Option<TimeZone>)]
    timezone: Option<String>,
    is_admin: Option<bool>,
    /// False ends the user's sessions and keys at once.
    is_active: Option<bool>,
}

#[derive(Debug)]
struct ChangeUser {
    names: Names,
    is_admin: Option<bool>,
    is_active: Option<bool>,
}

impl FromFields for ChangeUser {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let names = Names::from_fields(fields)?;
        let is_admin = fields.optional("is_admin", parse::boolean);
        let is_active = fields.optional("is_active", parse::boolean);
        Some(Self { names, is_admin, is_active })
    }
}

/// Changes a user.
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users", security(("session" = []), ("api_key" = [])),
    params(("id" = String, Path, format = "uuid")), request_body = ChangeUserBody,
    responses((status = 200, body = UserView), Errors))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    PathId(id): PathId<UserId>,
    Body(request): Body<ChangeUser>,
) -> ApiResult<Json<UserView>> {
    let _turn = app.accounts.lock().await;
    let before = find(&app, id).await?;
    let mut user = before.clone();
    request.names.apply(&mut user);
    user.is_admin = request.is_admin.unwrap_or(user.is_admin);
    user.is_active = request.is_active.unwrap_or(user.is_active);
    if standing(&before) == Some("global_admin") && standing(&user) != Some("global_admin") {
        keep_an_admin(&app, id).await?;
    }
    user.updated_at = app.clock.now();
    user::put(app.store.as_ref(), &user).await?;
    if before.is_active && !user.is_active {
        sessions::end_all_but(&app, id, None).await?;
    }
    if standing(&before) != standing(&user) {
        changed(&app, &caller, id, standing(&before), standing(&user)).await;
    }
    Ok(Json(UserView::from(&user)))
}

/// Refuses what would leave nobody who can manage users.
async fn keep_an_admin(app: &App, leaving: UserId) -> ApiResult<()> {
    let users = user::list(app.store.as_ref()).await?;
    let another = users.iter().any(|user| user.id != leaving && user.is_admin && user.is_active);
    if another { Ok(()) } else { Err(ApiError::conflict("the last global administrator has to stay")) }
}

/// Removes a user with all sessions, keys and memberships.
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "users", security(("session" = []), ("api_key" = [])),
    params(("id" = String, Path, format = "uuid")), responses((status = 204, description = "Removed"), Errors))]
async fn remove(State(app): State<App>, caller: Caller, PathId(id): PathId<UserId>) -> ApiResult<StatusCode> {
    let store = app.store.as_ref();
    let _turn = app.accounts.lock().await;
    let user = find(&app, id).await?;
    if standing(&user) == Some("global_admin") {
        keep_an_admin(&app, id).await?;
    }
    sessions::end_all_but(&app, id, None).await?;
    for key in api_key::of_user(store, id).await? {
        api_keys::end(&app, &key, "its user was removed").await?;
    }
    for membership in membership::of_user(store, id).await? {
        membership::remove(store, &membership).await?;
        let gone = audit::role_changed(id, Some(membership.role.as_str()), None);
        audit::note(&app, membership.project, Doer::from(&caller), gone).await;
    }
    user::remove(store, &user).await?;
    changed(&app, &caller, id, standing(&user), None).await;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, utoipa::ToSchema)]
struct ResetPassword {
    #[schema(min_length = 12, max_length = 256, example = "Wide-Field-7-Harvest")]
    new_password: String,
}

impl FromFields for ResetPassword {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let new_password = fields.required("new_password", new_password);
        Some(Self { new_password: new_password? })
    }
}

/// Gives a user a new password, lifts the lock and ends the user's sessions.
#[utoipa::path(post, path = "/api/v1/users/{id}/reset-password", tag = "users",
    security(("session" = []), ("api_key" = [])), params(("id" = String, Path, format = "uuid")),
    request_body = ResetPassword, responses((status = 204, description = "Reset"), Errors))]
async fn reset_password(
    State(app): State<App>,
    PathId(id): PathId<UserId>,
    Body(request): Body<ResetPassword>,
) -> ApiResult<StatusCode> {
    find(&app, id).await?;
    let password_hash = app.passwords.hash(&request.new_password).await?;
    let _turn = app.accounts.lock().await;
    let mut user = find(&app, id).await?;
    user.password_hash = password_hash;
    user.updated_at = app.clock.now();
    user::put(app.store.as_ref(), &user).await?;
    user::clear_failures(app.store.as_ref(), id).await?;
    sessions::end_all_but(&app, id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
