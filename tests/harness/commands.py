"""Issuing commands, and what every answer about one has."""

import uuid

from harness.wait import eventually

MEMBERS = {
    "id", "project_id", "agent_id", "issued_by", "action", "target_type", "target_id", "payload", "status", "result",
    "error", "issued_at", "dispatched_at", "completed_at", "timeout_at", "delivered", "late_status", "late_result",
    "agent_state", "attempt", "audit",
}  # fmt: skip
ENDED = ("succeeded", "failed", "timed_out")


def new_id():
    return str(uuid.uuid4())


def ended(project, command_id, deadline=10):
    return eventually(lambda: (c := project.command(command_id))["status"] in ENDED and c, deadline, why="no outcome")


def retry(project, agent_id, **more):
    return project.issue("retry-task", agent_id=agent_id, engine="celery", task_id=more.pop("task_id", new_id()), **more)


def refused(project, verb, body, status):
    """Asserts a refusal that leaves nothing behind: no command, no ledger entry, no used key."""
    before = project.commands()
    ledger = entries(project)
    key = f"k-{uuid.uuid4()}"
    answer = project.post(f"/commands/{verb}", {**body, "idempotency_key": body.get("idempotency_key", key)}, expect=status)
    assert project.commands() == before, "a refused request minted a command"
    assert len(entries(project)) == len(ledger), "a refused request left a ledger entry"
    return answer


def entries(project):
    """The newest of the project's audit entries."""
    return project.get("/audit", limit=500).json()["items"]
