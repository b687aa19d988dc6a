"""Agents, workers and queues as the REST interface shows them."""

import json
import time
import uuid

from harness.agent import event, received, started, succeed_everything
from harness.wait import eventually, never


def test_minting_shows_token_and_secret_once_and_refuses_the_name_again(project, server):
    minted = project.mint("billing")
    assert minted.row["name"] == "billing" and minted.row["state"] == "unknown"
    assert minted.row["protocol_version"] == "0" and minted.row["framework_adapter"] == "unknown"
    listed = json.dumps(project.agents())
    assert minted.token not in listed and minted.secret not in listed
    assert minted.token not in server.log() and minted.secret not in server.log()
    project.post("/agents", {"name": "billing"}, expect=409)
    project.client.delete(project.path(f"/agents/{minted.id}"))
    assert all(row["id"] != minted.id for row in project.agents())
    assert project.mint("billing").id != minted.id, "a revoked name may be used again"


def test_all_agents_of_a_project_share_its_secret(project):
    assert project.mint().secret == project.mint().secret


def test_the_agent_row_has_every_member_that_clients_read(sim, project):
    agent = sim()
    row = eventually(lambda: (r := project.agent(agent.minted.id))["state"] == "online" and r)
    expected = {
        "id", "project_id", "name", "state", "protocol_version", "framework_adapter", "engine_adapters",
        "scheduler_adapters", "capabilities", "last_seen_at", "last_connect_at", "created_at", "is_outdated", "host_name",
        "agent_version", "version_status",
    }  # fmt: skip
    assert expected <= set(row), expected - set(row)
    assert row["project_id"] == project.id and row["host_name"] == "sim"
    assert row["capabilities"]["celery"] == sorted(agent.capabilities["celery"])


def test_a_worker_is_listed_beside_the_agent_whose_heartbeat_names_it(sim, project):
    """M132 to M134: one call gives (agent_id, worker_name) pairs ready for use."""
    agent = sim()
    agent.beat_with_workers("w1@host", "w2@host", queues=("default", "billing"), concurrency=3)
    rows = eventually(lambda: len(r := project.get(f"/agents/{agent.minted.id}/workers").json()) == 2 and r)
    assert {(row["agent_id"], row["worker_name"]) for row in rows} == {
        (agent.minted.id, "w1@host"),
        (agent.minted.id, "w2@host"),
    }
    one = next(row for row in rows if row["worker_name"] == "w1@host")
    assert one["engine"] == "celery" and one["state"] == "online" and one["concurrency"] == 3
    assert sorted(one["queues"]) == ["billing", "default"]
    flat = project.get("/workers").json()
    assert {row["name"] for row in flat} == {"w1@host", "w2@host"}
    by_id = project.get(f"/workers/{one['id']}").json()
    assert by_id["name"] == "w1@host" and "metadata" in by_id


def test_a_worker_named_by_events_only_lives_as_long_as_the_session_that_named_it(sim, project):
    agent, one = sim(), str(uuid.uuid4())
    agent.report(received(one), started(one, worker="lonely@host"))
    row = eventually(
        lambda: next((r for r in project.get("/workers").json() if r["name"] == "lonely@host"), None),
        why="the worker is listed",
    )
    assert row["state"] == "online"
    agent.drop()
    eventually(
        lambda: next(r for r in project.get("/workers").json() if r["name"] == "lonely@host")["state"] == "offline",
        15,
        why="the worker goes offline with its session",
    )


def test_another_projects_agents_and_workers_are_not_found(sim, project, admin):
    from harness.client import Project

    other = Project.create(admin)
    agent = sim()
    agent.beat_with_workers("w1@host")
    row = eventually(lambda: project.get("/workers").json())[0]
    assert other.get("/workers").json() == [] and other.agents() == []
    other.get(f"/agents/{agent.minted.id}/workers", expect=404)
    other.get(f"/workers/{row['id']}", expect=404)
    other.client.delete(other.path(f"/agents/{agent.minted.id}"), expect=(204, 404))
    never(lambda: agent.closed_with is not None, during=0.5, why="revoked through another project")


def test_a_worker_of_a_host_with_a_full_name_keeps_it(sim, project):
    """`process@host` is no e-mail address, also where a heartbeat names it: commands take it verbatim (M133)."""
    agent = sim()
    hosts = {"celery@ip-10-0-0-1.ec2.internal", "celery@db.example.org"}
    agent.beat_with_workers(*hosts)
    eventually(lambda: {worker["name"] for worker in project.get("/workers").json()} == hosts, why="names differ")


def test_queues_are_known_from_events_and_heartbeats(sim, project):
    agent = sim()
    agent.report(received(str(uuid.uuid4()), queue="from-event"))
    agent.beat_with_workers("w1@host", queues=("from-heartbeat",))
    names = eventually(
        lambda: {q["name"] for q in project.get("/queues").json()} >= {"from-event", "from-heartbeat"}
    )
    assert names
    for row in project.get("/queues").json():
        assert {"id", "project_id", "name", "engine", "last_seen_at", "created_at"} <= set(row)
        assert row["engine"] == "celery" and row["project_id"] == project.id


def test_heartbeats_of_any_shape_are_harmless(sim, project):
    agent = sim()
    for health in (
        {"celery.worker_details": "not json"},
        {"celery.worker_details": "[]"},
        {"celery.worker_details": '{"w@h": null}'},
        {"celery.worker_details": '{"w@h": {"stats": {"pool": {"max-concurrency": "many"}}, "active_queues": [1, null]}}'},
        {"celery.queue_depths": '{"q": -1, "r": "x", "s": 1e400}'},
        {"celery.queue_depths": '{"q": ' + "9" * 400 + "}"},
        {"": "", ".": "", "celery.": "x", "x" * 5000: "y"},
        {"celery.worker_details": json.dumps({f"w{n}@h": {} for n in range(3000)})},
    ):
        agent.heartbeat(health)
    agent.send("heartbeat", {"adapter_health": None})
    agent.send("heartbeat", {"adapter_health": {"a": 1, "b": None, "c": {}}})
    agent.send("heartbeat", {})
    agent.report(received(str(uuid.uuid4())))
    assert agent.alive
    project.get("/workers")
    project.get("/queues")


def test_a_worker_that_only_receives_is_told_to_run_with_events(sim, project):
    """WIRE 12.1: without -E only `received` and `revoked` arrive; the agent's row says what to do."""
    agent = sim()
    agent.beat_with_workers("quiet@host")
    agent.report(*[received(str(uuid.uuid4())) for _ in range(30)])
    eventually(lambda: "-E" in json.dumps(project.agent(agent.minted.id)), 15, why="the row advises -E")


def test_a_worker_with_events_is_told_nothing(sim, project):
    agent = sim()
    agent.beat_with_workers("w1@host")
    for _ in range(30):
        one = str(uuid.uuid4())
        agent.report(received(one), started(one))
    time.sleep(0.5)
    assert "-E" not in json.dumps(project.agent(agent.minted.id))


def test_events_of_kinds_that_name_no_task_are_taken_quietly(sim, project):
    agent = sim()
    agent.wait_ack(agent.batch(event("worker.online", None, worker="w9@host"), event("queue.depth_report", None, queue="q", depth=3)))
    assert project.walk() == []
    assert sim(agent.minted, on_command=succeed_everything).alive
