//! The caller's API keys. A key's token is shown once, when it is made.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cql::accounts::{ApiKey, api_key, membership, project};
use domain::id::{ApiKeyId, ProjectId};
use domain::ledger::entry::TokenKind;
use domain::secret::Token;
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::audit::{self, Doer};
use super::auth::{Caller, Via, scope};
use super::error::{ApiError, ApiResult, Problem};
use super::extract::path::PathId;
use super::extract::{Body, Fields, FromFields, parse};
use super::openapi::Errors;
use super::route::Route;
use crate::config::Network;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/api-keys/scopes").user("admin"),
    Route::get("/api/v1/api-keys").user("admin"),
    Route::post("/api/v1/api-keys").user("admin"),
    Route::patch("/api/v1/api-keys/{id}").user("admin"),
    Route::delete("/api/v1/api-keys/{id}").user("admin"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(scopes)).routes(routes!(list, create)).routes(routes!(change, revoke))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Scopes {
    scopes: Vec<&'static str>,
    /// Those that only a global administrator may give to a key.
    admin_only: Vec<&'static str>,
}

/// What a key may be limited to.
#[utoipa::path(get, path = "/api/v1/api-keys/scopes", tag = "api-keys", security(("session" = []), ("api_key" = [])),
    responses((status = 200, body = Scopes), Errors))]
async fn scopes() -> Json<Scopes> {
    Json(Scopes { scopes: scope::SCOPES.to_vec(), admin_only: scope::ADMIN_ONLY.to_vec() })
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct KeyView {
    #[schema(value_type = String, format = "uuid")]
    id: ApiKeyId,
    name: String,
    prefix: String,
    scopes: Vec<String>,
    #[schema(value_type = Option<String>, format = "uuid")]
    project_id: Option<ProjectId>,
    project_slug: Option<String>,
    #[schema(value_type = Option<String>, format = "date-time")]
    last_used_at: Option<Timestamp>,
    last_used_ip: Option<String>,
    #[schema(value_type = Option<String>, format = "date-time")]
    expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = "date-time")]
    revoked_at: Option<Timestamp>,
    revoked_reason: Option<String>,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    allowed_cidrs: Vec<String>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct NewKey {
    #[serde(flatten)]
    key: KeyView,
    /// Shown this once.
    #[schema(example = "z4k_4nO2kH...")]
    token: String,
}

async fn view(app: &App, key: ApiKey) -> ApiResult<KeyView> {
    let project_slug = match key.project {
        Some(id) => project::get(app.store.as_ref(), id).await?.map(|project| project.slug),
        None => None,
    };
    Ok(KeyView {
        id: key.id,
        name: key.name,
        prefix: key.prefix,
        scopes: key.scopes,
        project_id: key.project,
        project_slug,
        last_used_at: key.last_used_at,
        last_used_ip: key.last_used_ip,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
        revoked_reason: key.revoked_reason,
        created_at: key.created_at,
        allowed_cidrs: key.allowed_cidrs,
    })
}

/// The caller's keys that are not revoked.
#[utoipa::path(get, path = "/api/v1/api-keys", tag = "api-keys", security(("session" = []), ("api_key" = [])),
    responses((status = 200, body = Vec<KeyView>), Errors))]
async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<KeyView>>> {
    let mut views = Vec::new();
    for key in api_key::of_user(app.store.as_ref(), caller.user_id()).await? {
        views.push(view(&app, key).await?);
    }
    Ok(Json(views))
}

/// One of `GET /api-keys/scopes`.
#[derive(utoipa::ToSchema)]
#[schema(min_length = 1, max_length = 64)]
#[expect(dead_code, reason = "describes a member to OpenAPI")]
struct ScopeName(String);

/// An address, or a network as `address/bits`.
#[derive(utoipa::ToSchema)]
#[schema(pattern = "^[0-9a-fA-F:.]{2,39}(/[0-9]{1,3})?$", example = "10.0.0.0/8")]
#[expect(dead_code, reason = "describes a member to OpenAPI")]
struct NetworkName(String);

