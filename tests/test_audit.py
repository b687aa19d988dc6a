"""The ledger as auditors read it: filters, pages, exports, and chains that verify (D25)."""

import io
import json
import stat
import subprocess
import uuid

import openpyxl
import pytest

from conftest import login
from harness.agent import succeed_everything
from harness.client import Project
from harness.server import Server, binary, clean_environment
from harness.wait import eventually


@pytest.fixture
def told(sim, project):
    """A project with a few commands behind it."""
    agent = sim(on_command=succeed_everything)
    for n in range(5):
        command = project.issue("cancel-task", agent_id=agent.minted.id, engine="celery", task_id=f"t-{n}")
    project.issue("rate-limit", agent_id=agent.minted.id, task_name="email.send", rate="10/m")
    eventually(lambda: all(row["status"] == "succeeded" for row in project.walk_path("/commands")), 10)
    return project, command


def test_every_command_stands_there_at_issue_and_at_its_outcome(told):
    project, command = told
    items = project.get("/audit", command_id=command["id"], limit=50).json()["items"]
    actions = [item["action"] for item in reversed(items)]
    assert actions[0] == "command.issue.cancel_task" and actions[-1] == "command.completed"
    shown = project.command(command["id"])["audit"]
    assert [items[-1]["seq"], items[0]["seq"]] == [shown["issued_seq"], shown["outcome_seq"]]


def test_seqs_have_no_gap_and_pages_add_up(told):
    project, _ = told
    walked, cursor = [], None
    while True:
        page = project.get("/audit", limit=4, **({"cursor": cursor} if cursor else {})).json()
        walked += [item["seq"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert page["items"]
    assert walked == list(range(walked[0], 0, -1))


@pytest.mark.parametrize(
    "filters, expected",
    [
        ({"action_prefix": "command.issue."}, 6),
        ({"global_throttle": "true"}, 1),
        ({"force": "true"}, 0),
        ({"outcome": "deny"}, 0),
        ({"target_type": "agent"}, 1),
        ({"target_id": "celery:t-3"}, 1),
        ({"actor": "system", "action_prefix": "command.completed"}, 0),
        ({"since": "2999-01-01T00:00:00Z"}, 0),
        ({"until": "2000-01-01T00:00:00Z"}, 0),
        ({"seq": 3}, 1),
        ({"seq": 3, "outcome": "deny"}, 0),
        ({"seq": 1_000_000}, 0),
    ],
)
def test_filters_narrow(told, filters, expected):
    project, _ = told
    assert len(project.get("/audit", limit=5000, **filters).json()["items"]) == expected


@pytest.mark.parametrize("wrong", [{"outcome": "maybe"}, {"user_id": "x"}, {"force": "2"}, {"format": "pdf"}, {"limit": 0}, {"seq": 0}, {"seq": "x"}])
def test_wrong_filters_are_refused(project, wrong):
    project.get("/audit", expect=422, **wrong)


def test_a_chain_verifies_over_rest_and_its_export_offline(told, tmp_path):
    project, _ = told
    verdict = project.get("/audit/verify").json()
    assert verdict["ok"] and verdict["first_bad"] is None and verdict["checked"] == verdict["head"]["seq"]
    export = tmp_path / "export.ndjson"
    export.write_text(project.get("/audit", format="ndjson").text)
    whole = subprocess.run([binary(), "audit", "verify", export], capture_output=True, text=True)
    assert whole.returncode == 0 and verdict["head"]["hash"] in whole.stdout, whole
    lines = [json.loads(line) for line in export.read_text().splitlines()]
    for crime in ("edit", "delete", "swap"):
        forged = [dict(line) for line in lines]
        middle = len(forged) // 2
        if crime == "edit":
            forged[middle]["entry"] = lines[middle + 1]["entry"]
        elif crime == "delete":
            del forged[middle]
        else:
            forged[middle]["seq"], forged[middle + 1]["seq"] = forged[middle + 1]["seq"], forged[middle]["seq"]
        export.write_text("".join(json.dumps(line) + "\n" for line in forged))
        broken = subprocess.run([binary(), "audit", "verify", export], capture_output=True, text=True)
        assert broken.returncode == 1 and "BROKEN at seq" in broken.stdout, (crime, broken)


def test_csv_has_a_header_and_every_entry(told):
    project, _ = told
    rows = project.get("/audit", format="csv").text.splitlines()
    assert rows[0].startswith("seq,occurred_at,actor,action")
    assert len(rows) - 1 == project.get("/audit/verify").json()["checked"]


def test_a_sheet_holds_every_entry_and_no_formula(told):
    project, _ = told
    project.client.http.headers["user-agent"] = "=HYPERLINK(1)"
    try:
        project.mint("=1+1")
    finally:
        project.client.http.headers["user-agent"] = "tests"
    answer = project.get("/audit", format="xlsx", fields="seq,user_agent,force,occurred_at,metadata")
    assert answer.headers["content-type"] == "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    sheet = openpyxl.load_workbook(io.BytesIO(answer.content)).worksheets[0]
    rows = list(sheet.iter_rows(values_only=True))
    assert sheet.title == "Audit" and rows[0] == ("seq", "user_agent", "force", "occurred_at", "metadata")
    assert [row[0] for row in rows[1:]] == list(range(len(rows) - 1, 0, -1))
    assert rows[1][1] == "'=HYPERLINK(1)" and str(rows[1][2]).lower() == "false" and "=1+1" in rows[1][4]
    assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row)


def test_logins_stand_in_the_systems_chain(admin):
    item = admin.get("/audit", action_prefix="auth.login", limit=1).json()["items"][0]
    assert item["project_id"] is None and item["action"] in ("auth.login", "auth.login_failed")
    assert admin.get("/audit/verify").json()["ok"]


def test_an_operator_may_not_audit_and_the_refusal_is_an_entry(people, project):
    operator = people.member(project, "operator")
    operator.get("/audit", expect=403)
    assert project.get("/audit", outcome="deny").json()["items"][0]["action"].endswith(".refused")
    assert people.member(project, "auditor").get("/audit").json()["items"]


def test_another_projects_entries_never_show(project, told):
    other, _ = told
    assert other.row["id"] == project.row["id"] or not project.get("/audit").json()["items"]
    assert all(item["project_id"] == other.row["id"] for item in other.get("/audit", limit=500).json()["items"])
    assert uuid.UUID(other.row["id"])


def audit(*words):
    """`thalamus audit ...`: its exit code, and what it says."""
    words = [str(binary()), "audit", *map(str, words)]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60, env=clean_environment())
    return run.returncode, run.stdout + run.stderr


