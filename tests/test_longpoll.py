"""WIRE section 9: an agent that polls gets what one with a socket gets, and each status it reacts to."""

import json
import threading
import uuid

import httpx
import pytest

from harness.agent import Agent, received, succeeded
from harness.wait import eventually, never

EVENTS, COMMANDS = "/api/v1/agent/events", "/api/v1/agent/commands"


class Polling:
    """An agent's process over long-poll; frames are sealed by the simulated agent, bound to the nonce."""

    def __init__(self, server, minted):
        self.sim = Agent(server.url, minted)
        self.sim._reset()
        self.nonce = uuid.uuid4().hex[:22]
        headers = {"authorization": f"Bearer {self.sim.token}", "x-z4j-session-nonce": self.nonce}
        self.http = httpx.Client(base_url=server.url, headers=headers, timeout=40)

    def probe(self):
        answer = self.http.get(COMMANDS, params={"wait": 0, "max_frames": 0})
        assert answer.status_code == 200 and answer.json() == {"frames": []}, answer.text
        self.sim.ack = {
            "agent_id": answer.headers["x-z4j-agent-id"],
            "project_id": answer.headers["x-z4j-project-id"],
            "session_id": self.nonce,
        }
        return self

    def batch(self, *items, **changes):
        return self.sim.seal("event_batch", {"events": list(items)}, id="ev_" + uuid.uuid4().hex, **changes)

    def upload(self, *frames):
        return self.http.post(EVENTS, json={"frames": list(frames)})


@pytest.fixture
def polling(server, project):
    return Polling(server, project.mint()).probe()


def test_uploaded_events_are_there_when_the_upload_is_answered(polling, project):
    one = str(uuid.uuid4())
    answer = polling.upload(polling.batch(received(one)), polling.batch(succeeded(one)))
    assert answer.json()["accepted"] == 2 and answer.json()["error_code"] is None
    assert project.task(one)["state"] == "succeeded"
    assert project.agents()[0]["state"] == "online"


def test_duplicates_and_frames_of_no_use_count_as_accepted(polling, project):
    one = received(str(uuid.uuid4()))
    answer = polling.upload(polling.batch(one), polling.batch(one), "not a frame", "{}")
    assert answer.status_code == 200 and answer.json()["accepted"] == 4
    assert len(project.walk()) == 1


def test_a_command_is_polled_answered_and_over(polling, project):
    got = []
    waiting = threading.Thread(
        target=lambda: got.append(polling.http.get(COMMANDS, params={"wait": 20, "max_frames": 50}).json())
    )
    waiting.start()
    minted = polling.sim.ack["agent_id"]
    command = project.issue("cancel-task", agent_id=minted, engine="celery", task_id="t-1")
    waiting.join(25)
    frame = json.loads(got[0]["frames"][0])
    assert (frame["type"], frame["id"], frame["payload"]["action"]) == ("command", command["id"], "cancel_task")
    claim = frame["payload"]["delivery_claim_token"]
    ack = polling.sim.seal("command_ack", {"delivery_claim_token": claim}, id=frame["id"])
    result = {"status": "success", "result": {"task_id": "t-1"}, "error": None, "delivery_claim_token": claim}
    answer = polling.upload(ack, polling.sim.seal("command_result", result, id=frame["id"]))
    assert answer.json()["accepted"] == 2
    eventually(lambda: project.command(command["id"])["status"] == "succeeded", 5)


def test_a_forged_or_replayed_frame_ends_the_session_until_a_new_probe(polling, project):
    good = polling.batch(received(str(uuid.uuid4())))
    assert polling.upload(good).status_code == 200
    assert polling.upload(good).status_code == 409, "a replay"
    fresh = polling.batch(received(str(uuid.uuid4())))
    assert polling.upload(fresh).status_code == 409, "the nonce is dead"
    assert polling.http.get(COMMANDS, params={"wait": 0, "max_frames": 0}).status_code == 409, "and stays dead"
    assert len(project.walk()) == 1


