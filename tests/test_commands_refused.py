"""Commands that are refused before a row exists, and leave nothing behind."""

import json

import pytest

from harness.agent import Agent, succeed_everything
from harness.client import Project
from harness.commands import ended, new_id, refused, retry
from harness.wait import eventually, never


LONG = "x" * 201
COMMON = [
    ("no agent", {"agent_id": ...}, 422),
    ("agent is null", {"agent_id": None}, 422),
    ("agent is no uuid", {"agent_id": "seven"}, 422),
    ("agent is a number", {"agent_id": 7}, 422),
    ("unknown agent", {"agent_id": "01890000-0000-7000-8000-000000000000"}, 404),
    ("empty key", {"idempotency_key": ""}, 422),
    ("long key", {"idempotency_key": LONG}, 422),
    ("key is a number", {"idempotency_key": 5}, 422),
    ("unknown member", {"surprise": 1}, 422),
]
TASK = [
    ("no engine", {"engine": ...}, 422),
    ("unknown engine", {"engine": "sidekiq"}, 422),
    ("empty engine", {"engine": ""}, 422),
    ("engine in upper case", {"engine": "CELERY"}, 422),
    ("no task", {"task_id": ...}, 422),
    ("empty task", {"task_id": ""}, 422),
    ("long task", {"task_id": LONG}, 422),
    ("task is a number", {"task_id": 9}, 422),
]
WORKER = [
    ("no worker", {"worker_name": ...}, 422),
    ("empty worker", {"worker_name": ""}, 422),
    ("long worker", {"worker_name": LONG}, 422),
    ("a worker nobody named", {"worker_name": "ghost@host"}, 422),
]
VERBS = {
    "retry-task": (
        {"engine": "celery", "task_id": "t-1"},
        COMMON + TASK + [
            ("kwargs are a list", {"override_kwargs": []}, 422),
            ("kwargs are text", {"override_kwargs": "{}"}, 422),
            ("args are an object", {"override_args": {}}, 422),
            ("kwargs above 64 KiB", {"override_kwargs": {"k": "x" * 65_529}}, 422),
            ("args above 64 KiB", {"override_args": ["x" * 65_533]}, 422),
            ("a reserved keyword", {"override_kwargs": {"__z4j_x": 1}}, 422),
            ("eta below zero", {"eta_seconds": -1}, 422),
            ("eta beyond a day", {"eta_seconds": 86_401}, 422),
        ],
    ),
    "cancel-task": ({"engine": "celery", "task_id": "t-1"}, COMMON + TASK),
    "bulk-retry": (
        {"filter": {"state": "failed"}, "max": 10},
        COMMON + [
            ("no filter", {"filter": ...}, 422),
            ("an empty filter", {"filter": {}}, 422),
            ("unknown filter member", {"filter": {"stat": "failed"}}, 422),
            ("unknown state", {"filter": {"state": "done"}}, 422),
            ("unknown priority", {"filter": {"priority": "urgent"}}, 422),
            ("a bad time", {"filter": {"since": "yesterday"}}, 422),
            ("a foreign engine", {"filter": {"state": "failed", "engine": "rq"}}, 422),
            ("max 0", {"max": 0}, 422),
            ("max 10001", {"max": 10_001}, 422),
            ("max is text", {"max": "many"}, 422),
        ],
    ),
    "purge-queue": (
        {"queue": "default", "force": True},
        COMMON + [
            ("no queue", {"queue": ...}, 422),
            ("empty queue", {"queue": ""}, 422),
            ("long queue", {"queue": LONG}, 422),
            ("neither token nor force", {"force": ...}, 422),
            ("force is false and no token", {"force": False}, 422),
            ("force is text", {"force": "yes"}, 422),
            ("a negative depth", {"force": ..., "observed_depth": -1}, 422),
            ("an empty token", {"force": ..., "confirm_token": ""}, 422),
        ],
    ),
    "restart-worker": ({"worker_name": "w1@host"}, COMMON + WORKER),
    "pool-resize": (
        {"worker_name": "w1@host", "delta": 1},
        COMMON + WORKER + [
            ("no delta", {"delta": ...}, 422),
            ("delta 0", {"delta": 0}, 422),
            ("delta 101", {"delta": 101}, 422),
            ("delta -101", {"delta": -101}, 422),
            ("delta 1.5", {"delta": 1.5}, 422),
            ("delta is text", {"delta": "1"}, 422),
        ],
    ),
    "add-consumer": (
        {"worker_name": "w1@host", "queue": "billing"},
        COMMON + WORKER + [("no queue", {"queue": ...}, 422), ("empty queue", {"queue": ""}, 422), ("long queue", {"queue": LONG}, 422)],
    ),
    "cancel-consumer": (
        {"worker_name": "w1@host", "queue": "billing"},
        COMMON + WORKER + [("no queue", {"queue": ...}, 422), ("empty queue", {"queue": ""}, 422), ("long queue", {"queue": LONG}, 422)],
    ),
    "rate-limit": (
        {"task_name": "email.send", "rate": "10/m"},
        COMMON + [("a worker nobody named", {"worker_name": "ghost@host"}, 422), ("no task", {"task_name": ...}, 422),
                  ("empty task", {"task_name": ""}, 422), ("long task", {"task_name": "x" * 501}, 422), ("no rate", {"rate": ...}, 422)]
        + [(f"rate {rate!r}", {"rate": rate}, 422) for rate in
           ("", "100/d", "-1", "1.5/s", "01/m", "007/s", "1/", "/s", "1 /s", "1/S", "1/m\n", "ten", 5, "0/s", "1e3", "٣/s")],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def target(server, admin):
    """One agent for all refusals: it must never see a frame."""

    class Target:
        project = Project.create(admin)
        minted = project.mint()
        agent = Agent(server.url, minted).open()

    Target.agent.beat_with_workers("w1@host")
    eventually(lambda: Target.project.get("/workers").json(), why="the worker is known")
    yield Target
    Target.agent.close()


@pytest.mark.parametrize(
    "verb, change, status",
    [pytest.param(verb, change, status, id=f"{verb}: {what}") for verb, (_, cases) in VERBS.items() for what, change, status in cases],
)
def test_what_is_wrong_is_refused_before_a_row_exists(target, verb, change, status):
    body = {"agent_id": target.minted.id, **VERBS[verb][0], **change}
    body = {name: value for name, value in body.items() if value is not ...}
    refused(target.project, verb, body, status)
    assert target.agent.command_log == [], "a refused request reached the agent"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("body", ["", "null", "[]", "1", '"x"', "{", '{"agent_id":}', "\xff"])
def test_a_body_that_is_no_object_is_refused(target, verb, body):
    before = len(target.project.commands())
    target.project.client.request(
        "POST", target.project.path(f"/commands/{verb}"), expect=(400, 422), content=body.encode("latin-1"),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert len(target.project.commands()) == before


@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_of_another_project_is_not_found(target, admin, verb):
    foreign = Project.create(admin).mint()
    refused(target.project, verb, {"agent_id": foreign.id, **VERBS[verb][0]}, 404)


@pytest.mark.parametrize("verb", VERBS)
def test_without_the_csrf_header_nothing_happens(target, verb):
    before = target.project.commands()
    answer = target.project.client.request(
        "POST", target.project.path(f"/commands/{verb}"), expect=403, csrf=False,
        json={"agent_id": target.minted.id, **VERBS[verb][0]},
    )  # fmt: skip
    assert answer.json()["details"]["reason"] == "csrf_mismatch"
    assert target.project.commands() == before and target.agent.command_log == []


@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_that_never_connected_is_refused_with_409(target, project, verb):
    never_seen = project.mint()
    body = {"agent_id": never_seen.id, **VERBS[verb][0]}
    refused(project, verb, body, (409, 422) if "worker_name" in body else 409)


def test_a_revoked_agent_is_not_found(sim, project):
    agent = sim()
    project.client.delete(project.path(f"/agents/{agent.minted.id}"))
    refused(project, "retry-task", {"agent_id": agent.minted.id, "engine": "celery", "task_id": "x"}, 404)


@pytest.mark.parametrize(
    "verb, role, status",
    [(verb, role, status) for verb, need in {
        "retry-task": "operator", "cancel-task": "operator", "bulk-retry": "operator", "purge-queue": "admin",
        "restart-worker": "admin", "pool-resize": "admin", "add-consumer": "admin", "cancel-consumer": "admin",
        "rate-limit": "admin"}.items()
     for role, status in (("viewer", 403), ("auditor", 403), ("operator", 202 if need == "operator" else 403))
     if status == 403],
)  # fmt: skip
def test_too_low_a_role_is_refused_and_says_what_is_needed(target, people, verb, role, status):
    member = people.member(target.project, role)
    before = target.project.commands()
    answer = member.post(f"/commands/{verb}", {"agent_id": target.minted.id, **VERBS[verb][0]}, expect=status)
    details = answer.json()["details"]
    assert details["have"] == role and details["need"] in ("operator", "admin")
    assert target.project.commands() == before and target.agent.command_log == []


def test_an_operator_may_retry_and_viewers_see_commands_without_their_content(sim, project, people):
    agent = sim(on_command=succeed_everything)
    operator, viewer = people.member(project, "operator"), people.member(project, "viewer")
    command = retry(operator, agent.minted.id, override_args=[1], override_kwargs={"note": "inside"})
    ended(operator, command["id"])
    assert operator.command(command["id"])["payload"]["override_args"] == [1]
    seen = viewer.command(command["id"])
    assert seen["payload"] == {} and seen["issued_by"] is None and seen["result"] is None
    assert seen["status"] == "succeeded" and "inside" not in json.dumps(viewer.commands())


def test_an_outsider_gets_the_same_404_as_for_no_project(project, people):
    outsider, _ = people.user()
    body = {"agent_id": new_id(), "engine": "celery", "task_id": "x"}
    for slug in (project.slug, "no-such-project"):
        outsider.post(f"/projects/{slug}/commands/retry-task", body, expect=404)
