"""What the Python scripts of this folder share: the same protocol as story.mjs, which tells it."""

import json
import os
import sys
import traceback
from collections.abc import Callable

import requests

CONFIG = json.loads(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("OAUTH_CONFIG", "{}"))
SCOPE = "user:read organizations:read"
BASE = CONFIG.get("base_url", "")

_done: list[str] = []


def _ask(question: dict) -> str:
    print(json.dumps(question), flush=True)
    answer = sys.stdin.readline()
    if not answer:
        raise RuntimeError("the one who should answer has gone")
    return answer.strip()


def authorize(url: str) -> str:
    """The URL to which a person was sent back."""
    return _ask({"authorize": url})


def approve_device(answer: dict) -> None:
    _ask({"device": answer})


def step(name: str) -> None:
    """What came before has worked."""
    _done.append(name)


def tell(story: Callable[[], None]) -> None:
    try:
        for key in ("base_url", "client_id", "client_secret", "public_client_id", "redirect_uri"):
            assert CONFIG.get(key), f"the configuration lacks {key}"
        story()
    except Exception:
        traceback.print_exc()
        sys.exit(f"it went well until after: {_done}")
    print(json.dumps({"ok": _done}), flush=True)


# ---- What every client must find ----


def check_profile(answer: dict) -> dict:
    user = answer["user"]
    assert len(user["id"]) == 36 and "@" in user["email"] and user["email_verified"] is True, user
    return user


def scopes_of(value: str | list) -> set:
    return set(value.split() if isinstance(value, str) else value)


def check_tokens(tokens: dict) -> None:
    assert tokens["access_token"] and tokens["refresh_token"]
    assert tokens["token_type"].lower() == "bearer"
    assert scopes_of(tokens["scope"]) == scopes_of(SCOPE), tokens["scope"]


def check_refreshed(before: dict, after: dict) -> None:
    check_tokens(after)
    assert after["refresh_token"] != before["refresh_token"], "refresh tokens rotate"
    assert after["access_token"] != before["access_token"]


def check_introspection(answer: dict, user: dict) -> None:
    assert answer["active"] is True, answer
    assert answer["client_id"] == CONFIG["client_id"] and answer["sub"] == user["id"], answer
    assert scopes_of(answer["scope"]) == scopes_of(SCOPE), answer


def check_revoked(access_token: str) -> None:
    headers = {"Authorization": f"Bearer {access_token}"}
    answer = requests.get(f"{BASE}/auth/v1/profile", headers=headers, timeout=30)
    assert answer.status_code == 401, "the access token ends with its grant"
    assert "invalid_token" in answer.headers.get("WWW-Authenticate", ""), answer.headers
