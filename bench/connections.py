"""What clients that take their time cost the others: 10,000 idle connections, heads and bodies a byte a second, readers that stop, no descriptors left.

    python3 bench/connections.py SERVER

A usual client sends one short request after another, first alone, then beside each of these, then alone again. Said are its latency, how long the server holds
whom, and memory and descriptors. Exit code 1 when a request of the usual client fails, a connection is held longer than it may be, or something stays behind.
Needs nothing but Python, and a hard limit of open files of a thousand more than --idle.
"""

import argparse
import datetime
import json
import os
import pathlib
import resource
import shlex
import subprocess
import sys
import threading
import time

import timing
from closed_loop import Progress, answers
from load_client import Request, call, connect
from machine import ROOT, commit, machine
from peers.worker import memory_of
from server_process import Server
from traffic.cases import words
from traffic.slow import IDLE_REQUEST, IdleConnections, read_on, streams, trickle
from traffic.watch import descriptors

TOKENS = 8
READ, STALLED = "beside streams that are read", "beside readers that stop"
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
BODY = b'{"model": "", "max_tokens": 4, "prompt": "' + b"a " * 2000 + b'"}'
LENGTH = b"content-length: %d\r\n\r\n" % len(BODY)
FORM = b'--edge\r\ncontent-disposition: form-data; name="name"\r\n\r\n' + b"x" * 4000 + b"\r\n--edge--\r\n"
UPLOAD = b"POST /v1/adapters HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=edge\r\ncontent-length: %d\r\n\r\n" % len(FORM)
# {who: (what comes at once, what comes a byte a second)}
KINDS = {
    "nothing at all": (b"", b""),
    "a head, a byte a second": (b"", HEAD + b"x-slow: " + b"y" * 4000 + b"\r\n\r\n"),
    "a body that stops": (HEAD + LENGTH + BODY[:50], b""),
    "a body, a byte a second": (HEAD + LENGTH, BODY),
    "the same with a deadline of 5 s": (HEAD + b"x-request-timeout: 5\r\n" + LENGTH, BODY),
    "an upload that stops": (UPLOAD + FORM[:50], b""),
    "an upload, a byte a second": (UPLOAD, FORM),
}
# A stream whose chunks are large, so that sockets are full before it ends.
LARGE_STREAM = {"model": "", "max_tokens": 1500, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 20}
# With a few more than the server itself has open.
SPARE_DESCRIPTORS = 40
FACTOR = 3.0
KIB_PER_CONNECTION = 64.0


