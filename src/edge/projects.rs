//! Projects: the tenant boundary.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cql::accounts::project::is_slug;
use cql::accounts::{Project, Role, membership, project};
use domain::id::ProjectId;
use domain::ledger::entry::ProjectChange;
use domain::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::audit::{self, Doer};
use super::auth::{Caller, ProjectScope};
use super::error::{ApiError, ApiResult};
use super::extract::{Body, Fields, FromFields, parse};
use super::login::{TimeZone, timezone};
use super::openapi::Errors;
use super::route::Route;

pub const ROUTES: &[Route] = &[
    Route::get("/api/v1/projects").user("projects"),
    Route::post("/api/v1/projects").global_admin("projects"),
    Route::get("/api/v1/projects/{slug}").member(Role::Viewer, "projects"),
    Route::patch("/api/v1/projects/{slug}").member(Role::Admin, "projects"),
    Route::delete("/api/v1/projects/{slug}").global_admin("projects"),
];

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, change, archive))
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ProjectView {
    #[schema(value_type = String, format = "uuid")]
    id: ProjectId,
    #[schema(example = "default")]
    slug: String,
    name: String,
    description: Option<String>,
    environment: Option<String>,
    timezone: String,
    is_active: bool,
    default_scheduler_owner: Option<String>,
    allowed_schedulers: Option<Vec<String>>,
    #[schema(value_type = String, format = "date-time")]
    created_at: Timestamp,
    #[schema(value_type = String, format = "date-time")]
    updated_at: Timestamp,
}

impl From<&Project> for ProjectView {
    fn from(project: &Project) -> Self {
        Self {
            id: project.id,
            slug: project.slug.clone(),
            name: project.name.clone(),
            description: project.description.clone(),
            environment: project.environment.clone(),
            timezone: project.timezone.clone(),
            is_active: project.is_active,
            default_scheduler_owner: project.default_scheduler_owner.clone(),
            allowed_schedulers: project.allowed_schedulers.clone(),
            created_at: project.created_at,
            updated_at: project.updated_at,
        }
    }
}

/// The caller's projects; a global administrator's are all. Archived ones are left out.
#[utoipa::path(get, path = "/api/v1/projects", tag = "projects", security(("session" = []), ("api_key" = [])),
    responses((status = 200, body = Vec<ProjectView>), Errors))]
async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Json<Vec<ProjectView>>> {
    let store = app.store.as_ref();
    let mut projects = if caller.is_admin() {
        project::list(store).await?
    } else {
        let mut own = Vec::new();
        for membership in membership::of_user(store, caller.user_id()).await? {
            own.extend(project::get(store, membership.project).await?);
        }
        own
    };
    let bound = caller.bound_to();
    projects.retain(|project| project.is_active && bound.is_none_or(|bound| bound == project.id));
    Ok(Json(projects.iter().map(ProjectView::from).collect()))
}

/// A scheduler by its name.
#[derive(utoipa::ToSchema)]
#[schema(min_length = 1, max_length = 64)]
#[expect(dead_code, reason = "describes a member to OpenAPI")]
struct SchedulerName(String);

#[derive(Debug, utoipa::ToSchema)]
struct CreateProject {
    /// `^[a-z0-9][a-z0-9-]{1,48}[a-z0-9]$`
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{1,48}[a-z0-9]$", min_length = 3, max_length = 50, example = "billing")]
    slug: String,
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(max_length = 2000)]
    description: Option<String>,
    #[schema(min_length = 1, max_length = 40)]
    environment: Option<String>,
    #[schema(value_type = Option<TimeZone>)]
    timezone: Option<String>,
    #[schema(min_length = 1, max_length = 64)]
    default_scheduler_owner: Option<String>,
    #[schema(value_type = Option<Vec<SchedulerName>>, max_items = 32)]
    allowed_schedulers: Option<Vec<String>>,
}

impl FromFields for CreateProject {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        let slug = fields.required("slug", parse::text(1..=200));
        let name = fields.required("name", parse::name(1..=200));
        let description = fields.optional("description", parse::text(0..=2000));
        let environment = fields.optional("environment", parse::text(1..=40));
        let timezone = fields.optional("timezone", timezone);
        let default_scheduler_owner = fields.optional("default_scheduler_owner", parse::text(1..=64));
        let allowed_schedulers = fields.optional("allowed_schedulers", parse::list(0..=32, parse::text(1..=64)));
        Some(Self {
            slug: slug?,
            name: name?,
            description,
            environment,
            timezone,
            default_scheduler_owner,
            allowed_schedulers,
        })
    }
}

