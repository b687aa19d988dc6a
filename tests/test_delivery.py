"""Whom a command reaches and when: waiting agents, capable workers, dropped sessions, deadlines (D22, D23)."""

from datetime import datetime

import pytest

from harness.agent import Agent, commands_of, event, received, started, succeed_everything
from harness.client import Project
from harness.commands import ended
from harness.wait import eventually, never

VERBS = {
    "cancel-task": ({"engine": "celery", "task_id": "t"}, True),
    "rate-limit": ({"task_name": "email.send", "rate": "1/m"}, True),
    "add-consumer": ({"worker_name": "w1@host", "queue": "q"}, True),
    "cancel-consumer": ({"worker_name": "w1@host", "queue": "q"}, True),
    "retry-task": ({"engine": "celery", "task_id": "t"}, False),
    "bulk-retry": ({"filter": {"name": "email.send"}}, False),
    "purge-queue": ({"queue": "q", "force": True}, False),
    "pool-resize": ({"worker_name": "w1@host", "delta": 1}, False),
    "restart-worker": ({"worker_name": "w1@host"}, False),
}


@pytest.fixture
def place(hasty, hasty_admin):
    """A project on the hasty server, and a way to open its agents."""

    class Place:
        project = Project.create(hasty_admin)
        opened = []

        def agent(self, minted=None, **more):
            agent = Agent(hasty.url, minted or self.project.mint(), **more)
            self.opened.append(agent)
            return agent.open()

    one = Place()
    yield one
    for agent in one.opened:
        agent.close()


def late_by(command):
    """Seconds between a command's deadline and its end."""
    return (datetime.fromisoformat(command["completed_at"]) - datetime.fromisoformat(command["timeout_at"])).total_seconds()


def prepared(place):
    """An agent that has named a worker and a task, and has not been asked anything yet."""
    agent = place.agent()
    agent.beat_with_workers("w1@host")
    agent.report(received("t", name="email.send"), started("t"))
    eventually(lambda: any(row["name"] == "w1@host" and row["concurrency"] for row in place.project.get("/workers").json()))
    return agent


@pytest.mark.parametrize("verb", VERBS)
def test_a_session_that_drops_with_a_command_in_flight(place, verb):
    """D23: what may be done twice goes to another worker, under the same id; all else is delivered once and times out."""
    body, twice = VERBS[verb]
    first = prepared(place)
    command = place.project.issue(verb, agent_id=first.minted.id, **body)
    frame = first.next_command()
    second = place.agent(first.minted, on_command=succeed_everything)
    first.drop()
    done = ended(place.project, command["id"])
    if twice:
        assert (done["status"], done["attempt"], done["delivered"]) == ("succeeded", 2, "yes")
        assert [again["id"] for again in second.command_log] == [frame["id"]]
    else:
        assert (done["status"], done["attempt"]) == ("timed_out", 1) and "may have run" in done["error"]
        assert done["delivered"] == "unknown" and second.command_log == []
        assert 0 <= late_by(done) < 1, "I-5"


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_for_an_absent_agent_waits_for_it(place, verb):
    """D22: every verb, also those that are delivered once: nothing has left yet."""
    body, _ = VERBS[verb]
    agent = prepared(place)
    agent.close()
    eventually(lambda: place.project.agent(agent.minted.id)["state"] == "offline", 12)
    command = place.project.issue(verb, agent_id=agent.minted.id, **body)
    assert (command["status"], command["agent_state"], command["delivered"]) == ("issued", "offline", "no")
    back = place.agent(agent.minted, on_command=succeed_everything)
    done = ended(place.project, command["id"])
    assert (done["status"], done["delivered"], done["attempt"]) == ("succeeded", "yes", 1)
    assert commands_of(back) == [command["id"]]


def test_an_absent_agent_that_stays_away_ends_its_commands_at_their_deadline(place):
    agent = prepared(place)
    agent.close()
    eventually(lambda: place.project.agent(agent.minted.id)["state"] == "offline", 12)
    ids = [place.project.issue("retry-task", agent_id=agent.minted.id, engine="celery", task_id=f"t{n}")["id"] for n in range(20)]
    for one in ids:
        done = ended(place.project, one)
        assert (done["status"], done["delivered"], done["attempt"]) == ("timed_out", "no", 0)
        assert "never delivered" in done["error"] and 0 <= late_by(done) < 1
    back = place.agent(agent.minted)
    never(lambda: back.command_log, during=1, why="a command that had ended was delivered")


