//! Task reads: every filter, cursors, fields, detail, tree, events.

use axum::http::StatusCode;
use cql::Committed;
use cql::accounts::{Project, Role};
use domain::engine::Engine;
use domain::id::AgentId;
use domain::id::address::Layout;
use domain::task::{EventFields, Report, Reporter, Sighting, Task};
use domain::time::Timestamp;
use serde_json::{Value, json};

use super::node::{Caller, Node};

const PATH: &str = "/api/v1/projects/own/tasks";

/// One event, so many milliseconds before now.
pub(super) type Said<'a> = (&'a str, i64, Value);

/// A node with a project `own` that has a viewer, an administrator, and tasks.
pub(super) struct World {
    pub(super) node: Node,
    pub(super) project: Project,
    pub(super) viewer: Caller,
    pub(super) admin: Caller,
}

impl World {
    pub(super) async fn make() -> Self {
        let node = Node::start().await;
        let project = node.project("own").await;
        let (viewer, admin) = (node.user("v@example.org", false).await, node.user("a@example.org", false).await);
        node.join(&viewer, &project, Role::Viewer).await;
        node.join(&admin, &project, Role::Admin).await;
        let (viewer, admin) = (node.session(&viewer).await, node.session(&admin).await);
        Self { node, project, viewer, admin }
    }

