"""bulk-retry: what a filter means, frozen when the command is issued, sent chunk by chunk, and no id touched twice."""

import base64
import json
import time
import uuid

import pytest

from conftest import login
from harness.agent import Agent, bulk_result, event, failed, now_text, received, succeed_everything
from harness.client import Project
from harness.commands import ENDED
from harness.redis import Redis
from harness.shop import Shop
from harness.wait import eventually
from harness.worker import CeleryWorker

STORES = [pytest.param("embedded", marks=pytest.mark.embedded), pytest.param("cql", marks=pytest.mark.cql)]


def new_ids(count):
    return [str(uuid.uuid4()) for _ in range(count)]


def seed(server, project, ids, name="route.count", at=-3600.0):
    """Failed tasks as an agent reports them, a millisecond apart, the first the oldest; newest first is `ids[::-1]`."""
    with Agent(server.url, project.mint()).open() as agent:
        items = []
        for n, one in enumerate(ids):
            when = now_text(at + n / 1000)
            items += [received(one, name=name, at=when, args=[n], kwargs={}), failed(one, at=when)]
        batches = [agent.batch(*items[start : start + 500]) for start in range(0, len(items), 500)]
        for batch in batches:
            agent.wait_ack(batch, 60)


def remember(redis, ids, name="route.count"):
    """What a result backend keeps of each task (`result_extended`), so that a real agent can run it again."""
    with redis.client.pipeline() as pipe:
        for n, one in enumerate(ids):
            meta = {
                "status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": ["bad"], "exc_module": "builtins"},
                "traceback": None, "children": [], "date_done": now_text(), "task_id": one, "name": name, "args": [n],
                "kwargs": {}, "worker": "gone@test", "retries": 0, "queue": "routed",
            }  # fmt: skip
            pipe.set(f"celery-task-meta-{one}", json.dumps(meta))
        pipe.execute()


def bulk(project, agent_id, expect=202, **body):
    return project.issue("bulk-retry", expect=expect, agent_id=agent_id, **body)


def ended(project, command_id, deadline=30):
    return eventually(lambda: (c := project.command(command_id))["status"] in ENDED and c, deadline, every=0.2)


def counts(progress):
    return [progress[name] for name in ("total", "succeeded", "failed", "skipped", "pending")]


# --- with a simulated agent: what is sent when


@pytest.fixture
def failures(server, project):
    """600 failed tasks: three chunks. Oldest first."""
    ids = new_ids(600)
    seed(server, project, ids, name="a.b")
    return ids


def test_the_set_is_frozen_chunked_and_sent_one_frame_at_a_time(sim, project, server, failures):
    agent = sim()
    command = bulk(project, agent.minted.id, filter={"name": "a.b"})
    assert counts(command["progress"]) == [600, 0, 0, 0, 600]
    first = agent.next_command()
    seed(server, project, new_ids(5), name="a.b", at=-10)
    project.post("/tasks/bulk-delete", {"task_ids": failures[:3]}, expect=200)
    frames, sizes = [first], []
    while True:
        assert project.command(command["id"])["status"] == "dispatched"
        assert len(agent.command_log) == len(frames), "the next chunk came before the last one's result"
        ids = frames[-1]["payload"]["parameters"]["filter"]["task_ids"]
        sizes.append(len(ids))
        assert len(ids) <= 250 and len(json.dumps(frames[-1])) <= 64 * 1024
        agent.answer(frames[-1], "success", bulk_result(frames[-1]["payload"]["parameters"]))
        if sum(sizes) == 600:
            break
        frames.append(agent.next_command())
        progress = project.command(command["id"])["progress"]
        assert counts(progress) == [600, sum(sizes), 0, 0, 600 - sum(sizes)], "readable while it runs"
    sent = [one for frame in frames for one in frame["payload"]["parameters"]["filter"]["task_ids"]]
    assert sent == failures[::-1], "newest first, as it was when the command was issued"
    assert len({frame["id"] for frame in frames}) == len(frames) >= 3, "each chunk is a frame with an id of its own"
    done = ended(project, command["id"])
    assert done["status"] == "succeeded" and counts(done["progress"]) == [600, 600, 0, 0, 0]
    assert set(done["result"]["new_task_ids"]) == set(failures)


