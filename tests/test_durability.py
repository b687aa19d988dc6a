"""An ack is a promise: what was acked before a kill -9 is there after it, once; a command has one outcome or is still open.

THALAMUS_TEST_ROUNDS sets the number of kills (20; `make durability` runs more).
"""

import os
import random
import shutil
import threading
import time
import uuid
from collections import Counter

import pytest
from websockets.exceptions import WebSocketException

from conftest import login
from harness.agent import Agent, Refusal, failed, received, retried, started, succeed_everything, succeeded
from harness.client import Project, Refused
from harness.server import Server
from harness.wait import eventually

ROUNDS = int(os.environ.get("THALAMUS_TEST_ROUNDS", "20"))
WINDOW = 256


class Reporter(threading.Thread):
    """An agent with a buffer, as the real ones have: what is not acked is sent again, with the same ids."""

    def __init__(self, minted, worker_id):
        super().__init__(daemon=True)
        self.minted, self.worker_id = minted, worker_id
        self.buffer = {}  # frame id -> item, in order, not yet acked
        self.acked = {}  # frame id -> item
        self.produced = Counter()
        self.halt = threading.Event()
        self.draining = threading.Event()
        self.url = None
        self.chooser = random.Random(worker_id)
        self.answered = {}  # command id -> how often it was executed

    def story(self):
        """The events of one task's whole life; every third task retries twice."""
        one = str(uuid.uuid4())
        worker = f"w-{self.worker_id}@host"
        yield received(one, name=f"job.{self.chooser.randrange(20)}")
        yield started(one, worker=worker)
        if self.chooser.random() < 0.33:
            for _ in range(2):
                yield retried(one, worker=worker)
                yield started(one, worker=worker)
        yield succeeded(one, worker=worker) if self.chooser.random() < 0.8 else failed(one, worker=worker)

    def run(self):
        story = iter(())
        while not self.halt.is_set():
            url = self.url
            if url is None:
                time.sleep(0.01)
                continue
            agent = Agent(url, self.minted, worker_id=self.worker_id, on_command=self.execute)
            try:
                agent.open()
                for batch, item in list(self.buffer.items()):
                    agent.batch(item, id=batch)
                while not self.halt.is_set() and agent.alive and self.url == url:
                    self.collect(agent)
                    if self.draining.is_set() or len(self.buffer) >= WINDOW:
                        time.sleep(0.002)
                        continue
                    item = next(story, None)
                    if item is None:
                        story = self.story()
                        continue
                    batch = "ev_" + uuid.uuid4().hex
                    self.buffer[batch] = item
                    self.produced[item["task_id"]] += 1
                    agent.batch(item, id=batch)
            except (OSError, WebSocketException, Refusal, TimeoutError, AssertionError):
                time.sleep(0.02)
            finally:
                self.collect(agent)
                assert agent.broken is None, agent.broken
                if agent.socket is not None:
                    agent.drop()

    def collect(self, agent):
        """Moves what was acked out of the buffer."""
        with agent.heard:
            done, agent.acks = agent.acks, {}
        for batch in done:
            item = self.buffer.pop(batch, None)
            if item is not None:
                self.acked[batch] = item

    def execute(self, agent, frame):
        self.answered[frame["id"]] = self.answered.get(frame["id"], 0) + 1
        succeed_everything(agent, frame)


class Operator(threading.Thread):
    """Issues commands all the time and remembers which were accepted."""

    def __init__(self, project, agents):
        super().__init__(daemon=True)
        self.project, self.agents = project, agents
        self.accepted = set()
        self.halt = threading.Event()

    def run(self):
        n = 0
        while not self.halt.is_set():
            n += 1
            try:
                command = self.project.issue(
                    "retry-task", agent_id=self.agents[n % len(self.agents)], engine="celery", task_id=f"t-{n}"
                )
                self.accepted.add(command["id"])
            except (OSError, Refused, AssertionError, Exception):  # noqa: B014 - the server is being killed
                time.sleep(0.02)


def expected_rows(items):
    """What the acked events alone say about each task."""
    tasks = {}
    for item in items:
        row = tasks.setdefault(item["task_id"], Counter())
        row[item["kind"].removeprefix("task.")] += 1
    return tasks


