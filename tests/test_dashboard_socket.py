"""The dashboards' WebSocket: who may watch, and that a change is told."""

import json

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from harness.agent import received
from harness.server import ADMIN_EMAIL, ADMIN_PASSWORD
from harness.client import Client


def watch(server, client=None, origin=None):
    headers = {}
    if client is not None:
        headers["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.http.cookies.jar)
    return connect(
        server.url.replace("http", "ws", 1) + "/ws/dashboard", additional_headers=headers,
        origin=origin or server.url, proxy=None
    )  # fmt: skip


def closed_with(socket):
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(timeout=15)
    return closed.value.rcvd.code


def hear(socket, topic):
    """Waits for a word about a topic; others may come in between."""
    while True:
        word = json.loads(socket.recv(timeout=5))
        assert word["type"] == "event", word
        if word["topic"] == topic:
            return


def say(socket, **message):
    socket.send(json.dumps(message))


def test_a_watcher_hears_that_tasks_and_agents_change(server, admin, project, sim):
    with watch(server, admin) as socket:
        say(socket, type="subscribe", project_id=project.row["id"])
        assert json.loads(socket.recv(timeout=5)) == {"type": "ready"}
        say(socket, type="ping")
        assert json.loads(socket.recv(timeout=5)) == {"type": "pong"}
        agent = sim()
        hear(socket, "agent.changed")
        agent.report(received("t-1"))
        hear(socket, "task.changed")


def test_who_has_no_session_or_comes_from_elsewhere_is_closed(server, admin, project):
    assert closed_with(watch(server)) == 4401
    assert closed_with(watch(server, admin, origin="https://evil.example")) == 4403


@pytest.mark.parametrize("first", ["{", '{"type":"ping"}', '{"type":"subscribe","project_id":"x"}'])
def test_a_bad_first_message_is_closed_with_4400(server, admin, first):
    socket = watch(server, admin)
    socket.send(first)
    assert closed_with(socket) == 4400


def test_a_stranger_cannot_watch(server, people, project):
    stranger, _ = people.user()
    socket = watch(server, stranger)
    say(socket, type="subscribe", project_id=project.row["id"])
    assert closed_with(socket) == 4403


def test_logging_out_ends_the_watch(server, project):
    client = Client(server.url).login(ADMIN_EMAIL, ADMIN_PASSWORD)
    socket = watch(server, client)
    say(socket, type="subscribe", project_id=project.row["id"])
    assert json.loads(socket.recv(timeout=5)) == {"type": "ready"}
    client.post("/auth/logout", expect=204)
    assert closed_with(socket) == 4401
