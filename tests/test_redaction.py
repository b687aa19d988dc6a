"""Secrets and addresses in every place an agent can put them: none is in an answer, an export, the audit log, the server's
log or on disk (D29, M49). Each place has secrets of its own, so that a leak names where it came from."""

import csv
import io
import itertools
import json
import random
import uuid
import zipfile

import pytest

from conftest import login
from harness.agent import Agent, event, failed, received, started, succeeded
from harness.client import Project
from harness.server import Server
from harness.wait import eventually

random.seed(20261124)
ALNUM = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


def word(length, letters=ALNUM):
    return "".join(random.choice(letters) for _ in range(length))


class Corpus:
    """Makes secrets and remembers which stands where. A needle is what no reader may ever find."""

    def __init__(self):
        self.needles = {}

    def note(self, place, kind, needle):
        assert len(needle) >= 9
        self.needles[needle] = f"{kind} in {place}"
        return needle

    def kinds(self, place):
        """Texts that hold one secret each."""
        n = lambda kind, needle: self.note(place, kind, needle)  # noqa: E731
        return [
            "mail " + n("address", f"{word(9).lower()}.x@corp.example.org") + " now",
            "key " + n("AWS key id", "AKIA" + word(16, "ABCDEFGHJKLMNPQRSTUVWXYZ234567")),
            "push " + n("GitHub token", "ghp_" + word(36)),
            "slack " + n("Slack token", "xoxb-" + word(12, "0123456789") + "-" + word(24)),
            "pay " + n("Stripe key", "sk_live_" + word(24)),
            "jwt " + n("JWT", f"eyJ{word(20)}.eyJ{word(24)}.{word(32)}"),
            "Authorization: Bearer " + n("bearer token", word(32)),
            "amqp://bob:" + n("password in a URL", word(14)) + "@broker:5672/v",
            "connect(host='db', password='" + n("password argument", word(14)) + "')",
            "GET /?api_key=" + n("key in a query", word(20)) + "&x=1",
            "ssn " + n("social security number", f"{random.randint(100, 665)}-{random.randint(10, 99)}-{random.randint(1000, 9999)}"),
            "-----BEGIN RSA PRIVATE KEY-----\n" + n("private key", word(48)) + "\n-----END RSA PRIVATE KEY-----",
        ]  # fmt: skip

    def text(self, place):
        return "; ".join(self.kinds(place))

    def repr(self, place):
        """A Python repr of a dict, as Celery's events carry arguments."""
        return "{'password': '" + self.note(place, "password in a repr", word(14)) + "', 'note': " + repr(self.text(place)) + "}"

    def members(self, place):
        """An object with secret-looking names, and texts in depth."""
        names = "password passwd db_password api_key apiKey X-API-Key client_secret access_token refreshToken Authorization"
        names += " cookie private_key credentials ssn session_id cvv"
        secret = {name: self.note(place, f"value of {name}", word(16)) for name in names.split()}
        deep = {"a": [{"b": {"token": self.note(place, "token in depth", word(16))}}], "list": self.kinds(place)}
        nested = {"secret": {"inner": [self.note(place, "inside of a secret", word(16))]}}
        return {**secret, **nested, "deep": deep, "text": self.text(place), "repr": self.repr(place), "n": 7}

    def escaped(self, place):
        """A JSON text whose letters are escapes."""
        key = self.note(place, "escaped key id", "AKIA" + word(16, "ABCDEFGHJKLMNPQRSTUVWXYZ234567"))
        return "".join(f"\\u{ord(c):04x}" for c in key)

    def found_in(self, text):
        return sorted(where for needle, where in self.needles.items() if needle in text)


