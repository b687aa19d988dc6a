"""The real binary as a process: started on a free port, stopped politely or not at all politely, its log kept."""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import psutil

from harness.cql import execute
from harness.wait import eventually

ROOT = Path(__file__).resolve().parent.parent.parent
ADMIN_EMAIL = "admin@example.com"
ADMIN_PASSWORD = "Wide-Field-7-Harvest"


def binary():
    """The binary under test: THALAMUS_BIN, or the newest build of the workspace."""
    given = os.environ.get("THALAMUS_BIN")
    if given:
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "debug" / "thalamus"


def free_port():
    """A TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def own_address():
    """A loopback address to connect from. Limits per source address must not make one test fail another."""
    return f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"


def clean_environment(**more):
    """Our environment without what would configure a server or an agent behind the test's back."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("THALAMUS_", "Z4J_"))}
    kept.update(more)
    return kept


class Server:
    """One node. `settings` are flags of `thalamus serve` with underscores for hyphens."""

    def __init__(self, folder, store="embedded", cql=None, keyspace=None, port=None, **settings):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.log_path = self.folder / "server.log"
        self.port = port or free_port()
        self.store = store
        self.settings = dict(settings)
        if store == "cql":
            self.keyspace = keyspace or "t_" + secrets.token_hex(6)
            self.settings.setdefault("cql_nodes", cql)
            self.settings.setdefault("cql_keyspace", self.keyspace)
            self.settings.setdefault("master_secret", "0123456789abcdef0123456789abcdef-tests")
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def arguments(self):
        flags = {
            "listen": f"127.0.0.1:{self.port}",
            "data_dir": str(self.data),
            "admin_email": ADMIN_EMAIL,
            "admin_password": ADMIN_PASSWORD,
            "store": self.store,
            **self.settings,
        }
        words = [str(binary()), "serve"]
        for name, value in flags.items():
            if value is None:
                continue
            words += ["--" + name.replace("_", "-"), str(value)]
        return words

    def start(self, deadline=60.0):
        """Starts the process and waits until it says that it is healthy."""
        assert self.process is None, "already started"
        assert binary().exists(), f"{binary()} is not there: `make test-python` builds it"
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            self.arguments(),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=clean_environment(NO_COLOR="1"),
            cwd=self.folder,
        )
        log.close()

        def healthy():
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            try:
                return httpx.get(self.url + "/health", timeout=2.0).status_code == 200
            except httpx.TransportError:
                return False

        end = time.monotonic() + deadline
        while not healthy():
            if time.monotonic() > end:
                raise AssertionError(f"not healthy within {deadline} s:\n{self.log()[-4000:]}")
            time.sleep(0.03)
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL: nothing in the process gets to run any more."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def terminate(self, deadline=20.0):
        """SIGTERM; returns the exit code of the process."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {deadline} s after SIGTERM:\n{self.log()[-2000:]}") from None
        self.process = None
        return code

    def stop(self):
        """Ends whatever is running, without judging how."""
        if self.running():
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def discard(self):
        """Stops for good. On Cassandra the keyspace goes too: each of its tables holds memory of the node."""
        self.stop()
        if self.store == "cql":
            execute(self.settings["cql_nodes"], f"DROP KEYSPACE IF EXISTS {self.keyspace}")

    def restart(self):
        self.stop()
        return self.start()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def rss(self):
        """Resident bytes of the process."""
        return psutil.Process(self.process.pid).memory_info().rss

    def copy(self, folder):
        """A second server on a copy of this one's data folder; stop or kill this one first."""
        assert not self.running()
        twin = Server(folder, store=self.store, **self.settings)
        shutil.copytree(self.data, twin.data)
        return twin

    def wait_for_log(self, text, deadline=10.0):
        return eventually(lambda: text in self.log(), deadline, why=f"no {text!r} in the log")
