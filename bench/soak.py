"""Everything that clients do to a server, at once and for as long as wanted, and what must hold all the while.

    python3 bench/soak.py SERVER --minutes 30

Users ask (completions, chat, streams, classification, scores, comparisons, tokenization), hang up, read slowly, send what is malformed, set deadlines, and
come in crowds; names are uploaded, exchanged, rolled back and deleted under them; evaluations are started, paused and cancelled. The server is given little
room: a short queue, few cache blocks, memory for some of the adapters. Answers are compared, bit for bit, with those of a quiet time at the beginning.
Exit code 1, with the evidence, when one thing does not hold. Needs nothing but Python; --no-timing leaves out what a busy machine would decide.
"""

import argparse
import datetime
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

from closed_loop import Progress
from machine import ROOT, commit, machine
from server_process import Server
from traffic.actions import Crowd, StalledReader, User, Vandal, World
from traffic.cases import cases, comparisons, essence, version_of
from traffic.client import Identities
from traffic.ledger import Ledger
from traffic.measuring import Evaluator
from traffic.names import Exchanger
from traffic.probe import FACTOR, Probe
from traffic.small_adapters import shapes_of
from traffic.watch import Watch, descriptors, growth

FIXED = ("sentiment-ft", "sentiment-fticl", "question-fticl", "summary-ft")
EXCHANGED, VERSIONS = ("exchanged-a", "exchanged-b"), 3
ROOM = {"max_queue": 48, "max_running": 16, "kv_tokens": 6144, "adapter_memory_bytes": 20 * 2**20}
# The cache of keys and values comes into memory as it is first used, which takes minutes: a shorter time says nothing about memory.
LEAST_MINUTES_OF_MEMORY = 10
# Memory is flat when the robust line through the last two thirds of the time gains no more, descriptors likewise.
WARM_SHARE, GROWTH_MIB, GROWTH_DESCRIPTORS = 1 / 3, 16.0, 8.0
QUIET_SECONDS, VANDAL_SECONDS = 30, 0.2
# When time is up, whoever waits for an answer waits on, at most so long.
CLIENT_SECONDS = 900

DIFFERENT = "versions answer differently in quiet, so that one could not stand in for another unseen"
SAME_VERSION = "a version asked by name and by digest gives the same answer in quiet"
KINDS_RAN = "every kind of traffic ran"
THREADS_LIVE = "no thread of this program failed"
QUIET_AGAIN = "when all have gone, nothing runs or waits, no cache block is used, no adapter is held, and no evaluation runs"
MEMORY_FLAT = f"resident memory gains at most {GROWTH_MIB:.0f} MiB on the robust line through the last two thirds"
DESCRIPTORS_FLAT = f"descriptors gain at most {GROWTH_DESCRIPTORS:.0f} on that line, and end where they began"
PROBE_SAME = f"a fixed request's 99th percentile is not more than {FACTOR} times what it was before, or than that of a fresh server in turns, by both intervals"
ENDS_WELL = "told to stop, the server ends with status 0"


