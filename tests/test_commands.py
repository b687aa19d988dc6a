"""Commands: the straight path of every verb, what reaches the agent, and the one outcome that each of them has."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.agent import Agent, received, started, succeed_everything
from harness.canonical import purge_token
from harness.client import Client, Project
from harness.commands import MEMBERS, ended, entries, new_id, refused, retry
from harness.wait import eventually, never


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


# --- the other verbs, as frames


def test_pool_resize_is_sent_as_grow_or_shrink_with_the_absolute_delta(sim, project):
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
    agent = sim()
    project.issue("rate-limit", agent_id=agent.minted.id, task_name="email.send", rate=rate)
    assert agent.next_command()["payload"]["parameters"]["rate"] == rate


@pytest.mark.parametrize("form", [{}, {"worker_name": None}, {"worker_name": ""}])
def test_a_rate_limit_without_worker_is_a_broadcast_and_flagged(sim, project, form):
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
    agent = sim()
    command = project.issue("purge-queue", agent_id=agent.minted.id, queue="billing-é", observed_depth=7)
    parameters = agent.next_command()["payload"]["parameters"]
    assert parameters["confirm_token"] == purge_token(agent.secret, "billing-é", 7)
    assert parameters["queue"] == "billing-é" and parameters["force"] is False
    assert parameters["confirm_token"] not in json.dumps([command, project.commands()])


def test_an_unsupported_action_ends_failed_without_dispatch(sim, project):
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
