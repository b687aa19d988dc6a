"""schemathesis against the live server, with docs/openapi.json as the judge: no 5xx, no answer outside the document, no
request taken that the document rules out, for every kind of caller. The seed is fixed, so a failure comes back."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import new_server
from harness.agent import Agent, received, started, succeed_everything, succeeded
from harness.client import Client, Project
from harness.server import ADMIN_EMAIL, ADMIN_PASSWORD, ROOT, clean_environment

DOCUMENT = ROOT / "docs" / "openapi.json"
SETTINGS = Path(__file__).with_name("schemathesis.toml")
SEED = 20261124
METRICS_TOKEN = "metrics-token-of-the-test"
EXAMPLES = 8
# The systematic cases were judged with the first caller already.
QUICK = ("--phases", "examples,fuzzing")
# These would end the caller's own session, account, role, agent or project in the middle of a run; they are run last.
ENDINGS = r"^(DELETE|PATCH /api/v1/users|POST /api/v1/auth/(logout|sessions/)|POST /api/v1/users/.*reset-password)"


class Scene:
    """A server with one project in which something happened, and a caller of each kind."""

    def __init__(self, folder):
        self.server = new_server(
            folder, heartbeat_seconds=2, command_timeout_seconds=5, login_limit_per_minute=100_000,
            bulk_limit_per_minute=100_000, metrics_token=METRICS_TOKEN,
        )  # fmt: skip
        self.server.start(deadline=120)
        self.admin = Client(self.server.url).login(ADMIN_EMAIL, ADMIN_PASSWORD)
        self.project = Project.create(self.admin, "acme")
        self.agent = Agent(self.server.url, self.project.mint("worker"), on_command=succeed_everything).open()
        events = []
        for n in range(30):
            events += [received(f"t{n}"), started(f"t{n}"), succeeded(f"t{n}")]
        self.agent.report(*events)

    def session(self, client=None):
        client = client or Client(self.server.url).login(ADMIN_EMAIL, ADMIN_PASSWORD)
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.http.cookies.jar)
        return {"Cookie": cookies, "X-CSRF-Token": client.csrf}

    def viewer(self):
        email, password = "viewer@example.com", "Quiet-Harbour-5-Lamp"
        user = self.admin.post("/users", {"email": email, "password": password}, expect=201).json()
        self.project.post("/memberships", {"user_id": user["id"], "role": "viewer"}, expect=201)
        return self.session(Client(self.server.url).login(email, password))

    def key(self):
        body = {"name": "schemathesis", "scopes": ["admin:*"]}
        return bearer(self.admin.post("/api-keys", body, expect=201).json()["token"])

    def close(self):
        self.agent.close()
        self.server.discard()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    one = Scene(tmp_path_factory.mktemp("schemathesis"))
    yield one
    one.close()


def judge(scene, headers, *more, examples=EXAMPLES):
    """Runs schemathesis as this caller; what it finds is the failure's text."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "--no-color", "--config-file", str(SETTINGS)]
    command += ["run", str(DOCUMENT), "--url", scene.server.url, "--seed", str(SEED), "--max-examples", str(examples)]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    done = subprocess.run(
        [*command, *more], capture_output=True, text=True, env=clean_environment(), cwd=scene.server.folder
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-20_000:]}{done.stderr[-2000:]}"
    assert scene.server.running()
    assert "panicked" not in scene.server.log()


def test_a_global_administrators_session(scene):
    judge(scene, scene.session(), "--exclude-name-regex", ENDINGS)


def test_an_administrators_key(scene):
    judge(scene, scene.key(), "--exclude-name-regex", ENDINGS, *QUICK, examples=5)


def test_a_viewer(scene):
    judge(scene, scene.viewer(), "--exclude-name-regex", ENDINGS, *QUICK, examples=5)


def test_nobody(scene):
    judge(scene, {}, *QUICK, examples=3)


def test_an_agent_that_polls(scene):
    minted = scene.project.mint()
    headers = {**bearer(minted.token), "X-Z4J-Session-Nonce": "n" * 22}
    judge(scene, headers, "--include-path-regex", "/agent/(events|commands)$")


def test_who_reads_metrics(scene):
    judge(scene, bearer(METRICS_TOKEN), "--include-path", "/metrics")


def test_what_ends_sessions_accounts_and_projects(scene):
    judge(scene, scene.session(), "--include-name-regex", ENDINGS)