def checkpoint_file(server):
    return server.data.with_name(server.data.name + "-checkpoints.ndjson")


def busy(server, rounds=5):
    """A project with some entries; every one is in the ledger when this returns."""
    project = Project.create(login(server))
    for n in range(rounds):
        project.mint(f"agent-{n}")
    return project


def proven(project):
    verdict = project.get("/audit/verify").json()
    return verdict if verdict["checkpoint"] and verdict["unproven_from"] is None else None


@pytest.mark.embedded
def test_the_folder_of_a_killed_server_verifies_and_its_next_life_signs_the_rest(own_server):
    server = own_server(store="embedded", checkpoint_seconds=3600)
    # The first round was at the start; what comes now is not signed before the next one.
    project = busy(server)
    code, said = audit("verify", "--data-dir", server.data)
    assert code == 2 and "a server runs on this data folder" in said, said
    server.kill()
    code, said = audit("verify", "--data-dir", server.data)
    assert code == 0 and f"project {project.row['id']}, {project.slug}:\nwhole: " in said, said
    assert stat.S_IMODE((server.data / "checkpoint-key").stat().st_mode) == 0o600
    server.start()
    again = Project(login(server), project.row)
    verdict = eventually(lambda: proven(again), 10)
    assert verdict["ok"] and verdict["checkpoint"]["seq"] == verdict["head"]["seq"]
    assert audit("key", "--data-dir", server.data) == (0, verdict["public_key"] + "\n")


@pytest.mark.embedded
def test_the_end_of_a_server_signs_what_nobody_has_signed(own_server):
    server = own_server(store="embedded", checkpoint_seconds=3600)
    project = busy(server)
    # Several times: whether connections are open must make no difference.
    for n in range(6):
        with login(server) as client:
            Project(client, project.row).mint(f"one more, {n}")
        server.stop()
        key = audit("key", "--data-dir", server.data)[1].strip()
        code, said = audit("verify", "--data-dir", server.data, "--public-key", key)
        assert code == 0 and "nothing is provable yet" not in said and "taken on its word" not in said, said
        lines = [json.loads(line) for line in checkpoint_file(server).read_text().splitlines()]
        assert lines and lines[-1]["project_id"] == project.row["id"], (n, lines)
        assert server.log().count("draining") == n + 1
        server.start()


def test_a_torn_line_is_told_and_the_checkpoints_go_on_behind_it(own_server):
    server = own_server(checkpoint_seconds=1)
    project = busy(server)
    eventually(lambda: proven(project), 10)
    server.kill()
    whole = checkpoint_file(server).read_text()
    checkpoint_file(server).write_text(whole + whole[:77])
    server.start()
    server.wait_for_log("is torn")
    again = Project(login(server), project.row)
    again.mint("one more")
    verdict = eventually(lambda: proven(again), 10)
    assert verdict["ok"] and any("torn" in remark for remark in verdict["remarks"])
    assert checkpoint_file(server).read_text().startswith(whole + whole[:77])


def test_a_server_that_cannot_write_checkpoints_says_so_and_serves(own_server):
    server = own_server(checkpoint_seconds=1, checkpoint_file="/proc/no/such/file")
    project = busy(server)
    server.wait_for_log("checkpoints cannot be written")
    verdict = project.get("/audit/verify").json()
    assert verdict["ok"] and verdict["checkpoint"] is None and verdict["unproven_from"] == 1
    assert server.terminate() == 0


