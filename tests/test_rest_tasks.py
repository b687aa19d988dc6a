"""Task reads: every filter of the contract alone and combined, cursors, fields, detail, tree, events, export."""

import base64
import csv
import io
import itertools
import json
import random
import threading
import uuid
from datetime import datetime, timedelta, timezone

import openpyxl
import pytest

from conftest import not_there_yet
from harness.agent import Agent, event, failed, now_text, received, retried, revoked, started, succeeded
from harness.client import Client, Project

MEMBERS = [
    "id", "project_id", "engine", "task_id", "name", "queue", "state", "priority", "args", "kwargs", "result",
    "exception", "traceback", "retry_count", "eta", "received_at", "started_at", "finished_at", "runtime_ms",
    "worker_name", "parent_task_id", "root_task_id", "tags", "created_at", "updated_at",
]  # fmt: skip
STATES = ["received", "started", "succeeded", "failed", "cancelled", "retried"]
ALIASES = {"success": "succeeded", "failure": "failed", "revoked": "cancelled", "retry": "retried", "unknown": "lost",
           "pending": "received", "rejected": "failed"}  # fmt: skip
NAMES = ["email.send", "email.send_bulk", "Email.Send", "billing.charge", "отчёт.день"]
QUEUES = ["default", "Default", "billing", "mail-high"]
WORKERS = ["worker-1@host", "worker-10@host", "w2@other"]
PRIORITIES = ["critical", "high", "normal", "low"]


