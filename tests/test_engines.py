"""The other five engines: a real application and worker each, with the stock agent. WIRE 12 says what to expect."""

import uuid

import pytest
from rq.job import Job

from harness.client import text_of
from harness.engines import WORDS, Engine
from harness.wait import eventually, never

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module", params=WORDS)
def engine(request, server, admin, redis):
    redis.client.flushall()
    one = Engine(request.param, redis, server, admin)
    try:
        yield one.start()
    finally:
        one.stop()


def test_a_succeeded_task_is_seen(engine):
    one = engine.send("add", 2, y=3)
    row = engine.row(one, "succeeded")
    assert engine.ran("add") >= 1 and row["engine"] == engine.name and row["name"].endswith("add")
    assert row["started_at"] and row["finished_at"] and row["retry_count"] == 0
    if engine.name == "arq":
        assert row["args"] is None and row["queue"] is None, "arq reports the name only"


def test_a_failed_task_says_why_as_far_as_the_engine_tells(engine):
    row = engine.row(engine.send("fail", "no such thing"), "failed")
    if engine.name != "arq":
        assert row["exception"] == "ValueError: no such thing"
    assert row["result"] is None


def test_secrets_in_what_failed_are_nowhere(engine, server):
    """WIRE 12.10: huey and TaskIQ send the text of an exception as it is."""
    row = engine.row(engine.send("fail", "to carol.private@corp.example with sk_live_4242424242424242"), "failed")
    everywhere = text_of([row, engine.project.events(row["task_id"], engine=engine.name), engine.project.walk()]) + server.log()
    for secret in ("carol.private", "sk_live_4242424242424242"):
        assert secret not in everywhere


@pytest.mark.parametrize("engine", ["dramatiq", "huey"], indirect=True)
def test_a_task_that_the_engine_retries_counts_its_retries_once(engine):
    """WIRE 12.4: each retry adds two `received` beside its `retried`."""
    row = engine.row(engine.send("flaky", str(uuid.uuid4()), 2), "succeeded")
    row = eventually(lambda: (r := engine.project.task(row["task_id"], engine=engine.name))["retry_count"] == 2 and r, 10)
    kinds = [event["kind"] for event in engine.project.events(row["task_id"], engine=engine.name)]
    assert kinds.count("task.retried") == 2 and kinds.count("task.started") == 3 and kinds.count("task.succeeded") == 1


def test_a_retry_with_both_halves_really_runs(engine):
    one = engine.send("add", 1)
    engine.row(one, "succeeded")
    before = engine.ran("add")
    command = engine.project.issue(
        "retry-task", agent_id=engine.minted.id, engine=engine.name, task_id=one, override_args=[20], override_kwargs={"y": 22}
    )
    done = engine.outcome(command)
    assert done["status"] == "succeeded", done
    eventually(lambda: engine.ran("add") == before + 1, why="the task did not run again")


def test_a_retry_by_reference(engine):
    """RQ alone has it besides Celery: the failed job itself runs again, with its own arguments. The agent calls it a success
    when it does not know the job, and a failure when the job has not failed."""
    body = {"engine": engine.name, "task_id": str(uuid.uuid4())}
    if engine.name != "rq":
        engine.issue("retry-task", expect=422, **body)
        return
    done = engine.outcome(engine.issue("retry-task", **body))
    assert done["status"] == "succeeded" and done["result"]["noop"] is True and done["result"]["reason"] == "job_not_found"
    one, before = engine.send("flaky", body["task_id"], 1), engine.ran("flaky")
    engine.row(one, "failed")
    done = engine.outcome(engine.issue("retry-task", engine="rq", task_id=one))
    assert done["status"] == "succeeded" and done["result"]["task_id"] == one, done
    row = engine.row(one, "succeeded")
    assert engine.ran("flaky") == before + 2 and row["retry_count"] == 1, "the same task, a second start"
    done = engine.outcome(engine.issue("retry-task", engine="rq", task_id=one))
    assert done["status"] == "failed" and "FailedJobRegistry" in done["error"]
    assert engine.ran("flaky") == before + 2