@pytest.mark.embedded
def test_a_store_that_was_put_back_is_found_out(own_server):
    server = own_server(store="embedded", checkpoint_seconds=1)
    project = busy(server)
    server.stop()
    old = server.copy(server.folder / "old")
    server.start()
    Project(login(server), project.row).mint("later")
    eventually(lambda: proven(Project(login(server), project.row)), 10)
    server.stop()
    # An older copy of the folder under the checkpoints of today.
    old.settings["checkpoint_file"] = checkpoint_file(server)
    old.start()
    try:
        old.wait_for_log("contradicts its checkpoints")
        back = Project(login(old), project.row)
        verdict = back.get("/audit/verify").json()
        assert not verdict["ok"] and verdict["first_bad"]["kind"] == "short", verdict
        assert verdict["first_bad"]["seq"] == verdict["head"]["seq"] + 1 and verdict["first_bad"]["message"]
        for n in range(3):
            back.mint(f"instead-{n}")
        verdict = back.get("/audit/verify").json()
        assert not verdict["ok"] and verdict["first_bad"]["kind"] == "fork", verdict
    finally:
        old.stop()
    code, said = audit("verify", "--data-dir", old.data, "--checkpoints", checkpoint_file(server))
    assert code == 1 and ": fork: " in said, said


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A ledger of a real server: its export, a later export, checkpoints copied before both, and their key."""
    folder = tmp_path_factory.mktemp("exported")
    server = Server(folder, checkpoint_seconds=1).start()
    try:
        project = busy(server, rounds=8)
        eventually(lambda: proven(project), 10)
        checkpoints = folder / "checkpoints.ndjson"
        checkpoints.write_bytes(checkpoint_file(server).read_bytes())
        project.mint("not signed")
        export = project.get("/audit", format="ndjson").text
    finally:
        server.stop()
    key = audit("key", "--data-dir", server.data)[1].strip()
    return [json.loads(line) for line in export.splitlines()], checkpoints, key


# What is done to the lines, which are newest first, and how it is named. Entry 5 is lines[-5].
EXPORT_CRIMES = {
    "nothing": (lambda lines: None, 0, "whole: "),
    "edit": (lambda lines: lines[-5].update(entry=lines[-6]["entry"]), 1, "BROKEN at seq 5: misplaced"),
    "edit of what is shown": (lambda lines: lines[-5].update(actor="system"), 1, "BROKEN at seq 5: retold"),
    "edit of a hash": (lambda lines: lines[-5].update(hash="0" * 64), 1, "BROKEN at seq 5: hash"),
    "insert": (lambda lines: lines.insert(2, lines[-5]), 1, "BROKEN at seq 5: doubled"),
    "delete": (lambda lines: lines.pop(-5), 1, "BROKEN at seq 5: gap"),
    "swap": (lambda lines: swap(lines[-5], lines[-6]), 1, "BROKEN at seq 5: misplaced"),
    "tail cut": (lambda lines: lines.__delitem__(slice(0, 3)), 1, ": short: "),
    "tail cut beyond the newest checkpoint": (lambda lines: lines.pop(0), 0, "which is all"),
}


def swap(one, other):
    one["seq"], other["seq"] = other["seq"], one["seq"]


@pytest.mark.parametrize("crime", EXPORT_CRIMES)
def test_every_crime_on_an_export_is_named(exported, tmp_path, crime):
    lines, checkpoints, key = exported
    commit, expected, word = EXPORT_CRIMES[crime]
    lines = [dict(line) for line in lines]
    newest = lines[0]["seq"]
    commit(lines)
    export = tmp_path / "export.ndjson"
    export.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, said = audit("verify", export, "--checkpoints", checkpoints, "--public-key", key)
    assert code == expected and word in said, said
    if crime == "nothing":
        assert f"nothing is provable yet from seq {newest} on" in said, said


@pytest.mark.embedded
def test_two_exports_that_differ_are_a_fork(own_server, tmp_path):
    server = own_server(store="embedded")
    project = busy(server)
    server.stop()
    twin = server.copy(server.folder / "twin")
    exports = []
    for one in (server, twin):
        one.start()
        here = Project(login(one), project.row)
        here.mint("the same name, another agent")
        exports.append(tmp_path / f"{len(exports)}.ndjson")
        exports[-1].write_text(here.get("/audit", format="ndjson").text)
        one.stop()
    fork = json.loads(exports[0].read_text().splitlines()[0])["seq"]
    code, said = audit("verify", exports[0], "--against", exports[1])
    assert code == 1 and f"BROKEN at seq {fork}: fork:" in said, said
    assert audit("verify", exports[0], "--against", exports[0])[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nowhere.ndjson"],
        ["nowhere.ndjson", "--checkpoints", "c"],
        ["e", "--data-dir", "d"],
        ["--data-dir", "/nonexistent"],
        ["e", "--checkpoints", "c", "--public-key", "no key"],
    ],
)
def test_what_cannot_be_verified_is_neither_whole_nor_broken(words):
    code, said = audit("verify", *words)
    assert code == 2 and said.startswith("thalamus: "), said