#[derive(Debug, utoipa::ToSchema)]
struct CreateKey {
    #[schema(min_length = 1, max_length = 200, example = "deploy pipeline")]
    name: String,
    #[schema(value_type = Vec<ScopeName>, max_items = 64, example = json!(["tasks:read", "commands:write"]))]
    scopes: Vec<String>,
    /// Limits the key to one project.
    #[schema(value_type = Option<String>, format = "uuid")]
    project_id: Option<ProjectId>,
    #[schema(minimum = 1, maximum = 3650)]
    expires_in_days: Option<i64>,
    /// Addresses and networks the key is accepted from; none means all.
    #[schema(value_type = Option<Vec<NetworkName>>, max_items = 32, example = json!(["10.0.0.0/8"]))]
    allowed_cidrs: Option<Vec<String>>,
}

impl FromFields for CreateKey {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.required("name", parse::name(1..=200));
        let scopes = fields.required("scopes", parse::list(0..=64, parse::text(1..=64)));
        let project_id = fields.optional("project_id", parse::id);
        let expires_in_days = fields.optional("expires_in_days", parse::integer(1..=3650));
        let allowed_cidrs = fields.optional("allowed_cidrs", parse::list(0..=32, network));
        Some(Self { name: name?, scopes: scopes?, project_id, expires_in_days, allowed_cidrs })
    }
}

fn network(value: &serde_json::Value) -> Result<String, Problem> {
    let parsed = value.as_str().and_then(|text| text.parse::<Network>().ok());
    let parsed = parsed.ok_or_else(|| parse::wrong("value_error", "Input should be an address or a network"))?;
    Ok(parsed.to_string())
}

/// Makes a key. It acts as its maker, within its scopes.
#[utoipa::path(post, path = "/api/v1/api-keys", tag = "api-keys", security(("session" = []), ("api_key" = [])),
    request_body = CreateKey, responses((status = 201, body = NewKey), Errors))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<CreateKey>,
) -> ApiResult<(StatusCode, Json<NewKey>)> {
    refuse_scopes(&caller, &request.scopes)?;
    if let Some(id) = request.project_id {
        own_project(&app, &caller, id).await?;
    }
    // A bound key makes keys for its own project only.
    let project = request.project_id.or(caller.bound_to());
    let (now, token) = (app.clock.now(), Token::mint_api_key());
    let key = ApiKey {
        id: ApiKeyId::mint(now),
        user: caller.user_id(),
        name: request.name,
        prefix: token.expose().chars().take(8).collect(),
        token_hash: app.master.api_key_hash(token.expose()).bytes(),
        scopes: request.scopes,
        project,
        allowed_cidrs: request.allowed_cidrs.unwrap_or_default(),
        created_at: now,
        expires_at: request.expires_in_days.map(|days| now.plus_secs(days * 86_400)),
        revoked_at: None,
        revoked_reason: None,
        last_used_at: None,
        last_used_ip: None,
    };
    api_key::put(app.store.as_ref(), &key).await?;
    let minted = audit::minted(TokenKind::ApiKey, key.id.uuid(), &key.name);
    audit::note(&app, chain(&key), Doer::from(&caller), minted).await;
    let token = token.expose().to_owned();
    Ok((StatusCode::CREATED, Json(NewKey { key: view(&app, key).await?, token })))
}

fn chain(key: &ApiKey) -> ProjectId {
    key.project.unwrap_or(audit::SYSTEM)
}