def says_everything(corpus, project, server):
    """An agent that puts secrets wherever it can; returns it, and the ids of its tasks."""

    def answer(agent, frame):
        failing = frame["payload"]["action"] == "cancel_task"
        agent.answer(
            frame,
            "failed" if failing else "success",
            result=None if failing else corpus.members("a command's result"),
            error=corpus.text("a command's error") if failing else None,
        )

    minted = project.mint()
    agent = Agent(server.url, minted, on_command=answer, worker_id="w-" + corpus.kinds("hello: worker_id")[1])
    agent.open(
        host={"name": corpus.text("hello: host.name"), "hostname": corpus.text("hello: hostname"), "env": corpus.members("hello: host.env")},
        framework=corpus.kinds("hello: framework")[1],
        schedulers=[corpus.kinds("hello: schedulers")[3]],
        capabilities={"celery": ["retry_task", "cancel_task", corpus.kinds("hello: capabilities")[4]]},
        worker_role=corpus.kinds("hello: worker_role")[1],
        runtime_features=[corpus.kinds("hello: runtime_features")[2]],
    )
    ids = [str(uuid.uuid4()) for _ in range(4)]
    agent.report(
        received(
            ids[0], args=corpus.kinds("args") + [corpus.members("args in depth")], kwargs=corpus.members("kwargs"),
            queue=corpus.kinds("queue of an event")[7], tags=corpus.kinds("tags"), meta=corpus.members("meta"),
            headers=corpus.members("headers"), eta=corpus.text("eta"), priority=corpus.text("priority"),
            parent_task_id=corpus.kinds("parent_task_id")[0], root_task_id=corpus.kinds("root_task_id")[1],
        ),
        started(ids[0], worker="w@" + corpus.kinds("worker of an event")[1]),
        succeeded(ids[0], result=corpus.members("result as an object")),
        received(ids[1], name=corpus.kinds("task_name")[2], args=corpus.repr("args as a repr"), kwargs=corpus.repr("kwargs as a repr")),
        started(ids[1]),
        failed(ids[1], exception=corpus.text("exception"), message=corpus.text("exception message and traceback")),
        received(ids[2]),
        event("retried", ids[2], reason=corpus.text("retry reason"), exception=corpus.text("retry exception")),
        received(ids[3], args=corpus.kinds("args of a long event") * 40, result="x" * 200_000),
        # What can never be stored is put aside.
        event("received", ids[3], engine=corpus.kinds("an unknown engine")[1], args=corpus.kinds("args of an unknown engine")),
        event("task." + corpus.kinds("an unknown kind")[2], ids[3], secret=corpus.members("data of an unknown kind")),
        event("received", "", id=corpus.kinds("an event id")[1], args=corpus.kinds("args without a task id")),
    )  # fmt: skip
    escaped = json.dumps(received(ids[3], args=["MARK"])).replace("MARK", corpus.escaped("escaped args"))
    agent.wait_ack(agent.batch(json.loads(escaped)))
    details = {
        "w1@host": {
            "stats": {"pid": 1, "broker": corpus.members("worker stats"), "pool": {"max-concurrency": 2}},
            "active": [{"id": "x", "args": corpus.repr("active task's args"), "kwargs": corpus.members("active task's kwargs")}],
            "active_queues": [{"name": corpus.kinds("active queue")[7], "exchange": corpus.members("exchange")}],
            "registered": ["email.send", corpus.kinds("registered task")[2]],
            "conf": {"broker_url": corpus.kinds("conf broker_url")[7], "timezone": corpus.text("conf timezone"), "beat": corpus.note("conf outside of the list", "plain word", word(16))},
        },
        "w2@" + corpus.kinds("worker of a heartbeat")[1]: {"stats": {}},
    }  # fmt: skip
    agent.heartbeat(
        {
            "celery.broker_connected": "False",
            "celery.broker_type": corpus.kinds("broker_type")[7],
            "celery.broker_error": corpus.text("broker_error"),
            "celery.error": corpus.text("adapter error"),
            "error": corpus.text("agent error"),
            "celery.queue_depths": json.dumps({corpus.kinds("queue of a depth")[7]: 3}),
            "celery.worker_details": json.dumps(details),
            "other": corpus.text("unknown health"),
        }
    )
    agent.send("error", {"code": corpus.kinds("an error's code")[1], "message": corpus.text("an error's message"), "fatal": False})
    agent.send("agent_status", {"agent_version": corpus.kinds("status agent_version")[2], "engines": [corpus.text("status engines")], "x": corpus.members("status")})
    agent.send("registry_delta", {"added": corpus.kinds("registry delta")})
    return agent, minted, ids


