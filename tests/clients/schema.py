"""schemathesis, unchanged, holds a server to its OpenAPI document: python schema.py SERVER MODEL PRETRAINED [--quick]

PRETRAINED is a folder of adapters with sentiment-ft, sentiment-fticl, question-ft, question-fticl and summary-ft. Every route of
/openapi.json is asked, none is left out: as the document stands, with every field at and beyond its edges; narrowed to what the
server can answer with success (schema_hooks.py); and with no key or too small a one. No answer may be a 5xx, and status, content
type, headers and body must be documented. --quick makes some 200 cases instead of some 6,000.
"""

import base64
import collections
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import requests
from served import Server

HERE = pathlib.Path(__file__).resolve().parent
SEED = "1"
LEAST_CASES = 2000
REQUEST_SECONDS = "60"
CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "unsupported_method", "allow_header_conformance",
]  # fmt: skip


class Report:
    """What a run of schemathesis wrote down."""

    def __init__(self, folder):
        self.summary = json.loads(next(folder.glob("json-*.json")).read_text())
        self.cases = self.summary["test_cases"]["generated"]
        self.statuses = collections.defaultdict(collections.Counter)
        self.failures = {}
        with next(folder.glob("ndjson-*.ndjson")).open() as events:
            for event in map(json.loads, events):
                if "ScenarioFinished" in event:
                    self.note(event["ScenarioFinished"]["recorder"])

    def note(self, recorder):
        interactions = dict(recorder["interactions"])
        for interaction in interactions.values():
            status = (interaction.get("response") or {}).get("status_code", "no answer")
            self.statuses[recorder["label"]][status] += 1
        for case, checks in dict(recorder["checks"]).items():
            for check in checks:
                if check["status"] == "failure":
                    self.note_failure(recorder["label"], check, interactions[case])

    def note_failure(self, operation, check, interaction):
        status = interaction["response"]["status_code"]
        message = check["failure_info"]["failure"]["message"].strip().split("\n\n")[0]
        times, _ = self.failures.get((operation, status, message), (0, None))
        shown = f"{interaction['request']['uri']} {content(interaction['request'].get('body'))} -> {content(interaction['response'].get('content'))}"
        self.failures[operation, status, message] = (times + 1, shown)

    def check(self, what):
        for (operation, status, message), (times, shown) in self.failures.items():
            print(f"{operation} {status}, {times} times: {message}\n    {shown}", file=sys.stderr)
        operations = self.summary["operations"]
        assert not self.failures, f"{what}: {len(self.failures)} kinds of answers are not as documented"
        assert not self.summary["errors"], f"{what}: {self.summary['errors']}"
        assert operations["tested"] == operations["total"] and not operations["errored"], f"{what}: {operations}"
        assert self.summary["complete"], f"{what}: stopped early, {self.summary['stop_reason']}"


def content(bytes_in_report):
    return base64.b64decode(bytes_in_report["$base64"])[:300].decode(errors="replace") if bytes_in_report else ""


def run(server, pretrained, *flags, narrowed):
    """What schemathesis says of a server."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.address}/openapi.json", "--seed", SEED, "--checks", ",".join(CHECKS)]
        command += ["--continue-on-failure", "--generation-database", "none", "--request-timeout", REQUEST_SECONDS]
        command += ["--report", "json,ndjson", "--report-dir", f"{folder}/report", *flags]
        environment = {
            "PYTHONPATH": str(HERE),
            "SCHEMATHESIS_HOOKS": str(HERE / "schema_hooks.py"),
            "SCHEMA_ADDRESS": server.address,
            "SCHEMA_PRETRAINED": str(pretrained),
            "SCHEMA_NARROWED": "yes" if narrowed else "no",
        }
        # In a folder of its own, for it writes beside where it runs.
        done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True)
        try:
            return Report(pathlib.Path(folder) / "report")
        except (StopIteration, OSError, ValueError, KeyError):
            raise AssertionError(f"schemathesis did not run: {done.stdout.decode(errors='replace')[-2000:]}") from None


def fuzzing(examples):
    return ["--phases", "fuzzing", "--mode", "positive", "--max-examples", str(examples)]


def as_it_stands(server, pretrained):
    report = run(server, pretrained, "--phases", "coverage", narrowed=False)
    report.check("the document as it stands")
    return "as the document stands", report


def narrowed(server, pretrained, quick):
    # A second version, so that there is something to activate, to promote and to roll back.
    answer = requests.put(f"{server.address}/v1/adapters/sentiment-ft", json={"path": "sentiment-fticl"})
    assert answer.status_code == 200, answer.text
    report = run(server, pretrained, *fuzzing(3 if quick else 50), narrowed=True)
    report.check("what the server can answer")
    never = [operation for operation, statuses in report.statuses.items() if not any(200 <= int(status) < 300 for status in statuses)]
    assert quick or not never, f"never answered with success, so its answers were not looked at: {never}"
    return "narrowed to what can be answered", report


def with_key(server, pretrained, key, refusal):
    header = ["--header", f"Authorization: Bearer {key}"] if key else []
    report = run(server, pretrained, *fuzzing(1), *header, narrowed=False)
    report.check(f"key {key}")
    refused = sum(statuses[refusal] for statuses in report.statuses.values())
    assert refused > report.cases // 4, f"{refused} of {report.cases} cases were refused with {refusal}"
    return f"refused with {refusal}", report


def main():
    quick = "--quick" in sys.argv
    binary, model, pretrained = [argument for argument in sys.argv[1:] if argument != "--quick"]
    pretrained = pathlib.Path(pretrained).resolve()
    cases = failed = 0
    with contextlib.ExitStack() as running:
        server = running.enter_context(Server(binary, model, "--pretrained", pretrained))
        locked = running.enter_context(Server(binary, model, "--pretrained", pretrained, "--api-key", "user", "--admin-key", "root"))
        passes = [lambda: narrowed(server, pretrained, quick), lambda: with_key(locked, pretrained, None, 401)]
        if not quick:
            passes += [lambda: as_it_stands(server, pretrained), lambda: with_key(locked, pretrained, "user", 403)]
        for one in passes:
            try:
                name, report = one()
            except AssertionError as error:
                print(error, file=sys.stderr)
                failed += 1
                continue
            cases += report.cases
            print(f"schemathesis, {name}: {report.cases} cases on {report.summary['operations']['tested']} operations passed", flush=True)
    assert not failed, f"{failed} of {len(passes)} failed"
    assert quick or cases >= LEAST_CASES, f"{cases} cases are fewer than {LEAST_CASES}"
    print(f"schemathesis: {cases} cases, {len(passes)} passed, 0 failed")


if __name__ == "__main__":
    main()