/// Creates a project.
#[utoipa::path(post, path = "/api/v1/projects", tag = "projects", security(("session" = []), ("api_key" = [])),
    request_body = CreateProject, responses((status = 201, body = ProjectView), Errors))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<CreateProject>,
) -> ApiResult<(StatusCode, Json<ProjectView>)> {
    if !is_slug(&request.slug) {
        // Reference clients expect 409 here, not a schema error.
        return Err(ApiError::Conflict {
            message: "a slug has 3 to 50 lower-case letters, digits and inner hyphens".to_owned(),
            details: json!({ "field": "slug" }),
        });
    }
    let now = app.clock.now();
    let project = Project {
        id: ProjectId::mint(now),
        slug: request.slug,
        name: request.name,
        description: request.description,
        environment: request.environment,
        timezone: request.timezone.unwrap_or_else(|| "UTC".to_owned()),
        is_active: true,
        default_scheduler_owner: request.default_scheduler_owner,
        allowed_schedulers: request.allowed_schedulers,
        created_at: now,
        updated_at: now,
    };
    project::create(app.store.as_ref(), &project).await?;
    let members = json!({ "id": project.id, "name": project.name });
    let note = audit::project_changed(ProjectChange::Created, &project.slug, &members);
    audit::note(&app, audit::SYSTEM, Doer::from(&caller), note).await;
    actors::meters::name_project(project.id, &project.slug);
    Ok((StatusCode::CREATED, Json(ProjectView::from(&project))))
}

/// One project.
#[utoipa::path(get, path = "/api/v1/projects/{slug}", tag = "projects", security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path)), responses((status = 200, body = ProjectView), Errors))]
async fn get(scope: ProjectScope) -> Json<ProjectView> {
    Json(ProjectView::from(scope.project.as_ref()))
}

#[derive(Debug, utoipa::ToSchema)]
struct ChangeProject {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(value_type = Option<String>, max_length = 2000)]
    description: Option<Option<String>>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 40)]
    environment: Option<Option<String>>,
    #[schema(value_type = Option<TimeZone>)]
    timezone: Option<String>,
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    default_scheduler_owner: Option<Option<String>>,
    #[schema(value_type = Option<Vec<SchedulerName>>, max_items = 32)]
    allowed_schedulers: Option<Option<Vec<String>>>,
}

impl FromFields for ChangeProject {
    fn from_fields(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            name: fields.optional("name", parse::name(1..=200)),
            description: fields.patched("description", parse::text(0..=2000)),
            environment: fields.patched("environment", parse::text(1..=40)),
            timezone: fields.optional("timezone", timezone),
            default_scheduler_owner: fields.patched("default_scheduler_owner", parse::text(1..=64)),
            allowed_schedulers: fields.patched("allowed_schedulers", parse::list(0..=32, parse::text(1..=64))),
        })
    }
}

impl ChangeProject {
    /// Applies the change and says what it was.
    fn apply(self, project: &mut Project) -> Value {
        let mut members = Map::new();
        let Self { name, description, environment, timezone, default_scheduler_owner, allowed_schedulers } = self;
        let mut set = |member: &str, value: Value| members.insert(member.to_owned(), value);
        if let Some(name) = name {
            set("name", json!(name));
            project.name = name;
        }
        if let Some(description) = description {
            set("description", json!(description));
            project.description = description;
        }
        if let Some(environment) = environment {
            set("environment", json!(environment));
            project.environment = environment;
        }
        if let Some(timezone) = timezone {
            set("timezone", json!(timezone));
            project.timezone = timezone;
        }
        if let Some(owner) = default_scheduler_owner {
            set("default_scheduler_owner", json!(owner));
            project.default_scheduler_owner = owner;
        }
        if let Some(allowed) = allowed_schedulers {
            set("allowed_schedulers", json!(allowed));
            project.allowed_schedulers = allowed;
        }
        Value::Object(members)
    }
}

/// Changes a project.
#[utoipa::path(patch, path = "/api/v1/projects/{slug}", tag = "projects", security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path)), request_body = ChangeProject,
    responses((status = 200, body = ProjectView), Errors))]
async fn change(
    State(app): State<App>,
    scope: ProjectScope,
    Body(request): Body<ChangeProject>,
) -> ApiResult<Json<ProjectView>> {
    let _turn = app.accounts.lock().await;
    let mut project = present(&app, &scope).await?;
    let members = request.apply(&mut project);
    project.updated_at = app.clock.now();
    project::put(app.store.as_ref(), &project).await?;
    let note = audit::project_changed(ProjectChange::Updated, &project.slug, &members);
    audit::note(&app, project.id, Doer::from(&scope.caller), note).await;
    Ok(Json(ProjectView::from(&project)))
}

/// The project as it is now: since the guard let the request in, its body may have taken a long time.
async fn present(app: &App, scope: &ProjectScope) -> ApiResult<Project> {
    let project = project::get(app.store.as_ref(), scope.project_id).await?;
    project.filter(|project| project.is_active).ok_or_else(ApiError::no_project)
}

/// Archives a project: it is hidden and its agents are closed. Its slug is not given away again.
#[utoipa::path(delete, path = "/api/v1/projects/{slug}", tag = "projects", security(("session" = []), ("api_key" = [])),
    params(("slug" = String, Path)), responses((status = 204, description = "Archived"), Errors))]
async fn archive(State(app): State<App>, scope: ProjectScope) -> ApiResult<StatusCode> {
    let _turn = app.accounts.lock().await;
    let mut project = present(&app, &scope).await?;
    project.is_active = false;
    project.updated_at = app.clock.now();
    project::put(app.store.as_ref(), &project).await?;
    app.mesh.close_project(project.id);
    let archived = audit::project_changed(ProjectChange::Archived, &project.slug, &json!({}));
    audit::note(&app, project.id, Doer::from(&scope.caller), archived.clone()).await;
    audit::note(&app, audit::SYSTEM, Doer::from(&scope.caller), archived).await;
    Ok(StatusCode::NO_CONTENT)
}
