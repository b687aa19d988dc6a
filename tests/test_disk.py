"""A disk that hangs and a disk that is full, under load: what was acked stays, nothing is doubled, and the server goes on by
itself once it can.

THALAMUS_TEST_STALL_SECONDS sets how long writes hang (10; `make durability` takes 60). Needs root and loop devices.
"""

import json
import os
import time

import httpx
import pytest

from conftest import login
from harness.agent import Agent
from harness.client import Project
from harness.disk import Disk
from harness.server import Server
from harness.wait import eventually, never
from test_durability import Reporter, check_visible

STALL = float(os.environ.get("THALAMUS_TEST_STALL_SECONDS", "10"))
AGENTS = 64
MIB = 1 << 20
pytestmark = [pytest.mark.disk, pytest.mark.embedded, pytest.mark.timeout(240 + 2 * int(STALL))]


@pytest.fixture
def disk(tmp_path):
    one = Disk(tmp_path, mib=1200)
    yield one
    one.unmount()


@pytest.fixture
def server(tmp_path, disk):
    """A server whose data folder, and nothing else of it, is on the disk."""
    disk.mount()
    one = Server(tmp_path / "server", heartbeat_seconds=2, connect_limit_per_minute=100_000)
    one.data = disk.path / "data"
    yield one.start(deadline=120)
    disk.thaw()
    disk.empty()
    one.stop()


class Resender(Reporter):
    """Also sends again what has no ack for a while, as the real agents do after 90 s."""

    PATIENCE = 5.0

    def collect(self, agent):
        before = len(self.acked)
        super().collect(agent)
        now = time.monotonic()
        if len(self.acked) > before or not self.buffer:
            self.moved = now
        elif now - self.moved > self.PATIENCE and agent.alive:
            self.moved = now
            for batch, item in list(self.buffer.items()):
                agent.batch(item, id=batch)

    def run(self):
        self.moved = time.monotonic()
        super().run()


class Load:
    """Agents that report as fast as acks allow, and re-send what was not acked."""

    def __init__(self, server, agents):
        self.server = server
        self.project = Project.create(login(server))
        self.reporters = [Resender(self.project.mint(), f"d{n}") for n in range(agents)]

    def start(self):
        for one in self.reporters:
            one.url = self.server.url
            one.start()
        eventually(lambda: all(len(one.acked) > 20 for one in self.reporters), 90, why="not every agent gets acks")
        return self

    def acked(self):
        return sum(len(one.acked) for one in self.reporters)

    def settled(self):
        """How many events are acked once no more acks are under way."""
        seen, end = -1, time.monotonic() + 10
        while (now := self.acked()) != seen and time.monotonic() < end:
            seen = now
            time.sleep(1.5)
        assert now == seen, "acks go on"
        return seen

    def connects(self):
        return self.server.log().count("agent connected")

    def finish(self):
        """Waits until everything sent is acked, and ends the agents."""
        for one in self.reporters:
            assert one.is_alive(), "a reporter died of a bad frame"
            one.draining.set()
        eventually(lambda: not any(one.buffer for one in self.reporters), 120, every=0.2, why="buffers do not drain")
        self.halt()

    def halt(self):
        for one in self.reporters:
            one.halt.set()
        for one in self.reporters:
            one.join(10)


@pytest.fixture
def load(server):
    started = []

    def start(agents):
        started.append(Load(server, agents))
        return started[-1].start()

    yield start
    for one in started:
        one.halt()


def slow_agent(server, project):
    """An agent that answers when the test says so."""
    return Agent(server.url, project.mint()).open()


def ready(server):
    return httpx.get(server.url + "/health/ready", timeout=5).status_code


