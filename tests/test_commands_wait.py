"""`wait`, of a GET or of the POST that issues: the answer comes with the outcome, or as things stand after that time."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

import pytest

from conftest import login
from harness.agent import Agent
from harness.client import Project
from harness.commands import ended, new_id, retry
from harness.wait import eventually


def waited(project, command_id, wait, expect=200):
    """The answer and how many seconds it took."""
    began = time.monotonic()
    answer = project.get(f"/commands/{command_id}", expect=expect, wait=wait).json()
    return answer, time.monotonic() - began


def test_the_answer_comes_with_the_outcome(sim, project):
    agent = sim()
    command = retry(project, agent.minted.id)
    frame = agent.next_command()
    answering = threading.Timer(1.0, lambda: agent.answer(frame, "success", {"n": 1}))
    answering.start()
    done, took = waited(project, command["id"], 20)
    answering.join()
    assert done["status"] == "succeeded" and done["result"] == {"n": 1}
    assert 0.8 < took < 10, took
    again, took = waited(project, command["id"], 20)
    assert again == done and took < 5


def test_what_has_not_ended_is_answered_as_it_is(sim, project):
    agent = sim()
    command = retry(project, agent.minted.id)
    agent.next_command()
    now, took = waited(project, command["id"], 1)
    assert now["status"] == "dispatched" and 0.9 < took < 5, took
    now, took = waited(project, command["id"], 0)
    assert now["status"] == "dispatched" and took < 1, took


def test_a_deadline_is_an_outcome(hasty, hasty_admin):
    project = Project.create(hasty_admin)
    minted = project.mint()
    with Agent(hasty.url, minted).open():
        command = retry(project, minted.id)
        done, took = waited(project, command["id"], 20)
        assert done["status"] == "timed_out" and 1 < took < 8, took


def posted(project, agent_id, wait, expect=202, **more):
    """The answer to a POST that waits, and how many seconds it took."""
    body = {"agent_id": agent_id, "engine": "celery", "task_id": new_id(), **more}
    began = time.monotonic()
    answer = project.post(f"/commands/retry-task?wait={wait}", body, expect=expect).json()
    return answer, time.monotonic() - began


def test_a_post_answers_with_the_outcome_and_who_repeats_it_hears_the_same(sim, project):
    agent = sim()
    task_id, key = new_id(), new_id()
    with ThreadPoolExecutor(2) as pool:
        ask = partial(posted, project, agent.minted.id, 20, task_id=task_id, idempotency_key=key)
        first = pool.submit(ask)
        frame = agent.next_command()
        second = pool.submit(ask)
        time.sleep(1)
        assert not first.done() and not second.done()
        agent.answer(frame, "success", {"n": 1})
        (done, took), (again, _) = first.result(), second.result()
    assert done["status"] == "succeeded" and done["result"] == {"n": 1} and 0.8 < took < 10, took
    assert again == done == project.command(done["id"])
    assert not agent.commands, "sent twice"


def test_a_post_answers_after_its_time_and_refuses_other_times(sim, project):
    agent = sim()
    now, took = posted(project, agent.minted.id, 1)
    assert now["status"] == "dispatched" and 0.9 < took < 5, took
    for wait in ["-1", "31", "1.5", "soon", ""]:
        before = project.commands()
        body, _ = posted(project, agent.minted.id, wait, expect=422)
        assert body["detail"][0]["loc"] == ["query", "wait"] and project.commands() == before


@pytest.mark.parametrize("wait", ["-1", "31", "1.5", "soon", ""])
def test_other_values_are_refused(project, wait):
    unknown = "01942c5e-0000-7000-8000-000000000000"
    body, took = waited(project, unknown, wait, expect=422)
    assert body["detail"][0]["loc"] == ["query", "wait"] and took < 5
    waited(project, unknown, 30, expect=404)


def test_many_wait_for_one_and_for_their_own(sim, project):
    agent = sim()
    commands = [retry(project, agent.minted.id)["id"] for _ in range(8)]
    admin = project.client
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(waited, project.through(admin), command, 20) for command in commands for _ in range(2)]
        for _ in commands:
            agent.answer(agent.next_command(), "success", None)
        assert {answer.result()[0]["status"] for answer in answers} == {"succeeded"}


def test_who_logs_out_while_waiting_sees_nothing(sim, project, people):
    agent = sim()
    operator = people.member(project, "operator")
    command = retry(project, agent.minted.id)
    frame = agent.next_command()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(waited, operator, command["id"], 20, 401)
        time.sleep(0.5)
        operator.client.post("/auth/logout", expect=204)
        agent.answer(frame, "success", {"n": 1})
        assert answer.result()[0]["error"] == "unauthenticated"


def test_who_goes_away_takes_nothing_along(own_server):
    """More clients than a user may have waiting, each of them gone before the next."""
    server = own_server()
    client = login(server)
    project = Project.create(client)
    minted = project.mint()
    with Agent(server.url, minted).open() as agent:
        command = retry(project, minted.id)
        frame = agent.next_command()
        where = urlsplit(server.url)
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.http.cookies.jar)
        request = (
            f"GET /api/v1/projects/{project.slug}/commands/{command['id']}?wait=30 HTTP/1.1\r\n"
            f"host: {where.netloc}\r\ncookie: {cookies}\r\n\r\n"
        )
        for _ in range(300):
            with socket.create_connection((where.hostname, where.port)) as gone:
                gone.sendall(request.encode())
        eventually(lambda: project.get(f"/commands/{command['id']}", expect=None, wait=1).status_code == 200, 10)
        agent.answer(frame, "success", None)
        assert ended(project, command["id"])["status"] == "succeeded"


def test_a_server_that_goes_down_answers_who_waits(own_server):
    server = own_server(command_timeout_seconds=60)
    project = Project.create(login(server))
    minted = project.mint()
    with Agent(server.url, minted).open() as agent:
        command = retry(project, minted.id)
        agent.next_command()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(waited, project, command["id"], 30)
            time.sleep(0.5)
            began = time.monotonic()
            assert server.terminate() == 0
            assert time.monotonic() - began < 15
            now, took = answer.result()
            assert now["status"] == "dispatched" and took < 10, took
