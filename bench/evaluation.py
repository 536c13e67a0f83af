"""How long an evaluation takes, and what users notice of it.

    python bench/evaluation.py SERVER --data DIR --adapters sentiment-ft --shots 0,2 --alone
    python bench/evaluation.py SERVER --data DIR --adapters all --base --limit 50 --clients 2
    python bench/evaluation.py SERVER --data DIR --adapters sentiment-ft --shots 0,2 --limit 5 --kills 5

With --alone nothing else runs: the time, by stage, and examples per second. Without, clients send short completions one after another, first to an idle
server and then until the evaluation has ended, and the 99th percentiles of both times are compared; exit code 1 when one is more than FACTOR times that of
the idle server, or a request fails. With --kills the server is killed (SIGKILL) so many times, evenly spread over the evaluation, and started again on the
same store; what is found must equal what an evaluation finds that nothing interrupts.
"""

import argparse
import datetime
import json
import pathlib
import sys
import threading
import time

import timing
import workloads
from adapters import Shapes
from closed_loop import answers
from load_client import Request, call
from machine import ROOT, machine
from server_process import Server

FACTOR = 2.0
WORDS, TOKENS = 48, 32
IDLE_SECONDS = 60


class Run:
    """A server with the adapters of a folder, and the evaluation that is asked of it."""

    def __init__(self, options):
        self.options = options
        self.model = options.model or ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
        flags = ["--pretrained", str(options.pretrained), *(["--data", options.data] if options.data else [])]
        self.setup = {"binary": options.server, "model": str(self.model), "threads": options.threads, "flags": flags}
        self.server = Server(self.setup)
        names = sorted(folder.name for folder in options.pretrained.iterdir() if folder.is_dir())
        self.adapters = names if options.adapters == "all" else options.adapters.split(",")

    def renew(self):
        """Another server, with an empty store."""
        self.server.stop()
        self.server = Server(self.setup)

    def request(self):
        """The body of the evaluation: every data set for every model, whatever it was trained for."""
        listed = call(self.server.port, "GET", "/v1/datasets")[1]["data"]
        datasets = [entry["id"] for entry in listed if not self.options.datasets or entry["id"] in self.options.datasets.split(",")]
        body = {"kind": "matrix", "adapters": [*(["base"] if self.options.base else []), *self.adapters], "datasets": datasets}
        if self.options.shots:
            body["shots"] = [int(number) for number in self.options.shots.split(",")]
        if self.options.limit:
            body["limit"] = self.options.limit
        return body

    def start(self):
        status, answer = call(self.server.port, "POST", "/v1/evaluations", self.request())
        if status != 202:
            raise SystemExit(f"evaluation.py: the evaluation was answered {status}: {answer}")
        return answer["id"]

    def look(self, evaluation):
        return call(self.server.port, "GET", f"/v1/evaluations/{evaluation}")[1]

    def wait(self, evaluation, kills=0):
        """Follows an evaluation to its end, with a line of progress; the server is killed that many times meanwhile."""
        killed = 0
        while True:
            record = self.look(evaluation)
            if record["status"] not in ("queued", "running"):
                return record
            progress = record["progress"]
            if killed < kills and progress["examples_done"] >= progress["examples_total"] * (killed + 1) / (kills + 1):
                self.server.crash()
                killed += 1
            if sys.stderr.isatty():
                left = progress["estimated_seconds_left"]
                print(f"\r  {progress['examples_done']} of {progress['examples_total']} examples, {left or 0:.0f} s left   ", end="", file=sys.stderr, flush=True)
            time.sleep(0.5)


class Traffic(threading.Thread):
    """Clients that ask until they are told to stop."""

    def __init__(self, run, clients):
        super().__init__(daemon=True)
        self.run_of, self.clients, self.stopped = run, clients, threading.Event()
        self.totals, self.firsts, self.gaps, self.errors = [], [], [], []
        self.prompts = workloads.prompts(Shapes(str(run.model)).words, "evaluation", 64, WORDS)

    def requests(self):
        models = [None, *self.run_of.adapters]
        number = 0
        while not self.stopped.is_set():
            yield Request(models[number % len(models)], self.prompts[number % len(self.prompts)], TOKENS)
            number += 1

    def run(self):
        for answer in answers(self.run_of.server.port, self.clients, self.requests()):
            if answer.error:
                self.errors.append(answer.error)
                continue
            self.totals.append(1e3 * (answer.times[-1] - answer.start))
            self.firsts.append(1e3 * (answer.times[0] - answer.start))
            self.gaps += [1e3 * (later - earlier) for earlier, later in zip(answer.times, answer.times[1:])]

    def figures(self):
        """Milliseconds: the whole request, its first token, the gaps between tokens."""
        parts = {"request": self.totals, "first_token": self.firsts, "gap": self.gaps}
        return {name: {"p50": timing.percentile(values, 0.5), "p99": timing.percentile(values, 0.99), "n": len(values)} for name, values in parts.items()}


