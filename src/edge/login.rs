//! Logging in and out, and one's own account.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use cql::accounts::user::{Failures, normal_email};
use cql::accounts::{Login, User, login, membership, project, user};
use domain::id::WebSessionId;
use domain::time::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::audit::{self, Doer};
use super::auth::guard::same_origin;
use super::auth::{Caller, Client, SESSION_SECS, Via, cookie, password};
use super::error::{ApiError, ApiResult, Problem};
use super::extract::{Body, Fields, FromFields, parse};
use super::openapi::Errors;
use super::route::Route;
use super::users::{self, UserView};

pub const ROUTES: &[Route] = &[
    Route::post("/api/v1/auth/login").public(),
    Route::post("/api/v1/auth/logout").session(),
    Route::get("/api/v1/auth/me").session(),
    Route::patch("/api/v1/auth/me").session(),
    Route::get("/api/v1/auth/policy").public(),
    Route::post("/api/v1/auth/change-password").session(),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(log_in))
        .routes(routes!(log_out))
        .routes(routes!(me, change_me))
        .routes(routes!(policy))
        .routes(routes!(change_password))
}

/// A failed login answers after a whole number of these, so that its time tells nothing, also when hashes have to wait.
const FAILURE_TAKES: Duration = Duration::from_millis(300);
/// So many failures in a row lock an account.
const FAILURES_MAX: u32 = 10;
const LOCKED_SECS: i64 = 900;

#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "`remember_me` is accepted and changes nothing")]
struct LogIn {
    #[schema(min_length = 3, max_length = 320, example = "admin@localhost")]
    email: String,
    #[schema(min_length = 1, max_length = 256)]
    password: String,
    remember_me: Option<bool>,
}

impl FromFields for LogIn {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let email = fields.required("email", parse::text(3..=320));
        let password = fields.required("password", parse::text(1..=256));
        let remember_me = fields.optional("remember_me", parse::boolean);
        Some(Self { email: email?, password: password?, remember_me })
    }
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct LoggedIn {
    user: UserView,
    mfa_required: bool,
    mfa_enrollment_required: bool,
    #[schema(value_type = Option<String>, format = "date-time")]
    mfa_enrollment_deadline: Option<Timestamp>,
}

/// Opens a session.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = LogIn,
    responses((status = 200, description = "Logged in; sets the session and the CSRF cookie", body = LoggedIn), Errors))]
async fn log_in(
    State(app): State<App>,
    client: Client,
    parts: Parts,
    Body(request): Body<LogIn>,
) -> ApiResult<impl IntoResponse> {
    let started = Instant::now();
    same_origin(&app, &parts)?;
    app.logins.check(client.ip)?;
    let user = match attempt(&app, &request).await? {
        Ok(user) => user,
        Err((user, reason)) => {
            let doer = Doer::at_login(&client, None);
            audit::note(&app, audit::SYSTEM, doer, audit::login(user, Some(reason))).await;
            tokio::time::sleep_until(started + answered_after(started.elapsed())).await;
            return Err(ApiError::Unauthenticated { message: "invalid_credentials", reason: None });
        }
    };
    let secret = cookie::mint_secret();
    open(&app, &user, &secret, &client).await?;
    let doer = Doer::at_login(&client, Some(user.id));
    audit::note(&app, audit::SYSTEM, doer, audit::login(Some(user.id), None)).await;
    let body = LoggedIn {
        user: UserView::from(&user),
        mfa_required: false,
        mfa_enrollment_required: false,
        mfa_enrollment_deadline: None,
    };
    Ok((cookie::issue(&app, &secret), Json(body)))
}

/// When a login that has failed after this long is answered.
fn answered_after(elapsed: Duration) -> Duration {
    let steps = elapsed.as_nanos().div_ceil(FAILURE_TAKES.as_nanos()).max(1);
    FAILURE_TAKES * u32::try_from(steps).unwrap_or(u32::MAX)
}

