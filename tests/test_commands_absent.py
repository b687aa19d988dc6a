"""Commands to agents that are absent, slow or dead, and to a server that restarts."""

import time

import pytest

from conftest import login
from harness.agent import Agent, received, succeed_everything
from harness.client import Project
from harness.commands import ENDED, ended, new_id, retry
from harness.wait import eventually, never


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
