"""Figures: what /stats and /trends say is what the rows say (REST section 4, D1, D14, D32, D33)."""

import time
import uuid
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest

from conftest import login
from harness.agent import Agent, failed, now_text, received, retried, revoked, started, succeed_everything, succeeded
from harness.client import Project
from harness.wait import eventually

STATES = ["received", "started", "succeeded", "failed", "cancelled", "retried", "lost"]
MEMBERS = {
    "window_hours", "tasks_by_state", "tasks_total", "tasks_failed_24h", "tasks_succeeded_24h", "failure_rate_24h", "agents_online",
    "agents_offline", "workers_online", "workers_offline", "commands_pending", "commands_completed_24h", "commands_failed_24h",
    "commands_timeout_24h", "queue_depths", "system_health",
}  # fmt: skip
ENDS = {"succeeded": succeeded, "failed": failed, "retried": retried}


def story(state, age):
    one = str(uuid.uuid4())
    items = [received(one, at=now_text(-age))]
    if state != "received":
        items.append(started(one, at=now_text(-age + 1)))
    if state == "cancelled":
        items.append(revoked(one, at=now_text(-age + 2)))
    elif state in ENDS:
        items.append(ENDS[state](one, at=now_text(-age + 2)))
    return items


def test_stats_have_the_references_members_and_count_what_the_rows_say(sim, project):
    assert project.get("/stats").json()["tasks_by_state"] == dict.fromkeys(STATES, 0)
    agent = sim(on_command=succeed_everything)
    wanted = ["received"] * 5 + ["started"] * 4 + ["succeeded"] * 9 + ["failed"] * 3 + ["cancelled"] * 2 + ["retried"]
    items = [item for n, state in enumerate(wanted) for item in story(state, 3000 - n)]
    agent.report(*items)
    agent.report(*items[::-1])  # once more: nothing may count twice
    agent.beat_with_workers("w1@host")
    for n in range(3):
        project.issue("cancel-task", agent_id=agent.minted.id, engine="celery", task_id=f"t{n}")
    project.issue("restart-worker", expect=422, agent_id=agent.minted.id, worker_name="nobody@host")
    eventually(lambda: project.get("/stats").json()["commands_completed_24h"] == 3, 10)
    stats = project.get("/stats").json()
    assert MEMBERS <= set(stats), MEMBERS - set(stats)
    rows = Counter(row["state"] for row in project.walk())
    assert stats["tasks_by_state"] == {state: rows[state] for state in STATES} == {state: wanted.count(state) for state in STATES}
    assert stats["tasks_total"] == len(wanted) == project.page(include_total="true", limit=1)["total_count"]
    for state in STATES:
        assert project.page(include_total="true", limit=1, state=state)["total_count"] in (rows[state], None)
    assert (stats["tasks_failed_24h"], stats["tasks_succeeded_24h"]) == (3, 9)
    assert stats["failure_rate_24h"] == pytest.approx(3 / 12, abs=1e-3)
    assert (stats["agents_online"], stats["agents_offline"], stats["workers_online"]) == (1, 0, 1)
    assert (stats["commands_pending"], stats["commands_failed_24h"], stats["commands_timeout_24h"]) == (0, 0, 0)
    assert {"status", "agents_all_online", "queue_depth_ok", "failure_rate_ok", "brain_db_ok"} <= set(stats["system_health"])
    for hours, window in (("1", 1), ("24", 24), ("25", 24), ("-1", 24), ("168", 168)):
        assert project.get("/stats", hours=hours).json()["window_hours"] == window
    project.get("/stats", expect=422, hours="many")


def test_trends_put_each_end_into_its_bucket_and_leave_out_the_empty_ones(sim, project):
    agent = sim()
    assert project.get("/trends").json()["series"] == []
    minutes = {50: "succeeded", 30: "failed", 29: "retried", 5: "cancelled"}
    agent.report(*[item for minute, state in minutes.items() for item in story(state, 60 * minute)])
    trends = project.get("/trends", window="1h", bucket="1m").json()
    assert (trends["window"], trends["bucket"]) == ("1h", "1m")
    names = {"succeeded": "success", "failed": "failure", "retried": "retry", "cancelled": "revoked"}
    told = {one["t"]: {name: one[name] for name in names.values() if one[name]} for one in trends["series"]}
    assert list(told.values()) == [{names[state]: 1} for state in minutes.values()], "oldest first"
    now = datetime.now(timezone.utc)
    for at, minute in zip(told, minutes):
        late = now - datetime.fromisoformat(at)
        assert timedelta(minutes=minute - 1) < late < timedelta(minutes=minute + 1)
    assert sum(one["total"] for one in project.get("/trends", window="7d", bucket="1d").json()["series"]) == 4
    project.get("/trends", expect=400, window="7d", bucket="1m")
    project.get("/trends", expect=422, window="2h")


def test_a_task_whose_worker_is_gone_is_lost_until_something_is_heard_of_it(own_server):
    """D33: nothing terminal was heard, so `lost` is no end, and any later report beats it."""
    server = own_server(heartbeat_seconds=1, lost_after_seconds=10)
    project = Project.create(login(server))
    gone, stays = str(uuid.uuid4()), str(uuid.uuid4())
    minted = project.mint()
    with Agent(server.url, minted).open() as agent:
        agent.report(received(gone), started(gone, worker="gone@host"), received(stays))
    row = eventually(lambda: (r := project.task(gone))["state"] == "lost" and r, 60)
    assert row["finished_at"] is None and row["runtime_ms"] is None and row["worker_name"] == "gone@host"
    assert [one["task_id"] for one in project.tasks(state="unknown")] == [gone], "the reference's word for it"
    assert project.get("/stats").json()["tasks_by_state"]["lost"] == 1 and project.task(stays)["state"] == "received"
    with Agent(server.url, minted).open() as agent:
        agent.report(succeeded(gone, worker="gone@host"))
    assert project.task(gone)["state"] == "succeeded" and project.task(gone)["id"] == row["id"]
    stats = project.get("/stats").json()
    assert stats["tasks_by_state"]["lost"] == 0 and stats["tasks_succeeded_24h"] == 1


def test_received_at_is_clamped_and_never_moves(sim, project):
    """D5: the earliest word of the first commit, not older than the retention nor more than a minute ahead."""
    agent = sim()
    ahead, old, twice = [str(uuid.uuid4()) for _ in range(3)]
    begin = time.time()
    agent.report(received(ahead, at=now_text(86_400)), received(old, at=now_text(-300 * 86_400)), started(twice, at=now_text(-50)))
    stamp = lambda one: datetime.fromisoformat(project.task(one)["received_at"]).timestamp()  # noqa: E731
    assert begin + 55 < stamp(ahead) < time.time() + 65
    assert begin - 36 * 86_400 < stamp(old) < begin - 34 * 86_400
    before = project.task(twice)
    agent.report(received(twice, at=now_text(-500)))
    after = project.task(twice)
    assert (after["id"], after["received_at"]) == (before["id"], before["received_at"]) and after["queue"] == "default"
    assert after["updated_at"] > before["updated_at"]
    ids = [row["id"] for row in project.walk()]
    assert ids == sorted(ids, reverse=True) and [row["task_id"] for row in project.walk()] == [ahead, twice, old]
