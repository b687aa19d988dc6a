"""A real Celery worker whose agent polls: three more variables, and what a socket brings must come all the same."""

import time

import pytest

from harness.redis import Redis
from harness.shop import Shop
from harness.wait import eventually
from harness.worker import CeleryWorker

pytestmark = pytest.mark.celery


@pytest.fixture(scope="module")
def shop(server, admin):
    """WIRE 12.21: `Z4J_AGENT_ID`, and dev mode over http."""
    redis = Redis().start()
    one = Shop(server, admin, redis, name="poll", queues="default,routed")
    one.worker.variables = variables(one.minted)
    try:
        one.worker.start()
        yield one
    finally:
        one.worker.stop()
        redis.stop()


def variables(minted):
    return {"Z4J_TRANSPORT": "longpoll", "Z4J_AGENT_ID": minted.id, "Z4J_DEV_MODE": "1"}


def test_a_task_has_every_field(shop):
    row = shop.row(shop.send("math.add", 2, 3))
    assert (row["state"], row["name"], row["queue"], row["args"], row["result"]) == ("succeeded", "math.add", "default", [2, 3], "5")
    assert row["worker_name"] == shop.worker.node and row["started_at"] and row["finished_at"]
    kinds = sorted(event["kind"] for event in shop.project.events(row["task_id"]))
    assert kinds == ["task.received", "task.started", "task.succeeded"]


def test_a_flaky_task_counts_its_retries(shop):
    row = shop.row(shop.send("math.flaky", 2, countdown=0.2))
    assert row["state"] == "succeeded" and row["retry_count"] == 2


def test_a_retry_runs_and_does_not_wait_for_the_poll_to_end(shop):
    one = shop.send("math.add", 20, 22)
    shop.row(one)
    before, begun = shop.ran("math.add"), time.monotonic()
    done = shop.act("retry-task", task_id=one)
    assert time.monotonic() - begun < 10, "a poll is held for 30 s"
    assert shop.row(done["result"]["new_task_id"])["result"] == "42" and shop.ran("math.add") == before + 1


def test_a_cancel_stops_a_running_task(shop):
    begun, finished = shop.ran("slow.begin"), shop.ran("slow.end")
    one = shop.send("slow.sleep", 30)
    eventually(lambda: shop.ran("slow.begin") == begun + 1)
    shop.act("cancel-task", task_id=one)
    assert shop.row(one)["state"] == "cancelled" and shop.ran("slow.end") == finished


def test_a_bulk_retry_goes_in_chunks_once_its_engine_is_named(shop):
    """Nobody says hello over long-poll, so the agent's engines are not known and must be named."""
    ids = [shop.send("route.count", n) for n in range(300)]
    eventually(lambda: len(shop.project.tasks(name="route.count", state="succeeded", limit=500)) == 300, 60, every=0.5)
    body = {"agent_id": shop.minted.id, "filter": {"name": "route.count"}, "max": 300}
    shop.project.issue("bulk-retry", expect=422, **body)
    body["filter"]["engine"] = "celery"
    done = shop.outcome(shop.project.issue("bulk-retry", **body), 60)
    assert done["status"] == "succeeded" and done["progress"]["succeeded"] == 300, done
    assert set(done["result"]["new_task_ids"]) == set(ids)
    runs = lambda: shop.redis.client.hvals("ran-by")  # noqa: E731
    eventually(lambda: len(runs()) == 300 and set(runs()) == {b"2"}, 60, every=0.5)


def test_queues_pools_and_limits_are_changed(shop):
    node = shop.worker.node
    shop.knows(node)
    shop.act("add-consumer", worker_name=node, queue="extra")
    eventually(lambda: "extra" in shop.consumes(node), 10, every=0.2)
    shop.act("cancel-consumer", worker_name=node, queue="extra")
    eventually(lambda: "extra" not in shop.consumes(node), 10, every=0.2)
    before = len(shop.processes(node))
    shop.act("pool-resize", worker_name=node, delta=1)
    eventually(lambda: len(shop.processes(node)) == before + 1, 10, every=0.3)
    shop.act("rate-limit", task_name="text.echo", rate="5/s")
    eventually(lambda: shop.limit(node, "text.echo") == "5/s", 10, every=0.2)
    shop.send("math.add", 1, 1, options={"queue": "idle"})
    done = shop.act("purge-queue", queue="idle", observed_depth=1)
    assert done["result"]["purged"] == 1 and shop.waiting("idle") == 0
    pool = set(shop.processes(node))
    shop.act("restart-worker", worker_name=node)
    eventually(lambda: set(shop.processes(node)) - pool, 15, every=0.3, why="no process was replaced")


def test_a_worker_that_was_away_gets_what_waited_and_brings_what_it_kept(server, admin):
    redis = Redis().start()
    shop = Shop(server, admin, redis, name="away")
    shop.worker.variables = variables(shop.minted)
    try:
        shop.worker.start()
        one = shop.send("math.add", 1, 2)
        shop.row(one)
        shop.worker.stop()
        eventually(lambda: shop.project.agent(shop.minted.id)["state"] == "offline", 45, every=0.5)
        command = shop.issue("retry-task", task_id=one)
        assert command["status"] == "issued" and command["agent_state"] == "offline"
        shop.worker.start(wait=False)
        done = shop.outcome(command, 30)
        assert done["status"] == "succeeded", done
        assert shop.row(done["result"]["new_task_id"])["result"] == "3" and shop.ran("math.add") == 2
    finally:
        shop.worker.stop()
        redis.stop()


def test_a_polling_and_a_connected_worker_share_one_token(server, admin):
    """Two processes, two transports, one agent: every command ends once, and every event counts once."""
    redis = Redis().start()
    shop = Shop(server, admin, redis, name="poll")
    shop.worker.variables = variables(shop.minted)
    other = CeleryWorker(redis, server, shop.project, shop.minted, name="sock")
    try:
        for worker in (shop.worker, other):
            worker.start(wait=False)
        for worker in (shop.worker, other):
            worker.wait_online()
        ids = [shop.send("math.add", n, 1) for n in range(8)]
        rows = [shop.row(one) for one in ids]
        assert {row["worker_name"] for row in rows} <= {"poll@test", "sock@test"}
        for one in ids:
            assert len(shop.project.events(one)) == 3
        before = shop.ran("math.add")
        commands = [shop.issue("retry-task", task_id=one) for one in ids]
        assert [shop.outcome(command, 30)["status"] for command in commands] == ["succeeded"] * 8
        eventually(lambda: shop.ran("math.add") == before + 8)
    finally:
        for worker in (shop.worker, other):
            worker.stop()
        redis.stop()