def test_a_retry_at_a_later_time(engine):
    """WIRE 12.14: arq defers; RQ needs its scheduler, which this worker does not run; the others are refused."""
    one = engine.send("add", 1)
    engine.row(one, "succeeded")
    before = engine.ran("add")
    body = {"engine": engine.name, "task_id": one, "override_args": [2], "override_kwargs": {}, "eta_seconds": 2}
    if engine.name not in ("rq", "arq"):
        engine.issue("retry-task", expect=422, **body)
        return
    done = engine.outcome(engine.issue("retry-task", **body))
    assert done["status"] == "succeeded", done
    never(lambda: engine.ran("add") > before, during=1, why="it ran at once")
    if engine.name == "arq":
        eventually(lambda: engine.ran("add") == before + 1)
    else:
        assert engine.redis.client.zcard("rq:scheduled:default") == 1
        engine.redis.client.delete("rq:scheduled:default")


def test_a_cancel_of_running_work(engine):
    """WIRE 12.16: RQ, Dramatiq and huey say success and let it run; arq really stops it; TaskIQ cannot."""
    begun, finished = engine.ran("sleep.begin"), engine.ran("sleep.end")
    one = engine.send("sleep", 3)
    eventually(lambda: engine.ran("sleep.begin") == begun + 1)
    done = engine.outcome(engine.issue("cancel-task", engine=engine.name, task_id=one))
    if engine.name == "taskiq":
        assert done["status"] == "failed" and done["result"] == {"ok": False, "reason": "unsupported"}
        assert done["delivered"] == "no"
    else:
        assert done["status"] == "succeeded", done
    if engine.name == "arq":
        eventually(lambda: engine.project.task(one, engine="arq")["state"] in ("cancelled", "failed"), 10)
        assert engine.ran("sleep.end") == finished
    else:
        eventually(lambda: engine.ran("sleep.end") == finished + 1, 10)


@pytest.mark.parametrize("engine", [name for name in WORDS if name != "taskiq"], indirect=True)
def test_a_cancel_of_waiting_work_keeps_it_from_running(engine):
    """huey reports it as cancelled; Dramatiq says `started` and nothing more (WIRE 12.5); RQ and arq say nothing."""
    before, finished = engine.ran("add"), engine.ran("sleep.end")
    if engine.name == "rq":
        engine.send("sleep", 2)
        one, delay = engine.send("add", 1), 0
    else:
        one, delay = engine.send("add", 1, delay=2), 2
    done = engine.outcome(engine.issue("cancel-task", engine=engine.name, task_id=one))
    assert done["status"] == "succeeded" and done["delivered"] == "yes", done
    if engine.name == "rq":
        assert done["result"] == {"task_id": one, "soft": False}
        eventually(lambda: engine.ran("sleep.end") == finished + 1)
    if engine.name == "huey":
        engine.row(one, "cancelled")
    never(lambda: engine.ran("add") > before, during=delay + 1.5, every=0.2, why="a cancelled task ran")


# --- queues and many tasks at once


@pytest.mark.parametrize("engine", ["rq", "dramatiq"], indirect=True)
def test_a_purge_empties_the_queue_and_no_other(engine):
    """WIRE 12.11: Dramatiq on Redis measures twice what waits, and reports no depth before."""
    for _ in range(3):
        engine.send("add", 1, queue="idle")
    engine.send("add", 1, queue="spare")
    before, depth = engine.ran("add"), 3 if engine.name == "rq" else 6
    key = {"rq": "rq:queue:{}", "dramatiq": "dramatiq:{}"}[engine.name]
    waiting = lambda queue: engine.redis.client.llen(key.format(queue))  # noqa: E731
    done = engine.outcome(engine.issue("purge-queue", queue="idle", observed_depth=4))
    assert done["status"] == "failed" and "confirm_token" in done["error"] and waiting("idle") == 3
    done = engine.outcome(engine.issue("purge-queue", queue="idle", observed_depth=depth))
    assert done["status"] == "succeeded" and done["result"] == {"queue": "idle", "purged": depth}, done
    assert waiting("idle") == 0 and waiting("spare") == 1
    engine.send("add", 1, queue="idle")
    done = engine.outcome(engine.issue("purge-queue", queue="idle", force=True))
    assert done["status"] == "succeeded" and waiting("idle") == 0 and waiting("spare") == 1
    assert engine.ran("add") == before


def test_the_token_of_a_measured_queue_purges_it(engine):
    """D18: RQ alone reports depths, so it alone has a token; whoever has none is told so."""
    for _ in range(2):
        engine.name == "rq" and engine.send("add", 1, queue="measured")
    path, who = "/queues/measured/purge-token", {"agent_id": engine.minted.id}
    if engine.name != "rq":
        engine.project.get(path, expect=(404, 409), **who)
        return
    offer = eventually(
        lambda: (a := engine.project.get(path, expect=(200, 404, 409), **who).json()).get("observed_depth") == 2 and a, 15
    )
    done = engine.outcome(engine.issue("purge-queue", queue="measured", confirm_token=offer["confirm_token"]))
    assert done["status"] == "succeeded" and done["result"]["purged"] == 2
    assert engine.redis.client.llen("rq:queue:measured") == 0


