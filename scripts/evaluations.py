"""Evaluations of the adapters in pretrained/ and of the base through a running server: which there are, and what they found, kept in a file for
each model, so that an interrupted run goes on and a new adapter costs its own cells only.

Only Python's standard library is needed.
"""

import json
import os
import pathlib
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = "base"
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


def limited(request, limits, task):
    return request | ({"limit": limits[task]} if task in limits else {})


def plan(name, trained_task):
    """The evaluations that give a model its cells; the base, whose task is None, gets those of every task with both prompts."""
    if trained_task is None:
        return [limited({"kind": "matrix", "adapters": [name], "tasks": [task], "shots": shots, "prompts": [0, 1]}, LIMITS, task) for task, shots in SHOTS.items()]
    own = {"adapters": [name], "tasks": [trained_task], "shots": SHOTS[trained_task]}
    found = [limited({"kind": kind} | own, LIMITS, trained_task) for kind in ("in_domain", "out_of_domain")]
    for task in SHOTS:
        if task != trained_task:
            found.append(limited({"kind": "cross_task", "adapters": [name], "tasks": [task], "shots": CROSS_SHOTS[task]}, CROSS_LIMITS, task))
    return found


def one_label(cell):
    """Whether every example was given the same label, which makes the accuracy that label's share of the examples. Rows of a confusion matrix are true labels."""
    confusion = cell["extra"].get("confusion")
    return confusion is not None and sum(map(any, zip(*confusion))) == 1


class Report:
    """What was found of one model, in a file: {version, kernels, evaluations: [{request, cells}], …}."""

    def __init__(self, path, facts):
        self.path = path
        kept = json.loads(path.read_text()) if path.exists() else {}
        # Of another version, or from before reports were of this form: measured anew.
        if any(kept.get(name) != value for name, value in facts.items()) or "evaluations" not in kept:
            kept = {}
        self.content = {**facts, "evaluations": [], **kept}

    def cells_of(self, request):
        """The cells of an evaluation that was made before, or None."""
        return next((kept["cells"] for kept in self.content["evaluations"] if kept["request"] == request), None)

    def add(self, request, cells):
        self.content["evaluations"].append({"request": request, "cells": cells})
        self.write()

    def write(self):
        """Whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".part")
        aside.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(aside, self.path)

    @property
    def cells(self):
        return [cell for kept in self.content["evaluations"] for cell in kept["cells"]]


def measure(server, name, trained_task, report):
    """Adds to a report what it lacks."""
    for request in plan(name, trained_task):
        body = {**request, "seed": 0}
        if report.cells_of(body) is None:
            print(json.dumps(body), file=sys.stderr, flush=True)
            report.add(body, follow(server, call(server, "POST", "/v1/evaluations", body)["id"])["cells"])