def check_visible(project, reporters, complete):
    """Every acked event shows in its task's row; with `complete`, exactly those."""
    rows = {}
    for row in project.walk(limit=5000):
        assert row["task_id"] not in rows, "a task came twice"
        rows[row["task_id"]] = row
    acked = expected_rows([item for reporter in reporters for item in list(reporter.acked.values())])
    for task_id, kinds in acked.items():
        row = rows.get(task_id)
        assert row is not None, f"an acked task is gone: {task_id} {dict(kinds)}"
        if kinds["received"]:
            assert row["queue"] == "default" and row["args"] == [1], (row, kinds)
        if kinds["started"]:
            assert row["started_at"] is not None, (row, kinds)
        assert row["retry_count"] >= kinds["retried"], (row, kinds)
        if kinds["succeeded"]:
            assert row["state"] == "succeeded" and row["result"] == "3", (row, kinds)
        if kinds["failed"]:
            assert row["state"] == "failed", (row, kinds)
        if complete:
            assert row["retry_count"] == kinds["retried"], f"an event was doubled: {row} {kinds}"
    if complete:
        assert set(rows) == set(acked)
    return acked


def check_events(project, acked, sample):
    for task_id in sample:
        kinds = Counter(event["kind"].removeprefix("task.") for event in project.events(task_id))
        assert kinds == acked[task_id], task_id


def kill_under_load(server, rounds, agents=4, up=(0.4, 1.2)):
    """Kills the server again and again while agents report and an operator issues commands."""
    chooser = random.Random(20)
    admin = login(server)
    project = Project.create(admin)
    minted = [project.mint() for _ in range(agents)]
    reporters = [Reporter(one, f"r{n}") for n, one in enumerate(minted)]
    for reporter in reporters:
        reporter.url = server.url
        reporter.start()
    accepted = set()
    try:
        for round in range(rounds):
            operator = Operator(project.through(login(server)), [one.id for one in minted])
            operator.start()
            time.sleep(chooser.uniform(*up))
            for reporter in reporters:
                reporter.url = None
            server.kill()
            operator.halt.set()
            operator.join()
            accepted |= operator.accepted
            time.sleep(0.05)  # readers take what was acked before the kill
            server.start()
            project = project.through(login(server))
            check_visible(project, reporters, complete=False)
            for reporter in reporters:
                assert reporter.is_alive(), "a reporter died of a bad frame"
                reporter.url = server.url
        for reporter in reporters:
            reporter.draining.set()
        eventually(lambda: not any(reporter.buffer for reporter in reporters), 60, every=0.2, why="the buffers do not drain")
    finally:
        for reporter in reporters:
            reporter.halt.set()
        for reporter in reporters:
            reporter.join(10)
    acked = check_visible(project, reporters, complete=True)
    check_events(project, acked, chooser.sample(sorted(acked), min(60, len(acked))))
    executed = Counter()
    for reporter in reporters:
        executed.update(reporter.answered)
    check_commands(project, accepted, executed)
    total = sum(len(reporter.acked) for reporter in reporters)
    print(f"{rounds} kills, {total} events acked, {len(acked)} tasks, {len(accepted)} commands accepted")
    assert total > rounds * 50, "too little load to prove anything"
    assert len(accepted) >= rounds, "too few commands to prove anything"
    return project


def check_commands(project, accepted, executed):
    """Each accepted command exists with exactly one outcome, or is open before its deadline; no retry ran twice."""

    def settled():
        rows = {row["id"]: row for row in project.commands(limit=5000)}
        assert accepted <= set(rows), f"{len(accepted - set(rows))} accepted commands are gone"
        return all(rows[one]["status"] in ("succeeded", "failed", "timed_out") for one in accepted) and rows

    rows = eventually(settled, 40, every=0.5, why="commands stay open past their deadline")
    for one in rows:
        assert executed[one] <= 1, f"a retry ran {executed[one]} times"
    assert any(row["status"] == "succeeded" for row in rows.values())


@pytest.mark.embedded
@pytest.mark.timeout(120 + ROUNDS * 15)
def test_acked_events_and_accepted_commands_survive_kill_9_under_load(own_server):
    kill_under_load(own_server(store="embedded", command_timeout_seconds=10, heartbeat_seconds=2), ROUNDS)