class Usual(threading.Thread):
    """The client whom nothing of this should touch: milliseconds of each request by phase, and what went wrong."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.phase, self.times, self.errors, self.over = port, None, {}, [], False

    def requests(self):
        number = 0
        while not self.over:
            number += 1
            yield Request(None, list(range(1000 + number % 50, 1016 + number % 50)), TOKENS)
            time.sleep(0.05)

    def run(self):
        for answer in answers(self.port, 1, self.requests()):
            if answer.error:
                self.errors.append(f"{self.phase}: {answer.error}")
            else:
                self.times.setdefault(self.phase, []).append(1e3 * (answer.times[-1] - answer.start))

    def figures(self):
        """p50 and p99 of each phase."""
        return {
            phase: {"requests": len(values), "p50_ms": timing.median(values), "p99_ms": timing.percentile(values, 0.99), "largest_ms": max(values)} for phase, values in self.times.items() if phase
        }


class Connections:
    """A server, the usual client, and what was found."""

    def __init__(self, options):
        self.options = options
        self.setup = {"binary": options.server, "model": options.model, "threads": options.threads, "flags": shlex.split(options.flags)}
        self.server = Server(self.setup)
        self.usual, self.progress, self.found, self.checks = Usual(self.server.port), Progress(), {}, {}

    def say(self, phase):
        """What follows belongs to `phase`; None is for what lies between two."""
        self.usual.phase = phase
        if phase:
            self.progress.due = 0.0
            self.progress.say(len(self.usual.times) / 8, phase)

    def metric(self, name):
        text = call(self.server.port, "GET", "/metrics")[1]
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def resources(self):
        return memory_of(self.server.process.pid)["resident_mib"], descriptors(self.server.process.pid)

    def alone(self, phase):
        self.say(phase)
        time.sleep(self.options.seconds)

    def idle(self):
        """Many connections that have been used and are kept."""
        count = self.options.idle
        memory, files = self.resources()
        self.say("while they connect")
        began = time.perf_counter()
        connections = IdleConnections(self.server.port, count, 60)
        first, connected = connections.answered, time.perf_counter() - began
        self.say(f"beside {count} idle connections")
        time.sleep(self.options.seconds)
        held_memory, held_files = self.resources()
        self.say(None)
        asked = time.perf_counter()
        second = connections.ask_all(120)
        asked = time.perf_counter() - asked
        connections.close()
        self.wait_idle()
        after_memory, after_files = self.resources()
        kib = 1024 * (held_memory - memory) / max(1, len(connections.sockets))
        self.found["idle"] = {
            "connections": len(connections.sockets),
            "refused": connections.refused,
            "connect_seconds": connected,
            "all_at_once_seconds": asked,
            "answered_first": first,
            "answered_again": second,
            "memory_mib": [memory, held_memory, after_memory],
            "kib_per_connection": kib,
            "descriptors": [files, held_files, after_files],
        }
        self.checks |= {
            f"{first} of {count} connections were answered at the beginning and {second} at the end": first == second == count,
            f"an idle connection takes {kib:.1f} KiB, at most {KIB_PER_CONNECTION:.0f}": kib <= KIB_PER_CONNECTION,
            f"{after_files - files} descriptors stay open when they have gone, at most 4": after_files - files <= 4,
        }

    def trickles(self):
        """Heads and bodies that come byte by byte."""
        self.say("beside requests that trickle")
        found = trickle(self.server.port, KINDS, self.options.slow, self.options.patience)
        self.say(None)
        self.found["trickle"] = {}
        for name, trickles in found.items():
            closed = [one.closed for one in trickles if one.closed is not None]
            statuses = sorted({one.status() for one in trickles})
            self.found["trickle"][name] = {"connections": len(trickles), "closed": len(closed), "statuses": statuses, "seconds": [min(closed), max(closed)] if closed else None}
            self.checks[f"{name}: {len(closed)} of {len(trickles)} connections were ended within {self.options.patience:.0f} s"] = len(closed) == len(trickles)

    def read(self):
        """As many streams as will stop, read as they come: what they take from the usual client is theirs."""
        self.wait_idle()
        self.say(READ)
        connections = streams(self.server.port, self.options.stalled, LARGE_STREAM | {"prompt": words(2, 20)})
        read_on(connections, self.options.seconds)
        self.say(None)
        for connection in connections:
            connection.close()

    def stalled(self):
        """Streams whose readers stop."""
        self.wait_idle()
        memory, files = self.resources()
        self.say(STALLED)
        connections = streams(self.server.port, self.options.stalled, LARGE_STREAM | {"prompt": words(1, 20)})
        began, most, freed = time.perf_counter(), 0.0, None
        while (passed := time.perf_counter() - began) < self.options.patience:
            resident, open_files = self.resources()
            most = max(most, resident)
            if open_files <= files + 2:
                freed = passed
                break
            time.sleep(0.5)
        # One of them may be the usual client's.
        running = max(0.0, self.metric("quickchange_requests_running") - 1)
        self.say(None)
        for connection in connections:
            connection.close()
        self.wait_idle()
        after_memory, after_files = self.resources()
        self.found["stalled"] = {
            "streams": len(connections),
            "ended_after_seconds": freed,
            "still_running": running,
            "memory_mib": [memory, most, after_memory],
            "descriptors_after": after_files - files,
        }
        self.checks[f"readers that stop: {len(connections)} were sent away within {self.options.patience:.0f} s"] = freed is not None
        self.checks[f"readers that stop: {running:.0f} of their requests were still running then, 0 may be"] = running == 0

    def wait_idle(self):
        """Until nothing but the usual client is at work, and no connection but its own is open."""
        until = time.perf_counter() + 60
        while time.perf_counter() < until and (self.metric("quickchange_requests_running") > 1 or self.resources()[1] > self.descriptors_alone):
            time.sleep(0.2)

    def no_descriptors(self):
        """A server that may open hardly more files than it has: who is connected is served, others wait, and come in when there is room."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        server = Server(self.setup)
        try:
            kept = connect(server.port)
            kept.settimeout(30)
            kept.sendall(IDLE_REQUEST)
            kept.recv(4096)
            limit = descriptors(server.process.pid) + SPARE_DESCRIPTORS
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
            crowd = IdleConnections(server.port, 2 * SPARE_DESCRIPTORS, 5)
            began, processor = time.perf_counter(), time_of(server.process.pid)
            kept.sendall(IDLE_REQUEST)
            served = kept.recv(4096).startswith(b"HTTP/1.1 200")
            served_ms = 1e3 * (time.perf_counter() - began)
            time.sleep(3)
            share = (time_of(server.process.pid) - processor) / (time.perf_counter() - began)
            crowd.close()
            began = time.perf_counter()
            again = call(server.port, "GET", "/health")[0] == 200
            again_ms = 1e3 * (time.perf_counter() - began)
            alive = server.process.poll() is None
        finally:
            server.stop()
        self.found["no_descriptors"] = {"limit": limit, "crowd": 2 * SPARE_DESCRIPTORS, "answered": crowd.answered, "kept_ms": served_ms, "again_ms": again_ms, "processor_share": share}
        self.checks |= {
            f"without descriptors: {crowd.answered} of {2 * SPARE_DESCRIPTORS} new connections were answered, the others wait": 0 < crowd.answered < 2 * SPARE_DESCRIPTORS,
            f"without descriptors: a connection that was there is answered ({served_ms:.1f} ms), and a new one once there is room ({again_ms:.1f} ms)": served and again and alive,
            f"without descriptors: the server takes {share:.2f} of a core, at most 0.2": share <= 0.2,
        }

    def run(self):
        try:
            self.usual.start()
            self.alone("alone, to warm up")
            self.alone("alone, before")
            self.descriptors_alone = self.resources()[1]
            self.idle()
            self.trickles()
            self.read()
            self.stalled()
            self.alone("alone, after")
            self.usual.over = True
            self.usual.join()
            self.progress.end()
        except OSError as error:
            raise SystemExit(f"connections.py: {error}; the server's last words:\n{self.server.last_words()}") from error
        finally:
            self.server.stop()
        self.no_descriptors()
        self.found["usual"] = usual = self.usual.figures()
        checks = {f"{len(self.usual.errors)} requests of the usual client failed, 0 may": not self.usual.errors}
        if self.options.timing:
            alone = max(usual["alone, before"]["p99_ms"], usual["alone, after"]["p99_ms"])
            most = max(values["p99_ms"] for phase, values in usual.items() if phase.startswith("beside") and phase not in (READ, STALLED)) / alone
            checks[f"its 99th percentile beside those that cost no computing is {most:.2f} times that alone, at most {FACTOR:g}"] = most <= FACTOR
            stalled = usual[STALLED]["p99_ms"] / usual[READ]["p99_ms"]
            checks[f"its 99th percentile beside readers that stop is {stalled:.2f} times that beside as many that read, at most {FACTOR:g}"] = stalled <= FACTOR
        return self.found | {"errors": self.usual.errors[:10], "checks": checks | self.checks}


