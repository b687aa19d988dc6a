"""A deletion by filter of very many tasks: its memory is bounded, and neither a client that leaves nor a kill -9 in the
middle leaves a task behind that can not be deleted."""

import threading
import uuid

import httpx
import pytest

from conftest import login
from harness.agent import Agent, now_text, received
from harness.client import Client, Project
from harness.server import ADMIN_EMAIL, ADMIN_PASSWORD
from harness.wait import eventually

MIB = 1 << 20
# Tasks of the test of memory: 240 MiB of notes, were they held. The store's caches take what they like of the first.
FEW, MANY, NOTE = 30_000, 60_000, 4096
GROWTH_MAX = 96 * MIB
FRAME = 150
IN_FLIGHT = 8
pytestmark = pytest.mark.timeout(600)


def fill(agent, size, name="job", note=""):
    """That many tasks, some frames ahead of the acks."""
    sent = []
    for start in range(0, size, FRAME):
        count = min(FRAME, size - start)
        kwargs = {"note": note}
        items = [
            received(str(uuid.uuid4()), name=name, kwargs=kwargs, at=now_text(-3600 + (start + n) / 1000)) for n in range(count)
        ]
        sent.append(agent.batch(*items))
        if len(sent) > IN_FLIGHT:
            agent.wait_ack(sent.pop(0), 60)
    for batch in sent:
        agent.wait_ack(batch, 60)


def patient(server):
    return Client(server.url, timeout=500).login(ADMIN_EMAIL, ADMIN_PASSWORD)


def delete(project, name="job"):
    return project.post("/tasks/bulk-delete", {"filter_name": name})


@pytest.fixture
def scene(own_server):
    """A server of this test's own with a project and one agent: (server, project, agent)."""
    server = own_server(heartbeat_seconds=2)
    project = Project.create(patient(server))
    agent = Agent(server.url, project.mint()).open()
    yield server, project, agent
    agent.close()


def total(project):
    return project.page(include_total="true", limit=1)["total_count"]


def noted(project):
    """What the finished deletions say they deleted, newest first."""
    items = project.audit(action_prefix="tasks.bulk_delete", limit=100)
    return [item["metadata"]["deleted_count"] for item in items if item["action"] == "tasks.bulk_delete"]


class Peak:
    """The most memory that a server holds while it is watched."""

    def __init__(self, server):
        self.server, self.most, self.over = server, server.rss(), threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.over.wait(0.05):
            self.most = max(self.most, self.server.rss())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@pytest.mark.embedded
def test_very_many_tasks_are_deleted_in_bounded_memory_and_counted_exactly(scene):
    """Measured after a restart, so that nothing is reused that the tasks took when they came in, and after a first
    deletion, so that the store's caches are filled. On Cassandra it takes five minutes."""
    server, project, agent = scene
    for name, size in (("few", FEW), ("many", MANY)):
        fill(agent, size, name=name, note="n" * NOTE)
    fill(agent, 100, name="kept")
    assert total(project) == FEW + MANY + 100
    agent.close()
    server.terminate(60)
    server.start(deadline=120)
    project = project.through(patient(server))
    assert delete(project, "few").json() == {"deleted_count": FEW}
    before = server.rss()
    with Peak(server) as peak:
        answer = delete(project, "many")
    assert answer.json() == {"deleted_count": MANY}
    grown = peak.most - before
    assert grown < GROWTH_MAX, f"memory grew by {grown / MIB:.0f} MiB, from {before / MIB:.0f}"
    assert {row["name"] for row in project.walk()} == {"kept"} and total(project) == 100
    assert project.tasks(name="many") == [] and noted(project) == [MANY, FEW]


def test_a_client_that_leaves_does_not_stop_a_deletion(scene):
    server, project, agent = scene
    fill(agent, 10_000)
    hurried = project.through(login(server))
    hurried.client.http.timeout = 0.1
    with pytest.raises(httpx.TimeoutException):
        delete(hurried)
    assert noted(project) == [], "it was still under way when the client left"
    ends = eventually(lambda: noted(project), 400, why="the deletion has no end")
    assert ends == [10_000]
    assert project.walk() == [] and total(project) == 0


def test_what_a_kill_leaves_of_a_deletion_the_next_one_deletes(scene):
    server, project, agent = scene
    size = 8000
    fill(agent, size)
    newest = project.tasks(limit=1)[0]["task_id"]
    cut = threading.Thread(target=lambda: pytest.raises(httpx.TransportError, delete, project))
    cut.start()
    eventually(lambda: "error" in project.task(newest, expect=(200, 404)), 60, every=0.005)
    server.kill()
    cut.join()
    server.start(deadline=120)
    project = project.through(patient(server))
    left = len(project.walk(limit=5000))
    assert 0 < left < size, "killed in the middle"
    assert total(project) == left
    assert delete(project).json() == {"deleted_count": left}
    assert project.walk() == [] and total(project) == 0 and noted(project) == [left]
    assert delete(project).json() == {"deleted_count": 0}