def parse(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def life(task_id, state, name, queue, worker, priority, at):
    """The events of a task that ends in `state`, a few milliseconds apart."""

    def later(ms):
        return (at + timedelta(milliseconds=ms)).isoformat(timespec="microseconds")

    items = [received(task_id, name=name, queue=queue, at=later(0), priority=priority)]
    if state != "received":
        items.append(started(task_id, worker=worker, at=later(10)))
    ends = {"succeeded": succeeded, "failed": failed, "retried": retried}
    if state in ends:
        items.append(ends[state](task_id, worker=worker, at=later(40)))
    if state == "cancelled":
        items.append(revoked(task_id, at=later(40)))
    return items


class Corpus:
    """A project with every combination that the filters tell apart, and what was put in."""

    def __init__(self, server, admin):
        self.project = Project.create(admin)
        self.other = Project.create(admin)
        self.rows = []
        begin = datetime.now(timezone.utc) - timedelta(hours=3)
        chooser = random.Random(7)
        combinations = list(itertools.product(STATES, NAMES, QUEUES))
        with Agent(server.url, self.project.mint()).open() as agent, Agent(server.url, self.other.mint()).open() as far:
            pending = []
            for n, (state, name, queue) in enumerate(combinations):
                worker, priority = chooser.choice(WORKERS), chooser.choice(PRIORITIES)
                at = begin + timedelta(seconds=60 * n)
                task_id = str(uuid.UUID(int=chooser.getrandbits(128), version=4))
                pending.append(agent.batch(*life(task_id, state, name, queue, worker, priority, at)))
                self.rows.append(
                    {"task_id": task_id, "state": state, "name": name, "queue": queue, "priority": priority,
                     "worker_name": None if state == "received" else worker, "received_at": at}
                )  # fmt: skip
            for batch in pending:
                agent.wait_ack(batch, 30)
            far.report(received(self.rows[0]["task_id"]), received(str(uuid.uuid4())))
        self.rows.sort(key=lambda row: row["received_at"], reverse=True)

    def expect(self, admits):
        return [row["task_id"] for row in self.rows if admits(row)]

    def ask(self, **filters):
        return [row["task_id"] for row in self.project.walk(**filters)]


@pytest.fixture(scope="module")
def corpus(server, admin):
    return Corpus(server, admin)


# --- shape


def test_a_row_has_exactly_the_members_of_the_contract_in_order(corpus):
    page = corpus.project.page()
    assert set(page) >= {"items", "next_cursor"} and len(page["items"]) == 50, "M17: the default page"
    for row in page["items"]:
        assert list(row) == MEMBERS
        assert row["project_id"] == corpus.project.id and row["engine"] == "celery"
        for name in ("received_at", "created_at", "updated_at"):
            stamp = row[name]
            assert parse(stamp).utcoffset() == timedelta(0) and len(stamp.split(".")[1].rstrip("Z").split("+")[0]) == 6
        assert isinstance(row["tags"], list) and isinstance(row["retry_count"], int)
        assert len(row["id"]) == 26 and row["id"] == row["id"].upper()


def test_the_list_is_newest_first_by_id_and_by_received_at(corpus):
    rows = corpus.project.walk(limit=17)
    assert [row["task_id"] for row in rows] == [row["task_id"] for row in corpus.rows]
    assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
    times = [row["received_at"] for row in rows]
    assert times == sorted(times, reverse=True)


def test_detail_deep_equals_the_list_row(corpus):
    for row in corpus.project.tasks(limit=100):
        assert corpus.project.task(row["task_id"]) == row


@pytest.mark.parametrize("path", ["celery/nope", "rq/{known}", "celery/", "nobody/{known}", "celery/{known}/nope"])
def test_an_unknown_task_is_a_json_404(corpus, path):
    known = corpus.rows[0]["task_id"]
    corpus.project.get("/tasks/" + path.format(known=known), expect=(404, 422))


def test_task_ids_of_any_spelling_can_be_fetched(sim, project):
    from urllib.parse import quote

    agent = sim()
    ids = ["a b", "a/b", "a%2Fb", "ключ", "x?y=1&z", "a+b", "'; DROP TABLE task; --", "😀", "..", "a" * 200]
    for one in ids:
        agent.report(received(one))
    assert {row["task_id"] for row in project.walk()} == set(ids)
    for one in ids:
        if one != "..":
            assert project.get(f"/tasks/celery/{quote(one, safe='')}").json()["task_id"] == one


# --- filters


@pytest.mark.parametrize("state", STATES)
def test_each_state_filters_exactly(corpus, state):
    assert corpus.ask(state=state) == corpus.expect(lambda row: row["state"] == state)


@pytest.mark.parametrize("alias, state", ALIASES.items())
def test_the_reference_words_are_aliases(corpus, alias, state):
    assert corpus.ask(state=alias) == corpus.expect(lambda row: row["state"] == state)


@pytest.mark.parametrize("state", ["", "done", "SUCCEEDED ", "succeeded,failed", "null"])
def test_an_unknown_state_is_refused_with_the_allowed_list(corpus, state):
    answer = corpus.project.get("/tasks", expect=422, state=state)
    assert all(word in answer.text for word in (*STATES, "lost"))


@pytest.mark.parametrize("listed", ["critical", "critical,high", "low,normal,high", "HIGH", "critical,critical"])
def test_priorities_filter_as_a_union(corpus, listed):
    wanted = listed.lower().split(",")
    assert corpus.ask(priority=listed) == corpus.expect(lambda row: row["priority"] in wanted)


@pytest.mark.parametrize("listed", ["urgent", "high,urgent", "high,", ",", ""])
def test_an_unknown_priority_is_refused(corpus, listed):
    corpus.project.get("/tasks", expect=422, priority=listed)


@pytest.mark.parametrize("name", [*NAMES, "email", "send"])
def test_names_match_exactly(corpus, name):
    assert corpus.ask(name=name) == corpus.expect(lambda row: row["name"] == name)


def test_name_prefix_and_name_contains_are_extras(corpus):
    assert corpus.ask(name_prefix="email.") == corpus.expect(lambda row: row["name"].startswith("email."))
    assert corpus.ask(name_contains="send") == corpus.expect(lambda row: "send" in row["name"])


@pytest.mark.parametrize("queue", [*QUEUES, "DEFAULT", "bill"])
def test_queues_match_exactly_and_with_case(corpus, queue):
    assert corpus.ask(queue=queue) == corpus.expect(lambda row: row["queue"] == queue)


@pytest.mark.parametrize("worker", [*WORKERS, "worker-1", "WORKER-1@host"])
def test_workers_match_exactly(corpus, worker):
    assert corpus.ask(worker=worker) == corpus.expect(lambda row: row["worker_name"] == worker)


@pytest.mark.parametrize("words", ["email", "EMAIL send", "billing", "worker-1@", "w2@other mail-high", "ОТЧЁТ", "zzz", "bulk default"])
def test_search_wants_every_word_somewhere_in_name_queue_or_worker(corpus, words):
    def admits(row):
        fields = [(row[name] or "").lower() for name in ("name", "queue", "worker_name")]
        return all(any(word in field for field in fields) for word in words.lower().split())

    assert corpus.ask(search=words) == corpus.expect(admits)


def test_search_finds_a_pasted_task_id_and_our_own_id(corpus):
    row = corpus.project.task(corpus.rows[5]["task_id"])
    assert corpus.ask(search=row["task_id"]) == [row["task_id"]]
    assert corpus.ask(search=row["id"]) == [row["task_id"]]
    assert corpus.ask(search=row["task_id"][:-1]) == []
    assert corpus.ask(search=f"{row['task_id']} {row['queue']}") == [row["task_id"]]


def test_since_and_until_are_inclusive_and_take_any_offset(corpus):
    low, high = corpus.rows[70]["received_at"], corpus.rows[20]["received_at"]
    expected = corpus.expect(lambda row: low <= row["received_at"] <= high)
    assert len(expected) == 51
    for zone in (timezone.utc, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))):
        assert corpus.ask(since=low.astimezone(zone).isoformat(), until=high.astimezone(zone).isoformat()) == expected
    z = low.isoformat().replace("+00:00", "Z")
    assert corpus.ask(since=z) == corpus.expect(lambda row: row["received_at"] >= low)
    tick = timedelta(microseconds=1)
    assert corpus.ask(since=(low + tick).isoformat(), until=(high - tick).isoformat()) == expected[1:-1]


