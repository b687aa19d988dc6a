"""Fixtures. One server per test process is shared by all tests that do not break it: each test has a project."""

import os
import uuid

import pytest

from harness.agent import Agent, succeed_everything
from harness.client import Client, Project
from harness.redis import Redis
from harness.server import ADMIN_EMAIL, ADMIN_PASSWORD, Server, binary

CQL = os.environ.get("THALAMUS_TEST_CQL")
STORE = os.environ.get("THALAMUS_TEST_STORE", "embedded")


def pytest_configure():
    if STORE not in ("embedded", "cql") or (STORE == "cql" and not CQL):
        raise pytest.UsageError("THALAMUS_TEST_STORE is embedded or cql, and cql needs THALAMUS_TEST_CQL: use `make test-cql`")


def pytest_collection_modifyitems(config, items):
    """Keeps tests that share an expensive fixture on one process (xdist's loadgroup); leaves out those of the other store."""
    other = [item for item in items if STORE == "cql" and item.get_closest_marker("embedded")]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in other]
    for item in items:
        if not any(mark.name == "xdist_group" for mark in item.iter_markers()):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the server's last words to a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        values = list(getattr(item, "funcargs", {}).values())
        # A scene is a tuple of what it is made of.
        values += [part for value in values if isinstance(value, tuple) for part in value]
        for value in values:
            if isinstance(value, Server):
                report.sections.append(("server log, its end", value.log()[-3000:]))


def new_server(folder, store=STORE, **settings):
    """A server that is not started yet, on the store that is tested: embedded unless THALAMUS_TEST_STORE=cql."""
    if store == "cql":
        if not CQL:
            pytest.skip("THALAMUS_TEST_CQL is not set: no Cassandra")
        settings["cql"] = CQL
    return Server(folder, store=store, **settings)


def shared_server(name, command_timeout_seconds):
    """A fixture of the whole run: a server that is started for the first test that asks for it."""

    @pytest.fixture(scope="session", name=name)
    def start(tmp_path_factory):
        folder = tmp_path_factory.mktemp(name)
        one = new_server(folder, heartbeat_seconds=2, command_timeout_seconds=command_timeout_seconds)
        yield one.start(deadline=120)
        one.discard()

    return start


# The one that most tests share, and one whose commands time out after three seconds.
server = shared_server("server", command_timeout_seconds=20)
hasty = shared_server("hasty", command_timeout_seconds=3)


@pytest.fixture(scope="session")
def admin(server):
    """The administrator of the first boot."""
    with Client(server.url).login(ADMIN_EMAIL, ADMIN_PASSWORD) as client:
        yield client


@pytest.fixture
def project(admin):
    """A project of this test's own."""
    return Project.create(admin)


@pytest.fixture(scope="session")
def hasty_admin(hasty):
    with login(hasty) as client:
        yield client


@pytest.fixture
def own_server(tmp_path):
    """Starts servers that this test may kill: `own_server(store="cql", heartbeat_seconds=1)`."""
    running = []

    def start(**settings):
        folder = settings.pop("folder", None) or tmp_path / f"server{len(running)}"
        one = new_server(folder, **settings)
        running.append(one)
        return one.start(deadline=120)

    yield start
    for one in running:
        one.stop()
    for one in running:
        one.discard()


def login(server):
    """A fresh administrator's session on any server."""
    return Client(server.url).login(ADMIN_EMAIL, ADMIN_PASSWORD)


@pytest.fixture
def sim(server, project):
    """Opens simulated agents: `sim()` mints and opens one, `sim(minted)` opens another process of it."""
    opened = []

    def start(minted=None, **more):
        agent = Agent(server.url, minted or project.mint(), **more)
        opened.append(agent)
        return agent.open()

    yield start
    for agent in opened:
        agent.close()


@pytest.fixture
def obedient(sim):
    """An agent that answers every command with success at once."""
    return sim(on_command=succeed_everything)


class People:
    """Users with roles, made through the API."""

    def __init__(self, server, admin):
        self.server, self.admin = server, admin

    def user(self):
        """A new user without any role: (client, user id)."""
        email = f"u-{uuid.uuid4().hex[:10]}@example.com"
        password = "Quiet-Harbour-5-Lamp"
        answer = self.admin.post("/users", {"email": email, "password": password, "display_name": "U"}, expect=None)
        assert answer.status_code == 201, answer.text
        return Client(self.server.url).login(email, password), answer.json()["id"]

    def member(self, project, role):
        """A client of a new user with this role in the project."""
        client, user_id = self.user()
        answer = self.admin.post(project.path("/memberships"), {"user_id": user_id, "role": role}, expect=None)
        assert answer.status_code == 201, answer.text
        return project.through(client)


@pytest.fixture(scope="session")
def people(server, admin):
    return People(server, admin)


@pytest.fixture(scope="module")
def redis():
    one = Redis().start()
    yield one
    one.stop()
