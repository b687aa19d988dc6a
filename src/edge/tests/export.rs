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

#[tokio::test]
async fn a_sheet_is_a_zip_archive() {
    let world = world().await;
    let answer = world.get(&format!("{PATH}?format=xlsx")).await;
    assert!(answer.text.starts_with("PK\u{3}\u{4}"));
    assert_eq!(answer.headers["content-disposition"], "attachment; filename=\"z4j-tasks-own.xlsx\"");
}
