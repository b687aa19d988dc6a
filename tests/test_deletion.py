"""Deletion as a client sees it: D10, D24, D31, M58 to M69."""

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import login
from harness.agent import event, failed, now_text, received, started, succeeded
from harness.client import Client, Project
from harness.wait import eventually


def delete(project, expect=200, **body):
    return project.post("/tasks/bulk-delete", body, expect=expect)


def count(project, **body):
    return delete(project, **body).json()["deleted_count"]


def fill(agent, size, name="job", age=3600.0):
    """That many tasks, a few milliseconds apart; their ids, oldest first."""
    ids = [str(uuid.uuid4()) for _ in range(size)]
    items = [received(one, name=name, at=now_text(-age + n / 100)) for n, one in enumerate(ids)]
    batches = [agent.batch(*items[start : start + 250]) for start in range(0, size, 250)]
    for batch in batches:
        agent.wait_ack(batch, 60)
    return ids


def test_a_deleted_task_is_gone_from_every_read_at_once(sim, project):
    agent = sim()
    root, child, other = [str(uuid.uuid4()) for _ in range(3)]
    agent.report(
        received(root, name="parent", at=now_text(-90)), started(root, at=now_text(-89)), failed(root, at=now_text(-88)),
        received(child, root_task_id=root, parent_task_id=root, at=now_text(-80)), received(other, at=now_text(-70)),
    )  # fmt: skip
    row = project.task(root)
    assert [one["failure"] for one in project.get("/trends").json()["series"]] == [1]
    assert project.get("/stats").json()["tasks_total"] == 3 and project.tree(child)["node_count"] == 2
    assert count(project, task_ids=[row["id"], root, root]) == 1, "by both of its ids, and twice, it is one task"
    project.task(root, expect=404)
    project.tree(root, expect=404)
    assert project.events(root) == [] and project.tasks(search=root) == [] and project.tasks(search=row["id"]) == []
    assert [one["task_id"] for one in project.walk()] == [other, child]
    assert project.page(include_total="true")["total_count"] == 2 and project.tasks(state="failed") == []
    assert [node["task_id"] for node in project.tree(child)["nodes"]] == [child]
    for form in ("csv", "ndjson"):
        text = project.get("/tasks", format=form, fields="task_id,name").text
        assert root not in text and child in text
    stats = project.get("/stats").json()
    assert stats["tasks_total"] == 2 and stats["tasks_by_state"]["failed"] == 0
    assert project.get("/trends").json()["series"] == []
    assert count(project, task_ids=[root]) == 0 and count(project, filter_state="failed") == 0


def test_a_task_that_runs_again_comes_back_under_its_id_without_what_was_before(sim, project):
    agent, one = sim(), str(uuid.uuid4())
    agent.report(received(one, name="job", at=now_text(-60)), started(one, at=now_text(-59)), failed(one, at=now_text(-58)))
    before = project.task(one)
    assert count(project, task_ids=[one]) == 1
    agent.report(succeeded(one, at=now_text(-57)), started(one, at=now_text(-56)), started(one, at=now_text(0.5)))
    project.task(one, expect=404)
    time.sleep(3)
    agent.report(started(one, worker="w2@host"))
    again = project.task(one)
    assert again["id"] == before["id"] and again["received_at"] == before["received_at"], "its address is for life"
    assert again["state"] == "started" and again["worker_name"] == "w2@host"
    assert again["exception"] is None and again["traceback"] is None and again["retry_count"] == 0
    assert all(row["occurred_at"] > now_text(-57.5) for row in project.events(one)), "nothing from before comes back"
    assert [row["task_id"] for row in project.walk()] == [one]


def test_one_engine_task_id_names_the_tasks_of_every_engine(sim, project, admin):
    agent, one = sim(engines=("celery", "rq")), str(uuid.uuid4())
    far = Project.create(admin)
    agent.report(received(one), event("received", one, engine="rq", task_name="job", queue="q", args=None, kwargs=None))
    assert count(far, task_ids=[one, project.task(one)["id"]]) == 0, "another project's"
    assert count(project, task_ids=[project.task(one, engine="rq")["id"]]) == 1
    assert project.task(one)["engine"] == "celery"
    agent.report(event("received", one, engine="rq", task_name="job", queue="q", args=None, kwargs=None, at=now_text(3)))
    assert count(project, task_ids=[one]) in (1, 2)
    assert project.walk() == []


def test_a_filter_deletes_more_than_a_page_holds_and_nothing_else(sim, project):
    agent = sim()
    fill(agent, 2200, name="gone")
    kept = fill(agent, 30, name="gone.not", age=1800)
    assert count(project, filter_name="gone", filter_until=now_text(-1900)) == 2200
    assert {row["task_id"] for row in project.walk(limit=7)} == set(kept)
    assert count(project, filter_since=now_text(-10), filter_until=now_text(-20)) == 0


