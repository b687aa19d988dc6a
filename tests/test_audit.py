"""The ledger as auditors read it: filters, pages, exports, and chains that verify (D25)."""

import json
import subprocess
import uuid

import pytest

from harness.agent import succeed_everything
from harness.server import binary
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
    ],
)
def test_filters_narrow(told, filters, expected):
    project, _ = told
    assert len(project.get("/audit", limit=5000, **filters).json()["items"]) == expected


@pytest.mark.parametrize("wrong", [{"outcome": "maybe"}, {"user_id": "x"}, {"force": "2"}, {"format": "pdf"}, {"limit": 0}])
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
