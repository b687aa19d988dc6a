"""Real Celery workers with the stock agent, configured by its four environment variables and nothing else."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.server import clean_environment
from harness.wait import eventually

APPS = Path(__file__).resolve().parent.parent / "apps"
# The program itself: under `python -m celery` the agent does not recognise a worker and stays silent.
CELERY = Path(sys.executable).parent / "celery"


class Worker:
    """One `celery worker` process. `events=False` leaves out -E."""

    def __init__(self, redis, server, project, minted, name="w1", pool="prefork", concurrency=2, events=True, queues=None):
        self.redis, self.server, self.project, self.minted = redis, server, project, minted
        self.node = f"{name}@test"
        self.pool, self.concurrency, self.events, self.queues = pool, concurrency, events, queues
        self.home = tempfile.mkdtemp(prefix="thalamus-worker-")
        self.log_path = Path(self.home) / "worker.log"
        self.process = None

    def environment(self):
        return clean_environment(
            Z4J_BRAIN_URL=self.server.url,
            Z4J_TOKEN=self.minted.token,
            Z4J_HMAC_SECRET=self.minted.secret,
            Z4J_PROJECT_ID=self.project.slug,
            HOME=self.home,  # the agent's buffer file lives below it
            TEST_REDIS_URL=self.redis.url,
            PYTHONPATH=str(APPS),
        )

    def start(self, wait=True):
        words = [
            str(CELERY), "-A", "celery_app", "worker", "-P", self.pool, "-c", str(self.concurrency),
            "-n", self.node, "--loglevel", "INFO", "--without-mingle",
        ]  # fmt: skip
        if self.events:
            words.append("-E")
        if self.queues:
            words += ["-Q", self.queues]
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            words, env=self.environment(), stdout=log, stderr=subprocess.STDOUT, cwd=self.home, start_new_session=True
        )
        log.close()
        if wait:
            self.wait_online()
        return self

    def wait_online(self, deadline=40.0):
        """Waits until the worker consumes and its agent is seen by the server."""
        eventually(lambda: " ready." in self.log(), deadline, why=f"the worker is not ready:\n{self.log()[-2000:]}")
        eventually(
            lambda: self.project.agent(self.minted.id)["state"] == "online", deadline, why="the agent is not online"
        )
        return self

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self):
        """Ends the worker and its pool: one process group of our own making."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process = None