type Failed = (Option<domain::id::UserId>, &'static str);

/// Checks a password. The hash is computed in every case; the answer is the same for every failure.
async fn attempt(app: &App, request: &LogIn) -> ApiResult<Result<User, Failed>> {
    let store = app.store.as_ref();
    let user = user::by_email(store, &normal_email(&request.email)).await?.filter(|user| user.is_active);
    let fits = app.passwords.verify(&request.password, user.as_ref().map(|user| user.password_hash.as_str())).await?;
    let Some(user) = user else { return Ok(Err((None, "unknown_user"))) };
    let _one_at_a_time = app.failures.lock().await;
    let failures = user::failures(store, user.id).await?;
    let now = app.clock.now();
    if failures.locked_until.is_some_and(|until| until > now) {
        return Ok(Err((Some(user.id), "locked")));
    }
    if fits {
        if failures.count > 0 {
            user::clear_failures(store, user.id).await?;
        }
        return Ok(Ok(user));
    }
    let before = if failures.locked_until.is_some() { 0 } else { failures.count };
    let count = before + 1;
    let locked_until = (count >= FAILURES_MAX).then(|| now.plus_secs(LOCKED_SECS));
    user::put_failures(store, user.id, Failures { count, last_at: now, locked_until }).await?;
    Ok(Err((Some(user.id), "wrong_password")))
}

/// Stores a new session; the user's ended ones are swept on the way.
async fn open(app: &App, user: &User, secret: &str, client: &Client) -> ApiResult<()> {
    let (store, now) = (app.store.as_ref(), app.clock.now());
    login::of_user(store, user.id, now).await?;
    let session = Login {
        id: WebSessionId::mint(now),
        user: user.id,
        created_at: now,
        last_seen_at: now,
        expires_at: now.plus_secs(SESSION_SECS),
        ip: client.ip.to_string(),
        user_agent: client.user_agent.clone(),
    };
    login::put(store, &cookie::secret_hash(secret), &session, now).await?;
    Ok(())
}

/// Ends this session.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", security(("session" = [])),
    responses((status = 204, description = "Logged out; clears both cookies"), Errors))]
async fn log_out(State(app): State<App>, caller: Caller) -> ApiResult<impl IntoResponse> {
    if let Via::Session { hash, .. } = &caller.via
        && let Some(session) = login::get(app.store.as_ref(), hash).await?
    {
        login::remove(app.store.as_ref(), hash, &session).await?;
    }
    Ok((StatusCode::NO_CONTENT, cookie::clear(&app)))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Me {
    #[serde(flatten)]
    user: UserView,
    memberships: Vec<MyMembership>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct MyMembership {
    #[schema(value_type = String, format = "uuid")]
    project_id: domain::id::ProjectId,
    project_slug: String,
    #[schema(value_type = String)]
    role: cql::accounts::Role,
}

async fn view_of(app: &App, user: &User) -> ApiResult<Me> {
    let store = app.store.as_ref();
    let mut memberships = Vec::new();
    for membership in membership::of_user(store, user.id).await? {
        if let Some(project) = project::get(store, membership.project).await?.filter(|project| project.is_active) {
            memberships.push(MyMembership {
                project_id: project.id,
                project_slug: project.slug,
                role: membership.role,
            });
        }
    }
    Ok(Me { user: UserView::from(user), memberships })
}

/// The caller's account and projects.
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "auth", security(("session" = [])),
    responses((status = 200, body = Me), Errors))]
async fn me(State(app): State<App>, caller: Caller) -> ApiResult<Json<Me>> {
    Ok(Json(view_of(&app, &caller.user).await?))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Names {
    #[schema(value_type = Option<String>, max_length = 100)]
    pub(super) first_name: Option<Option<String>>,
    #[schema(value_type = Option<String>, max_length = 100)]
    pub(super) last_name: Option<Option<String>>,
    #[schema(value_type = Option<String>, max_length = 200)]
    pub(super) display_name: Option<Option<String>>,
    #[schema(value_type = Option<TimeZone>)]
    pub(super) timezone: Option<String>,
}

impl FromFields for Names {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            first_name: fields.patched("first_name", parse::text(0..=100)),
            last_name: fields.patched("last_name", parse::text(0..=100)),
            display_name: fields.patched("display_name", parse::text(0..=200)),
            timezone: fields.optional("timezone", timezone),
        })
    }
}

impl Names {
    pub(super) fn apply(self, user: &mut User) {
        let Self { first_name, last_name, display_name, timezone } = self;
        user.first_name = first_name.unwrap_or(user.first_name.take());
        user.last_name = last_name.unwrap_or(user.last_name.take());
        user.display_name = display_name.unwrap_or(user.display_name.take());
        user.timezone = timezone.unwrap_or(std::mem::take(&mut user.timezone));
    }
}

