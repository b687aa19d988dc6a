//! Stats and trends, from counters.

use axum::http::StatusCode;
use cql::stats::{self, Cell, Counter, day_of};
use domain::stats::{MinuteCounts, minute_of};
use serde_json::json;

use super::tasks::World;

const PATH: &str = "/api/v1/projects/own";

/// Two hours ago three tasks came and ended; three days ago one did.
async fn counted(world: &World) {
    let (now, project) = (world.node.app.clock.now(), world.project.id);
    let counter = Counter { recorder: 0, writer: 0 };
    let counts = |by_state, succeeded, failed| MinuteCounts {
        by_state,
        succeeded,
        failed,
        runtime_ms: 30,
        timed: 3,
        ..MinuteCounts::default()
    };
    for (ago, counts) in
        [(2 * 3600, counts([0, 0, 2, 1, 0, 0, 0], 2, 1)), (72 * 3600, counts([1, 0, 0, 0, 0, 0, 0], 0, 4))]
    {
        let minute = minute_of(now.plus_secs(-ago));
        let rows = [Cell::Minute(minute), Cell::Day(day_of(minute))];
        let rows = rows.map(|cell| stats::put(project, cell, counter, &counts)).to_vec();
        world.node.app.store.write(rows).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn stats_have_the_seven_states_and_the_references_names() {
    let world = World::make().await;
    counted(&world).await;
    let day = world.get(&format!("{PATH}/stats")).await.json();
    insta::assert_json_snapshot!("stats", day);
    assert_eq!(world.get(&format!("{PATH}/stats?hours=5")).await.json(), day, "another number means the usual window");
    assert_eq!(world.get(&format!("{PATH}/stats?hours=1")).await.json()["tasks_total"], 0);
    let week = world.get(&format!("{PATH}/stats?hours=168")).await.json();
    assert_eq!((&week["tasks_total"], &week["tasks_failed_24h"]), (&json!(4), &json!(5)));
}

#[tokio::test(start_paused = true)]
async fn trends_show_the_buckets_in_which_something_happened() {
    let world = World::make().await;
    counted(&world).await;
    insta::assert_json_snapshot!("trends", world.get(&format!("{PATH}/trends")).await.json());
    let week = world.get(&format!("{PATH}/trends?window=7d&bucket=1d")).await.json();
    assert_eq!(week["series"].as_array().unwrap().len(), 2);
    let too_many = world.get(&format!("{PATH}/trends?window=24h&bucket=1m")).await;
    assert_eq!(too_many.status, StatusCode::BAD_REQUEST);
    for query in ["window=2h", "bucket=", "window=24H"] {
        let refused = world.get(&format!("{PATH}/trends?{query}")).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
}
