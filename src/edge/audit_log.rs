//! The ledger as auditors read it (contract D25): list, export, and the walk that verifies a chain.
//!
//! ```text
//! query    the list's parameters
//! column   what `fields` can name
//! export   csv, xlsx and ndjson; ndjson carries each entry's bytes, so that an outsider can recompute the chain
//! verify   the walk, with progress
//! ```

mod column;
mod export;
mod query;
mod verify;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use cql::ledger::audit;
use domain::cursor::CursorKind;
use domain::id::ProjectId;
use domain::ledger::AuditItem;
use serde::Serialize;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::ProjectScope;
use super::cursor::Cursors;
use super::error::ApiResult;
use super::extract::Query;
use super::openapi::Errors;
use super::route::Route;
use super::sheet::Workbook;
use column::{Column, Projected, Row};
use export::Form;
use query::{Format, ListParameters, ListQuery};
use verify::Verdict;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/projects/{slug}/audit").auditor("audit"),
    Route::get("/api/v1/projects/{slug}/audit/verify").auditor("audit"),
    Route::get("/api/v1/audit").global_admin("audit"),
    Route::get("/api/v1/audit/verify").global_admin("audit"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(verify_chain))
        .routes(routes!(system_list))
        .routes(routes!(verify_system))
}

#[derive(Serialize)]
struct Page {
    items: Items,
    next_cursor: Option<String>,
}

/// Items, whole or with the asked members only.
#[derive(Serialize)]
#[serde(untagged)]
enum Items {
    Whole(Vec<AuditItem>),
    Projected(Vec<Projected>),
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `Page` to OpenAPI")]
struct AuditPage {
    items: Vec<AuditEntry>,
    /// Null on the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A whole entry, or with `fields` the members asked for.
struct AuditEntry;

impl PartialSchema for AuditEntry {
    fn schema() -> RefOr<Schema> {
        let whole = Ref::from_schema_name(AuditPublic::name());
        let RefOr::T(Schema::Object(mut asked)) = AuditPublic::schema() else { return whole.into() };
        asked.required.clear();
        asked.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        AnyOfBuilder::new().item(whole).item(asked).into()
    }
}

impl ToSchema for AuditEntry {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((AuditPublic::name().into_owned(), AuditPublic::schema()));
        AuditPublic::schemas(schemas);
    }
}

/// One entry of the chain.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `AuditItem` to OpenAPI")]
struct AuditPublic {
    #[schema(format = "uuid")]
    id: String,
    /// Null in the system's chain.
    #[schema(required, format = "uuid")]
    project_id: Option<String>,
    seq: u64,
    /// Lowercase hex.
    hash: String,
    #[schema(required, format = "uuid")]
    command_id: Option<String>,
    #[schema(required, format = "uuid")]
    user_id: Option<String>,
    /// `user:…`, `api_key:…`, `agent:…`, `anonymous` or `system`.
    actor: String,
    #[schema(example = "command.issue.retry_task")]
    action: String,
    #[schema(example = "task")]
    target_type: String,
    #[schema(required)]
    target_id: Option<String>,
    /// success or failure.
    result: String,
    /// allow or deny.
    outcome: String,
    #[schema(required, format = "uuid")]
    event_id: Option<String>,
    #[schema(value_type = Object)]
    metadata: serde_json::Value,
    force: bool,
    global_throttle: bool,
    #[schema(required)]
    source_ip: Option<String>,
    #[schema(required)]
    user_agent: Option<String>,
    #[schema(format = "date-time")]
    occurred_at: String,
}

/// The project's chain, newest first; `format` csv, xlsx or ndjson streams everything that the filters admit.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/audit", tag = "audit",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path), ListParameters),
    responses((status = 200, content(
        (AuditPage = "application/json"),
        (String = "text/csv", example = json!("seq,actor,action\r\n43,system,command.completed\r\n")),
        (String = "application/x-ndjson",
            example = json!("{\"seq\":43,\"actor\":\"system\",\"action\":\"command.completed\"}\n")),
        (Workbook = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Errors))]
async fn list(State(app): State<App>, scope: ProjectScope, Query(query): Query<ListQuery>) -> ApiResult<Response> {
    answer(&app, scope.project_id, &scope.project.slug, query).await
}

/// The system's chain: logins, users, projects that came into being.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", security(("session" = []), ("api_key" = [])),
    params(ListParameters), responses((status = 200, content(
        (AuditPage = "application/json"),
        (String = "text/csv", example = json!("seq,actor,action\r\n43,system,command.completed\r\n")),
        (String = "application/x-ndjson",
            example = json!("{\"seq\":43,\"actor\":\"system\",\"action\":\"command.completed\"}\n")),
        (Workbook = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"))), Errors))]
async fn system_list(State(app): State<App>, Query(query): Query<ListQuery>) -> ApiResult<Response> {
    answer(&app, ProjectId::NIL, "system", query).await
}

async fn answer(app: &App, project: ProjectId, name: &str, query: ListQuery) -> ApiResult<Response> {
    let tabular = |fields: Option<Vec<Column>>| fields.unwrap_or_else(|| Column::DEFAULT.to_vec());
    let form = match query.format {
        Format::Json => return page(app, project, query).await.map(IntoResponse::into_response),
        Format::Csv => Form::Csv(tabular(query.fields)),
        Format::Xlsx => Form::Xlsx(tabular(query.fields)),
        Format::Ndjson => Form::Ndjson(query.fields),
    };
    export::respond(app, project, name, query.filter, form).await
}

async fn page(app: &App, project: ProjectId, query: ListQuery) -> ApiResult<Json<Page>> {
    let bound = query.canonical();
    let cursors = Cursors::new(app, project, CursorKind::Audit, &bound);
    let before = cursors.open(query.cursor.as_deref())?.map(|position| u128::from_be_bytes(position) as u64);
    let limit = query.limit.unwrap_or(app.config.page_size_default);
    let page = audit::list(app.store.as_ref(), project, &query.filter, before, limit).await?;
    let next_cursor = page.next.map(|seq| cursors.seal(u128::from(seq).to_be_bytes()));
    let items = match &query.fields {
        None => Items::Whole(page.items),
        Some(columns) => Items::Projected(page.items.iter().map(|item| Row::of(item).projected(columns)).collect()),
    };
    Ok(Json(Page { items, next_cursor }))
}

/// Walks the project's chain from its first entry. With `Accept: application/x-ndjson` progress comes first.
#[utoipa::path(get, path = "/api/v1/projects/{slug}/audit/verify", tag = "audit",
    security(("session" = []), ("api_key" = [])), params(("slug" = String, Path)),
    responses((status = 200, content((Verdict = "application/json"), (String = "application/x-ndjson",
        example = json!("{\"progress\":{\"checked\":20000}}\n{\"ok\":true,\"checked\":20017}\n")))), Errors))]
async fn verify_chain(State(app): State<App>, scope: ProjectScope, headers: HeaderMap) -> ApiResult<Response> {
    verify::respond(app, scope.project_id, &headers).await
}

/// Walks the system's chain.
#[utoipa::path(get, path = "/api/v1/audit/verify", tag = "audit", security(("session" = []), ("api_key" = [])),
    responses((status = 200, content((Verdict = "application/json"), (String = "application/x-ndjson",
        example = json!("{\"progress\":{\"checked\":20000}}\n{\"ok\":true,\"checked\":20017}\n")))), Errors))]
async fn verify_system(State(app): State<App>, headers: HeaderMap) -> ApiResult<Response> {
    verify::respond(app, ProjectId::NIL, &headers).await
}
