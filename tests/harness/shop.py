"""A project with real Celery workers, and a producer of tasks without any agent in it."""

from celery import Celery

from harness.client import Project
from harness.wait import eventually
from harness.worker import CeleryWorker

ENDS = ("succeeded", "failed", "cancelled")


def producer(redis):
    """A Celery client without any agent in it."""
    app = Celery("producer", broker=redis.url, backend=redis.url)
    app.conf.update(task_default_queue="default", result_extended=True)
    return app


class Shop:
    """A project with one running worker and a producer of tasks."""

    def __init__(self, server, admin, redis, **worker):
        self.redis = redis
        self.project = Project.create(admin)
        self.minted = self.project.mint()
        self.worker = CeleryWorker(redis, server, self.project, self.minted, **worker)
        self.app = producer(redis)

    def send(self, name, *args, **kwargs):
        options = kwargs.pop("options", {})
        return self.app.send_task(name, args, kwargs, **options).id

    def row(self, task_id, state=None, deadline=20):
        """The task's row once it is in this state (any final one by default) and its queue is known."""

        def settled():
            row = self.project.task(task_id, expect=(200, 404))
            assert row.get("state") in ((state,) if state else ENDS), row
            assert row["queue"] is not None, "the `received` is still to come"
            return row

        return eventually(settled, deadline, every=0.1)

    def issue(self, verb, **body):
        return self.project.issue(verb, agent_id=self.minted.id, engine="celery", **body)

    def outcome(self, command, deadline=20):
        def over():
            found = self.project.command(command["id"])
            return found["status"] in ("succeeded", "failed", "timed_out") and found

        return eventually(over, deadline)

    def ran(self, name):
        return int(self.redis.client.get(f"ran:{name}") or 0)

    def act(self, verb, **body):
        """Issues a command and waits for its outcome, which must be a success that was delivered."""
        done = self.outcome(self.issue(verb, **body))
        assert done["status"] == "succeeded" and done["delivered"] == "yes", done
        return done

    # --- what the workers themselves say, asked over the broker and not through the server

    def ask(self, what, node, *args):
        """One worker's answer to an inspection; None while it does not answer."""
        inspector = self.app.control.inspect(destination=[node], timeout=1.5)
        return (getattr(inspector, what)(*args) or {}).get(node)

    def processes(self, node):
        """The ids of the pool's processes (prefork) or None."""
        stats = eventually(lambda: self.ask("stats", node), 10, why=f"{node} does not answer")
        return stats["pool"].get("processes")

    def consumes(self, node):
        """The names of the queues that a worker consumes."""
        return {queue["name"] for queue in eventually(lambda: self.ask("active_queues", node), 10)}

    def limit(self, node, task):
        """The rate limit that a worker keeps for a task, None without one."""
        lines = eventually(lambda: self.ask("registered", node, "rate_limit"), 10)
        line = next(line for line in lines if line.split()[0] == task)
        return line.partition("rate_limit=")[2].rstrip("]") or None

    def waiting(self, queue):
        """Messages in a queue of the broker."""
        return self.redis.client.llen(queue)

    def knows(self, *nodes):
        """Waits until the agent's reports name these workers, so that they can be commanded (D15)."""

        def named():
            pairs = self.project.get(f"/agents/{self.minted.id}/workers").json()
            return set(nodes) <= {pair["worker_name"] for pair in pairs}

        eventually(named, 70, every=0.3, why=f"no report names {nodes}")
