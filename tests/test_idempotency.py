"""D21: one key, one command, whatever happens around it: at once, after a restart, through another process."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import login
from harness.agent import Agent, commands_of, failed, received, succeed_everything
from harness.client import Project
from harness.commands import ENDED
from harness.wait import eventually

STORES = [pytest.param("embedded", marks=pytest.mark.embedded), pytest.param("cql", marks=pytest.mark.cql)]
BODIES = {
    "retry-task": {"engine": "celery", "task_id": "t-1", "override_kwargs": {"password": "s3cret-value", "n": 1.50}},
    "cancel-task": {"engine": "celery", "task_id": "t-1"},
    "bulk-retry": {"filter": {"state": "failed"}},
    "purge-queue": {"queue": "default", "force": True},
    "restart-worker": {"worker_name": "w1@host"},
    "pool-resize": {"worker_name": "w1@host", "delta": 2},
    "add-consumer": {"worker_name": "w1@host", "queue": "billing"},
    "cancel-consumer": {"worker_name": "w1@host", "queue": "billing"},
    "rate-limit": {"task_name": "email.send", "rate": "10/m"},
}
OTHERS = {
    "retry-task": {"override_kwargs": {"password": "s3cret-value", "n": 1.25}},
    "cancel-task": {"task_id": "t-2"},
    "bulk-retry": {"max": 999},
    "purge-queue": {"queue": "other"},
    "restart-worker": {"worker_name": "w2@host"},
    "pool-resize": {"delta": -2},
    "add-consumer": {"queue": "other"},
    "cancel-consumer": {"queue": "other"},
    "rate-limit": {"worker_name": "w1@host"},
}


def ended(project, command_id, deadline=20):
    return eventually(lambda: (c := project.command(command_id))["status"] in ENDED and c, deadline)


def ready(agent, project):
    """Workers that may be named and one failed task, so that every verb has something to do."""
    agent.beat_with_workers("w1@host", "w2@host")
    one = str(uuid.uuid4())
    agent.report(received(one), failed(one))
    eventually(lambda: len(project.get("/workers").json()) == 2)


def pair_of_entries(project, command):
    """One entry at the issue, one at the outcome, and between them the delivery."""
    mine = sorted((entry["seq"], entry["action"]) for entry in project.audit() if entry["command_id"] == command["id"])
    assert mine[0] == (command["audit"]["issued_seq"], f"command.issue.{command['action']}")
    assert mine[-1] == (command["audit"]["outcome_seq"], "command.completed")
    between = [action for _, action in mine[1:-1]]
    chunk = ["command.chunk_completed"] if command["action"] == "bulk_retry" else []
    assert between == ["command.dispatched", *chunk], mine


@pytest.mark.parametrize("verb", BODIES)
def test_fifty_identical_posts_at_once_give_one_command_one_frame_and_one_pair_of_entries(sim, project, verb):
    agent = sim(on_command=succeed_everything)
    ready(agent, project)
    body = {"agent_id": agent.minted.id, "idempotency_key": f"once-{verb}", **BODIES[verb]}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: project.issue(verb, **body), range(50)))
    assert len({answer["id"] for answer in answers}) == 1
    done = ended(project, answers[0]["id"])
    assert done["status"] == "succeeded" and len(project.commands()) == 1
    assert commands_of(agent) == [done["id"]]
    pair_of_entries(project, done)
    assert project.issue(verb, **body) == project.command(done["id"]), "in its present state"
    project.issue(verb, expect=409, **{**body, **OTHERS[verb]})
    other = "cancel-task" if verb == "retry-task" else "retry-task"
    project.issue(other, expect=409, **{"agent_id": agent.minted.id, "idempotency_key": f"once-{verb}", **BODIES[other]})
    assert len(project.commands()) == 1 and len(agent.command_log) == 1


def test_of_two_bodies_that_race_for_a_key_one_wins_and_the_other_is_a_conflict(sim, project):
    agent = sim(on_command=succeed_everything)
    base = {"agent_id": agent.minted.id, "engine": "celery", "idempotency_key": "raced"}

    def post(n):
        answer = project.post("/commands/cancel-task", {**base, "task_id": f"t-{n % 2}"}, expect=(202, 409))
        return n % 2, answer.status_code, answer.json().get("id")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, range(40)))
    winners = {one for one, status, _ in answers if status == 202}
    assert len(winners) == 1 and len({id for _, status, id in answers if status == 202}) == 1
    assert all(status == (202 if one in winners else 409) for one, status, _ in answers)
    assert len(project.commands()) == 1


def test_equal_requests_in_other_words_are_equal(sim, project):
    """Member order, spaces and a number's spelling do not make another request; an explicit null is an absence."""
    agent = sim(on_command=succeed_everything)
    texts = [
        '{"agent_id":"%s","idempotency_key":"k","task_name":"a","rate":"1/s"}',
        '{ "rate" : "1/s", "task_name": "\\u0061", "worker_name": null,\n "idempotency_key": "k", "agent_id": "%s" }',
        '{"worker_name":"","agent_id":"%s","task_name":"a","rate":"1/s","idempotency_key":"k"}',
    ]
    ids = set()
    for text in texts:
        answer = project.client.request(
            "POST", project.path("/commands/rate-limit"), expect=202, content=text % agent.minted.id,
            headers={"content-type": "application/json"},
        )  # fmt: skip
        ids.add(answer.json()["id"])
    assert len(ids) == 1 and len(project.commands()) == 1