def time_of(process):
    """Seconds of the processor that a process has taken."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def show(found):
    for phase, values in found["usual"].items():
        print(f"{phase:34} p50 {values['p50_ms']:7.1f} ms  p99 {values['p99_ms']:7.1f} ms  largest {values['largest_ms']:7.1f} ms  of {values['requests']}")
    idle, stalled = found["idle"], found["stalled"]
    print(f"idle: {idle['connections']} connected and answered in {idle['connect_seconds']:.1f} s, again all at once in {idle['all_at_once_seconds']:.1f} s; memory {' → '.join(f'{mib:.0f}' for mib in idle['memory_mib'])} MiB")
    for name, values in found["trickle"].items():
        ended = f"ended after {values['seconds'][0]:.1f} to {values['seconds'][1]:.1f} s" if values["seconds"] else "held to the end"
        print(f"trickle: {name:30} {values['closed']:4} of {values['connections']} {ended}, {', '.join(values['statuses'])}")
    ended = f"ended after {stalled['ended_after_seconds']:.0f} s" if stalled["ended_after_seconds"] is not None else "held to the end"
    print(f"readers that stop: {ended}, {stalled['still_running']:.0f} running at the end; memory {' → '.join(f'{mib:.0f}' for mib in stalled['memory_mib'])} MiB")
    for line in found["errors"]:
        print(f"  {line}")
    for what, holds in found["checks"].items():
        print(f"{'ok    ' if holds else 'FAILED'} {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the server's binary")
    parser.add_argument("--idle", type=int, default=10_000, help="connections that are kept and not used (10000)")
    parser.add_argument("--slow", type=int, default=50, help="connections of each kind that trickle (50)")
    parser.add_argument("--stalled", type=int, default=16, help="streams whose reader stops (16)")
    parser.add_argument("--seconds", type=float, default=20, help="of each quiet phase (20)")
    parser.add_argument("--patience", type=float, default=120, help="seconds that the server may hold who does not move (120)")
    parser.add_argument("--threads", type=int, default=2, help="of the server's engine (2)")
    parser.add_argument("--flags", default="", help="more flags of the server")
    parser.add_argument("--no-timing", dest="timing", action="store_false", help="leave out the check of the usual client's latency")
    parser.add_argument("--model", default=str(pathlib.Path(os.environ.get("QUICKCHANGE_CACHE", ROOT / ".cache")) / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--out", default=str(ROOT / "bench/results/connections.json"), help="file for the figures")
    options = parser.parse_args()
    options.server = str(pathlib.Path(options.server).resolve())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < options.idle + 1000:
        raise SystemExit(f"connections.py: {options.idle} connections need as many open files here and in the server, and the hard limit is {hard}; raise it or give a smaller --idle")
    # The server inherits it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    facts = {
        "command": shlex.join(["python3", "bench/connections.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "commit": commit(),
        "server": subprocess.run([options.server, "--version"], capture_output=True, text=True).stdout.strip(),
    }
    found = Connections(options).run()
    show(found)
    out = pathlib.Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts | found, indent=1) + "\n")
    sys.exit(0 if all(found["checks"].values()) else 1)


if __name__ == "__main__":
    main()
