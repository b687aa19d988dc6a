"""What a task's row says whatever order its events come in, trees, who may read, deletion."""

import json
import random
import uuid
from datetime import datetime, timedelta, timezone

from harness.agent import Agent, event, failed, now_text, received, retried, started, succeeded
from harness.client import Client, Project


def parse(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


# --- what a row says


def test_the_row_does_not_depend_on_the_order_of_arrival(sim, project):
    """D13, D14: any permutation and repetition of the same events gives the same row."""
    at = datetime.now(timezone.utc) - timedelta(minutes=5)

    def story(one):
        def t(ms):
            return (at + timedelta(milliseconds=ms)).isoformat(timespec="microseconds")

        return [
            received(one, at=t(0), args=[1, "a"], kwargs={"k": None}, tags=["x"], priority="high", root_task_id="r", parent_task_id="p"),
            started(one, at=t(50)),
            received(one, at=t(90), parent_task_id=one),
            retried(one, at=t(100)),
            started(one, at=t(300)),
            failed(one, at=t(350)),
        ]  # fmt: skip

    agent, chooser, rows = sim(), random.Random(5), []
    moving = {"id", "task_id", "received_at", "created_at", "updated_at"}
    for n in range(12):
        one = str(uuid.uuid4())
        items = story(one)
        if n:
            chooser.shuffle(items)
            items += chooser.sample(items, 3)
        agent.report(*items)
        row = project.task(one)
        assert len(project.events(one)) == 6
        rows.append({name: value for name, value in row.items() if name not in moving})
    assert all(row == rows[0] for row in rows)
    row = rows[0]
    assert row["state"] == "failed" and row["retry_count"] == 1 and row["priority"] == "high"
    assert row["name"] == "email.send" and row["queue"] == "default" and row["worker_name"] == "w1@host"
    assert row["args"] == [1, "a"] and row["kwargs"] == {"k": None} and row["tags"] == ["x"]
    assert row["parent_task_id"] == "p" and row["root_task_id"] == "r"
    assert row["exception"] == "ValueError: bad" and "ValueError" in row["traceback"]
    assert row["result"] is None


def test_a_late_received_fills_the_row_and_moves_nothing(sim, project):
    agent, one = sim(), str(uuid.uuid4())
    agent.report(started(one, at=now_text(-2)), succeeded(one, at=now_text(-1)))
    before = project.task(one)
    assert before["state"] == "succeeded" and before["args"] is None and before["queue"] is None
    agent.report(received(one, at=now_text(-3), tags=["late"]))
    after = project.task(one)
    assert after["state"] == "succeeded" and after["args"] == [1] and after["queue"] == "default"
    assert after["name"] == "email.send" and after["tags"] == ["late"]
    for name in ("id", "received_at", "created_at"):
        assert after[name] == before[name]
    assert after["updated_at"] > before["updated_at"]


def test_a_terminal_state_does_not_regress(sim, project):
    agent, one = sim(), str(uuid.uuid4())
    agent.report(received(one, at=now_text(-9)), started(one, at=now_text(-8)), succeeded(one, at=now_text(-7)))
    agent.report(started(one, at=now_text(-8.5), worker="other@host"))
    assert project.task(one)["state"] == "succeeded"


def test_a_new_attempt_of_the_same_id_runs_again(sim, project):
    """WIRE 12.3: a retry by reference of RQ keeps the id."""
    agent = sim(engines=["rq"], capabilities={"rq": ["retry_task"]})
    one = str(uuid.uuid4())

    def rq(kind, ago, **data):
        return event(kind, one, engine="rq", at=now_text(-ago), task_name="jobs.run", queue="q", worker="ab12", **data)

    agent.report(rq("started", 60), rq("failed", 59, exception="Traceback:\n  x\nValueError: bad"))
    row = project.task(one, engine="rq")
    assert row["state"] == "failed" and row["exception"] == "ValueError: bad" and row["retry_count"] == 0
    agent.report(rq("started", 30))
    row = project.task(one, engine="rq")
    assert row["state"] == "started" and row["finished_at"] is None and row["retry_count"] == 1
    agent.report(rq("succeeded", 29))
    assert project.task(one, engine="rq")["state"] == "succeeded"


def test_times_and_runtime_agree(sim, project):
    agent, one = sim(), str(uuid.uuid4())
    times = [now_text(-3), now_text(-2), now_text(-1)]
    agent.report(received(one, at=times[0]), started(one, at=times[1]), succeeded(one, at=times[2], runtime_ms=1000))
    row = project.task(one)
    assert [parse(row[n]) for n in ("received_at", "started_at", "finished_at")] == [parse(t) for t in times]
    assert row["runtime_ms"] == 1000


def test_finished_at_is_set_only_at_the_end(sim, project):
    agent, one = sim(), str(uuid.uuid4())
    agent.report(received(one))
    row = project.task(one)
    assert row["started_at"] is None and row["finished_at"] is None and row["runtime_ms"] is None
    agent.report(started(one), retried(one))
    row = project.task(one)
    assert row["state"] == "retried" and row["finished_at"] is None and row["started_at"]


def test_one_event_heard_from_many_processes_counts_once(sim, project):
    """D14: N processes on one broker report the same physical event under ids of their own."""
    minted = project.mint()
    agents = [sim(minted) for _ in range(3)]
    one, base = str(uuid.uuid4()), datetime.now(timezone.utc) - timedelta(seconds=30)

    def t(ms):
        return (base + timedelta(milliseconds=ms)).isoformat(timespec="microseconds")

    agents[0].report(received(one, at=t(0)))
    for n, agent in enumerate(agents):
        lag = n * 40
        agent.report(
            started(one, at=t(10 + lag)), retried(one, at=t(200 + lag)),
            started(one, at=t(600 + lag)), retried(one, at=t(800 + lag)),
            started(one, at=t(1200 + lag)), succeeded(one, at=t(1300 + lag)),
        )  # fmt: skip
    row = project.task(one)
    assert row["retry_count"] == 2 and row["state"] == "succeeded"
    kinds = sorted(e["kind"] for e in project.events(one))
    assert kinds == ["task.received"] + ["task.retried"] * 2 + ["task.started"] * 3 + ["task.succeeded"]


def test_signal_and_monitor_of_one_process_count_once_and_fill_each_other(sim, project):
    """WIRE 12.2: solo and threads pools report each event twice with different content."""
    agent, one = sim(), str(uuid.uuid4())
    base = datetime.now(timezone.utc) - timedelta(seconds=30)

    def t(ms):
        return (base + timedelta(milliseconds=ms)).isoformat(timespec="microseconds")

    def signal(kind, ms, **data):
        return event(kind, one, at=t(ms), task_name="math.flaky", queue="default", worker=None, **data)

    agent.report(
        received(one, name="math.flaky", at=t(0)), signal("started", 5), signal("retried", 20, reason="flaky"),
        signal("started", 400), signal("failed", 420, exception="ValueError", exception_message="plain words"),
        started(one, at=t(1005)), retried(one, at=t(1020)), started(one, at=t(1400)),
        failed(one, at=t(1420), message="ValueError('plain words')"),
    )  # fmt: skip
    row = project.task(one)
    assert row["retry_count"] == 1 and row["worker_name"] == "w1@host" and row["name"] == "math.flaky"
    assert row["exception"] == "ValueError: plain words"
    assert len([e for e in project.events(one) if e["kind"] == "task.failed"]) == 1


def test_secrets_and_addresses_never_come_out(sim, project, server):
    """M49: agents redact; the server scrubs again before anything is stored."""
    agent, one = sim(), str(uuid.uuid4())
    secrets = {
        "password": "hunter2-S3cr3t-Value",
        "api_key": "AKIAIOSFODNN7EXAMPLE",
        "mail": "alice.private@corp.example",
        "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "url": "postgres://user:sup3rpass@db.internal/app",
    }
    agent.report(
        received(one, args=[secrets["mail"], secrets["jwt"], secrets["url"], "[REDACTED]"],
                 kwargs={"password": secrets["password"], "nested": {"api_key": secrets["api_key"]}, "ok": "visible"}),
        started(one),
        failed(one, exception="ValueError", message=f"ValueError('cannot reach {secrets['url']} for {secrets['mail']}')"),
    )  # fmt: skip
    row = project.task(one)
    assert row["kwargs"]["ok"] == "visible" and row["kwargs"]["password"] == "<redacted>"
    assert row["args"][0] == "<email>" and row["args"][3] == "[REDACTED]"
    everywhere = json.dumps([row, project.events(one), project.walk()]) + server.log()
    for form in ("csv", "ndjson"):
        answer = project.get("/tasks", expect=None, format=form)
        everywhere += answer.text
    for name, secret in secrets.items():
        needle = {"url": "sup3rpass", "jwt": secrets["jwt"][-20:]}.get(name, secret)
        assert needle not in everywhere, name


# --- tree


def test_a_standalone_task_is_a_tree_of_one(sim, project):
    agent, one = sim(), str(uuid.uuid4())
    agent.report(event("received", one, task_name="a", queue="q"))
    tree = project.tree(one)
    assert tree["root_task_id"] == one and tree["node_count"] == 1 and tree["truncated"] is False
    assert [node["task_id"] for node in tree["nodes"]] == [one]


def test_any_descendant_leads_to_the_same_tree(sim, project, admin, server):
    agent = sim()
    root, child, leaf = (str(uuid.uuid4()) for _ in range(3))
    agent.report(
        received(root),
        received(child, root_task_id=root, parent_task_id=root),
        received(leaf, root_task_id=root, parent_task_id=child),
        received(str(uuid.uuid4())),
    )
    other = Project.create(admin)
    with Agent(server.url, other.mint()).open() as far:
        far.report(received(str(uuid.uuid4()), root_task_id=root))
    trees = [project.tree(one) for one in (root, child, leaf)]
    assert trees[0] == trees[1] == trees[2]
    assert [node["task_id"] for node in trees[0]["nodes"]] == [root, child, leaf]
    node = trees[0]["nodes"][2]
    assert node["parent_task_id"] == child and node["root_task_id"] == root
    assert {"task_id", "name", "state", "parent_task_id", "root_task_id", "received_at", "started_at", "finished_at"} <= set(node)
    project.get(f"/tasks/celery/{uuid.uuid4()}/tree", expect=404)


def test_a_tree_is_capped_at_500_nodes(sim, project):
    agent, root = sim(), str(uuid.uuid4())
    begin = datetime.now(timezone.utc) - timedelta(minutes=5)
    items = [received(root, at=begin.isoformat())]
    items += [
        received(f"child-{n:04}", root_task_id=root, parent_task_id=root, at=(begin + timedelta(milliseconds=n + 1)).isoformat())
        for n in range(499)
    ]
    agent.wait_ack(agent.batch(*items), 20)
    tree = project.tree(root)
    assert tree["node_count"] == len(tree["nodes"]) == 500 and tree["truncated"] is False
    times = [node["received_at"] for node in tree["nodes"]]
    assert times == sorted(times)
    agent.report(received("one-more", root_task_id=root, parent_task_id=root))
    tree = project.tree("one-more")
    assert len(tree["nodes"]) == 500 and tree["truncated"] is True and tree["root_task_id"] == root


# --- who may


def test_an_outsider_cannot_tell_a_hidden_project_from_none(project, people, server):
    """M5, D26: byte-identical, the request id aside; the slug is not echoed."""
    outsider, _ = people.user()
    for rest in ("/tasks", "/commands", "/agents", "/tasks/celery/x", "/queues", ""):
        bodies = []
        for slug in (project.slug, "no-such-project"):
            answer = outsider.get(f"/projects/{slug}{rest}", expect=404)
            body = answer.json()
            body.pop("request_id")
            bodies.append(body)
        assert bodies[0] == bodies[1] and "slug" not in json.dumps(bodies[0]["details"])
    with Client(server.url) as nobody:
        nobody.get(f"/projects/{project.slug}/tasks", expect=401)


def test_a_viewer_reads_everything_about_tasks(sim, project, people):
    agent, one = sim(), str(uuid.uuid4())
    agent.report(received(one))
    viewer = people.member(project, "viewer")
    assert viewer.task(one)["task_id"] == one and viewer.tree(one)["node_count"] == 1
    assert len(viewer.walk()) == 1 and len(viewer.events(one)) == 1
    viewer.commands()
    viewer.get("/agents")
    viewer.get("/workers")
    viewer.get("/queues")


# --- deletion


def delete(project, expect=200, **body):
    return project.post("/tasks/bulk-delete", body, expect=expect).json()


def test_deleted_tasks_are_gone_from_every_read_and_stay_gone(sim, project, admin, server):
    agent = sim()
    ids = [str(uuid.uuid4()) for _ in range(6)]
    agent.report(*[item for one in ids for item in (received(one, at=now_text(-60)), started(one, at=now_text(-59)))])
    rows = {row["task_id"]: row for row in project.walk()}
    assert delete(project, task_ids=[rows[ids[0]]["id"], ids[1], "unknown"])["deleted_count"] == 2
    for one in ids[:2]:
        project.task(one, expect=404)
        project.tree(one, expect=404)
    assert {row["task_id"] for row in project.walk()} == set(ids[2:])
    agent.report(succeeded(ids[0], at=now_text(-58)))
    project.task(ids[0], expect=404)
    assert delete(project, task_ids=[ids[0]])["deleted_count"] == 0
    other = Project.create(admin)
    assert delete(other, task_ids=ids)["deleted_count"] == 0
    assert len(project.walk()) == 4


def test_a_filter_deletes_exactly_what_it_lists(sim, project):
    agent = sim()
    for n in range(12):
        one = str(uuid.uuid4())
        agent.report(received(one, name="a" if n % 2 else "a.b", queue="q1" if n % 3 else "q2"), started(one))
    before = len(project.walk())
    wanted = len(project.walk(name="a", queue="q1"))
    assert delete(project, filter_name="a", filter_queue="q1")["deleted_count"] == wanted
    assert project.walk(name="a", queue="q1") == [] and len(project.walk()) == before - wanted
