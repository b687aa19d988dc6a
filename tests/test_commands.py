"""Commands: what is refused before a row exists, what is delivered, and the one outcome that each of them has."""

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import login, new_server, not_there_yet
from harness.agent import Agent, received, started, succeed_everything
from harness.canonical import purge_token
from harness.client import Client, Project
from harness.wait import eventually, never

MEMBERS = {
    "id", "project_id", "agent_id", "issued_by", "action", "target_type", "target_id", "payload", "status", "result",
    "error", "issued_at", "dispatched_at", "completed_at", "timeout_at", "delivered", "late_status", "late_result",
    "agent_state", "attempt", "audit",
}  # fmt: skip
ENDED = ("succeeded", "failed", "timed_out")


def new_id():
    return str(uuid.uuid4())


def serves(project, verb):
    """Skips the test when the verb is still to come."""
    answer = project.post(f"/commands/{verb}", {}, expect=None)
    if answer.status_code in (404, 405):
        not_there_yet(f"commands/{verb}")


def ended(project, command_id, deadline=10):
    return eventually(lambda: (c := project.command(command_id))["status"] in ENDED and c, deadline, why="no outcome")


def retry(project, agent_id, **more):
    return project.issue("retry-task", agent_id=agent_id, engine="celery", task_id=more.pop("task_id", new_id()), **more)


def refused(project, verb, body, status):
    """Asserts a refusal that leaves nothing behind: no command, no ledger entry, no used key."""
    before = project.commands()
    ledger = entries(project)
    key = f"k-{uuid.uuid4()}"
    answer = project.post(f"/commands/{verb}", {**body, "idempotency_key": body.get("idempotency_key", key)}, expect=status)
    assert project.commands() == before, "a refused request minted a command"
    if ledger is not None:
        assert len(entries(project)) == len(ledger), "a refused request left a ledger entry"
    return answer


def entries(project):
    """The project's audit entries, None while they are not served."""
    answer = project.get("/audit", expect=None, limit=500)
    return answer.json()["items"] if answer.status_code == 200 else None


# --- the straight path


def test_a_command_is_durable_signed_delivered_and_ends_once(sim, project):
    agent = sim()
    one = new_id()
    agent.report(received(one, name="email.send", priority="high"), started(one))
    command = retry(project, agent.minted.id, task_id=one)
    assert MEMBERS <= set(command), MEMBERS - set(command)
    assert command["action"] == "retry_task" and command["target_type"] == "task"
    assert command["target_id"] == f"celery:{one}" and command["agent_id"] == agent.minted.id
    assert command["project_id"] == project.id and command["issued_by"] == project.client.user["id"]
    assert command["status"] in ("issued", "dispatched") and command["completed_at"] is None
    assert uuid.UUID(command["id"]).version == 7
    frame = agent.next_command()
    assert frame["id"] == command["id"]
    payload = frame["payload"]
    assert payload["action"] == "retry_task" and payload["target"] == {"type": "task", "id": f"celery:{one}", "engine": "celery"}
    assert payload["parameters"]["task_id"] == one and payload["parameters"]["engine"] == "celery"
    assert payload["parameters"]["task_name"] == "email.send" and payload["parameters"]["priority"] == "high"
    assert payload["parameters"]["override_args"] is None and payload["parameters"]["override_kwargs"] is None
    assert 1 <= payload["timeout_seconds"] <= 3600
    assert payload["delivery_claim_token"].startswith(command["id"]) and len(payload["delivery_claim_token"]) <= 64
    assert project.command(command["id"])["status"] == "dispatched"
    result = {"new_task_id": new_id(), "task_name": "email.send", "priority": 3}
    agent.answer(frame, "success", result)
    done = ended(project, command["id"])
    assert done["status"] == "succeeded" and done["result"] == result and done["error"] is None
    assert done["delivered"] == "yes" and done["attempt"] == 1
    assert done["issued_at"] <= done["dispatched_at"] <= done["completed_at"] <= done["timeout_at"]
    assert done["late_status"] is None and done["late_result"] is None


