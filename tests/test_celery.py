"""Real Celery workers with the stock agent and its four variables: what they do must be what the server shows."""

import json
import time
import uuid
from datetime import datetime

import pytest
from celery import chain, group

from harness.client import text_of
from harness.shop import Shop
from harness.wait import eventually, never
from harness.worker import CeleryWorker

pytestmark = pytest.mark.celery


def parse(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.fixture(scope="module")
def shop(server, admin, redis):
    """A prefork worker with -E, as most people run it."""
    one = Shop(server, admin, redis)
    one.worker.start()
    yield one
    one.worker.stop()


# --- every field that an agent can report


def test_a_succeeded_task_has_every_field(shop):
    before = shop.ran("math.add")
    row = shop.row(shop.send("math.add", 2, 3))
    assert shop.ran("math.add") == before + 1
    assert row["engine"] == "celery" and row["project_id"] == shop.project.id
    assert row["name"] == "math.add" and row["queue"] == "default" and row["state"] == "succeeded"
    assert row["args"] == [2, 3] and row["kwargs"] == {} and row["result"] == "5"
    assert row["exception"] is None and row["traceback"] is None
    assert row["retry_count"] == 0 and row["eta"] is None and row["priority"] == "normal"
    assert row["worker_name"] == shop.worker.node
    assert row["parent_task_id"] is None and row["root_task_id"] in (None, row["task_id"])
    assert row["tags"] == [] and isinstance(row["runtime_ms"], int) and row["runtime_ms"] >= 0
    times = [parse(row[name]) for name in ("received_at", "started_at", "finished_at")]
    assert times == sorted(times)
    assert parse(row["created_at"]) <= parse(row["updated_at"])
    kinds = [event["kind"] for event in reversed(shop.project.events(row["task_id"]))]
    assert sorted(kinds) == ["task.received", "task.started", "task.succeeded"]


def test_a_failed_task_says_what_and_where(shop):
    row = shop.row(shop.send("math.fail", "no such thing"))
    assert row["state"] == "failed" and row["exception"] == "ValueError: no such thing"
    assert row["traceback"].startswith("Traceback (most recent call last)") and "raise ValueError" in row["traceback"]
    assert row["result"] is None and row["finished_at"] and row["worker_name"] == shop.worker.node


def test_a_retried_task_counts_its_retries(shop):
    row = shop.row(shop.send("math.flaky", 2, countdown=0.2))
    assert row["state"] == "succeeded" and row["retry_count"] == 2 and row["result"] == "2"
    assert row["parent_task_id"] is None, "a retry names itself as its parent; that is no parent"
    kinds = sorted(event["kind"] for event in shop.project.events(row["task_id"]))
    assert kinds == ["task.received"] * 3 + ["task.retried"] * 2 + ["task.started"] * 3 + ["task.succeeded"]


def test_a_task_waiting_for_its_retry_is_retried(shop):
    one = shop.send("math.flaky", 1, countdown=3)
    row = shop.row(one, state="retried")
    assert row["finished_at"] is None and row["retry_count"] == 1
    assert shop.row(one)["state"] == "succeeded"


def test_a_revoked_task_is_cancelled(shop):
    one = shop.send("math.add", 1, 1, options={"countdown": 3})
    shop.row(one, state="received")  # a worker that hears of the revocation first does not report the task's receipt
    shop.app.control.revoke(one)
    row = shop.row(one)
    assert row["state"] == "cancelled" and row["finished_at"] and row["result"] is None


def test_a_chain_is_a_tree(shop):
    result = chain(
        shop.app.signature("math.add", (1, 1)), shop.app.signature("math.add", (3,)), shop.app.signature("math.add", (4,))
    )()
    third, second = result.id, result.parent.id
    first = result.parent.parent.id
    shop.row(third)
    assert shop.row(third)["result"] == "9"
    for one, parent in ((first, None), (second, first), (third, second)):
        row = shop.row(one)
        assert row["parent_task_id"] == parent
        tree = shop.project.tree(one)
        assert tree["root_task_id"] == first
        assert [node["task_id"] for node in tree["nodes"]] == [first, second, third]


def test_a_group_is_seen_whole(shop):
    result = group(shop.app.signature("math.add", (n, n)) for n in range(5))()
    for n, child in enumerate(result.children):
        row = shop.row(child.id)
        assert row["result"] == str(2 * n) and row["args"] == [n, n]


def test_unicode_survives(shop):
    text = "héllo ✓ 😀 ключ \u2028 \"quoted\" \\ back"
    row = shop.row(shop.send("text.echo", text, ключ=text))
    assert row["args"] == [text] and row["kwargs"] == {"ключ": text}
    assert row["result"] == f"'{text}'", "Celery's own way to print it"
    assert shop.project.tasks(search=row["task_id"])[0] == row


def test_secrets_in_arguments_are_nowhere(shop, server):
    one = shop.send(
        "email.send", "dora.private@corp.example", subject="hello", password="Hidden-Pass-77", api_key="sk_live_4242424242424242"
    )
    row = shop.row(one)
    assert row["kwargs"]["subject"] == "hello"
    everywhere = text_of([row, shop.project.events(one), shop.project.walk()]) + server.log()
    for secret in ("Hidden-Pass-77", "sk_live_4242424242424242", "dora.private"):
        assert secret not in everywhere


def test_tags_and_priority_of_the_task_are_kept(shop):
    row = shop.row(shop.send("billing.charge", 5))
    assert row["tags"] == ["billing", "eu"] and row["priority"] == "high"
    assert row["task_id"] in [task["task_id"] for task in shop.project.tasks(priority="high")]


# --- commands with their effect


def test_a_retry_really_runs_a_new_task(shop):
    one = shop.send("math.add", 20, 22)
    shop.row(one)
    before = shop.ran("math.add")
    command = shop.issue("retry-task", task_id=one)
    done = shop.outcome(command)
    assert done["status"] == "succeeded" and done["delivered"] == "yes"
    new = done["result"]["new_task_id"]
    row = shop.row(new)
    assert new != one and row["name"] == "math.add" and row["args"] == [20, 22] and row["result"] == "42"
    assert shop.ran("math.add") == before + 1
    assert_audited(shop, done, "retry_task")


def test_a_retry_with_other_arguments_runs_with_them(shop):
    one = shop.send("text.echo", "old")
    shop.row(one)
    command = shop.issue("retry-task", task_id=one, override_args=["new ✓"], override_kwargs={"n": 1.5})
    row = shop.row(shop.outcome(command)["result"]["new_task_id"])
    assert row["args"] == ["new ✓"] and row["kwargs"] == {"n": 1.5}
    half = shop.issue("retry-task", task_id=one, override_kwargs={"n": 2})
    row = shop.row(shop.outcome(half)["result"]["new_task_id"])
    assert row["args"] == ["old"] and row["kwargs"] == {"n": 2}


def test_a_retry_of_a_task_that_nobody_knows_fails_with_the_agents_words(shop):
    done = shop.outcome(shop.issue("retry-task", task_id=str(uuid.uuid4())))
    assert done["status"] == "failed" and done["error"] and done["delivered"] == "yes"


def test_a_cancel_really_stops_a_running_task(shop):
    begun, finished = shop.ran("slow.begin"), shop.ran("slow.end")
    one = shop.send("slow.sleep", 30)
    eventually(lambda: shop.ran("slow.begin") == begun + 1)
    shop.row(one, state="started")
    done = shop.outcome(shop.issue("cancel-task", task_id=one))
    assert done["status"] == "succeeded" and done["result"]["terminated"] is True
    row = shop.row(one)
    assert row["state"] == "cancelled"
    assert shop.ran("slow.end") == finished
    kinds = [event["kind"] for event in shop.project.events(one)]
    assert kinds.count("task.revoked") == 1, "both channels of the agent report it; it happened once"
    assert_audited(shop, done, "cancel_task")


def assert_audited(shop, command, action):
    answer = shop.project.get("/audit", expect=None)
    if answer.status_code == 404:
        pytest.skip("GET audit is not served yet; everything before held")
    mine = {entry["action"]: entry for entry in answer.json()["items"] if entry["command_id"] == command["id"]}
    assert mine[f"command.issue.{action}"]["seq"] == command["audit"]["issued_seq"]
    assert mine["command.completed"]["seq"] == command["audit"]["outcome_seq"]


# --- what the agent is


def test_the_agent_and_its_worker_are_listed(shop):
    agent = shop.project.agent(shop.minted.id)
    assert agent["engine_adapters"] == ["celery"] and "retry_task" in agent["capabilities"]["celery"]
    assert agent["agent_version"] == "1.13.0"
    pairs = eventually(lambda: shop.project.get(f"/agents/{shop.minted.id}/workers").json(), 30)
    assert [(pair["agent_id"], pair["worker_name"]) for pair in pairs] == [(shop.minted.id, shop.worker.node)]
    worker = shop.project.get("/workers").json()[0]
    assert worker["name"] == shop.worker.node and worker["state"] == "online" and worker["concurrency"] == 2
    assert worker["queues"] == ["default"] and worker["pid"] == shop.worker.process.pid
    assert "-E" not in json.dumps(agent)


def test_events_buffered_while_the_server_is_away_arrive_once(own_server, redis):
    from conftest import login

    server = own_server(heartbeat_seconds=1)
    shop = Shop(server, login(server), redis, name="away", queues="away")
    shop.worker.start()
    try:
        server.kill()
        ids = [shop.send("math.add", n, n, options={"queue": "away"}) for n in range(20)]
        eventually(lambda: shop.worker.log().count("succeeded in") >= 20, 20)
        server.start()
        shop.project = shop.project.through(login(server))
        eventually(lambda: len(shop.project.tasks(state="succeeded")) == 20, 60, every=0.5)
        assert {row["task_id"] for row in shop.project.walk()} == set(ids)
        for one in ids[:5]:
            assert len(shop.project.events(one)) == 3
    finally:
        shop.worker.stop()


# --- once, however many processes tell it


def physical(row, events):
    """What D14 counts, for comparison with what really happened."""
    kinds = [event["kind"].removeprefix("task.") for event in events]
    return {"retries": row["retry_count"], **{kind: kinds.count(kind) for kind in ("started", "retried", "succeeded", "failed")}}


def flaky_count_once(shop, task_ids, retries):
    wanted = {"retries": retries, "started": retries + 1, "retried": retries, "succeeded": 1, "failed": 0}

    def found():
        return [physical(shop.project.task(one), shop.project.events(one)) for one in task_ids]

    for one in task_ids:
        shop.row(one, deadline=30)
    eventually(lambda: all(counts == wanted for counts in found()), 10, why=f"expected {wanted}, have {found()}")
    never(lambda: any(counts != wanted for counts in found()), during=2, every=0.4, why="a slower reporter moved counts")


def test_two_workers_on_one_broker_count_once(server, admin):
    """Each worker hears the whole broker and reports everything."""
    from harness.redis import Redis

    redis = Redis().start()
    shop = Shop(server, admin, redis, name="a")
    second = CeleryWorker(redis, server, shop.project, shop.minted, name="b")
    third = CeleryWorker(redis, server, shop.project, shop.project.mint(), name="c", concurrency=1)
    try:
        for worker in (shop.worker, second, third):
            worker.start(wait=False)
        for worker in (shop.worker, second, third):
            worker.wait_online()
        flaky = [shop.send("math.flaky", 2, countdown=0.3) for _ in range(6)]
        plain = [shop.send("math.add", n, 1) for n in range(10)]
        flaky_count_once(shop, flaky, 2)
        for one in plain:
            row = shop.row(one)
            kinds = sorted(event["kind"] for event in shop.project.events(one))
            assert row["state"] == "succeeded" and kinds == ["task.received", "task.started", "task.succeeded"]
        assert {row["worker_name"] for row in shop.project.walk()} <= {"a@test", "b@test", "c@test"}
    finally:
        for worker in (shop.worker, second, third):
            worker.stop()
        redis.stop()


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_pool_that_reports_everything_twice_counts_once(server, admin, pool):
    from harness.redis import Redis

    redis = Redis().start()
    shop = Shop(server, admin, redis, name=pool, pool=pool)
    shop.worker.start()
    try:
        flaky = shop.send("math.flaky", 2, countdown=0.3)
        bad = shop.send("math.fail", "twice told")
        flaky_count_once(shop, [flaky], 2)
        row = shop.row(bad)
        eventually(lambda: shop.project.task(bad)["worker_name"] == shop.worker.node, 5)
        row = shop.project.task(bad)
        assert row["exception"] == "ValueError: twice told" and row["name"] == "math.fail" and row["traceback"]
        assert [e["kind"] for e in shop.project.events(bad)].count("task.failed") == 1
    finally:
        shop.worker.stop()
        redis.stop()


def test_a_worker_without_events_is_recognised_and_told_what_to_do(server, admin):
    from harness.redis import Redis

    redis = Redis().start()
    shop = Shop(server, admin, redis, name="quiet", events=False)
    shop.worker.start()
    try:
        for n in range(25):
            shop.send("math.add", n, 1)
        eventually(lambda: "-E" in json.dumps(shop.project.agent(shop.minted.id)), 30, every=0.3, why="no advice")
        assert len(shop.project.tasks(limit=100)) == 25
    finally:
        shop.worker.stop()
        redis.stop()


def test_a_stopped_worker_goes_offline(server, admin):
    from harness.redis import Redis

    redis = Redis().start()
    shop = Shop(server, admin, redis, name="gone")
    shop.worker.start()
    shop.worker.stop()
    redis.stop()
    begun = time.monotonic()
    eventually(lambda: shop.project.agent(shop.minted.id)["state"] == "offline", 11)
    assert time.monotonic() - begun < 11
