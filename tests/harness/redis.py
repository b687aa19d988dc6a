"""A Redis of our own: free port, nothing on disk, gone with the test."""

import shutil
import subprocess
import tempfile

import redis

from harness.server import free_port
from harness.wait import eventually


class Redis:
    def __init__(self):
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="thalamus-redis-")
        self.process = None

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.process = subprocess.Popen(
            [
                "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--dir", self.folder,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.client = redis.Redis(port=self.port)

        def answers():
            try:
                return self.client.ping()
            except redis.exceptions.ConnectionError:
                return False

        eventually(answers, 10, why="redis-server does not answer")
        return self

    def stop(self):
        if self.process is not None:
            self.client.close()
            self.process.terminate()
            self.process.wait(10)
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)
