//! Exports: whole results, neutral cells, headers.

use serde_json::{Value, json};

use super::tasks::World;

const PATH: &str = "/api/v1/projects/own/tasks";

async fn world() -> World {
    let world = World::make().await;
    for (n, name) in ["=1+1", "plain", "@SUM(A1)", "a,\"b\""].into_iter().enumerate() {
        let at = 4000 - i64::try_from(n).unwrap() * 1000;
        let data = json!({ "task_name": name, "queue": "q", "tags": ["x", "y"], "args": [1, "ä"] });
        world.task(&format!("t{n}"), &[("task.received", at, data)]).await;
    }
    world
}

#[tokio::test(start_paused = true)]
async fn csv_is_the_whole_result_with_neutral_cells() {
    let world = world().await;
    let answer = world.get(&format!("{PATH}?format=csv&limit=1&fields=task_id,name,args,tags,runtime_ms")).await;
    assert_eq!(answer.headers["content-type"], "text/csv; charset=utf-8");
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"z4j-tasks-own.csv\"");
    let args = r#""[1,""ä""]""#;
    let expected = format!(
        "task_id,name,args,tags,runtime_ms\r\nt3,\"a,\"\"b\"\"\",{args},\"x,y\",\r\nt2,'@SUM(A1),{args},\"x,y\",\r\n\
         t1,plain,{args},\"x,y\",\r\nt0,'=1+1,{args},\"x,y\",\r\n"
    );
    assert_eq!(answer.text, expected);
}

#[tokio::test(start_paused = true)]
async fn an_export_of_nothing_is_its_header() {
    let world = world().await;
    let answer = world.get(&format!("{PATH}?format=csv&state=failed&fields=state,worker")).await;
    assert_eq!(answer.text, "state,worker\r\n");
    assert_eq!(world.get(&format!("{PATH}?format=ndjson&state=failed")).await.text, "");
}

#[tokio::test(start_paused = true)]
async fn without_fields_csv_has_the_columns_of_the_reference() {
    let world = world().await;
    let answer = world.get(&format!("{PATH}?format=csv")).await;
    let header =
        "task_id,name,state,priority,queue,worker,received_at,started_at,finished_at,runtime_ms,retry_count,exception";
    assert_eq!(answer.text.lines().next(), Some(header));
}

#[tokio::test(start_paused = true)]
async fn ndjson_lines_are_the_rows_of_the_list() {
    let world = world().await;
    let answer = world.get(&format!("{PATH}?format=ndjson")).await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(lines), world.get(PATH).await.json()["items"]);
}

/// A list row's member as a cell shows it.
fn cell(member: &Value) -> String {
    let text = match member {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text }
}