@pytest.mark.cql
@pytest.mark.timeout(300)
def test_acked_events_and_accepted_commands_survive_kill_9_on_cassandra(own_server):
    kill_under_load(own_server(store="cql", command_timeout_seconds=10, heartbeat_seconds=2), max(3, ROUNDS // 10), up=(2.0, 4.0))


def test_sigterm_drains_and_loses_nothing(own_server):
    server = own_server(heartbeat_seconds=2)
    project = Project.create(login(server))
    reporters = [Reporter(project.mint(), f"s{n}") for n in range(3)]
    for reporter in reporters:
        reporter.url = server.url
        reporter.start()
    eventually(lambda: all(len(reporter.acked) > 200 for reporter in reporters), 30)
    assert server.terminate() == 0
    for reporter in reporters:
        reporter.url = None
        reporter.draining.set()
    server.start()
    project = project.through(login(server))
    check_visible(project, reporters, complete=False)
    for reporter in reporters:
        reporter.url = server.url
    eventually(lambda: not any(reporter.buffer for reporter in reporters), 30)
    for reporter in reporters:
        reporter.halt.set()
        reporter.join(10)
    check_visible(project, reporters, complete=True)


def test_sigterm_closes_sessions_politely(own_server):
    """More than once: a server without open requests once forgot its sessions in one case of four."""
    server = own_server()
    minted = Project.create(login(server)).mint()
    for _ in range(5):
        agent = Agent(server.url, minted).open()
        begun = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - begun < 10
        assert agent.wait_closed() in (1000, 1001)
        server.start()


def journals(folder):
    """The store's journal files, oldest first."""
    return sorted(
        (path for path in folder.rglob("*") if path.is_file() and ("journal" in str(path).lower() or path.suffix == ".jnl")),
        key=lambda path: (path.stat().st_mtime_ns, path.name),
    )


def with_history(server):
    """A project with 300 acked tasks; the server is killed. Returns (project, the task ids in order)."""
    project = Project.create(login(server))
    ids = [f"task-{n:04}" for n in range(300)]
    with Agent(server.url, project.mint()).open() as agent:
        for one in ids:
            agent.report(received(one))
        server.kill()
    return project, ids


TAILS = {
    "zeros": lambda data: data + b"\0" * 4096,
    "garbage": lambda data: data + random.Random(1).randbytes(777),
    "half a record again": lambda data: data + data[-40:],
    "the last bytes torn off": lambda data: data[:-3],
    "a torn page": lambda data: data[:-100] + b"\xff" * 50,
}


def written(path):
    """The length of what was written: journals are allocated ahead with zeros."""
    data = path.read_bytes()
    return len(data.rstrip(b"\0"))


@pytest.mark.embedded
@pytest.mark.parametrize("tear", TAILS.values(), ids=TAILS.keys())
def test_a_torn_tail_of_the_journal_is_survived(own_server, tmp_path, tear):
    server = own_server(store="embedded")
    project, ids = with_history(server)
    twin = server.copy(tmp_path / "twin")
    newest = max(journals(twin.data), key=lambda path: path.stat().st_mtime_ns, default=None)
    assert newest is not None, f"no journal below {twin.data}: {sorted(twin.data.rglob('*'))[:20]}"
    newest.write_bytes(tear(newest.read_bytes()[: written(newest)]))
    try:
        twin.start()
        with login(twin) as client:
            copy = project.through(client)
            found = {row["task_id"] for row in copy.walk(limit=500)}
            lost = [one for one in ids if one not in found]
            assert lost == ids[len(ids) - len(lost):], "something before the tail is gone"
            assert len(lost) <= 3, f"{len(lost)} tasks lost with the last record"
            with Agent(twin.url, copy.mint()).open() as agent:
                agent.report(received("after-the-tear"))
            assert copy.task("after-the-tear")["state"] == "received"
    finally:
        twin.stop()
        shutil.rmtree(twin.folder, ignore_errors=True)


@pytest.mark.embedded
def test_two_servers_never_share_a_data_folder(own_server):
    first = own_server(store="embedded")
    second = Server(first.folder / "other")
    second.data = first.data
    with pytest.raises(AssertionError, match="ended with|not healthy"):
        second.start(deadline=15)
    second.stop()
    assert first.running()
    login(first).close()
