"""The other five engines: a real application and worker each, with the stock agent. WIRE 12 says what to expect."""

import asyncio
import os
import uuid

import pytest

from harness.client import Project
from harness.wait import eventually
from harness.worker import Worker

pytestmark = pytest.mark.engines
WORDS = {
    "rq": ["rq", "worker", "-c", "rq_settings", "--worker-class", "z4j_rq.worker.Worker", "default"],
    "dramatiq": ["dramatiq", "--processes", "1", "--threads", "2", "dramatiq_app"],
    "huey": ["huey_consumer", "huey_app.huey", "-w", "2"],
    "arq": ["arq", "arq_app.WorkerSettings"],
    "taskiq": ["taskiq", "worker", "--workers", "1", "taskiq_app:broker"],
}


class Engine:
    """One engine's running worker, and a producer without an agent."""

    def __init__(self, name, redis, server, admin):
        self.name, self.redis = name, redis
        self.project = Project.create(admin)
        self.minted = self.project.mint()
        self.worker = Worker(redis, server, self.project, self.minted, WORDS[name])

    def send(self, task, *args, **kwargs):
        """Enqueues a task as this engine's own users do; returns its id."""
        return getattr(self, f"send_{self.name}")(task, *args, **kwargs)

    def send_rq(self, task, *args, **kwargs):
        from rq import Queue

        return Queue("default", connection=self.redis.client).enqueue(f"rq_app.{task}", *args, **kwargs).id

    def send_dramatiq(self, task, *args, **kwargs):
        import dramatiq_app

        return getattr(dramatiq_app, task).send(*args, **kwargs).message_id

    def send_huey(self, task, *args, **kwargs):
        import huey_app

        return getattr(huey_app, task)(*args, **kwargs).id

    def send_arq(self, task, *args, **kwargs):
        from arq import create_pool
        from arq.connections import RedisSettings

        async def go():
            pool = await create_pool(RedisSettings.from_dsn(self.redis.url))
            job = await pool.enqueue_job(task, *args, **kwargs)
            await pool.aclose()
            return job.job_id

        return asyncio.run(go())

    def send_taskiq(self, task, *args, **kwargs):
        import taskiq_app

        async def go():
            await taskiq_app.broker.startup()
            try:
                return (await getattr(taskiq_app, task).kiq(*args, **kwargs)).task_id
            finally:
                await taskiq_app.broker.shutdown()

        return asyncio.run(go())

    def ran(self, name):
        return int(self.redis.client.get(f"ran:{name}") or 0)

    def row(self, task_id, state, deadline=20):
        def there():
            row = self.project.task(task_id, engine=self.name, expect=(200, 404))
            assert row.get("state") == state, row
            return row

        return eventually(there, deadline, every=0.1)

    def outcome(self, command, deadline=20):
        def over():
            found = self.project.command(command["id"])
            return found["status"] in ("succeeded", "failed", "timed_out") and found

        return eventually(over, deadline)


@pytest.fixture(scope="module", params=WORDS)
def engine(request, server, admin, redis):
    os.environ["TEST_REDIS_URL"] = redis.url
    import sys

    from harness.worker import APPS

    sys.path.insert(0, str(APPS))
    redis.client.flushall()
    one = Engine(request.param, redis, server, admin)
    try:
        one.worker.start()
        yield one
    finally:
        one.worker.stop()
        sys.path.remove(str(APPS))


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


def test_a_retry_that_the_engine_cannot_do_is_refused_or_does_nothing(engine):
    body = {"agent_id": engine.minted.id, "engine": engine.name, "task_id": str(uuid.uuid4())}
    if engine.name == "rq":
        done = engine.outcome(engine.project.issue("retry-task", **body))
        assert done["status"] == "succeeded", "the agent calls it a success"
        assert done["result"]["noop"] is True and done["result"]["reason"] == "job_not_found"
    else:
        engine.project.issue("retry-task", expect=422, **body)
    assert engine.worker.process.poll() is None


def test_a_cancel_has_the_effect_that_the_engine_can_give(engine):
    """WIRE 12.16: RQ, Dramatiq and huey let running work run; arq really stops it; TaskIQ cannot."""
    begun, finished = engine.ran("sleep.begin"), engine.ran("sleep.end")
    one = engine.send("sleep", 3)
    eventually(lambda: engine.ran("sleep.begin") == begun + 1)
    done = engine.outcome(engine.project.issue("cancel-task", agent_id=engine.minted.id, engine=engine.name, task_id=one))
    if engine.name in ("taskiq", "dramatiq"):
        assert done["status"] == "failed", done
        assert done["result"] == {"ok": False, "reason": "unsupported"}
    else:
        assert done["status"] == "succeeded", done
    if engine.name == "arq":
        eventually(lambda: engine.project.task(one, engine="arq")["state"] in ("cancelled", "failed"), 10)
        assert engine.ran("sleep.end") == finished
    else:
        eventually(lambda: engine.ran("sleep.end") == finished + 1, 10)
