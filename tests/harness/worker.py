"""Real workers with the stock agents, configured by the agents' four environment variables and nothing else."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.server import clean_environment
from harness.wait import eventually

APPS = Path(__file__).resolve().parent.parent / "apps"
# The programs themselves: under `python -m celery` the agent does not recognise a worker and stays silent.
PROGRAMS = Path(sys.executable).parent


class Worker:
    """One worker process of any engine: `words` is its command line, `ready` what its log says when it consumes."""

    def __init__(self, redis, server, project, minted, words, ready=None, **variables):
        self.redis, self.server, self.project, self.minted = redis, server, project, minted
        self.words, self.ready, self.variables = words, ready, variables
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
            **self.variables,
        )

    def start(self, wait=True):
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [str(PROGRAMS / self.words[0]), *self.words[1:]],
            env=self.environment(), stdout=log, stderr=subprocess.STDOUT, cwd=self.home, start_new_session=True,
        )  # fmt: skip
        log.close()
        if wait:
            self.wait_online()
        return self

    def wait_online(self, deadline=40.0):
        """Waits until the worker consumes and its agent is seen by the server."""

        def online():
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}"
            return self.project.agent(self.minted.id)["state"] == "online" and (not self.ready or self.ready in self.log())

        try:
            eventually(online, deadline, every=0.1)
        except AssertionError as error:
            raise AssertionError(f"the worker is not online: {error}\n{self.log()[-3000:]}") from None
        return self

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self):
        """Ends the worker and its children: one process group of our own making."""
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


class CeleryWorker(Worker):
    """A `celery worker`. `events=False` leaves out -E."""

    def __init__(
        self, redis, server, project, minted, name="w1", pool="prefork", concurrency=2, events=True, queues=None, **variables
    ):
        self.node = f"{name}@test"
        words = ["celery", "-A", "celery_app", "worker", "-P", pool, "-c", str(concurrency), "-n", self.node]
        words += ["--loglevel", "INFO", "--without-mingle"]
        words += ["-E"] if events else []
        words += ["-Q", queues] if queues else []
        super().__init__(redis, server, project, minted, words, ready=" ready.", **variables)