def test_a_failure_of_the_agent_is_the_outcome(sim, project):
    agent = sim()
    command = retry(project, agent.minted.id)
    agent.answer(agent.next_command(), "failed", None, "could not resolve task name for 'x'")
    done = ended(project, command["id"])
    assert done["status"] == "failed" and done["error"] == "could not resolve task name for 'x'"
    assert done["result"] is None and done["delivered"] == "yes"


def test_a_result_may_come_without_an_ack_and_twice(sim, project):
    agent = sim()
    command = retry(project, agent.minted.id)
    frame = agent.next_command()
    agent.answer(frame, "success", {"n": 1}, ack=False)
    first = ended(project, command["id"])
    agent.answer(frame, "failed", None, "second thoughts")
    agent.ack_command(frame)
    agent.report(received(new_id()))
    never(lambda: project.command(command["id"])["status"] != "succeeded", during=0.5)
    assert project.command(command["id"])["result"] == first["result"]


def test_the_issue_and_the_outcome_are_in_the_ledger(sim, project):
    if entries(project) is None:
        not_there_yet("GET audit")
    agent = sim(on_command=succeed_everything)
    command = retry(project, agent.minted.id)
    done = ended(project, command["id"])
    mine = [entry for entry in entries(project) if entry["command_id"] == command["id"]]
    seqs = sorted(entry["seq"] for entry in mine)
    assert done["audit"]["issued_seq"] == seqs[0] and done["audit"]["outcome_seq"] in seqs
    assert done["audit"]["issued_seq"] < done["audit"]["outcome_seq"]
    actions = {entry["action"] for entry in mine}
    assert {"command.issue.retry_task", "command.completed"} <= actions
    every = [entry["seq"] for entry in project.audit()]
    assert every == list(range(len(every), 0, -1)), "sequence numbers without gaps, newest first"


def test_only_the_named_agent_receives_the_frame(sim, project):
    named, other = sim(), sim()
    retry(project, named.minted.id)
    named.next_command()
    never(lambda: other.command_log, during=0.5)


def test_commands_are_listed_newest_first_and_filtered_by_status(sim, project):
    agent = sim(on_command=succeed_everything)
    ids = [retry(project, agent.minted.id)["id"] for _ in range(7)]
    for one in ids:
        ended(project, one)
    listed = [c["id"] for c in project.commands(limit=2)]
    assert listed == sorted(ids, reverse=True)
    assert [c["id"] for c in project.commands(status="succeeded")] == listed
    assert [c["id"] for c in project.commands(status="completed", limit=3)] == listed, "an alias"
    for status in ("issued", "pending", "failed", "timed_out", "timeout"):
        assert project.commands(status=status) == []
    for status in ("done", "", "succeeded,failed", "SUCCEEDED"):
        project.get("/commands", expect=422, status=status)
    assert project.command(ids[0]) == next(c for c in project.commands() if c["id"] == ids[0])


def test_a_command_of_another_project_is_not_found(sim, project, admin):
    agent = sim(on_command=succeed_everything)
    command = retry(project, agent.minted.id)
    other = Project.create(admin)
    other.command(command["id"], expect=404)
    other.command(new_id(), expect=404)
    other.get("/commands/not-a-uuid", expect=(404, 422))
    other.post("/commands/retry-task", {"agent_id": agent.minted.id, "engine": "celery", "task_id": "x"}, expect=404)
    assert other.commands() == []


# --- refusals: before any row


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
    serves(target.project, verb)
    body = {"agent_id": target.minted.id, **VERBS[verb][0], **change}
    body = {name: value for name, value in body.items() if value is not ...}
    refused(target.project, verb, body, status)
    assert target.agent.command_log == [], "a refused request reached the agent"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("body", ["", "null", "[]", "1", '"x"', "{", '{"agent_id":}', "\xff"])