def test_while_the_disk_hangs_memory_is_bounded_sessions_stay_and_acks_resume(server, disk, load):
    running = load(AGENTS)
    assert running.connects() == AGENTS
    disk.freeze()
    acked, memory, peak = running.settled(), server.rss(), 0
    end = time.monotonic() + STALL
    while time.monotonic() < end:
        assert httpx.get(server.url + "/health", timeout=5).status_code == 200
        if end - time.monotonic() < STALL - 12:
            assert ready(server) == 503, "a node whose disk hangs for ten seconds is not ready"
        peak = max(peak, server.rss())
        time.sleep(0.25)
    assert running.acked() == acked, "something was acked that cannot be on disk"
    assert peak - memory < 64 * MIB, f"memory grew from {memory / MIB:.0f} to {peak / MIB:.0f} MiB"
    disk.thaw()
    eventually(lambda: running.acked() > acked + AGENTS, 15, why="acks do not resume")
    eventually(lambda: ready(server) == 200, 10, why="not ready again")
    running.finish()
    assert running.connects() == AGENTS, "sessions were closed although only the disk hung"
    check_visible(running.project, running.reporters, complete=True)


def test_a_full_disk_refuses_and_goes_on_when_there_is_space(server, disk, load):
    running = load(8)
    assert ready(server) == 200
    busy = slow_agent(server, running.project)
    waits = running.project.issue("cancel-task", agent_id=busy.minted.id, engine="celery", task_id="t-slow")
    order = busy.next_command()
    disk.fill(leave=300 * MIB)  # less than the server's reserve
    eventually(lambda: ready(server) == 503, 10, why="a full disk is not noticed")
    acked = running.settled()
    disk.fill()
    never(lambda: running.acked() > acked, during=3, why="something was acked without space for it")
    agent = running.reporters[0].minted.id
    refused = running.project.issue("retry-task", expect=503, agent_id=agent, engine="celery", task_id="t-full")
    assert refused["error"] == "store_full"
    busy.answer(order, result={"revoked": True})
    check_visible(running.project, running.reporters, complete=False)
    assert server.running(), "a full disk is no reason to end"
    never(lambda: running.project.command(waits["id"])["completed_at"], during=2, why="an outcome without space for it")
    warnings = server.log().count("WARN")
    assert warnings < 100, f"{warnings} warnings about one full disk"
    disk.empty()
    done = eventually(lambda: (row := running.project.command(waits["id"]))["completed_at"] and row, 10)
    assert done["status"] == "succeeded" and done["result"] == {"revoked": True}, "a result that came meanwhile is lost"
    eventually(lambda: running.acked() > acked + 200, 20, why="acks do not resume")
    eventually(lambda: ready(server) == 200, 10, why="not ready again")
    accepted = running.project.issue("retry-task", agent_id=agent, engine="celery", task_id="t-again")
    done = eventually(lambda: (row := running.project.command(accepted["id"]))["completed_at"] and row, 70)
    assert done["status"] == "succeeded", json.dumps(done)
    running.finish()
    check_visible(running.project, running.reporters, complete=True)
    assert len(running.project.commands(limit=100)) == 2, "a refused command left a trace"
    busy.close()


def test_a_disk_that_others_fill_at_once_loses_nothing_that_was_acked(server, disk, load):
    """Writes under way then fail half-way. The server refuses, or ends and says that it must be started again."""
    running = load(8)
    disk.fill()

    def noticed():
        if not server.running():
            return True
        try:
            return ready(server) == 503
        except httpx.TransportError:
            return False

    eventually(noticed, 20, why="a full disk is not noticed")
    time.sleep(2)  # whoever ends does so by now
    if server.running():
        acked = running.settled()
        never(lambda: running.acked() > acked, during=2, why="something was acked without space for it")
        disk.empty()
    else:
        assert server.process.returncode != 0
        server.wait_for_log("start the server again")
        for one in running.reporters:
            one.url = None
        server.stop()
        disk.empty()
        server.start()
    project = running.project.through(login(server))
    check_visible(project, running.reporters, complete=False)
    for one in running.reporters:
        one.url = server.url
    running.finish()
    check_visible(project, running.reporters, complete=True)