@pytest.mark.parametrize(
    "change, status",
    [
        ({"authorization": "Bearer nobody"}, 401),
        ({"x-z4j-session-nonce": ""}, 400),
    ],
)
def test_who_is_not_known_is_refused(polling, change, status):
    polling.http.headers.update(change)
    assert polling.http.get(COMMANDS, params={"wait": 0, "max_frames": 0}).status_code == status


@pytest.mark.parametrize("params", [{"wait": 61}, {"max_frames": 501}, {"wait": "x"}, {"max_frames": -1}])
def test_limits_are_kept(polling, params):
    assert polling.http.get(COMMANDS, params=params).status_code == 422


@pytest.mark.parametrize("body", [{}, {"frames": []}, {"frames": [1]}, {"frames": ["x"] * 501}, {"frames": "x"}])
def test_bodies_that_do_not_fit_are_refused(polling, body):
    assert polling.http.post(EVENTS, json=body).status_code == 422


def test_a_revoked_agent_is_told_so(polling, project):
    project.client.delete(project.path(f"/agents/{polling.sim.ack['agent_id']}"))
    assert polling.upload(polling.batch(received("x"))).status_code == 401


# --- processes that go away without a word, as polling ones always do


def answering(polling, halt, seen):
    """Polls, and answers each command with success, as an agent does; remembers which came."""
    while not halt.is_set():
        answer = polling.http.get(COMMANDS, params={"wait": 2, "max_frames": 50})
        for text in answer.json()["frames"]:
            frame = json.loads(text)
            seen.append(frame["id"])
            result = {"status": "success", "result": {}, "error": None, "delivery_claim_token": frame["payload"]["delivery_claim_token"]}
            assert polling.upload(polling.sim.seal("command_result", result, id=frame["id"])).status_code == 200


@pytest.fixture
def working(polling):
    """The polling agent at work in a thread."""
    halt, seen = threading.Event(), []
    thread = threading.Thread(target=answering, args=(polling, halt, seen))
    thread.start()
    yield seen
    halt.set()
    thread.join(10)


def test_commands_do_not_wait_for_a_process_that_no_longer_polls(server, polling, project, working):
    """A process that was restarted leaves its session behind; its successor gets every command, also those that are
    delivered only once: from a session that does not poll, nothing can have left."""
    for _ in range(3):
        gone = Polling(server, polling.sim.minted).probe()
        gone.http.close()
    ids = [
        project.issue("retry-task", agent_id=polling.sim.minted.id, engine="celery", task_id=f"t-{n}")["id"] for n in range(8)
    ]
    for one in ids:
        done = eventually(lambda: (c := project.command(one))["status"] not in ("issued", "dispatched") and c, 20)
        assert (done["status"], done["delivered"]) == ("succeeded", "yes"), done
    assert sorted(working) == sorted(ids)


def test_a_process_that_was_busy_for_a_while_is_asked_again(polling, project):
    """What was not taken in time goes back; the next poll makes the session as good as any."""
    command = project.issue("retry-task", agent_id=polling.sim.minted.id, engine="celery", task_id="t")
    never(lambda: project.command(command["id"])["status"] not in ("issued", "dispatched"), during=6, every=0.5)
    halt, seen = threading.Event(), []
    thread = threading.Thread(target=answering, args=(polling, halt, seen))
    thread.start()
    try:
        done = eventually(lambda: (c := project.command(command["id"]))["status"] == "succeeded" and c, 15)
        assert done["delivered"] == "yes" and seen == [command["id"]]
    finally:
        halt.set()
        thread.join(10)


def test_a_process_that_is_silent_is_offline_and_its_nonce_is_dead(polling, project):
    """It has no socket whose end could be seen: half a minute without a request is its end."""
    assert project.agents()[0]["state"] == "online"
    eventually(lambda: project.agents()[0]["state"] == "offline", 45, every=1)
    assert polling.upload(polling.batch(received(str(uuid.uuid4())))).status_code == 409


def test_a_held_poll_keeps_its_process_online(polling, project):
    answer = polling.http.get(COMMANDS, params={"wait": 37, "max_frames": 1})
    assert answer.status_code == 200 and project.agents()[0]["state"] == "online"
