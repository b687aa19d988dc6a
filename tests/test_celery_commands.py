"""Every verb on real Celery workers, judged by what the workers do: asked over the broker, counted in Redis.

Two worker processes share one token, as a deployment with several workers does; a command for one of them must leave the
other alone. What the agent cannot know is written beside each test: it answers most worker verbs with success as soon as
the broadcast is sent (WIRE 6.3).
"""

from datetime import datetime

import pytest

from harness.redis import Redis
from harness.shop import Shop
from harness.wait import eventually, never
from harness.worker import CeleryWorker

pytestmark = pytest.mark.celery


@pytest.fixture(scope="module")
def pair(server, admin):
    """Two prefork workers on one token: a@test consumes `default` and `left`, b@test consumes `right`."""
    redis = Redis().start()
    shop = Shop(server, admin, redis, name="a", queues="default,left")
    shop.other = CeleryWorker(redis, server, shop.project, shop.minted, name="b", queues="right")
    workers = (shop.worker, shop.other)
    try:
        for worker in workers:
            worker.start(wait=False)
        for worker in workers:
            worker.wait_online()
        shop.knows("a@test", "b@test")
        yield shop
    finally:
        for worker in workers:
            worker.stop()
        redis.stop()


def fill(shop, queue, count):
    """Messages in a queue that nobody consumes."""
    for n in range(count):
        shop.send("math.add", n, 1, options={"queue": queue})
    assert shop.waiting(queue) == count


# --- queues


def test_a_purge_with_the_observed_depth_empties_the_queue_and_no_other(pair):
    fill(pair, "idle", 5)
    fill(pair, "spare", 2)
    ran = pair.ran("math.add")
    done = pair.act("purge-queue", queue="idle", observed_depth=5)
    assert done["result"] == {"queue": "idle", "depth_before": 5, "purged": 5, "force": False}
    assert pair.waiting("idle") == 0 and pair.waiting("spare") == 2
    assert pair.ran("math.add") == ran
    pair.redis.client.delete("spare")


def test_a_purge_with_another_depth_is_refused_by_the_agent_and_touches_nothing(pair):
    fill(pair, "idle", 3)
    done = pair.outcome(pair.issue("purge-queue", queue="idle", observed_depth=4))
    assert done["status"] == "failed" and "confirm_token" in done["error"]
    assert pair.waiting("idle") == 3
    pair.redis.client.delete("idle")


def test_a_forced_purge_empties_the_queue_and_is_critical_in_the_agents_log(pair):
    """M103; the server's audit entry carries `force`."""
    fill(pair, "idle", 4)
    done = pair.act("purge-queue", queue="idle", force=True)
    assert done["result"]["purged"] == 4 and done["result"]["force"] is True
    assert pair.waiting("idle") == 0
    logs = pair.worker.log() + pair.other.log()
    assert any("CRITICAL" in line and "purge" in line.lower() for line in logs.splitlines())
    entry = next(e for e in pair.project.audit(force="true") if e["command_id"] == done["id"])
    assert entry["seq"] == done["audit"]["issued_seq"]


def test_an_empty_queue_cannot_be_measured_so_only_force_purges_it(pair):
    """WIRE 6.4: on Redis the key of an empty queue does not exist."""
    done = pair.outcome(pair.issue("purge-queue", queue="idle", observed_depth=0))
    assert done["status"] == "failed" and "depth" in done["error"]
    done = pair.act("purge-queue", queue="idle", force=True)
    assert done["result"]["purged"] == 0 and done["result"]["depth_before"] is None


# --- workers


def test_a_restart_replaces_the_pool_of_this_worker_only_and_running_work_ends(pair):
    mine, others = set(pair.processes("a@test")), set(pair.processes("b@test"))
    begun, finished = pair.ran("slow.begin"), pair.ran("slow.end")
    one = pair.send("slow.sleep", 4)
    eventually(lambda: pair.ran("slow.begin") == begun + 1)
    pair.act("restart-worker", worker_name="a@test")
    eventually(lambda: set(pair.processes("a@test")) - mine, 15, every=0.3, why="no process was replaced")
    row = pair.row(one)
    assert row["state"] == "succeeded" and pair.ran("slow.end") == finished + 1
    assert set(pair.processes("b@test")) == others, "another worker was touched"
    assert pair.worker.process.poll() is None, "the worker's main process lives on"
    assert pair.row(pair.send("math.add", 1, 1))["state"] == "succeeded"