@pytest.mark.parametrize("store", STORES)
def test_every_key_replays_after_a_kill(own_server, store):
    server = own_server(store=store, heartbeat_seconds=2, command_timeout_seconds=20, bulk_limit_per_minute=100)
    project = Project.create(login(server))
    minted = project.mint()
    first = {}
    with Agent(server.url, minted, on_command=succeed_everything).open() as agent:
        ready(agent, project)
        bodies = {
            verb: {"agent_id": minted.id, "idempotency_key": f"key-{verb}", **body} for verb, body in BODIES.items()
        }
        for verb, body in bodies.items():
            first[verb] = ended(project, project.issue(verb, **body)["id"])
        # What the filter matches is another set by now; the key still means the command it made.
        more = str(uuid.uuid4())
        agent.report(received(more), failed(more))
    server.kill()
    server.start(deadline=120)
    project = project.through(login(server))
    with Agent(server.url, minted, on_command=succeed_everything).open() as agent:
        for verb, body in bodies.items():
            again = project.issue(verb, **body)
            assert (again["id"], again["status"]) == (first[verb]["id"], "succeeded")
            project.issue(verb, expect=409, **{**body, **OTHERS[verb]})
        assert agent.command_log == [] and len(project.commands()) == len(BODIES)


@pytest.mark.cql
@pytest.mark.timeout(240)
def test_a_key_holds_across_two_processes_on_one_store(own_server):
    """Half of the posts go to each process, at once; the ledger's guarded append lets one of them win."""
    near = own_server(store="cql", heartbeat_seconds=2, command_timeout_seconds=20)
    far = own_server(store="cql", keyspace=near.keyspace, heartbeat_seconds=2, command_timeout_seconds=20)
    project = Project.create(login(near))
    sides = [project, project.through(login(far))]
    minted = project.mint()
    with (
        Agent(near.url, minted, on_command=succeed_everything).open() as here,
        Agent(far.url, minted, on_command=succeed_everything).open() as there,
    ):
        for round in range(5):
            body = {"agent_id": minted.id, "engine": "celery", "task_id": f"t-{round}", "idempotency_key": f"k-{round}"}
            with ThreadPoolExecutor(50) as pool:
                answers = list(pool.map(lambda n: sides[n % 2].issue("retry-task", **body), range(50)))
            assert len({answer["id"] for answer in answers}) == 1
            done = ended(project, answers[0]["id"])
            assert done["status"] == "succeeded"
            pair_of_entries(project, done)
            for side in sides:
                assert side.issue("retry-task", **body)["id"] == done["id"]
                side.issue("retry-task", expect=409, **{**body, "task_id": "another"})
            assert len(sides[0].commands()) == len(sides[1].commands()) == round + 1
            assert sorted(commands_of(here) + commands_of(there)) == sorted(one["id"] for one in project.commands())
