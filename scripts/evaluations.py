"""Evaluations of the adapters in pretrained/ through a running server: which there are, and their cells, kept so that an interrupted run goes on.

Only Python's standard library is needed.
"""

import hashlib
import json
import pathlib
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / ".cache" / "evaluations"
# Numbers of demonstrations that the paper evaluates, by task.
SHOTS = {"summary": [0, 1, 2, 4], "question": [0, 1, 2, 4], "sentiment": [0, 2, 4, 6], "detection": [0, 2, 4, 6], "inference": [0, 3, 5, 7]}
# Across tasks: without demonstrations where labels are scored, and the fewest.
CROSS_SHOTS = {"summary": [1], "question": [1], "sentiment": [0, 2], "detection": [0, 2], "inference": [0, 3]}
# Generation takes most of the time, long inputs above all, so it is measured on fewer examples than the 250 of a test file.
LIMITS = {"summary": 100}
CROSS_LIMITS = {"summary": 50, "question": 100}


def call(server, method, path, body=None):
    """One request; the JSON of the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server + path, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def follow(server, evaluation):
    """Waits for the end of an evaluation, with a line of progress."""
    with urllib.request.urlopen(f"{server}/v1/evaluations/{evaluation}/events") as events:
        for line in events:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            progress = event.get("progress", event)
            if "examples_total" in progress and sys.stderr.isatty():
                done, total = progress["examples_done"], progress["examples_total"]
                print(f"\r  {evaluation}: {done} of {total} examples", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    record = call(server, "GET", f"/v1/evaluations/{evaluation}")
    if record["status"] != "completed":
        sys.exit(f"{evaluation} ended as {record['status']}: {record.get('error')}")
    return record


def plans(adapters):
    """The evaluations that give every adapter its cells, and the base its own with both prompts; `adapters` is {name: task}."""
    found = []
    for task, shots in SHOTS.items():
        own = [name for name in adapters if adapters[name] == task]
        others = [name for name in adapters if adapters[name] != task]
        limit = {"limit": LIMITS[task]} if task in LIMITS else {}
        for kind in ("in_domain", "out_of_domain"):
            found.append({"kind": kind, "adapters": [*own, "base"], "tasks": [task], "shots": shots} | limit)
        found.append({"kind": "matrix", "adapters": ["base"], "tasks": [task], "shots": shots, "prompts": [1]} | limit)
        if others:
            cross = {"kind": "cross_task", "adapters": others, "tasks": [task], "shots": CROSS_SHOTS[task]}
            found.append(cross | ({"limit": CROSS_LIMITS[task]} if task in CROSS_LIMITS else {}))
    return found


def measure(server, adapters, versions, limit):
    """All cells, those of the base under the name `base`."""
    cells = []
    for plan in plans(adapters):
        body = {**plan, "seed": 0}
        if limit:
            body["limit"] = min(limit, body.get("limit", limit))
        print(json.dumps(body), file=sys.stderr)
        key = json.dumps([body, [versions.get(name) for name in body["adapters"]]], sort_keys=True)
        kept = KEPT / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
        if not kept.exists():
            found = follow(server, call(server, "POST", "/v1/evaluations", body)["id"])["cells"]
            KEPT.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(found))
        cells += json.loads(kept.read_text())
    return cells
