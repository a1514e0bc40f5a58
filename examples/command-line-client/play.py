#!/usr/bin/env python3
"""Plays the InsForge command-line client against a running control plane, call by call as the client sends them, and
checks each answer field by field. Needs nothing but Python 3.11.

Usage: python3 examples/command-line-client/play.py [DEMO.JSON]      default: .insforge/demo.json of `make dev`
"""

import json
import re
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime
from pathlib import Path

ROLES = ("administrator", "developer")
STATES = ("creating", "ready", "merging", "merged", "conflicted", "deleted", "resetting")


# ---- What fields hold ------------------------------------------------------------------------------------------------


def text(value):
    return isinstance(value, str) and value != ""


def number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def an_object(value):
    return isinstance(value, dict)


def an_id(value):
    return text(value) and str(uuid.UUID(value)) == value


def moment(value):
    return text(value) and value.endswith("Z") and datetime.fromisoformat(value) is not None


def date(value):
    return text(value) and re.match(r"\d{4}-\d\d-\d\d", value) is not None


def one_of(*values):
    return lambda value: value in values


def maybe(check):
    return lambda value: value is None or check(value)


USER = {"id": an_id, "name": text, "email": text, "avatar_url": maybe(text), "email_verified": one_of(True, False)}
ORGANIZATION = {
    "id": an_id,
    "name": text,
    "type": one_of("personal", "team", "company"),
    "created_at": moment,
    "updated_at": moment,
}
MEMBER = {"id": an_id, "organization_id": an_id, "user_id": an_id, "role": one_of(*ROLES), "joined_at": moment}
INVITATION = {
    "id": an_id,
    "organization_id": an_id,
    "email": text,
    "role": one_of(*ROLES),
    "status": one_of("pending", "accepted", "expired", "declined"),
    "expires_at": moment,
    "created_at": moment,
}
PROJECT = {
    "id": an_id,
    "organization_id": an_id,
    "name": text,
    "appkey": lambda value: text(value) and re.fullmatch(r"[a-z0-9]+", value),
    "region": one_of("us-east", "us-west", "eu-central", "ap-southeast"),
    "status": text,
    "operation_status": maybe(text),
    "instance_type": text,
    "service_version": maybe(lambda value: text(value) and not value.startswith("v")),
    "customized_domain": maybe(text),
    "created_at": moment,
    "updated_at": moment,
}
BRANCH = {
    "id": an_id,
    "parent_project_id": an_id,
    "organization_id": an_id,
    "name": text,
    "appkey": text,
    "region": text,
    "status": text,
    "branch_state": one_of(*STATES),
    "branch_created_at": moment,
    "branch_metadata": {"mode": one_of("full", "schema-only")},
}
BACKUP = {
    "id": an_id,
    "project_id": an_id,
    "organization_id": an_id,
    "plan": text,
    "status": one_of("running", "completed", "failed"),
    "trigger_source": one_of("manual", "scheduled"),
    "error_message": maybe(text),
    "triggered_at": maybe(moment),
    "created_at": moment,
    "name": maybe(text),
    "size_bytes": maybe(whole),
    "created_by": maybe(an_id),
}
DIFF = {
    "summary": {"added": whole, "modified": whole, "conflicts": whole},
    "rendered_sql": text,
    "changes": [{"schema": text, "object": text, "type": text, "action": one_of("add", "modify", "drop"), "sql": text}],
    "conflicts": [{"schema": text, "object": text, "type": text, "hint": text}],
}


