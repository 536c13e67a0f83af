"""A peer in a process of its own: `Worker` is the side of the run, `serve` the side of the peer. They exchange lines of JSON.

A peer is a class with `start(setup)`, `run(workload, seed)`, `top(ids, adapter)`, `memory()` and `stop()`; each returns what JSON can hold.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import traceback

BENCH = pathlib.Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A peer could not do what it was asked; the message carries its own account."""


class Worker:
    """A peer that runs. `module` is one of `peers`; `log` is the file that its standard error goes to."""

    def __init__(self, module, setup, log):
        environment = dict(os.environ, OMP_NUM_THREADS=str(setup["threads"]), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"peers.{module}"],
            cwd=BENCH,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        try:
            self.facts = self.ask("start", setup=setup)
        except BaseException:
            self.kill()
            raise

    def ask(self, method, **arguments):
        """Calls a method of the peer and waits for its answer."""
        self.process.stdin.write(json.dumps({"method": method, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the peer ended with status {self.process.wait()}; {self.log.name} says why")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["result"]

    def stop(self):
        """Ends the peer and waits for it."""
        try:
            self.ask("stop")
            self.process.stdin.close()
            self.process.wait(timeout=60)
        finally:
            self.kill()

    def kill(self):
        """Ends the process in any case. It stops what it started when its standard input ends or it is asked to terminate."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def serve(peer):
    """Answers calls until standard input ends. What libraries print goes to standard error."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        for line in sys.stdin:
            call = json.loads(line)
            try:
                answer = {"result": getattr(peer, call["method"])(**call["arguments"])}
            except Exception:
                answer = {"error": traceback.format_exc()}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        peer.stop()


def memory_of(process):
    """Resident memory of a process in MiB: all of it, what is not backed by a file, and the most it ever was."""
    fields = {}
    for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value
    size = lambda name: int(fields[name].split()[0]) / 1024  # noqa: E731
    return {"resident_mib": size("VmRSS"), "anonymous_mib": size("RssAnon"), "peak_mib": size("VmHWM")}