def test_only_a_worker_with_the_engine_gets_the_command(place):
    """One token, processes with different engines: the command passes by whoever cannot, and waits for one that can."""
    minted = place.project.mint()
    web = place.agent(minted, engines=["rq"], capabilities={"rq": ["retry_task"]}, role="web", on_command=succeed_everything)
    busy = place.agent(minted)
    first = place.project.issue("cancel-task", agent_id=minted.id, engine="celery", task_id="a")
    frame = busy.next_command()
    second = place.project.issue("cancel-task", agent_id=minted.id, engine="celery", task_id="b")
    never(lambda: web.command_log, during=0.7, why="a worker of another engine got it")
    assert place.project.command(second["id"])["status"] == "issued"
    free = place.agent(minted, on_command=succeed_everything)
    assert ended(place.project, second["id"])["status"] == "succeeded" and commands_of(free) == [second["id"]]
    busy.answer(frame, "success", {})
    assert ended(place.project, first["id"])["status"] == "succeeded" and web.command_log == []


def test_of_two_engines_each_gets_its_own_commands(place):
    minted = place.project.mint()
    rq = place.agent(minted, engines=["rq"], capabilities={"rq": ["cancel_task"]}, on_command=succeed_everything)
    celery = place.agent(minted, on_command=succeed_everything)
    wanted = {"rq": [], "celery": []}
    for n in range(12):
        engine = ("rq", "celery")[n % 2]
        wanted[engine].append(place.project.issue("cancel-task", agent_id=minted.id, engine=engine, task_id=f"t{n}")["id"])
    for one in wanted["rq"] + wanted["celery"]:
        assert ended(place.project, one)["status"] == "succeeded"
    assert sorted(frame["id"] for frame in rq.command_log) == sorted(wanted["rq"])
    assert sorted(frame["id"] for frame in celery.command_log) == sorted(wanted["celery"])


def test_two_workers_on_one_token_share_the_commands_one_at_a_time_each(place):
    minted = place.project.mint()
    pair = [place.agent(minted), place.agent(minted)]
    ids = [place.project.issue("cancel-task", agent_id=minted.id, engine="celery", task_id=f"t{n}")["id"] for n in range(6)]
    eventually(lambda: all(len(agent.command_log) == 1 for agent in pair))
    never(lambda: any(len(agent.command_log) > 1 for agent in pair), during=0.5, why="two in flight on one session")
    for agent in pair:
        agent.on_command = succeed_everything
        agent.answer(agent.command_log[0], "success", {})
    for one in ids:
        assert ended(place.project, one)["status"] == "succeeded"
    assert sorted(frame["id"] for agent in pair for frame in agent.command_log) == sorted(ids)


def test_a_command_that_nobody_answers_holds_nothing_else_up(place):
    """A session whose command timed out is used again, and the late answer is kept as late."""
    agent = place.agent()
    stuck = place.project.issue("retry-task", agent_id=agent.minted.id, engine="celery", task_id="a")
    frame = agent.next_command()
    agent.ack_command(frame)
    done = ended(place.project, stuck["id"])
    assert done["status"] == "timed_out" and 0 <= late_by(done) < 1
    after = place.project.issue("retry-task", agent_id=agent.minted.id, engine="celery", task_id="b")
    agent.answer(agent.next_command(), "success", {})
    assert ended(place.project, after["id"])["status"] == "succeeded"
    agent.answer(frame, "failed", None, "too late")
    late = eventually(lambda: (c := place.project.command(stuck["id"]))["late_status"] and c)
    assert late["late_status"] == "failed" and late["status"] == "timed_out"


def test_an_agents_words_for_unsupported_become_the_one_outcome(place):
    """D16: whatever the table did not know, the agent says, and the command ends alike."""
    agent = place.agent(engines=["arq"], capabilities={"arq": ["submit_task"]})
    agent.report(event("started", "t", engine="arq", task_name="t"))
    command = place.project.issue("cancel-task", agent_id=agent.minted.id, engine="arq", task_id="t")
    words = "adapter 'arq' does not support action 'cancel_task'"
    agent.answer(agent.next_command(), "failed", None, words)
    done = ended(place.project, command["id"])
    assert done["status"] == "failed" and done["result"] == {"ok": False, "reason": "unsupported"}
    assert done["error"] == words and done["delivered"] == "yes"