def test_since_after_until_is_an_empty_page(corpus):
    page = corpus.project.page(since="2026-01-02T00:00:00Z", until="2026-01-01T00:00:00Z")
    assert page["items"] == [] and page["next_cursor"] is None


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01T00:00:00Z", "2026-01-01", "1", "", "2026-01-01T00:00:00Z; x", "99999-01-01T00:00:00Z"])
@pytest.mark.parametrize("bound", ["since", "until"])
def test_a_bad_time_is_refused(corpus, bound, text):
    corpus.project.get("/tasks", expect=422, **{bound: text})


def test_filters_combine_as_and(corpus):
    chooser = random.Random(11)
    for _ in range(40):
        parts, admits = {}, []
        if chooser.random() < 0.6:
            state = parts["state"] = chooser.choice(STATES)
            admits.append(lambda row, state=state: row["state"] == state)
        if chooser.random() < 0.5:
            name = parts["name"] = chooser.choice(NAMES)
            admits.append(lambda row, name=name: row["name"] == name)
        if chooser.random() < 0.5:
            queue = parts["queue"] = chooser.choice(QUEUES)
            admits.append(lambda row, queue=queue: row["queue"] == queue)
        if chooser.random() < 0.4:
            worker = parts["worker"] = chooser.choice(WORKERS)
            admits.append(lambda row, worker=worker: row["worker_name"] == worker)
        if chooser.random() < 0.4:
            priorities = chooser.sample(PRIORITIES, 2)
            parts["priority"] = ",".join(priorities)
            admits.append(lambda row, priorities=priorities: row["priority"] in priorities)
        if chooser.random() < 0.4:
            since = corpus.rows[chooser.randrange(len(corpus.rows))]["received_at"]
            parts["since"] = since.isoformat()
            admits.append(lambda row, since=since: row["received_at"] >= since)
        if chooser.random() < 0.4:
            word = parts["search"] = chooser.choice(["email", "default", "host", "bill"])
            admits.append(
                lambda row, word=word: any(
                    word in (row[f] or "").lower() for f in ("name", "queue", "worker_name")
                )
            )
        limit = chooser.choice([1, 3, 50, 5000])
        found = corpus.ask(limit=limit, **parts)
        assert found == corpus.expect(lambda row: all(a(row) for a in admits)), parts


def test_unknown_query_members_do_not_widen_anything(corpus):
    answer = corpus.project.get("/tasks", expect=(200, 422), stat="failed")
    assert answer.status_code == 422 or len(answer.json()["items"]) == 50


def test_total_count_is_exact_without_a_filter_and_absent_unless_asked(corpus):
    assert corpus.project.page(include_total="true")["total_count"] == len(corpus.rows)
    filtered = corpus.project.page(include_total="true", state="failed")["total_count"]
    assert filtered in (None, len(corpus.expect(lambda row: row["state"] == "failed")))