def check(what, value, shape):
    """`value` has the fields of `shape`; it may have others."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            sys.exit(f"{what} is no object: {value!r}")
        for name, inner in shape.items():
            if name not in value:
                sys.exit(f"{what} has no {name}: {value!r}")
            check(f"{what}.{name}", value[name], inner)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            sys.exit(f"{what} is no list: {value!r}")
        for place, item in enumerate(value):
            check(f"{what}[{place}]", item, shape[0])
    else:
        try:
            fits = shape(value)
        except (ValueError, TypeError):
            fits = False
        if not fits:
            sys.exit(f"{what} is not as the contract has it: {value!r}")


# ---- The client ------------------------------------------------------------------------------------------------------


class Client:
    """Sends what version 0.2.8 sends: JSON content type on every call with a bearer, no body where it has none."""

    def __init__(self, base_url):
        self.base_url = base_url
        self.bearer = None

    def send(self, method, url, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        all_headers = {"Content-Type": "application/json"} | (headers or {})
        request = urllib.request.Request(url, method=method, data=data, headers=all_headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def call(self, method, path, body=None, expect=(200,)):
        bearer = {"Authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        status, _, content = self.send(method, self.base_url + path, body, bearer)
        if status not in expect:
            sys.exit(f"{method} {path} answered {status}: {content.decode(errors='replace')}")
        print(f"  {method} {path} -> {status}")
        return json.loads(content) if content else None

    def refused(self, method, path, body=None, *, status):
        answer = self.call(method, path, body, expect=(status,))
        check(f"the refusal of {method} {path}", answer, {"code": text, "error": text, "requestId": text})
        return answer

    def poll(self, path, name, field, wanted, seconds):
        give_up = time.monotonic() + seconds
        while True:
            seen = self.call("GET", path)[name]
            if seen[field] == wanted:
                return seen
            if time.monotonic() > give_up:
                sys.exit(f"{path}: {field} is still {seen[field]}")
            time.sleep(3)


def sql(host, key, statement):
    request = urllib.request.Request(
        f"{host}/api/database/advance/rawsql",
        data=json.dumps({"query": statement}).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["rows"]


def step(name):
    print(f"insforge {name}")


def login(client, user):
    step("login --email")
    status, headers, content = client.send("POST", f"{client.base_url}/auth/v1/login", user)
    answer = json.loads(content)
    if status != 200:
        sys.exit(f"the login answered {status}: {answer}")
    check("the login", answer, {"token": text, "user": USER})
    cookies = ", ".join(headers.get_all("Set-Cookie") or [])
    cookie = re.search(r"refreshToken=([^;]+)", cookies)
    if not cookie or re.search(r'["%]', cookie[1]):
        sys.exit(f"no refresh token that can be used as it stands: {cookies}")
    client.bearer = answer["token"]
    step("whoami")
    check("the profile", client.call("GET", "/auth/v1/profile")["user"], USER)
    step("(a token that has expired: refreshed with the cookie's value)")
    client.bearer = None
    body = {"grant_type": "refresh_token", "refresh_token": cookie[1], "client_id": "clf_NK8cMUs41gm8ZcfdtSguVw"}
    tokens = client.call("POST", "/api/oauth/v1/token", body)
    check("the tokens", tokens, {"access_token": text, "refresh_token": text, "expires_in": whole})
    client.bearer = tokens["access_token"]


def organizations(client):
    step("orgs create, list, update")
    made = client.call("POST", "/organizations/v1", {"name": "Played", "type": "team"}, expect=(201,))["organization"]
    check("the organization", made, ORGANIZATION)
    check("the organizations", client.call("GET", "/organizations/v1"), {"organizations": [ORGANIZATION]})
    path = f"/organizations/v1/{made['id']}"
    renamed = client.call("PUT", path, {"name": "Played on"})["organization"]
    check("the renamed one", renamed, ORGANIZATION | {"name": one_of("Played on")})
    step("orgs members invite, list, role, remove")
    invite = {"email": "lin@example.com", "role": "developer"}
    invited = client.call("POST", f"{path}/members/invite", invite, expect=(201,))["invitation"]
    check("the invitation", invited, {"id": an_id, "email": text, "role": one_of(*ROLES), "expires_at": moment})
    listed = client.call("GET", f"{path}/members")
    check("the members", listed, {"members": [MEMBER], "invitations": [INVITATION]})
    me = listed["members"][0]["id"]
    client.refused("PUT", f"{path}/members/{me}/role", {"role": "developer"}, status=409)
    client.refused("DELETE", f"{path}/members/{me}", status=409)
    step("orgs leave (refused: the last administrator)")
    client.refused("POST", f"{path}/leave", status=409)
    return made["id"]


def project(client, organization):
    step("create")
    projects = f"/organizations/v1/{organization}/projects"
    made = client.call("POST", projects, {"name": "storefront"}, expect=(201,))["project"]
    check("the project", made, PROJECT)
    path = f"/projects/v1/{made['id']}"
    active = client.poll(path, "project", "status", "active", 120)
    final = {name: one_of(made[name]) for name in ("id", "name", "organization_id", "appkey", "region")}
    check("the active project", active, PROJECT | final)
    key = client.call("GET", f"{path}/access-api-key")
    check("the key", key, {"access_api_key": text})
    step("projects list, get, update; link")
    check("the projects", client.call("GET", projects), {"projects": [PROJECT]})
    client.call("POST", "/tracking/v1/agent-connected", {"client": "cli", "project_id": made["id"]}, expect=(204,))
    updated = client.call("PUT", path, {"name": "shop"})["project"]
    check("the updated project", updated, PROJECT | {"name": one_of("shop")})
    step("projects update-version")
    status, _, content = client.send("GET", f"{client.base_url}/platform/insforge/latest-version")
    if status == 200:
        latest = json.loads(content)
        check("the newest release", latest, {"version": text, "cached": one_of(True, False)})
        wait = f"insforgeOssVersion={latest['version']}&waitForCompletion=true"
        restarted = client.call("POST", f"{path}/restart?{wait}", expect=(200, 202))
        check("the restarted project", restarted["project"], PROJECT)
    client.refused("GET", "/projects/v1/fa4e0000-1234-5678-90ab-cd1234567890", status=404)
    return active, key["access_api_key"]


def branches(client, parent, key):
    host = parent["access_host"]
    sql(host, key, "create table people (id bigint primary key, name text)")
    step("branch create, list, switch")
    base = f"/projects/v1/{parent['id']}/branches"
    made = client.call("POST", base, {"mode": "full", "name": "feat-coupons"}, expect=(201, 202))["branch"]
    check("the branch", made, BRANCH)
    check("the branches", client.call("GET", base), {"data": [BRANCH]})
    path = f"/projects/v1/branches/{made['id']}"
    ready = client.poll(path, "branch", "branch_state", "ready", 900)
    branch_key = client.call("GET", f"/projects/v1/{made['id']}/access-api-key")["access_api_key"]
    check("the branch as a project", client.call("GET", f"/projects/v1/{made['id']}")["project"], PROJECT)
    sql(ready["access_host"], branch_key, "create table coupons (id bigint primary key)")
    sql(ready["access_host"], branch_key, "alter table people alter column name set default 'nobody'")
    sql(host, key, "alter table people alter column name set default 'someone'")
    step("branch merge")
    dry = client.call("POST", f"{path}/merge?dryRun=true")
    check("the diff", dry, DIFF | {"summary": {"added": one_of(1), "modified": whole, "conflicts": one_of(1)}})
    conflict = client.refused("POST", f"{path}/merge", status=409)
    check("the conflict", conflict, {"diff": DIFF})
    sql(host, key, "alter table people alter column name drop default")
    merged = client.call("POST", f"{path}/merge")
    check("the merge", merged, {"branchId": one_of(made["id"]), "status": one_of("merged"), "diff": DIFF})
    if sql(host, key, "select * from coupons") != []:
        sys.exit("the merged table is not on the parent")
    step("branch reset, delete")
    reset = client.call("POST", f"{path}/reset", expect=(202,))["branch"]
    check("the branch", reset, BRANCH | {"branch_state": one_of("resetting")})
    client.poll(path, "branch", "branch_state", "ready", 300)
    client.call("DELETE", path, expect=(202, 204))
    if client.call("GET", base)["data"]:
        sys.exit("a deleted branch is listed")


def backups(client, project, host, key):
    path = f"/projects/v1/{project}"
    step("backups latest (there is none)")
    client.refused("GET", f"{path}/backup/latest", status=404)
    step("backups create, list, latest, rename")
    sql(host, key, "create table notes as select 'before' as title")
    body = {"name": "before-launch"}
    made = client.call("POST", f"{path}/backup?waitForCompletion=true", body, expect=(200, 202))
    check("the backup's answer", made, {"message": text, "project": {"id": one_of(project), "name": text, "status": text}})
    listed = client.call("GET", f"{path}/backups")
    check("the backups", listed, {"backups": [BACKUP]})
    backup = listed["backups"][0]
    named = {"name": one_of("before-launch"), "status": one_of("completed"), "trigger_source": one_of("manual")}
    check("the backup", backup, BACKUP | named | {"size_bytes": whole})
    latest = client.call("GET", f"{path}/backup/latest")
    check("the latest backup", latest, {"file": text, "download_url": text, "size_bytes": one_of(backup["size_bytes"])})
    with urllib.request.urlopen(latest["download_url"], timeout=60) as download:
        if len(download.read()) != backup["size_bytes"]:
            sys.exit("the download is not the backup")
    renamed = client.call("PATCH", f"{path}/backups/{backup['id']}", {"name": None})
    check("the renamed backup", renamed, {"id": one_of(backup["id"]), "name": one_of(None)})
    step("backups restore")
    sql(host, key, "insert into notes values ('after')")
    client.call("POST", f"{path}/backups/{backup['id']}/restore", expect=(202,))
    client.poll(path, "project", "status", "active", 300)
    if (rows := sql(host, key, "select title from notes")) != [{"title": "before"}]:
        sys.exit(f"the restored database has {rows}")
    step("backups delete")
    client.call("DELETE", f"{path}/backups/{backup['id']}", expect=(204,))
    if client.call("GET", f"{path}/backups")["backups"]:
        sys.exit("a deleted backup is listed")


def billing(client, organization):
    step("usage; billing status, cycles, history, credits, upgrade")
    line = {"id": an_id, "name": text, "status": text, "database_bytes": whole, "storage_bytes": whole}
    used = client.call("GET", f"/usage/v1/organizations/{organization}")
    owner = {"id": an_id, "name": text, "price_plan": text}
    check("the usage", used, {"organization": owner, "projects": [line], "_meta": {"requested_at": moment}})
    for metric, amount in used["usage_summary"].items():
        check(f"the usage's {metric}", amount, number)
    base = f"/organizations/v1/{organization}"
    check("the subscription", client.call("GET", f"{base}/subscription-status"), {"status": text, "plan": text})
    cycle = {"start_date": date, "end_date": date}
    check("the cycles", client.call("GET", f"{base}/billing-cycles"), {"current": cycle, "previous": cycle})
    check("the payments", client.call("GET", f"{base}/payment-history"), {"payments": [an_object]})
    credit = client.call("GET", f"/billing/v1/{organization}/credits")
    check("the credit", credit, {"creditBalanceFormatted": text, "transactions": [an_object]})
    client.refused("POST", "/billing/v1/stripe/portal-session", {"organizationId": organization}, status=501)


def diagnose(client, project):
    step("diagnose metrics")
    names = ("cpu_usage", "memory_usage", "disk_usage", "network_in", "network_out")
    series = {"metric": one_of(*names), "data": [{"timestamp": number, "value": number}]}
    give_up = time.monotonic() + 90
    while True:
        metrics = client.call("GET", f"/projects/v1/{project}/metrics?range=1h")
        check("the metrics", metrics, {"project_id": one_of(project), "range": one_of("1h"), "metrics": [series]})
        if [s["metric"] for s in metrics["metrics"]] != list(names):
            sys.exit(f"not every metric is there: {metrics}")
        if all(s["data"] for s in metrics["metrics"]):
            break
        if time.monotonic() > give_up:
            sys.exit("the machine has told nothing in a minute and a half")
        time.sleep(5)
    some = client.call("GET", f"/projects/v1/{project}/metrics?range=7d&metrics=cpu_usage,network_in")
    if [s["metric"] for s in some["metrics"]] != ["cpu_usage", "network_in"]:
        sys.exit(f"other metrics than those asked for: {some}")
    refused = client.refused("GET", f"/projects/v1/{project}/metrics?range=1y", status=400)
    if "Metrics" not in refused["error"]:
        sys.exit(f"the client looks for `Metrics`: {refused}")
    step("diagnose incident, advisor")
    incident = client.call("GET", f"/projects/v1/{project}/diagnose/incident")
    check("the incident", incident, {"verdict": text, "explanation": text, "recommendation": text})
    client.refused("GET", f"/projects/v1/{project}/advisor/latest", status=404)


def main():
    demo = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else ".insforge/demo.json").read_text())
    client = Client(demo["base_url"])
    login(client, demo["user"])
    organization = organizations(client)
    active, key = project(client, organization)
    branches(client, active, key)
    backups(client, active["id"], active["access_host"], key)
    billing(client, organization)
    diagnose(client, active["id"])
    step("projects delete; orgs delete")
    client.refused("DELETE", f"/organizations/v1/{organization}", status=409)
    client.call("DELETE", f"/projects/v1/{active['id']}", expect=(204,))
    gone = client.refused("GET", f"/projects/v1/{active['id']}", status=404)
    if "not found" not in gone["error"]:
        sys.exit(f"the client looks for `not found`: {gone}")
    deleted = client.call("DELETE", f"/organizations/v1/{organization}")
    check("the deletion", deleted, {"message": text, "organizationId": one_of(organization)})
    print("played: every answer is as the contract has it")


if __name__ == "__main__":
    main()