def test_the_pool_really_grows_and_shrinks(pair):
    others = pair.processes("b@test")
    before = len(pair.processes("a@test"))
    assert pair.act("pool-resize", worker_name="a@test", delta=2)["result"] == {"worker": "a@test", "delta": 2}
    eventually(lambda: len(pair.processes("a@test")) == before + 2, 10, every=0.3)
    pair.act("pool-resize", worker_name="a@test", delta=-2)
    eventually(lambda: len(pair.processes("a@test")) == before, 15, every=0.3)
    assert pair.processes("b@test") == others
    assert pair.row(pair.send("math.add", 2, 2))["state"] == "succeeded"


def test_a_worker_starts_to_consume_a_queue_and_stops_again_and_keeps_the_others(pair):
    others = pair.consumes("b@test")
    pair.act("add-consumer", worker_name="a@test", queue="extra")
    eventually(lambda: pair.consumes("a@test") == {"default", "left", "extra"}, 10, every=0.2)
    assert pair.row(pair.send("math.add", 3, 3, options={"queue": "extra"}))["worker_name"] == "a@test"
    pair.act("cancel-consumer", worker_name="a@test", queue="extra")
    eventually(lambda: pair.consumes("a@test") == {"default", "left"}, 10, every=0.2)
    ran = pair.ran("math.add")
    pair.send("math.add", 4, 4, options={"queue": "extra"})
    for queue in ("default", "left"):
        assert pair.row(pair.send("math.add", 5, 5, options={"queue": queue}))["state"] == "succeeded"
    assert pair.waiting("extra") == 1 and pair.ran("math.add") == ran + 2
    assert pair.consumes("b@test") == others
    pair.redis.client.delete("extra")


def test_a_rate_limit_of_one_worker_is_set_and_cleared_there_only(pair):
    pair.act("rate-limit", task_name="text.echo", rate="7/m", worker_name="a@test")
    eventually(lambda: pair.limit("a@test", "text.echo") == "7/m", 10, every=0.2)
    assert pair.limit("b@test", "text.echo") is None and pair.limit("a@test", "math.add") is None
    pair.act("rate-limit", task_name="text.echo", rate="0", worker_name="a@test")
    eventually(lambda: pair.limit("a@test", "text.echo") in (None, "0"), 10, every=0.2)
    rows = [pair.row(pair.send("text.echo", n)) for n in range(3)]
    assert [row["state"] for row in rows] == ["succeeded"] * 3, "nothing is held back any more"


@pytest.mark.parametrize("form", [{}, {"worker_name": None}, {"worker_name": ""}], ids=["absent", "null", "empty"])
def test_a_rate_limit_without_worker_reaches_every_worker(pair, form):
    """M129: all three forms are the same broadcast."""
    done = pair.act("rate-limit", task_name="route.me", rate="5/h", **form)
    assert done["result"] == {"task_name": "route.me", "rate": "5/h", "worker": None}
    for node in ("a@test", "b@test"):
        eventually(lambda: pair.limit(node, "route.me") == "5/h", 10, every=0.2)
    pair.act("rate-limit", task_name="route.me", rate="0", **form)
    for node in ("a@test", "b@test"):
        eventually(lambda: pair.limit(node, "route.me") in (None, "0"), 10, every=0.2)


def test_a_rate_limit_really_holds_tasks_back(pair):
    pair.act("rate-limit", task_name="route.me", rate="30/m", worker_name="b@test")
    eventually(lambda: pair.limit("b@test", "route.me") == "30/m", 10, every=0.2)
    rows = [pair.row(one) for one in [pair.send("route.me", options={"queue": "right"}) for _ in range(3)]]
    starts = sorted(datetime.fromisoformat(row["started_at"]) for row in rows)
    gaps = [(after - before).total_seconds() for before, after in zip(starts, starts[1:])]
    assert all(gap > 1.5 for gap in gaps), gaps
    pair.act("rate-limit", task_name="route.me", rate="0", worker_name="b@test")


def test_a_worker_that_no_report_names_is_refused_and_nothing_is_minted(pair):
    before = pair.project.commands()
    for verb, more in (("restart-worker", {}), ("pool-resize", {"delta": 1}), ("add-consumer", {"queue": "q"})):
        pair.project.issue(verb, expect=422, agent_id=pair.minted.id, worker_name="ghost@test", **more)
    assert pair.project.commands() == before


# --- tasks


def test_a_cancel_keeps_a_waiting_task_from_running(pair):
    ran = pair.ran("math.add")
    one = pair.send("math.add", 6, 6, options={"countdown": 3})
    pair.act("cancel-task", task_id=one)
    assert pair.row(one)["state"] == "cancelled"
    assert pair.ran("math.add") == ran