#[tokio::test(start_paused = true)]
async fn csv_cells_are_the_members_of_the_list() {
    let world = world().await;
    let data = |more: Value| {
        let mut data = json!({ "task_name": "more", "queue": "-q", "worker": "@w", "kwargs": { "a": "x" },
                               "eta": "2026-01-01T00:00:00Z", "root_task_id": "root", "parent_task_id": "parent" });
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    let good = json!({ "result": { "a": [1, 2] }, "runtime_ms": 7 });
    let bad = json!({ "exception": "E", "exception_message": "E('two\nlines')", "traceback": "T,\"\r\n" });
    world.task("good", &[("task.received", 90, data(json!({}))), ("task.succeeded", 80, data(good))]).await;
    world
        .task(
            "bad",
            &[
                ("task.received", 70, data(json!({}))),
                ("task.started", 65, data(json!({}))),
                ("task.failed", 60, data(bad)),
            ],
        )
        .await;
    let rows = world.get(PATH).await.json()["items"].as_array().unwrap().clone();
    let names: Vec<String> = rows[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!((rows.len(), names.len()), (6, 25));
    // All columns at once, and each alone, for what is not asked for is not derived.
    let mut asked: Vec<Vec<&str>> = names.iter().map(|name| vec![name.as_str()]).collect();
    asked.push(names.iter().map(String::as_str).collect());
    for columns in asked {
        let answer = world.get(&format!("{PATH}?format=csv&fields={}", columns.join(","))).await;
        let mut reader = csv::Reader::from_reader(answer.text.as_bytes());
        let cells: Vec<Vec<String>> =
            reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        let wanted: Vec<Vec<String>> =
            rows.iter().map(|row| columns.iter().map(|name| cell(&row[*name])).collect()).collect();
        assert_eq!(cells, wanted, "{columns:?}");
        let answer = world.get(&format!("{PATH}?format=ndjson&fields={}", columns.join(","))).await;
        let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let wanted: Vec<Value> = rows
            .iter()
            .map(|row| columns.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect())
            .collect();
        assert_eq!(lines, wanted, "{columns:?}");
    }
}

#[tokio::test]
async fn a_sheet_is_a_zip_archive() {
    let world = world().await;
    let answer = world.get(&format!("{PATH}?format=xlsx")).await;
    assert!(answer.text.starts_with("PK\u{3}\u{4}"));
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"z4j-tasks-own.xlsx\"");
}

const AUDIT: &str = "/api/v1/projects/own/audit";

/// A project whose chain holds two deletions and an agent with a name like a formula.
async fn audited() -> World {
    let world = world().await;
    let minted = world.node.post("/api/v1/projects/own/agents", &world.admin, json!({ "name": "=1+1" })).await;
    assert_eq!(minted.status, axum::http::StatusCode::CREATED);
    world.node.post(&format!("{PATH}/bulk-delete"), &world.admin, json!({ "task_ids": ["t0"] })).await;
    world
}

#[tokio::test(start_paused = true)]
async fn an_audit_export_has_the_asked_columns_in_the_asked_order() {
    let world = audited().await;
    let get = async |query: &str| world.node.get(&format!("{AUDIT}?{query}"), &world.admin).await;
    let csv = get("format=csv&fields=action,seq,target_id,force,metadata&action_prefix=agent.").await;
    let id = get("action_prefix=agent.").await.json()["items"][0]["target_id"].as_str().unwrap().to_owned();
    let expected = format!(
        "action,seq,target_id,force,metadata\r\nagent.token.minted,1,{id},false,\"{{\"\"name\"\":\"\"=1+1\"\"}}\"\r\n"
    );
    assert_eq!(csv.text, expected);
    let ndjson = get("format=ndjson&fields=seq,action").await;
    assert_eq!(ndjson.text.lines().next(), Some(r#"{"seq":3,"action":"tasks.bulk_delete"}"#));
    let page = get("fields=seq,command_id&limit=1").await.json();
    assert_eq!(page["items"], json!([{ "seq": 3, "command_id": null }]));
    assert!(page["next_cursor"].is_string());
    for format in ["json", "csv", "xlsx", "ndjson"] {
        let refused = get(&format!("format={format}&fields=seq,nothing")).await;
        assert_eq!(refused.status, axum::http::StatusCode::UNPROCESSABLE_ENTITY, "{format}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_audit_export_without_fields_is_as_it_was() {
    let world = audited().await;
    let csv = world.node.get(&format!("{AUDIT}?format=csv"), &world.admin).await;
    let header = "seq,occurred_at,actor,action,target_type,target_id,result,outcome,command_id,force,global_throttle,\
                  source_ip,user_agent,hash";
    assert_eq!((csv.text.lines().next(), csv.text.lines().count()), (Some(header), 4));
    let ndjson = world.node.get(&format!("{AUDIT}?format=ndjson"), &world.admin).await;
    let line: Value = serde_json::from_str(ndjson.text.lines().next().unwrap()).unwrap();
    assert!(line["entry"].is_string() && line["mac"].is_string(), "an outsider can recompute the chain");
}

#[tokio::test]
async fn a_chain_is_a_sheet_too() {
    let world = audited().await;
    let answer = world.node.get(&format!("{AUDIT}?format=xlsx&fields=seq,action,occurred_at"), &world.admin).await;
    assert!(answer.text.starts_with("PK\u{3}\u{4}"));
    assert_eq!(answer.headers["content-type"], "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet");
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"z4j-audit-own.xlsx\"");
}
