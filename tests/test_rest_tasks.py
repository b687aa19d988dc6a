"""Task reads: every filter of the contract alone and combined, cursors, fields, detail, export."""

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

from harness.agent import Agent, failed, received, retried, revoked, started, succeeded
from harness.client import Project


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


@pytest.mark.parametrize("member", ["name", "queue", "worker", "search"])
def test_a_filter_takes_a_text_of_200_characters_and_no_more(corpus, member):
    """As the reference (REST section 2), in reads and in bulk-delete alike."""
    corpus.project.get("/tasks", **{member: "é" * 200})
    corpus.project.get("/tasks", expect=422, **{member: "é" * 201})
    corpus.project.post("/tasks/bulk-delete", {f"filter_{member}": "é" * 201}, expect=422)


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


@pytest.mark.parametrize("cursor", ["%00", "%ff", "%4", "a%00b"])
@pytest.mark.parametrize("where", ["/tasks", "/commands", "/audit", "/events?engine=celery&task_id=x"])
def test_a_cursor_that_is_no_text_is_refused_alike(corpus, where, cursor):
    path = corpus.project.path(where) + ("&" if "?" in where else "?") + f"cursor={cursor}"
    assert corpus.project.client.request("GET", path, expect=400).json()["error"] == "invalid_cursor"


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


def test_a_field_that_is_listed_twice_is_there_once(corpus):
    page = corpus.project.get("/tasks", limit=3, fields="state, name,state").text
    assert page.count('"state"') == 3 and page.count('"name"') == 3
    assert export(corpus.project, "csv", fields="state,name,state").text.splitlines()[0] == "state,name"


@pytest.mark.parametrize("fields", ["nope", "state,nope", "state,", "", "State", "state;task_id"])
@pytest.mark.parametrize("form", ["json", "csv"])
def test_an_unknown_field_is_refused_in_every_format(corpus, form, fields):
    corpus.project.get("/tasks", expect=422, fields=fields, format=form)


def test_an_unknown_format_is_refused(corpus):
    corpus.project.get("/tasks", expect=422, format="pdf")


def export(project, form, **filters):
    answer = project.get("/tasks", expect=None, format=form, **filters)
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


# --- doubtful deletion


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
    corpus.project.post("/tasks/bulk-delete", body, expect=422)
    assert len(corpus.project.tasks(limit=5000)) == len(corpus.rows)
