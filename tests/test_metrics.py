"""/metrics: what is counted agrees with what happened, labels are bounded, a token guards it off loopback."""

import json
import re
import uuid

import httpx
import pytest

from conftest import login
from harness.agent import Agent, failed, received, started, succeed_everything, succeeded
from harness.client import Project
from harness.server import free_port
from harness.wait import eventually

LINE = re.compile(r'^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$', re.DOTALL)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"', re.DOTALL)


class Scrape:
    """Every sample of one answer."""

    def __init__(self, text):
        self.samples = {}
        self.types = {}
        for line in text.split("\n"):
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.types[name] = kind
            elif line and not line.startswith("#"):
                found = LINE.match(line)
                assert found, f"no sample: {line!r}"
                labels = frozenset(LABEL.findall(found["labels"] or ""))
                key = (found["name"], labels)
                assert key not in self.samples, f"twice: {line!r}"
                self.samples[key] = float(found["value"])

    def value(self, name, **labels):
        """The sum of all samples that have these labels."""
        wanted = set(labels.items())
        return sum(value for (known, has), value in self.samples.items() if known == name and wanted <= has)

    def labels(self, name):
        return [dict(labels) for known, labels in self.samples if known == name]


def scrape(server):
    answer = httpx.get(server.url + "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Scrape(answer.text)


def test_what_is_counted_is_what_happened(server, project, sim):
    minted = project.mint()
    agent = sim(minted, on_command=succeed_everything)
    ids = [f"{uuid.uuid4()}" for _ in range(6)]
    for n, task in enumerate(ids):
        agent.report(received(task, name="email.send"))
        agent.report(started(task))
        agent.report(succeeded(task, runtime_ms=250) if n < 4 else failed(task))
    again = received(ids[0], name="email.send")
    agent.report(again)
    agent.report(again)
    agent.beat_with_workers("w1@host")
    command = project.issue("cancel-task", agent_id=minted.id, engine="celery", task_id=ids[0])
    eventually(lambda: project.command(command["id"])["status"] == "succeeded", 10, why="the command does not end")

    mine = {"project": project.slug}
    got = scrape(server)
    # A second receipt under a new id is a report of its own, the same one sent again is not.
    assert got.value("z4j_events_ingested_total", kind="task.received", engine="celery", **mine) == 7
    assert got.value("z4j_events_ingested_total", kind="task.succeeded", **mine) == 4
    assert got.value("z4j_tasks_total", task_name="email.send", state="succeeded", **mine) == 4
    assert got.value("z4j_tasks_total", task_name="email.send", state="failed", **mine) == 2
    assert got.value("z4j_task_duration_seconds_count", task_name="email.send", **mine) == 6
    assert got.value("z4j_task_duration_seconds_sum", task_name="email.send", **mine) == pytest.approx(1.0, abs=0.2)
    assert got.value("z4j_task_duration_seconds_bucket", le="0.5", task_name="email.send", **mine) == 6
    assert got.value("z4j_commands_total", action="cancel_task", status="issued", **mine) == 1
    assert got.value("z4j_commands_total", action="cancel_task", status="succeeded", **mine) == 1
    assert got.value("thalamus_command_seconds_count", action="cancel_task", status="succeeded") >= 1
    for latency in ("thalamus_ack_seconds", "thalamus_commit_seconds", "thalamus_command_issue_seconds"):
        assert got.types[latency] == "histogram"
        assert got.value(latency + "_count") > 0
    assert got.value("thalamus_ack_seconds_bucket", le="60") == got.value("thalamus_ack_seconds_count")


def test_how_things_stand_is_told_at_the_time_of_the_scrape(own_server):
    server = own_server(heartbeat_seconds=1)
    with login(server) as admin:
        project = Project.create(admin)
        minted = project.mint()
        agent = Agent(server.url, minted).open()
        agent.beat_with_workers("w1@host", "w2@host")
        queue = 'say "hi"\\'
        agent.heartbeat({"celery.queue_depths": json.dumps({queue: 7})})
        eventually(lambda: scrape(server).value("z4j_workers_online") == 2, 10, why="workers are not counted")
        assert scrape(server).value("z4j_agents_online") == 1
        assert scrape(server).value("z4j_ws_connections") == 1
        eventually(lambda: scrape(server).labels("z4j_queue_depth"), 10, why="the depth is not told")
        escaped = r'say \"hi\"\\'
        assert scrape(server).value("z4j_queue_depth", project=project.slug, queue=escaped, engine="celery") == 7
        agent.close()
        eventually(lambda: scrape(server).value("z4j_agents_online") == 0, 15, why="an agent that is gone is counted")
        assert scrape(server).value("z4j_ws_connections") == 0


def test_labels_are_bounded(own_server):
    """A thousand names of tasks are told apart; the rest share one, and nothing that agents name comes further."""
    server = own_server()
    with login(server) as admin:
        project = Project.create(admin)
        with Agent(server.url, project.mint()).open() as agent:
            for start in range(0, 1200, 100):
                events = [received(f"t{n}", name=f"tasks.number_{n}") for n in range(start, start + 100)]
                agent.report(*events, deadline=30)
            # A placeholder holds the task's id.
            agent.report(*[started(f"nameless-{n}") for n in range(50)], deadline=30)
        names = {labels["task_name"] for labels in scrape(server).labels("z4j_tasks_total")}
        assert len(names) <= 1002
        assert "<other>" in names and "<unknown>" in names
        assert not any("nameless" in name for name in names)
        assert scrape(server).value("z4j_tasks_total", task_name="<unknown>", state="started") == 50


def test_the_token_is_asked_for(own_server):
    token = "a-metrics-token-of-some-length"
    server = own_server(metrics_token=token)
    assert httpx.get(server.url + "/metrics").status_code == 401
    assert httpx.get(server.url + "/metrics", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert httpx.get(server.url + "/metrics", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_off_loopback_there_is_nothing_without_a_token(own_server):
    port = free_port()
    server = own_server(port=port, listen=f"0.0.0.0:{port}", public_url="https://brain.example.com")
    assert httpx.get(server.url + "/metrics").status_code == 401
