"""Signatures of the agent protocol, from the standard library alone (no code shared with the server or the agents)."""

import base64
import hashlib
import hmac
import json


def canonical(value):
    """The text that is signed: sorted by code point, no blanks, nothing escaped that need not be."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def signature(secret, frame, agent_id, project_id, session_id):
    """The lowercase hex HMAC of a parsed frame; a member `hmac` of the frame is left out."""
    signed = {name: value for name, value in frame.items() if name != "hmac"}
    signed.update(agent_id=agent_id, project_id=project_id, session_id=session_id)
    return hmac.new(secret, canonical(signed), hashlib.sha256).hexdigest()


def secret_bytes(text):
    """Decodes a Z4J_HMAC_SECRET: urlsafe base64, padding optional, at least 32 bytes."""
    assert "+" not in text and "/" not in text, "the secret must be urlsafe base64"
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert len(raw) >= 32
    return raw


def purge_token(secret, queue, depth):
    """What the agent's `expected_confirm_token` computes."""
    return hmac.new(secret, f"purge|{queue}|{depth}".encode(), hashlib.sha256).hexdigest()