class Soak:
    """One run: a server, who talks to it, and what was found."""

    def __init__(self, options):
        self.options = options
        self.ledger = Ledger()
        flags = ["--pretrained", str(options.pretrained)]
        for name, value in ROOM.items():
            flags += [f"--{name.replace('_', '-')}", str(value)]
        self.setup = {"binary": options.server, "model": options.model, "threads": options.threads, "flags": flags + shlex.split(options.flags)}
        self.server = Server(self.setup)
        options.max_running = ROOM["max_running"]
        self.world = World(self.server.port, self.ledger, Identities(), options)
        self.client = self.world.client()
        self.progress = Progress()
        self.figures = {}
        self.words = ""

    def ask(self, method, path, body=None, headers=None):
        """A request of the quiet time, which must succeed."""
        answer = self.client.request(method, path, body, headers)
        if answer is None or answer.status != 200:
            raise SystemExit(f"soak.py: {method} {path} {body} was answered {answer and (answer.status, answer.body)} in quiet")
        return answer.json()

    def prepare(self):
        """In quiet: adapters, references, figures of evaluations, and what this server can."""
        world = self.world
        world.served_name = self.ask("GET", "/v1/models")["data"][0]["id"]
        world.fixed = {"base": None} | {name: self.ask("GET", f"/v1/adapters/{name}")["active_version"] for name in FIXED}
        shapes = shapes_of(self.options.pretrained / FIXED[0] / "adapter_model.safetensors")
        self.exchangers = []
        for index, name in enumerate(EXCHANGED):
            target = Exchanger.prepare(name, shapes, range(100 * index, 100 * index + VERSIONS))
            exchanger = Exchanger(target, world.client(), self.ledger, world.stopped, f"{self.options.seed}/{name}")
            exchanger.upload_all()
            world.names[name] = target
            self.exchangers.append(exchanger)
        self.record()
        self.evaluator = Evaluator(world)
        self.evaluator.prepare(self.progress)
        world.deadlines = self.has_deadlines()

    def record(self):
        """What each version answers to each case, one at a time."""
        world = self.world
        world.cases, world.comparisons = cases(), comparisons(FIXED)
        models = [("", None), *((name, world.fixed[name]) for name in FIXED)]
        models += [(f"{name}@{version}", version) for name, target in world.names.items() for version in target.versions]
        for number, (model, version) in enumerate(models):
            for case in world.cases:
                if case.task and "@" in model:
                    continue
                answer = self.ask("POST", case.path, case.asked_of(model))
                self.ledger.hold(SAME_VERSION, version_of(answer) == version, f"{case.name} of {model}", version, version_of(answer))
                world.references[version, case.name] = essence(case, answer)
            self.progress.say((number + 1) / len(models), f"references, {number + 1}/{len(models)} versions")
        for case in world.comparisons:
            world.references[None, case.name] = essence(case, self.ask("POST", case.path, case.body))
        for case in world.cases:
            found = {version: json.dumps(essence_) for (version, name), essence_ in world.references.items() if name == case.name}
            self.ledger.hold(DIFFERENT, len(set(found.values())) == len(found), case.name, f"{len(found)} different answers", len(set(found.values())))
        self.progress.end()

    def has_deadlines(self):
        """Whether a request whose time is up is answered 504."""
        body = {"prompt": "Once upon a time", "max_tokens": 1500, "temperature": 0, "ignore_eos": True}
        answer = self.client.request("POST", "/v1/completions", body, {"x-request-timeout": "0.001"}, allowed=(200, 504), deadline=True)
        if answer is None or answer.status != 504:
            self.ledger.note("this server does not know x-request-timeout, so no request had a deadline")
        return answer is not None and answer.status == 504

    def soak(self):
        """All at once, for --minutes."""
        world, options = self.world, self.options
        self.users = [User(world, number) for number in range(options.users)]
        self.watch = Watch(world, self.server.process)
        self.vandal = Vandal(world, VANDAL_SECONDS)
        self.others = [*self.exchangers, self.evaluator, self.vandal, Crowd(world, options.crowd_seconds), StalledReader(world), self.watch]
        began, processor = time.perf_counter(), time.process_time()
        for thread in [*self.users, *self.others]:
            thread.start()
        seconds = 60 * options.minutes
        while (passed := time.perf_counter() - began) < seconds and not world.stopped.wait(0.5):
            memory, open_files = self.watch.samples[-1][1:3] if self.watch.samples else (0, 0)
            answered = sum(self.ledger.statuses.values())
            self.progress.say(passed / seconds, f"{max(0, seconds - passed):.0f} s left, {answered} answers, {self.ledger.failures()} failures, {memory:.0f} MiB, {open_files} descriptors")
        self.progress.end()
        world.stopped.set()
        for thread in [*self.users, *self.others]:
            thread.join(CLIENT_SECONDS)
            failed = getattr(thread, "error", None)
            self.ledger.hold(THREADS_LIVE, failed is None and not thread.is_alive(), type(thread).__name__, "an end", repr(failed) if failed else thread.is_alive())
        passed = time.perf_counter() - began
        self.figures |= {"seconds": passed, "answers_per_second": sum(self.ledger.statuses.values()) / passed, "client_share": (time.process_time() - processor) / passed}

    def quiet(self):
        """Waits until nothing is left of what clients asked for."""
        until, found = time.perf_counter() + QUIET_SECONDS, {}
        while time.perf_counter() < until:
            scrape = self.watch.look()
            if scrape is None:
                return
            names = ("quickchange_requests_running", "quickchange_requests_waiting", "quickchange_kv_blocks_used", "vllm:num_requests_running", "vllm:num_requests_waiting")
            found = {name: scrape.value(name) for name in names}
            # The scrape itself is in flight.
            found["quickchange_requests_in_flight"] = scrape.value("quickchange_requests_in_flight") - 1
            found["evaluations under way"] = sum(scrape.value("quickchange_evaluations", state=state) for state in ("queued", "running"))
            listed = self.client.request("GET", "/v1/adapters").json()["data"]
            found["adapters in use"] = sum(version["in_flight"] for adapter in listed for version in adapter["versions"])
            if not any(found.values()):
                break
            time.sleep(0.5)
        self.ledger.hold(QUIET_AGAIN, not any(found.values()), "GET /metrics and /v1/adapters in quiet", "0 of each", found)

    def resources(self):
        """Memory and descriptors over the time."""
        samples = self.watch.samples
        self.figures["memory_mib"] = memory = growth([(at, value) for at, value, *_ in samples], WARM_SHARE)
        self.figures["descriptors"] = files = growth([(at, value) for at, _, value, _ in samples], WARM_SHARE)
        self.figures["threads"] = growth([(at, value) for at, *_, value in samples], WARM_SHARE)
        began, step = samples[0][0], max(1, len(samples) // 120)
        self.figures["curve"] = [[round(at - began), round(memory_, 1), files_] for at, memory_, files_, _ in samples[::step]]
        files["before"], files["after"] = self.descriptors_before, descriptors(self.server.process.pid)
        if memory["minutes"] >= LEAST_MINUTES_OF_MEMORY:
            self.ledger.hold(MEMORY_FLAT, memory["growth"] <= GROWTH_MIB, "VmRSS", f"at most {GROWTH_MIB} MiB", memory)
        else:
            print(f"not judged: {MEMORY_FLAT}, for it is still filling the cache in {memory['minutes']:.1f} minutes", file=sys.stderr)
        flat = files["growth"] <= GROWTH_DESCRIPTORS and files["after"] <= files["before"] + GROWTH_DESCRIPTORS
        self.ledger.hold(DESCRIPTORS_FLAT, flat, "/proc/PID/fd", f"at most {GROWTH_DESCRIPTORS} more", files)

    def probe_after(self):
        """The server that has worked and a fresh one in turns."""
        fresh = Server(self.setup)
        try:
            self.probe.measure({"after": self.server.port, "fresh": fresh.port}, self.options.probe_blocks, self.progress)
        finally:
            fresh.stop()
        before, turns = self.probe.compare("after", "before", False), self.probe.compare("after", "fresh", True)
        self.figures["probe"] = self.probe.figures() | {"after_over_before": before, "after_over_fresh": turns}
        self.ledger.hold(PROBE_SAME, min(before["low"], turns["low"]) <= FACTOR, "the probe", f"at most {FACTOR}", self.figures["probe"])

    def kinds(self):
        """Everything that this program can do was done."""
        wanted = {kind.__name__.replace("_", " ") for kind in self.users[0].kinds}
        if not self.world.deadlines:
            wanted.discard("ask with a deadline")
        wanted |= {f"adapters: {kind}" for kind in ("activate", "roll back", "replace", "remove", "remove version", "refuse", "rehearse", "break off", "lose a swap")}
        wanted |= {f"malformed: {what}" for what, *_ in self.vandal.malformed}
        wanted |= {"crowd of requests at once", "stalled reader"}
        missing = wanted - set(self.ledger.traffic)
        self.ledger.hold(KINDS_RAN, not missing and self.evaluator.made > 0, "the traffic", "every kind", f"without {sorted(missing)}")

    def run(self):
        """Everything; gives what was found."""
        try:
            self.prepare()
            if self.options.timing:
                self.probe = Probe(self.ask("POST", "/tokenize", {"prompt": "Four score and seven years ago our fathers brought forth"})["tokens"])
                self.probe.measure({"before": self.server.port}, self.options.probe_blocks, self.progress)
            self.client.close()
            self.descriptors_before = descriptors(self.server.process.pid)
            self.soak()
            self.quiet()
            if self.server.process.poll() is None:
                self.watch.client.close()
                self.client.close()
                time.sleep(1)
                self.resources()
                self.kinds()
                if self.options.timing:
                    self.probe_after()
            self.words = self.server.last_words()
            self.server.process.terminate()
            self.ledger.hold(ENDS_WELL, self.server.process.wait(60) == 0, "SIGTERM", 0, self.server.process.returncode)
        finally:
            self.server.stop()
        ledger = self.ledger
        return self.figures | {
            "answers": {str(status): count for status, count in sorted(ledger.statuses.items())},
            "traffic": dict(sorted(ledger.traffic.items())),
            "most": self.watch.most,
            "notes": dict(ledger.notes),
            "invariants": {name: {"looked": count, "broken": ledger.broken[name]} for name, count in ledger.looked.items()},
            "evidence": dict(ledger.evidence),
        }


def show(found):
    print(f"{sum(found['answers'].values())} answers in {found['seconds']:.0f} s, {found['answers_per_second']:.1f} a second; this program took {found['client_share']:.2f} of a core")
    print("  by status   " + "  ".join(f"{status}: {count}" for status, count in found["answers"].items()))
    malformed = sum(count for kind, count in found["traffic"].items() if kind.startswith("malformed: "))
    kinds = {kind: count for kind, count in found["traffic"].items() if not kind.startswith("malformed: ")}
    print("  by kind     " + "  ".join(f"{kind}: {count}" for kind, count in kinds.items()) + f"  (malformed in all: {malformed})")
    print("  at most     " + "  ".join(f"{name.removeprefix('quickchange_')}: {value:.0f}" for name, value in found["most"].items()))
    for what in ("memory_mib", "descriptors", "threads"):
        if values := found.get(what):
            print(f"  {what:11} {values['at_start']:.1f} after the warm-up, {values['per_minute']:+.3f} a minute, {values['growth']:+.2f} in {values['minutes']:.1f} minutes, {values['most']:.1f} at most")
    if probe := found.get("probe"):
        print("  probe       " + "  ".join(f"{name}: p50 {probe[name]['p50_ms']:.2f} ms, p99 {probe[name]['p99_ms']:.2f} ms" for name in ("before", "after", "fresh")))
        for name in ("after_over_before", "after_over_fresh"):
            print(f"  {name.replace('_', ' '):17} p99 ratio {probe[name]['ratio']:.3f}, 95 % interval {probe[name]['low']:.3f} to {probe[name]['high']:.3f}")
    for what, count in sorted(found["notes"].items()):
        print(f"  {what}: {count}")
    for name, counts in found["invariants"].items():
        print(f"{'FAILED' if counts['broken'] else 'ok    '} {name} ({counts['looked']} looked at{', ' + str(counts['broken']) + ' broken' if counts['broken'] else ''})")
    for name, cases_ in found["evidence"].items():
        print(f"\n{name}:")
        for case in cases_:
            print(f"  request   {case['request']}\n  expected  {case['expected']}\n  got       {case['got']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the server's binary")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument("--users", type=int, default=10, help="clients that do one thing after another (10)")
    parser.add_argument("--crowd-seconds", type=float, default=10, help="between two crowds of requests at once (10)")
    parser.add_argument("--probe-blocks", type=int, default=20, help="of 40 fixed requests each, before and after (20)")
    parser.add_argument("--threads", type=int, default=2, help="of the server's engine (2)")
    parser.add_argument("--flags", default="", help="more flags of the server")
    parser.add_argument("--no-timing", dest="timing", action="store_false", help="leave out what depends on how busy the machine is: the probe, and how late answers are")
    parser.add_argument("--model", default=str(pathlib.Path(os.environ.get("QUICKCHANGE_CACHE", ROOT / ".cache")) / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--pretrained", type=pathlib.Path, default=ROOT / "pretrained", help="folder of adapters")
    parser.add_argument("--out", default=str(ROOT / "bench/results/soak.json"), help="file for the figures; - for none")
    options = parser.parse_args()
    if options.minutes < 0.5:
        parser.error(f"--minutes is {options.minutes:g}; the line through the memory needs at least 0.5")
    options.server = str(pathlib.Path(options.server).resolve())
    facts = {
        "command": shlex.join(["python3", "bench/soak.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "commit": commit(),
        "server": subprocess.run([options.server, "--version"], capture_output=True, text=True).stdout.strip(),
    }
    soak = Soak(options)
    found = soak.run()
    show(found)
    if options.out != "-":
        out = pathlib.Path(options.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(facts | found, indent=1) + "\n")
    if any(counts["broken"] for counts in found["invariants"].values()):
        print(f"\nthe server's last words:\n{soak.words}")
        sys.exit(1)


if __name__ == "__main__":
    main()