    /// Stores a task as a recorder would.
    pub(super) async fn task(&self, task_id: &str, said: &[Said<'_>]) {
        self.task_in(&self.project, task_id, said).await;
    }

    pub(super) async fn task_in(&self, project: &Project, task_id: &str, said: &[Said<'_>]) {
        let (tasks, now) = (self.node.app.mesh.tasks(), self.node.app.clock.now());
        let reports = said.iter().map(|said| report(task_id, said, now)).collect();
        let task = Task::first(Engine::Celery, task_id, reports, Layout::Day, tasks.retention_secs(), now).unwrap();
        let commit = tasks.first_sight(project.id, &task, now).unwrap();
        assert_eq!(self.node.app.store.commit_one(commit).await.unwrap(), Committed::Done);
    }

    /// `n` tasks `t00`, `t01`, .. a second apart, the last one newest; odd ones failed.
    async fn row(&self, n: i64) {
        for at in 0..n {
            let ago = (n - at) * 1000;
            let (name, queue) =
                (["mail.send", "mail.send_bulk"][at as usize % 2], ["default", "bulk"][at as usize % 2]);
            let priority = ["low", "high", "normal"][at as usize % 3];
            let data = json!({ "task_name": name, "queue": queue, "priority": priority, "args": [at], "kwargs": {} });
            let mut said = vec![("task.received", ago, data)];
            if at % 2 == 1 {
                let end = json!({ "worker": "w1@vm", "exception": "ValueError", "exception_message": "bad" });
                said.push(("task.started", ago - 10, json!({ "worker": "w1@vm" })));
                said.push(("task.failed", ago - 40, end));
            }
            self.task(&format!("t{at:02}"), &said).await;
        }
    }

    pub(super) async fn get(&self, path: &str) -> super::node::Answer {
        self.node.get(path, &self.viewer).await
    }

    async fn ids(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("{PATH}?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text);
        names(&answer.json())
    }
}

fn names(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|row| row["task_id"].as_str().unwrap().to_owned()).collect()
}

fn report(task_id: &str, (kind, ago_ms, data): &Said<'_>, now: Timestamp) -> Report {
    let (at, data) = (now.plus_micros(-ago_ms * 1000).to_string(), data.to_string());
    let fields = EventFields {
        id: None,
        kind: Some(kind),
        engine: Some("celery"),
        task_id: Some(task_id),
        occurred_at: Some(&at),
        data: Some(&data),
    };
    let reporter = Reporter { agent: AgentId::from_bytes([1; 16]), worker_id: None };
    Sighting::from_event(&fields, &reporter, now).unwrap().report
}

#[tokio::test(start_paused = true)]
async fn the_list_the_detail_and_the_events_show_a_task_alike() {
    let world = World::make().await;
    world.row(2).await;
    let page = world.get(&format!("{PATH}?include_total=true")).await.json();
    insta::assert_json_snapshot!("tasks", page, { ".items[].project_id" => "[id]", ".items[].id" => "[id]" });
    for row in page["items"].as_array().unwrap() {
        let detail = world.get(&format!("{PATH}/celery/{}", row["task_id"].as_str().unwrap())).await;
        assert_eq!(&detail.json(), row);
    }
    let events = world.get("/api/v1/projects/own/events?engine=celery&task_id=t01").await.json();
    let redacted = [".items[].id", ".items[].project_id", ".items[].agent_id"];
    let mut settings = insta::Settings::clone_current();
    for selector in redacted {
        settings.add_redaction(selector, "[id]");
    }
    settings.bind(|| insta::assert_json_snapshot!("events", events));
}

#[tokio::test(start_paused = true)]
async fn each_filter_admits_exactly_what_it_says() {
    let world = World::make().await;
    world.row(6).await;
    let odd = ["t05", "t03", "t01"];
    let even = ["t04", "t02", "t00"];
    for state in ["failed", "failure", "rejected"] {
        assert_eq!(world.ids(&format!("state={state}")).await, odd, "{state}");
    }
    assert_eq!(world.ids("state=pending").await, even);
    assert_eq!(world.ids("name=mail.send").await, even);
    assert_eq!(world.ids("name_prefix=mail.send_").await, odd);
    assert_eq!(world.ids("name_contains=send").await.len(), 6);
    assert_eq!(world.ids("queue=bulk").await, odd);
    assert_eq!(world.ids("queue=BULK").await, [""; 0]);
    assert_eq!(world.ids("worker=w1%40vm").await, odd);
    assert_eq!(world.ids("priority=HIGH,low").await, ["t04", "t03", "t01", "t00"]);
    assert_eq!(world.ids("search=BULK%20w1").await, odd);
    assert_eq!(world.ids("search=t03").await, ["t03"]);
    assert_eq!(world.ids("engine=rq").await, [""; 0]);
    assert_eq!(world.ids("priority=low&state=failed").await, ["t03"]);
    let rows = world.get(PATH).await.json();
    let at = |n: usize| rows["items"][n]["received_at"].as_str().unwrap().replace('+', "%2B");
    assert_eq!(world.ids(&format!("since={}&until={}", at(3), at(1))).await, ["t04", "t03", "t02"]);
    assert_eq!(world.ids(&format!("since={}&until={}", at(1), at(3))).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_not_understood_is_refused_and_never_widened() {
    let world = World::make().await;
    for query in [
        "state=done",
        "state=",
        "state=failed,started",
        "priority=urgent",
        "priority=high,",
        "engine=sidekiq",
        "name=",
        "queue=",
        "search=%20",
        "since=yesterday",
        "until=2026-04-16",
        "limit=0",
        "limit=5001",
        "limit=1.5",
        "include_total=maybe",
        "format=pdf",
        "fields=nope",
        "fields=state,",
        "fields=state&format=csv&limit=0",
        "state=failed&state=started",
    ] {
        let answer = world.get(&format!("{PATH}?{query}")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {}", answer.text);
    }
    let refused = world.get(&format!("{PATH}?state=done")).await;
    assert!(refused.text.contains("'received', 'started', 'succeeded', 'failed', 'cancelled', 'retried' or 'lost'"));
}

#[tokio::test(start_paused = true)]
async fn a_walk_shows_every_task_once_and_ends_without_an_empty_page() {
    let world = World::make().await;
    world.row(7).await;
    for limit in 1..=8 {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = world.get(&format!("{PATH}?limit={limit}{cursor}")).await.json();
            let items = names(&page);
            assert!(!items.is_empty());
            seen.extend(items);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, ["t06", "t05", "t04", "t03", "t02", "t01", "t00"], "{limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_fits_its_list_its_filter_and_its_project_only() {
    let world = World::make().await;
    world.row(6).await;
    let other = world.node.project("other").await;
    world.task_in(&other, "far", &[("task.received", 5, json!({}))]).await;
    let root = world.node.user("root@example.org", true).await;
    let root = world.node.session(&root).await;
    let cursor = world.get(&format!("{PATH}?limit=1&state=failed")).await.json()["next_cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    let fits = ["limit=2&state=failed", "limit=1&state=failure", "fields=task_id&state=failed&include_total=1"];
    for query in fits {
        assert!(!world.ids(&format!("{query}&cursor={cursor}")).await.is_empty(), "{query}");
    }
    let flipped = if cursor.starts_with('A') { "B" } else { "A" };
    let tampered = format!("{flipped}{}", &cursor[1..]);
    for (slug, query) in [
        ("own", format!("tasks?cursor={cursor}")),
        ("own", format!("tasks?state=failed&queue=bulk&cursor={cursor}")),
        ("own", format!("tasks?state=failed&cursor={tampered}")),
        ("own", "tasks?cursor=".to_owned()),
        ("own", "tasks?cursor=W10".to_owned()),
        ("other", format!("tasks?state=failed&cursor={cursor}")),
        ("own", format!("events?engine=celery&task_id=t01&cursor={cursor}")),
    ] {
        let answer = world.node.get(&format!("/api/v1/projects/{slug}/{query}"), &root).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{slug} {query}: {}", answer.text);
        assert_eq!(answer.json()["error"], "invalid_cursor");
    }
}

#[tokio::test(start_paused = true)]
async fn fields_come_alone_and_in_the_asked_order() {
    let world = World::make().await;
    world.row(2).await;
    let answer = world.get(&format!("{PATH}?fields=state,task_id,worker,args&limit=1")).await;
    assert!(answer.text.contains(r#""items":[{"state":"failed","task_id":"t01","worker":"w1@vm","args":[1]}]"#));
}

#[tokio::test(start_paused = true)]
async fn totals_are_exact_with_and_without_filters() {
    let world = World::make().await;
    world.row(5).await;
    for (query, total) in [("", json!(5)), ("&state=failed", json!(2)), ("&search=bulk", json!(2))] {
        let page = world.get(&format!("{PATH}?include_total=true&limit=1{query}")).await.json();
        assert_eq!(page["total_count"], total, "{query}");
    }
    assert_eq!(world.get(PATH).await.json()["total_count"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn every_member_leads_to_the_same_tree() {
    let world = World::make().await;
    world.task("root", &[("task.received", 3000, json!({}))]).await;
    world.task("child", &[("task.received", 2000, json!({ "root_task_id": "root", "parent_task_id": "root" }))]).await;
    world.task("leaf", &[("task.received", 1000, json!({ "root_task_id": "root", "parent_task_id": "child" }))]).await;
    world.task("alone", &[("task.received", 500, json!({}))]).await;
    let other = world.node.project("other").await;
    world.task_in(&other, "far", &[("task.received", 5, json!({ "root_task_id": "root" }))]).await;
    let tree = world.get(&format!("{PATH}/celery/root/tree")).await;
    for one in ["child", "leaf"] {
        assert_eq!(world.get(&format!("{PATH}/celery/{one}/tree")).await.text, tree.text);
    }
    insta::assert_json_snapshot!("tree", tree.json(), { ".nodes[].id" => "[id]" });
    let alone = world.get(&format!("{PATH}/celery/alone/tree")).await.json();
    assert_eq!((&alone["root_task_id"], &alone["node_count"]), (&json!("alone"), &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_here_is_not_found_whoever_has_it() {
    let world = World::make().await;
    let other = world.node.project("other").await;
    world.task_in(&other, "far", &[("task.received", 5, json!({}))]).await;
    for path in ["celery/far", "celery/far/tree", "celery/nope", "rq/far", "nobody/far"] {
        let answer = world.get(&format!("{PATH}/{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.json()["message"], "task not found");
    }
    let events = world.get("/api/v1/projects/own/events?engine=celery&task_id=far").await;
    assert_eq!(events.json(), json!({ "items": [], "next_cursor": null }));
    assert_eq!(world.get("/api/v1/projects/other/tasks").await.status, StatusCode::NOT_FOUND);
}
