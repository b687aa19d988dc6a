"""Exports from outside: what a spreadsheet makes of them, when the first byte comes, and what a client that leaves costs."""

import csv
import io
import random
import re
import time
import uuid
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import openpyxl
import pytest

from harness.agent import failed, received, started, succeeded
from harness.wait import eventually

# What spreadsheets have been made to run.
FORMULAS = [
    "=1+1", "+1+1", "-1+1", "@SUM(1,1)", "\t=1+1", "\r=1+1", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x","y")',
    "=IMPORTXML(CONCAT(1),1)", "-2+3+cmd|' /C calc'!A0", "＝1+1",
]  # fmt: skip
STARTS = ("=", "+", "-", "@", "\t", "\r")


def sheet(answer):
    return openpyxl.load_workbook(io.BytesIO(answer.content)).worksheets[0]


def counted(server, form, outcome):
    text = httpx.get(server.url + "/metrics").text
    found = re.search(rf'thalamus_exports_total{{format="{form}",outcome="{outcome}"}} (\d+)', text)
    return int(found[1]) if found else 0


def test_a_spreadsheet_has_numbers_times_and_texts(sim, project):
    agent, one, other = sim(), str(uuid.uuid4()), str(uuid.uuid4())
    agent.report(received(one, args=[1, 2]), started(one), succeeded(one, runtime_ms=1234))
    agent.report(received(other))
    fields = "runtime_ms,retry_count,received_at,started_at,finished_at,task_id,args,name,worker"
    found = sheet(project.get("/tasks", format="xlsx", fields=fields))
    header, *rows = found.iter_rows()
    assert [cell.value for cell in header] == fields.split(",")
    assert all(cell.font.bold for cell in header) and found.freeze_panes == "A2"
    by_id = {row[5].value: row for row in rows}
    runtime, retries, got, began, ended = (cell for cell in by_id[one][:5])
    assert (runtime.value, runtime.data_type) == (1234, "n")
    assert (retries.value, retries.data_type) == (0, "n")
    told = project.task(one)
    for cell, name in ((got, "received_at"), (began, "started_at"), (ended, "finished_at")):
        assert cell.is_date and isinstance(cell.value, datetime)
        exact = datetime.fromisoformat(told[name]).replace(tzinfo=None)
        assert abs(cell.value - exact) <= timedelta(milliseconds=1), name
    assert by_id[one][6].value == "[1, 2]"
    # What is not known is an empty cell, not a zero or a text.
    assert [cell.value for cell in by_id[other][:2]] == [None, 0]
    assert [cell.value for cell in by_id[other][3:5]] == [None, None]


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_no_cell_of_any_column_is_run(sim, project, form):
    agent = sim()
    for n, text in enumerate(FORMULAS):
        task = f"{text}{n}"
        agent.report(
            received(task, name=text, queue=text, args=text, kwargs=text, tags=[text]),
            started(task, worker=text),
            failed(task, worker=text, exception=text, message=text),
        )
    fields = "task_id,name,queue,worker,args,kwargs,result,exception,traceback,tags"
    answer = project.get("/tasks", format=form, fields=fields)
    if form == "csv":
        rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    else:
        found = sheet(answer)
        assert all(cell.data_type != "f" for row in found.iter_rows() for cell in row)
        rows = [[value or "" for value in row] for row in found.iter_rows(values_only=True)]
    assert rows[0] == fields.split(",")
    assert len(rows) == len(FORMULAS) + 1
    cells = [cell for row in rows[1:] for cell in row]
    assert [cell for cell in cells if cell.startswith(STARTS)] == []
    # The text itself is still there.
    assert sum("HYPERLINK" in cell for cell in cells) >= 4


def test_a_full_sheet_is_followed_by_another():
    # Made by the server's own writer with three rows to a sheet, and compared with it in its tests.
    book = openpyxl.load_workbook(Path(__file__).parent / "fixtures" / "rollover.xlsx")
    assert book.sheetnames == ["Audit", "Audit 2", "Audit 3"]
    rows = []
    for found in book.worksheets:
        header, *cells = found.iter_rows()
        assert [cell.value for cell in header] == ["number", "time", "text", "nothing"]
        assert all(cell.font.bold for cell in header) and found.freeze_panes == "A2"
        rows += cells
    assert [len(list(found.rows)) for found in book.worksheets] == [4, 4, 2]
    for n, row in enumerate(rows):
        number, at, text, nothing = (*row, None)[:4]
        assert (number.value, number.data_type) == (n, "n")
        assert at.is_date and abs(at.value - datetime(1970, 1, 1, 0, 0, n, 5000)) < timedelta(milliseconds=1)
        assert text.data_type == "s" and (nothing is None or nothing.value is None)
    # What XML cannot hold stands as a spreadsheet writes it.
    texts = ["=1+1", " padded ", 'a<b>&"c"', "two\nlines", "_x0001__x000D_", "_x005F_x0041_", "🎉"]
    assert [row[2].value for row in rows] == texts


def test_what_an_archive_is_made_of_is_whole(sim, project):
    """Every reader of archives takes it, also one that looks at the entries and not at the directory."""
    agent = sim()
    agent.report(*[received(f"t{n}") for n in range(50)])
    content = project.get("/tasks", format="xlsx").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        # What tells a workbook from any archive, by its first entry.
        assert archive.namelist()[0] == "_rels/.rels"
        assert {"[Content_Types].xml", "xl/workbook.xml", "xl/styles.xml"} <= set(archive.namelist())


@pytest.fixture(scope="module")
def much(server, admin):
    """A project whose export is far larger than what a socket takes in advance."""
    from harness.agent import Agent
    from harness.client import Project

    project = Project.create(admin)
    # Words that no archive makes much smaller.
    words = random.Random(7)
    text = lambda: " ".join("".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(600))  # noqa: E731
    with Agent(server.url, project.mint()).open() as agent:
        for start in range(0, 2000, 200):
            ids = [agent.batch(received(f"t{n}", args=[text()])) for n in range(start, start + 200)]
            for batch in ids:
                agent.wait_ack(batch, 60)
    return project


def stream(project, **params):
    return project.client.http.stream("GET", "/api/v1" + project.path("/tasks"), params={"fields": "task_id,args", **params})


@pytest.mark.parametrize("form", ["csv", "ndjson", "xlsx"])
def test_the_first_byte_is_early(much, form):
    begun = time.monotonic()
    with stream(much, format=form) as answer:
        pieces = answer.iter_raw()
        first = next(pieces)
        early = time.monotonic() - begun
        size = len(first) + sum(len(piece) for piece in pieces)
    assert size > 6_000_000
    assert early < 0.5, f"first byte after {early:.3f} s"


@pytest.mark.parametrize("form", ["csv", "ndjson", "xlsx"])
def test_a_client_that_goes_away_stops_the_work(server, much, form):
    before = counted(server, form, "abandoned"), counted(server, form, "finished")
    with stream(much, format=form) as answer:
        next(answer.iter_raw())
    eventually(lambda: counted(server, form, "abandoned") == before[0] + 1, 10, why="the export runs on for nobody")
    assert counted(server, form, "finished") == before[1]
    # One that is read to its end is finished.
    much.get("/tasks", format=form)
    eventually(lambda: counted(server, form, "finished") == before[1] + 1, 10, why="an export that was read is not counted")