# --- limit and cursors


@pytest.mark.parametrize("limit", ["0", "-1", "5001", "abc", "1.5", "", "99999999999999999999"])
@pytest.mark.parametrize("where", ["/tasks", "/commands"])
def test_a_limit_outside_is_refused(corpus, where, limit):
    corpus.project.get(where, expect=422, limit=limit)


@pytest.mark.parametrize("limit", [1, 49, 120, 5000])
def test_a_limit_inside_is_honoured(corpus, limit):
    assert len(corpus.project.tasks(limit=limit)) == min(limit, len(corpus.rows))


@pytest.mark.parametrize("limit", [1, 2, 7, 119, 120, 121])
def test_a_walk_yields_each_row_once_and_ends_without_an_empty_page(corpus, limit):
    if limit == 1:
        assert corpus.ask(limit=limit, state="failed") == corpus.expect(lambda row: row["state"] == "failed")
    else:
        assert corpus.ask(limit=limit) == [row["task_id"] for row in corpus.rows]


def test_the_last_page_has_no_cursor_even_when_it_is_full(corpus):
    page = corpus.project.page(limit=len(corpus.rows))
    assert len(page["items"]) == len(corpus.rows) and page["next_cursor"] is None
    half = corpus.project.page(limit=len(corpus.rows) // 2)
    rest = corpus.project.page(limit=len(corpus.rows) // 2, cursor=half["next_cursor"])
    assert rest["next_cursor"] is None


def test_the_limit_may_change_along_the_walk(corpus):
    page, seen = corpus.project.page(limit=3), []
    for limit in itertools.cycle([1, 10, 4]):
        seen += [row["task_id"] for row in page["items"]]
        if page["next_cursor"] is None:
            break
        page = corpus.project.page(limit=limit, cursor=page["next_cursor"])
    assert seen == [row["task_id"] for row in corpus.rows]


def test_a_tampered_cursor_is_refused(corpus):
    cursor = corpus.project.page(limit=5, state="failed")["next_cursor"]
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    for place in range(len(raw)):
        bad = bytearray(raw)
        bad[place] ^= 1
        text = base64.urlsafe_b64encode(bytes(bad)).rstrip(b"=").decode()
        answer = corpus.project.get("/tasks", expect=400, limit=5, state="failed", cursor=text)
        assert answer.json()["error"] == "invalid_cursor"


@pytest.mark.parametrize("cursor", ["", "x", "!!!!", "AAAA", "a" * 5000, "%00", "null", "W10"])
def test_a_malformed_cursor_is_refused(corpus, cursor):
    answer = corpus.project.get("/tasks", expect=400, cursor=cursor)
    assert answer.json()["error"] == "invalid_cursor"


def test_a_cursor_is_bound_to_its_filter_its_project_and_its_list(corpus):
    cursor = corpus.project.page(limit=5, state="failed")["next_cursor"]
    assert corpus.project.page(limit=9, state="failure", cursor=cursor)["items"], "an alias is the same filter"
    corpus.project.get("/tasks", expect=400, cursor=cursor)
    corpus.project.get("/tasks", expect=400, cursor=cursor, state="succeeded")
    corpus.project.get("/tasks", expect=400, cursor=cursor, state="failed", queue="default")
    corpus.other.get("/tasks", expect=400, cursor=cursor, state="failed")
    corpus.project.get("/commands", expect=400, cursor=cursor)


def test_a_walk_is_exact_while_others_insert_and_update(sim, project):
    """D4: rows present for the whole walk are neither skipped nor repeated."""
    agent = sim()
    begin = datetime.now(timezone.utc) - timedelta(minutes=30)
    present = [str(uuid.uuid4()) for _ in range(300)]
    at = [(begin + timedelta(seconds=n)).isoformat() for n in range(300)]
    for batch in [agent.batch(*[received(one, at=when) for one, when in zip(present, at)])]:
        agent.wait_ack(batch)
    stop = threading.Event()

    def churn():
        chooser = random.Random(3)
        while not stop.is_set():
            old = (begin + timedelta(seconds=chooser.random() * 300)).isoformat()
            batch = agent.batch(
                received(str(uuid.uuid4())), received(str(uuid.uuid4()), at=old), started(chooser.choice(present))
            )
            agent.wait_ack(batch)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for limit in (7, 50, 113):
            seen = [row["task_id"] for row in project.walk(limit=limit)]
            assert len(seen) == len(set(seen)), "a row came twice"
            assert set(present) <= set(seen), "a row was skipped"
    finally:
        stop.set()
        thread.join()


# --- fields and formats


def test_fields_project_in_the_listed_order(corpus):
    row = corpus.project.tasks(fields="state,task_id,worker", limit=1)[0]
    assert list(row) == ["state", "task_id", "worker"]
    assert list(corpus.project.tasks(fields=",".join(MEMBERS), limit=1)[0]) == MEMBERS


@pytest.mark.parametrize("fields", ["nope", "state,nope", "state,", "", "State", "state;task_id"])
@pytest.mark.parametrize("form", ["json", "csv"])
def test_an_unknown_field_is_refused_in_every_format(corpus, form, fields):
    corpus.project.get("/tasks", expect=422, fields=fields, format=form)


def test_an_unknown_format_is_refused(corpus):
    corpus.project.get("/tasks", expect=422, format="pdf")


def export(project, form, **filters):
    answer = project.get("/tasks", expect=None, format=form, **filters)
    if answer.status_code in (406, 422, 501):
        not_there_yet(f"format={form}")
    assert answer.status_code == 200
    return answer


def test_csv_streams_the_whole_filtered_result(corpus):
    answer = export(corpus.project, "csv", state="failed", limit=1, fields="task_id,state,worker,received_at")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="z4j-tasks-{corpus.project.slug}.csv"'
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0] == ["task_id", "state", "worker", "received_at"]
    assert [row[0] for row in rows[1:]] == corpus.expect(lambda row: row["state"] == "failed")


def test_xlsx_opens_with_numbers_as_numbers(corpus):
    answer = export(corpus.project, "xlsx", state="succeeded", fields="task_id,runtime_ms,state")
    sheet = openpyxl.load_workbook(io.BytesIO(answer.content)).worksheets[0]
    rows = list(sheet.iter_rows(values_only=True))
    assert rows[0] == ("task_id", "runtime_ms", "state")
    assert [row[0] for row in rows[1:]] == corpus.expect(lambda row: row["state"] == "succeeded")
    assert all(isinstance(row[1], int) for row in rows[1:])


def test_ndjson_streams_every_row(corpus):
    answer = export(corpus.project, "ndjson", queue="billing")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["task_id"] for row in rows] == corpus.expect(lambda row: row["queue"] == "billing")
    assert list(rows[0]) == MEMBERS


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_cells_that_a_spreadsheet_would_run_are_neutralised(sim, project, form):
    agent = sim()
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=HYPERLINK(\"http://x\")", "plain"]
    agent.report(*[received(str(uuid.uuid4()), name=name) for name in names])
    answer = export(project, form, fields="name")
    if form == "csv":
        cells = [row[0] for row in csv.reader(io.StringIO(answer.text))][1:]
    else:
        sheet = openpyxl.load_workbook(io.BytesIO(answer.content)).worksheets[0]
        assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row)
        cells = [row[0] for row in sheet.iter_rows(values_only=True)][1:]
    assert len(cells) == len(names) and "plain" in cells
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)


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
    answer = project.post("/tasks/bulk-delete", body, expect=None)
    if answer.status_code in (404, 405):
        not_there_yet("bulk-delete")
    assert answer.status_code == expect, answer.text
    return answer.json()


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


@pytest.mark.parametrize(
    "body",
    [
        {}, {"task_ids": []}, {"task_ids": ["x"] * 1001}, {"filter_state": "done"}, {"filter_state": ""},
        {"filter_name": " "}, {"task_ids": ["x"], "filter_state": "failed"}, {"filter_stat": "failed"},
        {"task_ids": "x"}, {"task_ids": [1]}, {"filter_since": "yesterday"}, {"task_ids": ["x"], "project_id": "p"},
        {"filter_priority": ["urgent"]},
    ],
    ids=lambda body: json.dumps(body)[:40],
)  # fmt: skip
def test_a_doubtful_delete_is_refused_and_deletes_nothing(corpus, body):
    delete(corpus.project, expect=422, **body)
    assert len(corpus.project.tasks(limit=5000)) == len(corpus.rows)