@pytest.mark.parametrize("engine", ["rq"], indirect=True)
def test_a_bulk_retry_runs_each_failed_job_again_and_says_what_became_of_the_others(engine):
    keys = [str(uuid.uuid4()) for _ in range(4)]
    ids = [engine.send("flaky", key, 1) for key in keys]
    for one in ids:
        engine.row(one, "failed")
    gone, before = ids[0], engine.ran("flaky")
    Job.fetch(gone, connection=engine.redis.client).delete()
    done = engine.outcome(engine.issue("bulk-retry", filter={"task_ids": ids}))
    assert done["status"] == "succeeded", done
    for one in ids[1:]:
        engine.row(one, "succeeded")
    assert engine.ran("flaky") == before + 3
    assert done["result"]["new_task_ids"] == {one: one for one in ids[1:]}, "the same job, under its own id"
    assert done["result"]["skipped_ids"] == [gone] and done["result"]["failures"] == {}
    assert done["progress"] == {"total": 4, "succeeded": 3, "failed": 0, "skipped": 1, "pending": 0}


# --- what an engine cannot do: minted, audited, failed, and the worker's process hears nothing of it (D16)


def assert_unsupported(engine, verb, **body):
    command = engine.issue(verb, **body)
    done = engine.outcome(command)
    assert done["status"] == "failed" and done["delivered"] == "no" and done["dispatched_at"] is None, done
    assert done["result"]["ok"] is False and done["result"]["reason"] == "unsupported", done
    mine = [entry["action"] for entry in engine.project.audit() if entry["command_id"] == command["id"]]
    assert sorted(mine) == sorted([f"command.issue.{done['action']}", "command.failed"])


def assert_untouched(engine, pid):
    """The worker's process is the one it was, and works."""
    assert engine.worker.process.poll() is None and engine.worker.process.pid == pid
    before = engine.ran("add")
    engine.row(engine.send("add", 1), "succeeded")
    assert engine.ran("add") == before + 1


@pytest.mark.parametrize("engine", ["huey", "arq", "taskiq"], indirect=True)
def test_a_queue_of_this_engine_cannot_be_purged(engine):
    pid = engine.worker.process.pid
    assert_unsupported(engine, "purge-queue", queue="default", force=True)
    assert_unsupported(engine, "purge-queue", queue="default", observed_depth=0)
    assert_untouched(engine, pid)


@pytest.mark.parametrize("engine", [name for name in WORDS if name != "rq"], indirect=True)
def test_tasks_of_this_engine_cannot_be_retried_in_bulk(engine):
    pid, one = engine.worker.process.pid, engine.send("fail", "again")
    engine.row(one, "failed")
    assert_unsupported(engine, "bulk-retry", filter={"task_ids": [one]})
    assert_untouched(engine, pid)


def test_workers_of_this_engine_cannot_be_controlled(engine):
    """RQ and Dramatiq name their workers in events; huey, arq and TaskIQ name none, so there is nothing to name (D15)."""
    pid = engine.worker.process.pid
    engine.row(engine.send("add", 1), "succeeded")
    verbs = {"restart-worker": {}, "pool-resize": {"delta": 1}, "add-consumer": {"queue": "q"}, "cancel-consumer": {"queue": "q"}}
    if engine.name in ("rq", "dramatiq"):
        pairs = eventually(lambda: engine.project.get(f"/agents/{engine.minted.id}/workers").json())
        worker = pairs[-1]["worker_name"]
        for verb, more in verbs.items():
            assert_unsupported(engine, verb, worker_name=worker, **more)
        assert_unsupported(engine, "pool-resize", worker_name=worker, delta=-1)
        assert_unsupported(engine, "rate-limit", task_name="add", rate="1/h", worker_name=worker)
    else:
        assert engine.project.get("/workers").json() == []
        before = engine.project.commands()
        for verb, more in verbs.items():
            engine.issue(verb, expect=422, worker_name=engine.name, **more)
        assert engine.project.commands() == before
    assert_unsupported(engine, "rate-limit", task_name="add", rate="1/h")
    assert_untouched(engine, pid)