def operate(corpus, project, minted, ids):
    """Commands whose bodies hold secrets, and reads with secrets in them."""
    issued = [
        project.issue("retry-task", agent_id=minted.id, engine="celery", task_id=ids[0], override_args=corpus.kinds("override_args"), override_kwargs=corpus.members("override_kwargs")),
        project.issue("cancel-task", agent_id=minted.id, engine="celery", task_id=ids[1]),
    ]  # fmt: skip
    for command in issued:
        eventually(lambda: project.command(command["id"])["completed_at"], 15, why="no outcome")
    project.post("/tasks/bulk-delete", {"filter_search": corpus.kinds("filter of a deletion")[2]})
    return issued


def read_everything(project, ids, issued, minted):
    """Every answer that shows what agents said, by its name."""
    get = lambda rest, **params: project.get(rest, expect=None, **params)  # noqa: E731
    pages = {}
    for rest in (
        "", "/tasks", "/agents", "/agent-workers", "/workers", "/workers/lint", "/queues", "/stats", "/trends", "/commands",
        "/audit", "/audit/verify", "/memberships", f"/agents/{minted.id}/health", f"/agents/{minted.id}/workers",
    ):  # fmt: skip
        pages[rest] = get(rest).text
    for kind in ("csv", "ndjson"):
        pages[f"tasks as {kind}"] = get("/tasks", format=kind).text
        every = "task_id,name,args,kwargs,result,exception,traceback,tags,queue,worker,eta,parent_task_id,root_task_id"
        pages[f"every column as {kind}"] = get("/tasks", format=kind, fields=every).text
        pages[f"audit as {kind}"] = get("/audit", format=kind).text
    sheet = zipfile.ZipFile(io.BytesIO(get("/tasks", format="xlsx", fields=every).content))
    pages["tasks as xlsx"] = "\n".join(sheet.read(name).decode(errors="replace") for name in sheet.namelist())
    for task in ids:
        pages[f"task {task}"] = get(f"/tasks/celery/{task}").text + get(f"/tasks/celery/{task}/tree").text
        pages[f"events of {task}"] = get("/events", engine="celery", task_id=task, limit=500).text
    for worker in project.get("/workers").json():
        pages[f"worker {worker['id']}"] = get(f"/workers/{worker['id']}").text
    for command in issued:
        pages[f"command {command['id']}"] = get(f"/commands/{command['id']}").text
    return pages


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redaction"), heartbeat_seconds=1, command_timeout_seconds=20, log="debug,fjall=info,lsm_tree=info")
    corpus = Corpus()
    try:
        with login(server.start(deadline=120)) as admin:
            project = Project.create(admin)
            agent, minted, ids = says_everything(corpus, project, server)
            issued = operate(corpus, project, minted, ids)
            eventually(lambda: len(project.get("/workers").json()) >= 3, 15, why="the heartbeat's workers are not there")
            pages = read_everything(project, ids, issued, minted)
            pages["/api/v1/audit"] = admin.get("/audit", limit=500).text
            pages["/metrics"] = admin.http.get("/metrics").text
            agent.close()
    finally:
        server.stop()
    return server, corpus, pages


def test_the_corpus_reached_the_answers(told):
    """What is searched shows what agents said: without its secrets, the rest is there."""
    _, corpus, pages = told
    assert len(corpus.needles) > 600
    assert "<redacted>" in pages["/tasks"] and "<email>" in pages["/tasks"]
    assert len(list(csv.reader(io.StringIO(pages["every column as csv"])))) == 5
    assert "connect(host='db', password='<redacted>')" in pages["/tasks"]
    assert '"n":7' in pages["/commands"]


def test_no_answer_and_no_export_shows_a_secret(told):
    _, corpus, pages = told
    leaks = {name: corpus.found_in(text) for name, text in pages.items()}
    assert {name: found for name, found in leaks.items() if found} == {}


def test_the_server_logs_no_secret(told):
    server, corpus, _ = told
    log = server.log()
    assert "agent connected" in log
    assert corpus.found_in(log) == []


def test_nothing_on_disk_holds_a_secret(told):
    server, corpus, _ = told
    files = [path for path in server.data.rglob("*") if path.is_file()]
    # Files are made longer than what is written to them.
    raw = b"\n".join(path.read_bytes().replace(bytes(256), b"") for path in files)
    assert len(raw) > 10_000
    assert b"email.send" in raw, "the store is not compressed beyond recognition"
    found = sorted(where for needle, where in corpus.needles.items() if needle.encode() in raw)
    assert found == []