def test_a_failed_chunk_does_not_stop_the_next_and_fails_the_command(sim, project, failures):
    agent = sim()
    command = bulk(project, agent.minted.id, filter={"name": "a.b"})
    first = agent.next_command()
    agent.answer(first, "failed", None, "the broker is away")
    mixed = agent.next_command()
    ids = mixed["payload"]["parameters"]["filter"]["task_ids"]
    result = bulk_result(mixed["payload"]["parameters"])
    result["failures"] = {one: "no such task" for one in ids[:10]}
    result["new_task_ids"] = {one: f"new-{one}" for one in ids[10:-5]}
    result |= {"succeeded": len(ids) - 15, "failed": 10, "skipped": 5}
    agent.answer(mixed, "success", result)
    rest = 600 - len(first["payload"]["parameters"]["filter"]["task_ids"]) - len(ids)
    while rest > 0:
        frame = agent.next_command()
        agent.answer(frame, "success", bulk_result(frame["payload"]["parameters"]))
        rest -= len(frame["payload"]["parameters"]["filter"]["task_ids"])
    done = ended(project, command["id"])
    lost = first["payload"]["parameters"]["filter"]["task_ids"]
    assert done["status"] == "failed" and "broker is away" in done["error"]
    assert counts(done["progress"]) == [600, 600 - len(lost) - 15, len(lost) + 10, 5, 0]
    outcome = done["result"]
    assert {one: outcome["failures"][one] for one in lost} == {one: "the broker is away" for one in lost}
    assert {one: outcome["failures"][one] for one in ids[:10]} == {one: "no such task" for one in ids[:10]}
    assert sorted(outcome["skipped_ids"]) == sorted(ids[-5:])
    assert outcome["new_task_ids"][ids[10]] == f"new-{ids[10]}"


def test_a_chunk_without_an_answer_ends_the_command_and_the_rest_is_skipped(own_server):
    server = own_server(command_timeout_seconds=2)
    project = Project.create(login(server))
    ids = new_ids(600)
    seed(server, project, ids)
    with Agent(server.url, project.mint()).open() as agent:
        command = bulk(project, agent.minted.id, filter={"state": "failed"})
        frame = agent.next_command()
        first = frame["payload"]["parameters"]["filter"]["task_ids"]
        agent.answer(frame, "success", bulk_result(frame["payload"]["parameters"]))
        agent.next_command()
        done = ended(project, command["id"])
        assert done["status"] == "timed_out" and "may have run" in done["error"]
        assert counts(done["progress"]) == [600, len(first), 0, 600 - len(first), 0]
        assert set(done["result"]["new_task_ids"]) == set(first)
        assert set(done["result"]["skipped_ids"]) == set(ids) - set(first)
        assert len(agent.command_log) == 2, "nothing is sent after the end"


FILTERS = [
    {"state": "failed"},
    {"status": "failure", "name": "job.1"},
    {"queue": "q2"},
    {"worker": "w1@host", "state": "failed"},
    {"priority": "high,low"},
    {"since": ..., "name": "job.0"},
    {"until": ..., "state": "failed"},
]


