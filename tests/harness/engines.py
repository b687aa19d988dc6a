"""The five engines beside Celery: a running worker each, and a producer without an agent."""

import asyncio
import os
import sys

from harness.client import Project
from harness.wait import eventually
from harness.worker import APPS, Worker

WORDS = {
    "rq": ["rq", "worker", "-c", "rq_settings", "--worker-class", "z4j_rq.worker.Worker", "default"],
    "dramatiq": ["dramatiq", "--processes", "1", "--threads", "2", "--queues", "default", "--", "dramatiq_app"],
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

    def send(self, task, *args, delay=None, queue="default", **kwargs):
        """Enqueues a task as this engine's own users do; returns its id. `delay` in seconds, where the engine has it."""
        return getattr(self, f"_send_{self.name}")(task, args, kwargs, delay, queue)

    def _send_rq(self, task, args, kwargs, delay, queue):
        from rq import Queue

        assert delay is None, "the worker runs without RQ's scheduler"
        return Queue(queue, connection=self.redis.client).enqueue(f"rq_app.{task}", *args, **kwargs).id

    def _send_dramatiq(self, task, args, kwargs, delay, queue):
        import dramatiq_app

        message = getattr(dramatiq_app, task).message(*args, **kwargs).copy(queue_name=queue)
        return dramatiq_app.broker.enqueue(message, delay=delay and delay * 1000).message_id

    def _send_huey(self, task, args, kwargs, delay, queue):
        import huey_app

        task = getattr(huey_app, task)
        return (task.schedule(args, kwargs, delay=delay) if delay else task(*args, **kwargs)).id

    def _send_arq(self, task, args, kwargs, delay, queue):
        from arq import create_pool
        from arq.connections import RedisSettings

        async def go():
            pool = await create_pool(RedisSettings.from_dsn(self.redis.url))
            job = await pool.enqueue_job(task, *args, _defer_by=delay, **kwargs)
            await pool.aclose()
            return job.job_id

        return asyncio.run(go())

    def _send_taskiq(self, task, args, kwargs, delay, queue):
        import taskiq_app

        assert delay is None, "TaskIQ delays by a scheduler of its own"

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

    def issue(self, verb, expect=202, **body):
        return self.project.issue(verb, expect=expect, agent_id=self.minted.id, **body)

    def outcome(self, command, deadline=20):
        def over():
            found = self.project.command(command["id"])
            return found["status"] in ("succeeded", "failed", "timed_out") and found

        return eventually(over, deadline)

    def start(self):
        """Starts the worker; the sample applications of this process use this engine's Redis from here on."""
        os.environ["TEST_REDIS_URL"] = self.redis.url
        sys.path.insert(0, str(APPS))
        self.worker.start()
        return self

    def stop(self):
        self.worker.stop()
        sys.path.remove(str(APPS))