def test_concurrent_deletions_count_each_task_once(server, sim, project):
    agent = sim()
    ids = fill(agent, 1000)
    bodies = [
        {"filter_name": "job"}, {"filter_state": "pending"}, {"task_ids": ids[:600]}, {"task_ids": ids[400:]},
        {"filter_queue": "default"}, {"task_ids": ids[::2]},
    ]  # fmt: skip
    with ThreadPoolExecutor(len(bodies)) as pool:
        counts = list(pool.map(lambda body: count(project.through(login(server)), **body), bodies))
    assert sum(counts) == 1000, counts
    assert project.walk() == [] and project.get("/stats").json()["tasks_total"] == 0
    noted = [item["metadata"]["deleted_count"] for item in project.audit(action_prefix="tasks.bulk_delete", limit=100)
             if item["action"] == "tasks.bulk_delete"]  # fmt: skip
    assert sorted(noted) == sorted(counts)


def test_a_walk_is_exact_while_others_delete(sim, project):
    """D4: what is there for the whole walk comes once, what was deleted before the page was asked does not come."""
    agent = sim()
    ids = fill(agent, 400)
    doomed = set(random.Random(4).sample(ids, 200))
    stay = [one for one in ids if one not in doomed]
    gone, stop = set(), threading.Event()

    def churn():
        for start in range(0, 200, 25):
            some = sorted(doomed)[start : start + 25]
            if stop.is_set():
                return
            # The limit of deletions is not what this is about: one of a minute's ten takes 25 tasks.
            gone.update(some if count(project, task_ids=some) == 25 else ())

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for limit in (9, 40, 150):
            before = set(gone)
            seen = [row["task_id"] for row in project.walk(limit=limit)]
            assert len(seen) == len(set(seen)), "a row came twice"
            assert set(stay) <= set(seen) and not before & set(seen)
            assert [one for one in seen if one in set(stay)] == stay[::-1]
    finally:
        stop.set()
        thread.join()


def test_a_deletion_is_audited_with_who_what_and_how_many(sim, project, people, server):
    agent = sim()
    ids = fill(agent, 3)
    boss = people.member(project, "admin")
    assert count(boss, task_ids=[ids[0], "nobody"]) == 1
    assert count(boss, filter_name="job", filter_priority=["normal", "low"], filter_until=now_text(-1)) == 2
    said = [item for item in project.audit(limit=50) if item["action"] == "tasks.bulk_delete"]
    by_filter, by_ids = said[0], said[1]
    me = boss.client.user["id"]
    assert all(item["user_id"] == me and item["actor"] == f"user:{me}" and item["outcome"] == "allow" for item in said)
    assert by_ids["metadata"]["deleted_count"] == 1 and by_ids["metadata"]["filter"] == {"task_ids": [ids[0], "nobody"]}
    assert by_filter["metadata"]["deleted_count"] == 2
    assert set(by_filter["metadata"]["filter"]) == {"name", "priority", "until"}
    assert project.get("/audit/verify").json()["ok"]


def test_the_limit_holds_exactly_under_parallel_calls_and_per_principal_and_project(server, sim, project, admin, people):
    agent = sim()
    ids = fill(agent, 40)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda one: delete(project, expect=(200, 429), task_ids=[one]), ids[:25]))
    done = [answer for answer in answers if answer.status_code == 200]
    assert len(done) == 10 and len(project.walk()) == 30, "one deletion per admitted call, none for the others"
    for answer in answers:
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.headers["ratelimit"].startswith("limit=10, remaining=0") and "ratelimit-policy" in answer.headers
    entries = project.get("/audit", limit=1).json()["items"][0]["seq"]
    delete(project, expect=429, task_ids=[ids[30]])
    delete(project, expect=422)
    assert project.get("/audit", limit=1).json()["items"][0]["seq"] == entries, "a refused call leaves no entry"
    assert count(people.member(project, "admin"), task_ids=[ids[30]]) == 1, "another principal has a limit of his own"
    assert count(Project.create(admin), task_ids=["x"]) == 0, "and another project"


@pytest.mark.parametrize("body", ['{"filter_name":"a","filter_name":"b"}', '{"task_ids":["a"],"task_ids":["b"]}'])
def test_a_member_given_twice_is_refused(project, body):
    answer = project.client.request(
        "POST", project.path("/tasks/bulk-delete"), expect=422, content=body, headers={"content-type": "application/json"}
    )
    assert "twice" in answer.json()["message"]


def test_a_key_needs_no_csrf_token_and_an_operators_none_helps(sim, project, people, server):
    agent, one = sim(), str(uuid.uuid4())
    agent.report(received(one))
    keys = {}
    for role in ("operator", "admin"):
        member = people.member(project, role).client
        token = member.post("/api-keys", {"name": "k", "scopes": ["tasks:write"]}, expect=201).json()["token"]
        keys[role] = project.through(Client(server.url, key=token))
    delete(keys["operator"], expect=403, task_ids=[one])
    eventually(lambda: project.task(one), 5)
    assert count(keys["admin"], task_ids=[one]) == 1