def traffic_while(run, clients, something):
    """What `something` returns, and the traffic meanwhile."""
    traffic = Traffic(run, clients)
    traffic.start()
    try:
        result = something()
    finally:
        traffic.stopped.set()
        traffic.join()
    return result, traffic


def measure(run):
    options = run.options
    result = {"machine": machine(), "date": datetime.date.today().isoformat(), "kernels": call(run.server.port, "GET", "/version")[1]["kernels"], "request": run.request()}
    began = time.perf_counter()
    if options.kills:
        whole = run.wait(run.start())
        run.renew()
        record = run.wait(run.start(), options.kills)
        result["kills"], result["equal"] = options.kills, record["cells"] == whole["cells"]
    elif options.alone:
        record = run.wait(run.start())
    else:
        traffic_while(run, options.clients, lambda: time.sleep(5))
        _, idle = traffic_while(run, options.clients, lambda: time.sleep(options.idle_seconds))
        began = time.perf_counter()
        record, beside = traffic_while(run, options.clients, lambda: run.wait(run.start()))
        result["idle"], result["beside"] = idle.figures(), beside.figures()
        result["errors"] = idle.errors + beside.errors
        result["ratios"] = {name: round(result["beside"][name]["p99"] / result["idle"][name]["p99"], 2) for name in result["idle"]}
    result["seconds"] = round(time.perf_counter() - began, 1)
    result |= {"status": record["status"], "error": record["error"], "progress": record["progress"], "stages": record["stages"], "cells": len(record["cells"])}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the release server's binary")
    parser.add_argument("--model", type=pathlib.Path, help="the base model (the default one in the cache)")
    parser.add_argument("--pretrained", type=pathlib.Path, default=ROOT / "pretrained", help="folder of adapters (pretrained)")
    parser.add_argument("--data", help="folder of data sets (the built-in ones)")
    parser.add_argument("--adapters", default="all", help="names separated by commas, or all (all)")
    parser.add_argument("--base", action="store_true", help="the base has cells of its own")
    parser.add_argument("--datasets", help="names separated by commas (every one)")
    parser.add_argument("--shots", help="numbers of demonstrations separated by commas (those of each task)")
    parser.add_argument("--limit", type=int, help="examples of each cell at most (all)")
    parser.add_argument("--clients", type=int, default=2, help="clients beside the evaluation (2)")
    parser.add_argument("--idle-seconds", type=int, default=IDLE_SECONDS, help=f"how long the idle server is measured ({IDLE_SECONDS})")
    parser.add_argument("--threads", type=int, default=2, help="the server's (2)")
    parser.add_argument("--alone", action="store_true", help="no clients: how long it takes")
    parser.add_argument("--kills", type=int, default=0, help="kill the server so many times and compare what is found (0)")
    parser.add_argument("--out", type=pathlib.Path, help="file for the result (bench/results/evaluation-alone.json, …-kills.json or …-beside.json)")
    options = parser.parse_args()
    out = options.out or ROOT / "bench" / "results" / f"evaluation-{'alone' if options.alone else 'kills' if options.kills else 'beside'}.json"
    run = Run(options)
    try:
        result = measure(run)
    finally:
        run.server.stop()
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if result.get("equal") is False:
        sys.exit("evaluation.py: the interrupted evaluation found something else")
    slow = [name for name, ratio in result.get("ratios", {}).items() if ratio > FACTOR]
    if result["status"] != "completed" or result.get("errors") or slow:
        sys.exit(f"evaluation.py: {result['status']}, {len(result.get('errors', []))} failed requests, over {FACTOR} times idle: {slow}")


if __name__ == "__main__":
    main()