/// Unknown scopes, and those that the caller cannot give.
fn refuse_scopes(caller: &Caller, wanted: &[String]) -> ApiResult<()> {
    let may_give = |scope: &String| {
        let known = scope::SCOPES.contains(&scope.as_str());
        let allowed = caller.is_admin() || !scope::ADMIN_ONLY.contains(&scope.as_str());
        let held = match &caller.via {
            Via::Session { .. } => true,
            Via::Key { scopes, .. } => scope::grants(scopes, scope),
        };
        known && allowed && held
    };
    let rejected: Vec<&String> = wanted.iter().filter(|scope| !may_give(scope)).collect();
    if rejected.is_empty() {
        return Ok(());
    }
    let message = "some scopes are unknown or may not be given by this user".to_owned();
    Err(ApiError::Conflict { message, details: json!({ "rejected_scopes": rejected }) })
}

async fn own_project(app: &App, caller: &Caller, id: ProjectId) -> ApiResult<()> {
    let store = app.store.as_ref();
    let project = project::get(store, id).await?.filter(|project| project.is_active);
    let bound_elsewhere = caller.bound_to().is_some_and(|bound| bound != id);
    let member = caller.is_admin() || membership::get(store, id, caller.user_id()).await?.is_some();
    if project.is_some() && member && !bound_elsewhere { Ok(()) } else { Err(ApiError::no_project()) }
}

/// The caller's own key that is not revoked.
async fn own_key(app: &App, caller: &Caller, id: ApiKeyId) -> ApiResult<ApiKey> {
    let key = api_key::get(app.store.as_ref(), id).await?;
    key.filter(|key| key.user == caller.user_id() && key.revoked_at.is_none()).ok_or(ApiError::NotFound("API key"))
}

#[derive(Debug, utoipa::ToSchema)]
struct ChangeKey {
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(value_type = Option<Vec<NetworkName>>, max_items = 32)]
    allowed_cidrs: Option<Vec<String>>,
}

impl FromFields for ChangeKey {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let name = fields.optional("name", parse::name(1..=200));
        // Null and an empty list both lift the limit.
        let cidrs = fields.patched("allowed_cidrs", parse::list(0..=32, network));
        Some(Self { name, allowed_cidrs: cidrs.map(Option::unwrap_or_default) })
    }
}

/// Changes a key's name or the addresses it is accepted from.
#[utoipa::path(patch, path = "/api/v1/api-keys/{id}", tag = "api-keys", security(("session" = []), ("api_key" = [])),
    params(("id" = String, Path, format = "uuid")), request_body = ChangeKey,
    responses((status = 200, body = KeyView), Errors))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    PathId(id): PathId<ApiKeyId>,
    Body(request): Body<ChangeKey>,
) -> ApiResult<Json<KeyView>> {
    let _turn = app.accounts.lock().await;
    let mut key = own_key(&app, &caller, id).await?;
    key.name = request.name.unwrap_or(key.name);
    key.allowed_cidrs = request.allowed_cidrs.unwrap_or(key.allowed_cidrs);
    api_key::put(app.store.as_ref(), &key).await?;
    Ok(Json(view(&app, key).await?))
}

/// Revokes a key.
#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", tag = "api-keys", security(("session" = []), ("api_key" = [])),
    params(("id" = String, Path, format = "uuid")), responses((status = 204, description = "Revoked"), Errors))]
async fn revoke(State(app): State<App>, caller: Caller, PathId(id): PathId<ApiKeyId>) -> ApiResult<StatusCode> {
    let _turn = app.accounts.lock().await;
    let key = own_key(&app, &caller, id).await?;
    end(&app, &key, "revoked by its user").await?;
    let revoked = audit::revoked(TokenKind::ApiKey, key.id.uuid(), &key.name);
    audit::note(&app, chain(&key), Doer::from(&caller), revoked).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a key, for whatever reason.
pub(super) async fn end(app: &App, key: &ApiKey, reason: &str) -> ApiResult<()> {
    let ended = ApiKey { revoked_at: Some(app.clock.now()), revoked_reason: Some(reason.to_owned()), ..key.clone() };
    api_key::put(app.store.as_ref(), &ended).await?;
    Ok(())
}