/// `Area/City`.
#[derive(utoipa::ToSchema)]
#[schema(pattern = "^[A-Za-z0-9_+/-]{1,64}$", example = "Europe/Berlin")]
#[expect(dead_code, reason = "describes a member to OpenAPI")]
pub(super) struct TimeZone(String);

/// The name of a time zone, by its form: `Area/City`.
pub(super) fn timezone(value: &serde_json::Value) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+-/".contains(c);
    let named = value.as_str().filter(|text| (1..=64).contains(&text.len()) && text.chars().all(plain));
    named.map(str::to_owned).ok_or_else(|| parse::wrong("value_error", "Input should be the name of a time zone"))
}

/// Changes the caller's names and time zone.
#[utoipa::path(patch, path = "/api/v1/auth/me", tag = "auth", security(("session" = [])), request_body = Names,
    responses((status = 200, body = Me), Errors))]
async fn change_me(State(app): State<App>, caller: Caller, Body(names): Body<Names>) -> ApiResult<Json<Me>> {
    let _turn = app.accounts.lock().await;
    let mut user = users::find(&app, caller.user_id()).await?;
    names.apply(&mut user);
    user.updated_at = app.clock.now();
    user::put(app.store.as_ref(), &user).await?;
    Ok(Json(view_of(&app, &user).await?))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Policy {
    #[schema(example = 12)]
    min_length: usize,
    #[schema(example = 256)]
    max_length: usize,
    /// How many of the classes a password must have.
    #[schema(example = 3)]
    min_classes: usize,
    classes: [&'static str; 4],
}

/// What a password must be.
#[utoipa::path(get, path = "/api/v1/auth/policy", tag = "auth", responses((status = 200, body = Policy)))]
async fn policy() -> Json<Policy> {
    Json(Policy {
        min_length: password::LENGTH_MIN,
        max_length: password::LENGTH_MAX,
        min_classes: password::CLASSES_MIN,
        classes: ["lowercase", "uppercase", "digit", "other"],
    })
}

#[derive(Debug, utoipa::ToSchema)]
struct ChangePassword {
    #[schema(min_length = 1, max_length = 256)]
    current_password: String,
    #[schema(min_length = 12, max_length = 256, example = "Wide-Field-7-Harvest")]
    new_password: String,
}

impl FromFields for ChangePassword {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let current_password = fields.required("current_password", parse::text(1..=256));
        let new_password = fields.required("new_password", new_password);
        Some(Self { current_password: current_password?, new_password: new_password? })
    }
}

/// A password that the policy accepts.
pub(super) fn new_password(value: &serde_json::Value) -> Result<String, Problem> {
    let password = parse::text(1..=password::LENGTH_MAX)(value)?;
    match password::weakness(&password) {
        None => Ok(password),
        Some(weakness) => Err(parse::wrong("password_policy", weakness)),
    }
}

/// Changes the caller's password and ends the caller's other sessions.
#[utoipa::path(post, path = "/api/v1/auth/change-password", tag = "auth", security(("session" = [])),
    request_body = ChangePassword, responses((status = 204, description = "Changed"), Errors))]
async fn change_password(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<ChangePassword>,
) -> ApiResult<StatusCode> {
    app.logins.check(caller.client.ip)?;
    let wrong = || {
        let loc = ["body", "current_password"];
        ApiError::invalid(Problem::new("wrong_password", &loc, "The current password is wrong"))
    };
    if !app.passwords.verify(&request.current_password, Some(&caller.user.password_hash)).await? {
        return Err(wrong());
    }
    let password_hash = app.passwords.hash(&request.new_password).await?;
    // Hashes take their time: meanwhile the account may have been shut, or its password reset.
    let _turn = app.accounts.lock().await;
    let mut user = users::find(&app, caller.user_id()).await?;
    if user.password_hash != caller.user.password_hash {
        return Err(wrong());
    }
    user.password_hash = password_hash;
    user.updated_at = app.clock.now();
    user::put(app.store.as_ref(), &user).await?;
    let Via::Session { id, .. } = &caller.via else { return Ok(StatusCode::NO_CONTENT) };
    super::sessions::end_all_but(&app, user.id, Some(*id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_answered_after_whole_steps_however_long_its_hash_waited() {
        let millis = |elapsed| answered_after(Duration::from_millis(elapsed)).as_millis();
        assert_eq!([0, 40, 299, 300].map(millis), [300; 4]);
        assert_eq!([301, 450, 600].map(millis), [600; 3]);
        assert_eq!(millis(1850), 2100);
    }
}