def test_a_body_that_is_no_object_is_refused(target, verb, body):
    serves(target.project, verb)
    before = len(target.project.commands())
    target.project.client.request(
        "POST", target.project.path(f"/commands/{verb}"), expect=(400, 422), content=body.encode("latin-1"),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert len(target.project.commands()) == before


@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_of_another_project_is_not_found(target, admin, verb):
    serves(target.project, verb)
    foreign = Project.create(admin).mint()
    refused(target.project, verb, {"agent_id": foreign.id, **VERBS[verb][0]}, 404)


@pytest.mark.parametrize("verb", VERBS)
def test_without_the_csrf_header_nothing_happens(target, verb):
    serves(target.project, verb)
    before = target.project.commands()
    answer = target.project.client.request(
        "POST", target.project.path(f"/commands/{verb}"), expect=403, csrf=False,
        json={"agent_id": target.minted.id, **VERBS[verb][0]},
    )  # fmt: skip
    assert answer.json()["details"]["reason"] == "csrf_mismatch"
    assert target.project.commands() == before and target.agent.command_log == []


@pytest.mark.parametrize("verb", VERBS)
def test_an_agent_that_never_connected_is_refused_with_409(target, project, verb):
    serves(project, verb)
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
    serves(target.project, verb)
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


# --- overrides


def test_overrides_up_to_64_kib_reach_the_agent_as_they_are(sim, project):
    agent = sim()
    kwargs = {"k": "x" * (65_536 - len('{"k":""}'))}
    assert len(json.dumps(kwargs, separators=(",", ":"))) == 65_536
    retry(project, agent.minted.id, override_args=[1, 2.5, None, "é"], override_kwargs=kwargs)
    parameters = agent.next_command()["payload"]["parameters"]
    assert parameters["override_kwargs"] == kwargs and parameters["override_args"] == [1, 2.5, None, "é"]


def test_secrets_in_overrides_reach_the_agent_and_are_never_shown(sim, project, server):
    agent = sim()
    kwargs = {"password": "Tr0ub4dor-and-three", "to": "carol.private@corp.example", "n": 1}
    command = retry(project, agent.minted.id, override_args=[], override_kwargs=kwargs)
    frame = agent.next_command()
    assert frame["payload"]["parameters"]["override_kwargs"] == kwargs
    agent.answer(frame, "success", {"new_task_id": "n", "password": "Tr0ub4dor-and-three"})
    ended(project, command["id"])
    shown = json.dumps([command, project.command(command["id"]), project.commands(), entries(project)]) + server.log()
    assert "Tr0ub4dor" not in shown and "carol.private" not in shown


@pytest.mark.parametrize("engine", ["rq", "dramatiq", "huey", "arq", "taskiq"])
def test_one_half_of_the_overrides_is_for_celery_only(sim, project, engine):
    agent = sim(engines=[engine], capabilities={engine: ["retry_task", "retry_by_reference_v1"]})
    base = {"agent_id": agent.minted.id, "engine": engine, "task_id": "t-1"}
    refused(project, "retry-task", {**base, "override_kwargs": {"a": 1}}, 422)
    refused(project, "retry-task", {**base, "override_args": [1]}, 422)
    if engine != "rq":
        refused(project, "retry-task", base, 422)
    project.issue("retry-task", **base, override_args=[1], override_kwargs={"a": 1})
    assert agent.next_command()["payload"]["parameters"].get("priority") is None


def test_a_retry_for_later_gives_its_task_an_eta(project, obedient):
    command = project.issue(
        "retry-task", agent_id=obedient.ack["agent_id"], engine="celery", task_id="t", eta="2027-03-01T12:00:00+01:00"
    )
    done = eventually(lambda: (c := project.command(command["id"])) and c["status"] == "succeeded" and c)
    new = done["result"]["new_task_id"]
    eventually(lambda: project.get(f"/tasks/celery/{new}", expect=None).status_code == 200, why="no task yet")
    assert project.task(new)["eta"] == "2027-03-01T11:00:00.000000+00:00"
    obedient.report(received(new))
    row = project.task(new)
    assert row["eta"] == "2027-03-01T11:00:00.000000+00:00" and row["args"] == [1]
    assert [event["kind"] for event in project.events(new)] == ["task.received"]


def test_an_engine_that_the_agent_lacks_ends_unsupported_without_dispatch(sim, project):
    """D16: minted and audited, failed at once, and no frame leaves."""
    agent = sim()
    body = {"engine": "huey", "task_id": "x", "override_args": [], "override_kwargs": {}}
    command = project.issue("retry-task", agent_id=agent.minted.id, **body)
    assert (command["status"], command["result"]) == ("failed", {"ok": False, "reason": "unsupported"})
    assert not agent.commands


# --- idempotency


def test_fifty_identical_posts_at_once_give_one_command_and_one_frame(sim, project, server):
    agent = sim(on_command=succeed_everything)
    body = {"agent_id": agent.minted.id, "engine": "celery", "task_id": "t-1", "idempotency_key": "once"}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: project.issue("retry-task", **body)["id"], range(50)))
    assert len(set(answers)) == 1
    ended(project, answers[0])
    assert len(project.commands()) == 1 and len(agent.command_log) == 1
    again = project.issue("retry-task", **body)
    assert again["id"] == answers[0] and again["status"] == "succeeded"
    ledger = entries(project)
    if ledger is not None:
        mine = [entry["action"] for entry in ledger if entry["command_id"] == answers[0]]
        assert mine.count("command.issue.retry_task") == 1 and mine.count("command.completed") == 1