def test_a_cancel_of_one_task_leaves_the_other_running_task_alone(pair):
    begun, finished = pair.ran("slow.begin"), pair.ran("slow.end")
    doomed, spared = pair.send("slow.sleep", 30), pair.send("slow.sleep", 3, options={"queue": "right"})
    eventually(lambda: pair.ran("slow.begin") == begun + 2)
    pair.act("cancel-task", task_id=doomed)
    assert pair.row(doomed)["state"] == "cancelled" and pair.row(spared)["state"] == "succeeded"
    assert pair.ran("slow.end") == finished + 1


def test_a_retry_at_a_later_time_runs_then_and_not_before(pair):
    one = pair.send("math.add", 7, 7)
    pair.row(one)
    ran = pair.ran("math.add")
    done = pair.act("retry-task", task_id=one, eta_seconds=3)
    never(lambda: pair.ran("math.add") > ran, during=1.5, every=0.2, why="it ran at once")
    row = pair.row(done["result"]["new_task_id"])
    assert row["state"] == "succeeded" and pair.ran("math.add") == ran + 1
    assert datetime.fromisoformat(row["eta"]) <= datetime.fromisoformat(row["started_at"]), "M38: our command said when"


# --- the other pools


@pytest.fixture(scope="module", params=["solo", "threads"])
def pooled(request, server, admin):
    redis = Redis().start()
    shop = Shop(server, admin, redis, name=request.param, pool=request.param)
    shop.pool = request.param
    try:
        shop.worker.start()
        shop.knows(shop.worker.node)
        yield shop
    finally:
        shop.worker.stop()
        redis.stop()


def test_another_pool_retries_alone_and_in_bulk(pooled):
    ids = [pooled.send("math.add", n, 1) for n in range(3)]
    for one in ids:
        pooled.row(one)
    before = pooled.ran("math.add")
    done = pooled.act("retry-task", task_id=ids[0])
    assert pooled.row(done["result"]["new_task_id"])["result"] == 1, "the worker's own signal tells the value itself"
    assert pooled.ran("math.add") == before + 1
    done = pooled.outcome(pooled.project.issue("bulk-retry", agent_id=pooled.minted.id, filter={"task_ids": ids[1:]}))
    assert done["status"] == "succeeded" and set(done["result"]["new_task_ids"]) == set(ids[1:])
    eventually(lambda: pooled.ran("math.add") == before + 3)


def test_another_pool_cancels_what_waits(pooled):
    ran = pooled.ran("math.add")
    one = pooled.send("math.add", 1, 1, options={"countdown": 3})
    pooled.act("cancel-task", task_id=one)
    assert pooled.row(one)["state"] == "cancelled" and pooled.ran("math.add") == ran


def test_another_pool_changes_its_queues_and_limits(pooled):
    node = pooled.worker.node
    pooled.act("add-consumer", worker_name=node, queue="extra")
    eventually(lambda: pooled.consumes(node) == {"default", "extra"}, 10, every=0.2)
    pooled.act("cancel-consumer", worker_name=node, queue="extra")
    eventually(lambda: pooled.consumes(node) == {"default"}, 10, every=0.2)
    pooled.act("rate-limit", task_name="math.add", rate="9/m", worker_name=node)
    eventually(lambda: pooled.limit(node, "math.add") == "9/m", 10, every=0.2)
    pooled.act("rate-limit", task_name="math.add", rate="0")
    eventually(lambda: pooled.limit(node, "math.add") in (None, "0"), 10, every=0.2)


def test_another_pool_purges(pooled):
    fill(pooled, "idle", 3)
    assert pooled.act("purge-queue", queue="idle", observed_depth=3)["result"]["purged"] == 3
    assert pooled.waiting("idle") == 0


def test_another_pool_does_not_stop_running_work_and_cannot_be_resized_or_restarted(pooled):
    """Solo and threads have no processes to end, grow or replace. The agent answers success as soon as it has asked; the
    worker goes on with the pool it has, and the task to its end. Nothing else in the worker suffers."""
    node, pid = pooled.worker.node, pooled.worker.process.pid
    begun, finished = pooled.ran("slow.begin"), pooled.ran("slow.end")
    one = pooled.send("slow.sleep", 3)
    eventually(lambda: pooled.ran("slow.begin") == begun + 1)
    pooled.act("cancel-task", task_id=one)
    eventually(lambda: pooled.ran("slow.end") == finished + 1)
    for verb, more in (("pool-resize", {"delta": 1}), ("pool-resize", {"delta": -1}), ("restart-worker", {})):
        pooled.act(verb, worker_name=node, **more)
    assert pooled.row(pooled.send("math.add", 1, 2))["result"] == 3
    assert pooled.worker.process.poll() is None and pooled.worker.process.pid == pid