@pytest.fixture(scope="module")
def assorted(server, admin):
    """Tasks that differ in everything a filter may name, and an agent that does what it is told."""

    class Assorted:
        project = Project.create(admin)
        agent = Agent(server.url, project.mint(), on_command=succeed_everything).open()

    ids = new_ids(60)
    for n, one in enumerate(ids):
        at = -600 + n * 5
        first = received(
            one, name=f"job.{n % 3}", queue=f"q{n % 4}", at=now_text(at), priority=("high", "low", "normal")[n // 2 % 3]
        )
        items = [first] if n % 5 == 0 else [first, failed(one, worker=f"w{n % 2}@host", at=now_text(at + 1))]
        Assorted.agent.batch(*items)
    Assorted.middle = now_text(-450)
    eventually(lambda: len(Assorted.project.walk(limit=500)) == 60)
    yield Assorted
    Assorted.agent.close()


@pytest.mark.parametrize("wanted", FILTERS, ids=lambda members: "+".join(members))
@pytest.mark.parametrize("most", [7, 1000])
def test_a_run_takes_what_the_dry_run_said(assorted, people, wanted, most):
    """Each filter means what it means in a list, newest first, up to `max`; the dry run mints nothing."""
    project, agent = assorted.project, assorted.agent
    wanted = {name: assorted.middle if value is ... else value for name, value in wanted.items()}
    as_list = {("state" if name == "status" else name): value for name, value in wanted.items()}
    listed = [row["task_id"] for row in project.walk(limit=500, engine="celery", **as_list)][:most]
    assert listed, "a filter that matches nothing proves nothing"
    before = len(project.commands(limit=500))
    said = bulk(project, agent.minted.id, expect=200, filter=wanted, max=most, dry_run=True)
    assert said == {"count": len(listed), "task_ids": listed}
    assert len(project.commands(limit=500)) == before
    # Bulk actions are limited per person and minute, so each run has a person of its own.
    operator = people.member(project, "operator")
    done = ended(operator, bulk(operator, agent.minted.id, filter=wanted, max=most)["id"])
    sent = agent.command_log[-1]["payload"]["parameters"]["filter"]["task_ids"]
    assert sent == listed and set(done["result"]["new_task_ids"]) == set(listed)


def test_an_engine_without_bulk_retry_ends_unsupported_and_freezes_nothing(sim, project):
    agent = sim(engines=["huey"], capabilities={"huey": ["submit_task"]})
    one = str(uuid.uuid4())
    agent.report(event("failed", one, engine="huey", task_name="t", exception="ValueError: x"))
    command = bulk(project, agent.minted.id, filter={"state": "failed"})
    done = ended(project, command["id"])
    assert done["status"] == "failed" and done["result"]["reason"] == "unsupported" and done["result"]["ok"] is False
    assert done["delivered"] == "no" and agent.command_log == []
    assert counts(done["progress"]) == [1, 0, 0, 1, 0]


# --- with real Celery workers


def args_in(redis, queue):
    """The first argument of every message that waits in a queue."""
    messages = (json.loads(message) for message in redis.client.lrange(queue, 0, -1))
    return [json.loads(base64.b64decode(message["body"]))[0][0] for message in messages]


@pytest.mark.xdist_group("ten thousand")
@pytest.mark.celery
@pytest.mark.timeout(400)
def test_ten_thousand_ids_are_retried_once_each_in_bounded_time(server, admin):
    """The retried tasks go to a queue that nobody consumes, where each of them can be counted."""
    redis = Redis().start()
    shop = Shop(server, admin, redis, name="bulk")
    ids = new_ids(10_000)
    try:
        seed(server, shop.project, ids)
        remember(redis, ids)
        shop.worker.start()
        said = bulk(shop.project, shop.minted.id, expect=200, filter={"name": "route.count"}, max=10_000, dry_run=True)
        assert said == {"count": 10_000, "task_ids": ids[: -101 : -1]}
        begun = time.monotonic()
        command = bulk(shop.project, shop.minted.id, filter={"name": "route.count"}, max=10_000)
        answered = time.monotonic() - begun
        seen = []

        def over():
            found = shop.project.command(command["id"])
            seen.append(counts(found["progress"]))
            return found["status"] in ENDED and found

        done = eventually(over, 300, every=0.25)
        took = time.monotonic() - begun
        print(f"10 000 ids: answered after {answered:.2f} s, over after {took:.1f} s, {len(seen)} looks at the progress")
        assert done["status"] == "succeeded" and counts(done["progress"]) == [10_000, 10_000, 0, 0, 0]
        assert seen == sorted(seen, key=lambda one: one[1]) and len({one[1] for one in seen}) > 5
        assert answered < 10 and took < 240
        new = done["result"]["new_task_ids"]
        assert set(new) == set(ids) and len(set(new.values())) == 10_000
        assert sorted(args_in(redis, "routed")) == list(range(10_000))
    finally:
        shop.worker.stop()
        redis.stop()


@pytest.mark.xdist_group("killed")
@pytest.mark.celery
@pytest.mark.timeout(240)
@pytest.mark.parametrize("after", [0, 0.25], ids=["between", "within"])
@pytest.mark.parametrize("store", STORES)
def test_a_kill_in_the_middle_runs_no_id_twice(own_server, store, after):
    """Between chunks, the frame of the next may have left or not; within one, the agent drops the chunk half done when its
    connection breaks, and reports nothing. Either way nothing is sent again, and the command ends with that chunk unless its
    result came through. What was retried waits in a queue of its own, and runs when all is over: a hash counts how often."""
    server = own_server(store=store, heartbeat_seconds=2, command_timeout_seconds=20)
    redis = Redis().start()
    shop = Shop(server, login(server), redis, name="killed")
    runner = CeleryWorker(redis, server, shop.project, shop.project.mint(), name="runner", queues="routed")
    total = 1000
    ids = new_ids(total)
    try:
        seed(server, shop.project, ids)
        remember(redis, ids)
        shop.worker.start()
        command = bulk(shop.project, shop.minted.id, filter={"state": "failed"}, max=total)

        def in_the_middle():
            progress = shop.project.command(command["id"])["progress"]
            return 0 < progress["succeeded"] < total and progress

        at = eventually(in_the_middle, 30, every=0.01)
        time.sleep(after)
        server.kill()
        server.start(deadline=120)
        shop.project = runner.project = shop.project.through(login(server))
        done = ended(shop.project, command["id"], 120)
        assert done["status"] in ("succeeded", "timed_out"), done
        succeeded, skipped = set(done["result"]["new_task_ids"]), set(done["result"]["skipped_ids"])
        assert succeeded | skipped == set(ids) and not succeeded & skipped and not done["result"]["failures"]
        assert len(succeeded) >= at["succeeded"]
        queued = args_in(redis, "routed")
        runner.start()
        eventually(lambda: redis.client.hlen("ran-by") == len(set(queued)), 60, every=0.3)
        runs = {int(n): int(times) for n, times in redis.client.hgetall("ran-by").items()}
        assert set(runs.values()) == {1} and len(queued) == len(runs), "an id ran twice"
        assert {ids.index(one) for one in succeeded} <= set(runs)
        assert len(runs) - len(succeeded) <= 250, "more than the chunk under way ran without being known"
        print(f"killed at {at['succeeded']} of {total}: {done['status']}, {len(succeeded)} known, {len(runs)} ran, each once")
    finally:
        shop.worker.stop()
        runner.stop()
        redis.stop()