@pytest.mark.parametrize("change", [{"task_id": "t-2"}, {"override_args": [], "override_kwargs": {"a": 1}}])
def test_a_key_with_another_body_is_a_conflict(sim, project, change):
    agent = sim()
    body = {"agent_id": agent.minted.id, "engine": "celery", "task_id": "t-1", "idempotency_key": "mine"}
    project.issue("retry-task", **body)
    project.issue("retry-task", expect=409, **{**body, **change})
    project.issue("cancel-task", expect=409, **body)
    assert len(project.commands()) == 1


def test_a_key_belongs_to_its_project_and_a_refusal_does_not_use_it(sim, project, admin, server):
    agent = sim(on_command=succeed_everything)
    other = Project.create(admin)
    with Agent(server.url, other.mint(), on_command=succeed_everything).open() as far:
        body = {"engine": "celery", "idempotency_key": "shared"}
        project.issue("retry-task", expect=422, agent_id=agent.minted.id, task_id="", **body)
        one = project.issue("retry-task", agent_id=agent.minted.id, task_id="x", **body)
        two = other.issue("retry-task", agent_id=far.minted.id, task_id="x", **body)
        assert one["id"] != two["id"]


# --- absent, slow and dead agents


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server whose commands time out after two seconds."""
    server = new_server(tmp_path_factory.mktemp("hasty"), command_timeout_seconds=2, heartbeat_seconds=2).start(deadline=120)
    yield server
    server.discard()


@pytest.fixture(scope="module")
def hasty_admin(hasty):
    with login(hasty) as client:
        yield client


@pytest.fixture
def hasty_project(hasty_admin):
    return Project.create(hasty_admin)


def test_a_command_for_an_offline_agent_waits_and_is_delivered_when_it_returns(sim, project):
    agent = sim()
    agent.close()
    eventually(lambda: project.agent(agent.minted.id)["state"] == "offline", 12)
    command = retry(project, agent.minted.id)
    assert command["status"] == "issued" and command["agent_state"] == "offline"
    assert command["dispatched_at"] is None and command["delivered"] in ("no", None)
    back = sim(agent.minted, on_command=succeed_everything)
    assert ended(project, command["id"])["status"] == "succeeded"
    assert [frame["id"] for frame in back.command_log] == [command["id"]]


def test_a_command_never_delivered_times_out_and_says_so(hasty, hasty_project):
    minted = hasty_project.mint()
    Agent(hasty.url, minted).open().close()
    eventually(lambda: hasty_project.agent(minted.id)["state"] == "offline", 12)
    begun = time.monotonic()
    command = retry(hasty_project, minted.id)
    done = ended(hasty_project, command["id"])
    assert 1.5 < time.monotonic() - begun < 5
    assert done["status"] == "timed_out" and done["delivered"] == "no" and "never delivered" in done["error"]
    with Agent(hasty.url, minted).open() as agent:
        never(lambda: agent.command_log, during=1, why="a dead command was delivered")


def test_a_command_without_an_answer_times_out_and_may_have_run(hasty, hasty_project):
    with Agent(hasty.url, hasty_project.mint()).open() as agent:
        command = retry(hasty_project, agent.minted.id)
        frame = agent.next_command()
        agent.ack_command(frame)
        done = ended(hasty_project, command["id"])
        assert done["status"] == "timed_out" and done["delivered"] in ("yes", "unknown")
        assert "may have run" in done["error"]
        agent.answer(frame, "success", {"new_task_id": "late"})
        late = eventually(lambda: (c := hasty_project.command(command["id"]))["late_status"] and c)
        assert late["status"] == "timed_out" and late["late_status"] == "succeeded"
        assert late["late_result"] == {"new_task_id": "late"} and late["completed_at"] == done["completed_at"]
        assert hasty_project.commands(status="timed_out")[0]["id"] == command["id"]
        assert hasty_project.commands(status="timeout") == hasty_project.commands(status="timed_out")


def test_a_timed_out_key_answers_with_the_same_command_and_dispatches_nothing(hasty, hasty_project):
    with Agent(hasty.url, hasty_project.mint()).open() as agent:
        body = {"agent_id": agent.minted.id, "engine": "celery", "task_id": "x", "idempotency_key": "k"}
        command = hasty_project.issue("retry-task", **body)
        ended(hasty_project, command["id"])
        again = hasty_project.issue("retry-task", **body)
        assert again["id"] == command["id"] and again["status"] == "timed_out"
        never(lambda: len(agent.command_log) > 1, during=0.5)


def test_one_command_at_a_time_is_in_flight_on_a_session(sim, project):
    agent = sim()
    ids = [retry(project, agent.minted.id)["id"] for _ in range(3)]
    first = agent.next_command()
    never(lambda: len(agent.command_log) > 1, during=0.7, why="a second command while the first runs")
    assert [project.command(one)["status"] for one in ids] == ["dispatched", "issued", "issued"]
    agent.answer(first, "success", {})
    for _ in range(2):
        agent.answer(agent.next_command(), "success", {})
    for one in ids:
        assert ended(project, one)["status"] == "succeeded"
    assert [frame["id"] for frame in agent.command_log] == ids, "oldest first"


def test_a_cancel_is_redelivered_to_another_worker_when_a_session_drops(sim, project):
    minted = project.mint()
    first = sim(minted)
    command = project.issue("cancel-task", agent_id=minted.id, engine="celery", task_id="x")
    frame = first.next_command()
    second = sim(minted, on_command=succeed_everything)
    first.drop()
    done = ended(project, command["id"])
    assert done["status"] == "succeeded" and done["attempt"] == 2
    assert [f["id"] for f in second.command_log] == [frame["id"]], "the frame id is unchanged on redelivery"


def test_a_retry_is_delivered_at_most_once(hasty, hasty_project):
    minted = hasty_project.mint()
    first = Agent(hasty.url, minted).open()
    command = retry(hasty_project, minted.id)
    first.next_command()
    with Agent(hasty.url, minted, on_command=succeed_everything).open() as second:
        first.drop()
        done = ended(hasty_project, command["id"])
        assert done["status"] == "timed_out" and done["delivered"] == "unknown"
        assert second.command_log == []


def test_a_result_sent_in_the_next_session_still_counts(sim, project):
    minted = project.mint()
    first = sim(minted, worker_id="same")
    command = retry(project, minted.id)
    frame = first.next_command()
    first.drop()
    second = sim(minted, worker_id="same")
    second.answer(frame, "success", {"new_task_id": "n"})
    assert ended(project, command["id"])["status"] == "succeeded"


def test_a_result_from_another_agent_or_for_nothing_is_ignored(sim, project):
    owner, stranger = sim(), sim()
    command = retry(project, owner.minted.id)
    frame = owner.next_command()
    stranger.answer(frame, "success", {"forged": True})
    for odd in (new_id(), "not-a-uuid", "x" * 64):
        stranger.send("command_result", {"status": "success", "result": {}, "error": None, "delivery_claim_token": None}, id=odd)
    stranger.report(received(new_id()))
    never(lambda: project.command(command["id"])["status"] in ENDED, during=0.5, why="a stranger's result counted")
    owner.answer(frame, "failed", None, "mine")
    assert ended(project, command["id"])["error"] == "mine"


def test_commands_survive_a_restart(own_server, tmp_path):
    server = own_server(command_timeout_seconds=30)
    project = Project.create(login(server))
    minted = project.mint()
    agent = Agent(server.url, minted).open()
    done_id = retry(project, minted.id, idempotency_key="done")["id"]
    agent.answer(agent.next_command(), "success", {"n": 1})
    ended(project, done_id)
    open_id = retry(project, minted.id)["id"]
    frame = agent.next_command()
    agent.close()
    waiting = project.issue("cancel-task", agent_id=minted.id, engine="celery", task_id="w")["id"]
    server.kill()
    server.start()
    project = project.through(login(server))
    assert project.command(done_id)["result"] == {"n": 1}
    again = project.issue("retry-task", agent_id=minted.id, engine="celery", task_id=project.command(done_id)["target_id"][7:], idempotency_key="done")
    assert again["id"] == done_id, "a key replays after a restart"
    agent = Agent(server.url, minted).open()
    agent.answer(frame, "success", {"n": 2})
    assert ended(project, open_id)["result"] == {"n": 2}
    while (frame := agent.next_command())["id"] != waiting:
        raise AssertionError(f"only the waiting cancel may be delivered, not {frame}")
    agent.answer(frame, "success", {})
    assert ended(project, waiting)["status"] == "succeeded"
    agent.close()


# --- the other verbs, as frames


def test_pool_resize_is_sent_as_grow_or_shrink_with_the_absolute_delta(sim, project):
    serves(project, "pool-resize")
    agent = sim()
    agent.beat_with_workers("w1@host")
    eventually(lambda: project.get("/workers").json())
    for delta, action in ((2, "pool_grow"), (-3, "pool_shrink"), (100, "pool_grow"), (-100, "pool_shrink")):
        command = project.issue("pool-resize", agent_id=agent.minted.id, worker_name="w1@host", delta=delta)
        frame = agent.next_command()
        assert frame["payload"]["action"] == command["action"] == action
        assert frame["payload"]["parameters"]["delta"] == abs(delta)
        assert frame["payload"]["target"]["id"] == "w1@host"
        agent.answer(frame, "success", {})
        ended(project, command["id"])


@pytest.mark.parametrize("rate", ["0", "100", "100/s", "100/m", "100/h"])
def test_rates_of_the_grammar_are_sent(sim, project, rate):
    serves(project, "rate-limit")
    agent = sim()
    project.issue("rate-limit", agent_id=agent.minted.id, task_name="email.send", rate=rate)
    assert agent.next_command()["payload"]["parameters"]["rate"] == rate


@pytest.mark.parametrize("form", [{}, {"worker_name": None}, {"worker_name": ""}])
def test_a_rate_limit_without_worker_is_a_broadcast_and_flagged(sim, project, form):
    serves(project, "rate-limit")
    agent = sim(on_command=succeed_everything)
    command = project.issue("rate-limit", agent_id=agent.minted.id, task_name="email.send", rate="10/m", **form)
    frame = eventually(lambda: agent.command_log and agent.command_log[0])
    assert frame["payload"]["target"]["id"] is None
    assert not frame["payload"]["parameters"]["worker_name"]
    assert command.get("global_throttle", command["payload"].get("global_throttle")) is True
    ledger = entries(project)
    if ledger is not None:
        flagged = project.audit(global_throttle="true")
        assert [e["command_id"] for e in flagged if e["action"].startswith("command.issue")] == [command["id"]]


def test_an_observed_depth_becomes_the_token_that_the_agent_expects(sim, project):
    serves(project, "purge-queue")
    agent = sim()
    command = project.issue("purge-queue", agent_id=agent.minted.id, queue="billing-é", observed_depth=7)
    parameters = agent.next_command()["payload"]["parameters"]
    assert parameters["confirm_token"] == purge_token(agent.secret, "billing-é", 7)
    assert parameters["queue"] == "billing-é" and parameters["force"] is False
    assert parameters["confirm_token"] not in json.dumps([command, project.commands()])


def test_an_unsupported_action_ends_failed_without_dispatch(sim, project):
    serves(project, "pool-resize")
    agent = sim(engines=["rq"], capabilities={"rq": ["retry_task", "cancel_task", "purge_queue"]})
    one = new_id()
    from harness.agent import event

    agent.report(event("started", one, engine="rq", task_name="j", queue="q", worker="abc"))
    eventually(lambda: project.get("/workers").json())
    command = project.issue("pool-resize", agent_id=agent.minted.id, worker_name="abc", delta=1)
    done = ended(project, command["id"])
    assert done["status"] == "failed" and done["result"] == {"ok": False, "reason": "unsupported"}
    assert agent.command_log == [] and done["delivered"] == "no"


def test_bulk_retry_freezes_the_newest_matching_ids(sim, project):
    serves(project, "bulk-retry")
    from harness.agent import failed, now_text

    agent = sim(on_command=succeed_everything)
    ids = [new_id() for _ in range(8)]
    for n, one in enumerate(ids):
        agent.report(received(one, name="a.b", at=now_text(-100 + n)), failed(one, at=now_text(-90 + n)))
    dry = project.issue("bulk-retry", expect=200, agent_id=agent.minted.id, filter={"state": "failed"}, max=5, dry_run=True)
    newest = ids[::-1][:5]
    assert dry["count"] == 5 and dry["task_ids"] == newest and project.commands() == []
    command = project.issue("bulk-retry", agent_id=agent.minted.id, filter={"status": "failure", "name": "a.b"}, max=5)
    done = ended(project, command["id"])
    assert done["status"] == "succeeded" and done["progress"] == {"total": 5, "succeeded": 5, "failed": 0, "skipped": 0, "pending": 0}
    sent = agent.command_log[0]["payload"]["parameters"]["filter"]
    assert sent["task_ids"] == newest and sent["engine"] == "celery"
    assert sent["task_names"] == {one: "a.b" for one in newest}
    nothing = project.issue("bulk-retry", expect=200, agent_id=agent.minted.id, filter={"name": "zzz"})
    assert nothing["count"] == 0 and len(project.commands()) == 1


# --- limits


def test_retries_are_not_throttled_and_bulk_actions_are(sim, project):
    serves(project, "purge-queue")
    agent = sim(on_command=succeed_everything)
    for _ in range(15):
        retry(project, agent.minted.id)
    body = {"agent_id": agent.minted.id, "queue": "q", "force": True}
    for _ in range(3):
        project.issue("purge-queue", expect=422, agent_id=agent.minted.id, queue="q")
    for _ in range(10):
        project.issue("purge-queue", **body)
    answer = project.post("/commands/purge-queue", body, expect=429)
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert any(name.lower().startswith("ratelimit") for name in answer.headers)


def test_an_api_key_needs_no_csrf_and_only_its_scopes(sim, project, server):
    agent = sim(on_command=succeed_everything)
    made = project.client.post(
        "/api-keys", {"name": "ci", "scopes": ["tasks:read", "commands:write"], "project_id": project.id}, expect=201
    ).json()
    with Client(server.url, key=made["token"]) as client:
        keyed = project.through(client)
        assert keyed.tasks() == []
        command = retry(keyed, agent.minted.id)
        assert ended(keyed, command["id"])["status"] == "succeeded"
        answer = keyed.post("/agents", {"name": "x"}, expect=403)
        assert answer.json()["details"] == {"required_scope": "agents:write", "reason": "scope_missing"}
        client.get("/auth/me", expect=403)
        other = Project.create(project.client).through(client)
        other.get("/tasks", expect=(403, 404))
    project.client.delete(f"/api-keys/{made['id']}")
    with Client(server.url, key=made["token"]) as client:
        project.through(client).get("/tasks", expect=401)


def test_concurrent_commands_to_many_agents_all_end_once(sim, project):
    agents = [sim(on_command=succeed_everything) for _ in range(4)]
    lock, ids = threading.Lock(), []

    def issue(n):
        command = retry(project, agents[n % 4].minted.id)
        with lock:
            ids.append(command["id"])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(issue, range(80)))
    eventually(lambda: len(project.commands(status="succeeded")) == 80, 20)
    assert sorted(f["id"] for a in agents for f in a.command_log) == sorted(ids)
