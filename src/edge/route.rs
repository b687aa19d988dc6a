//! Who may call what, as data. The guard enforces these rows and the tests iterate them: a route without a
//! row answers nobody.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::http::Method;
use cql::accounts::Role;

use super::resources::RESOURCES;

/// What a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody is asked.
    Public,
    /// The handler checks a credential of its own: an agent's token, a metrics token, a socket's first message.
    Own,
    /// A user with a browser session; keys are not accepted.
    Session,
    /// Any user, by session or key.
    User,
    /// Below a project too: its members hear that their role does not suffice, all others that there is none.
    GlobalAdmin,
    /// A member of the project `{slug}` with at least this role.
    Member(Role),
    /// An auditor or admin of the project `{slug}`: an operator is neither.
    Auditor,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    /// The scope group a key needs; without one the route cannot be reached by key.
    pub group: Option<&'static str>,
    /// Whether a session must send its CSRF token.
    pub csrf: bool,
}

impl Route {
    const fn new(method: Method, path: &'static str, csrf: bool) -> Self {
        Self { method, path, access: Access::Own, group: None, csrf }
    }

    pub const fn get(path: &'static str) -> Self {
        Self::new(Method::GET, path, false)
    }

    pub const fn post(path: &'static str) -> Self {
        Self::new(Method::POST, path, true)
    }

    pub const fn patch(path: &'static str) -> Self {
        Self::new(Method::PATCH, path, true)
    }

    pub const fn delete(path: &'static str) -> Self {
        Self::new(Method::DELETE, path, true)
    }

    pub const fn public(mut self) -> Self {
        self.access = Access::Public;
        self.csrf = false;
        self
    }

    /// The handler asks for the credential itself.
    pub const fn own(mut self) -> Self {
        self.access = Access::Own;
        self.csrf = false;
        self
    }

    pub const fn session(mut self) -> Self {
        self.access = Access::Session;
        self
    }

    pub const fn user(mut self, group: &'static str) -> Self {
        self.access = Access::User;
        self.group = Some(group);
        self
    }

    pub const fn global_admin(mut self, group: &'static str) -> Self {
        self.access = Access::GlobalAdmin;
        self.group = Some(group);
        self
    }

    pub const fn member(mut self, role: Role, group: &'static str) -> Self {
        self.access = Access::Member(role);
        self.group = Some(group);
        self
    }

    pub const fn auditor(mut self, group: &'static str) -> Self {
        self.access = Access::Auditor;
        self.group = Some(group);
        self
    }

    /// Takes the route out of every key's reach.
    pub const fn without_keys(mut self) -> Self {
        self.group = None;
        self
    }

    /// Whether the path names a project, whose members alone may know that it exists.
    pub fn is_below_project(&self) -> bool {
        self.path.contains("{slug}")
    }

    /// The scope a key must have, `None` when no key is accepted.
    pub fn scope(&self) -> Option<String> {
        let verb = if self.method == Method::GET { "read" } else { "write" };
        self.group.map(|group| format!("{group}:{verb}"))
    }

    /// The route in the words of the audit list: `command.issue.purge_queue`, `tasks.bulk_delete.post`.
    pub fn action(&self) -> String {
        if let Some((_, verb)) = self.path.split_once("/commands/").filter(|_| self.method == Method::POST) {
            return format!("command.issue.{}", verb.replace('-', "_"));
        }
        let below = self.path.strip_prefix("/api/v1/projects/{slug}").unwrap_or(self.path);
        let words: Vec<&str> = below.split('/').filter(|part| !part.is_empty() && !part.starts_with('{')).collect();
        let words = if words.is_empty() { vec!["project"] } else { words };
        format!("{}.{}", words.join(".").replace('-', "_"), self.method.as_str().to_lowercase())
    }
}

/// Every route, resource by resource.
pub fn all() -> impl Iterator<Item = &'static Route> {
    RESOURCES.iter().flat_map(|resource| resource.routes)
}

static BY_PATH: LazyLock<HashMap<&'static str, Vec<&'static Route>>> = LazyLock::new(|| {
    let mut by_path: HashMap<_, Vec<_>> = HashMap::new();
    for route in all() {
        by_path.entry(route.path).or_default().push(route);
    }
    by_path
});

/// What the table says of a request.
pub enum Found {
    Route(&'static Route),
    /// The path exists; the methods it has.
    OtherMethods(String),
    Nothing,
}

/// The methods of a path, as `Allow` lists them.
fn allowed(routes: &[&Route]) -> String {
    let methods = routes.iter().flat_map(|route| {
        let head = (route.method == Method::GET).then_some("HEAD");
        [Some(route.method.as_str()), head].into_iter().flatten()
    });
    methods.collect::<Vec<_>>().join(", ")
}

/// Looks a request up; HEAD is answered as GET.
pub fn find(method: &Method, path: &str) -> Found {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let Some(routes) = BY_PATH.get(path) else { return Found::Nothing };
    match routes.iter().find(|route| route.method == *method) {
        Some(route) => Found::Route(route),
        None => Found::OtherMethods(allowed(routes)),
    }
}
