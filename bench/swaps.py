"""A name whose versions are exchanged while clients stream, for as long as wanted.

    python bench/swaps.py SERVER --minutes 10 --swaps 1000 --clients 16

One name has three versions. Clients stream from it, greedy, one request after another, on a few fixed prompts: half of the quiet time without exchanges, then
`--minutes` in which `--swaps` activations are spread evenly, then the other half without. It fails, with exit code 1, when one of CHECKS does not hold.
"""

import argparse
import bisect
import datetime
import json
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
import threading
import time

import timing
import workloads
from adapters import Shapes
from closed_loop import Progress, answers
from load_client import Request, call, multipart
from machine import ROOT, machine
from peers.worker import memory_of
from run import Bench
from server_process import Server

NAME = "exchanged"
VERSIONS = 3
WORDS = 48
# What is asked for behind each prompt. Were all the same, all streams would end together and no request would begin beside running ones.
TOKENS = (24, 40, 56, 72, 88, 104)
WARM_ROUNDS = 3
# The longest gap between two tokens that 99 of 100 do not exceed may be so many times that without exchanges.
GAP_FACTOR = 2.0
# Memory is watched from this exchange on, for by then every version has been used; from there it may grow by so much, on the line through all values.
SETTLED_SWAPS, GROWTH_MIB = 50, 16.0
SAMPLE_SECONDS = 0.5


class Swapper(threading.Thread):
    """Activates another version at even intervals, `count` times, and notes the server's memory."""

    def __init__(self, server, versions, count, seconds):
        super().__init__(daemon=True)
        self.server, self.versions, self.count, self.seconds = server, versions, count, seconds
        # (begun, answered, version); the first has been active all along.
        self.activations, self.memory, self.errors = [(0.0, 0.0, versions[-1])], [], []

    def run(self):
        draw, began = random.Random(1), time.perf_counter()
        for number in range(self.count):
            self.watch(began + self.seconds * (number + 0.5) / self.count)
            version = draw.choice([other for other in self.versions if other != self.activations[-1][2]])
            begun = time.perf_counter()
            try:
                status, answer = call(self.server.port, "POST", f"/v1/adapters/{NAME}/activate", {"version": version})
                if status != 200 or answer["active_version"] != version:
                    self.errors.append(f"activating {version[:8]} was answered {status}: {answer}")
            except OSError as error:
                self.errors.append(f"activating {version[:8]}: {error}")
            self.activations.append((begun, time.perf_counter(), version))
        self.watch(began + self.seconds)

    def watch(self, until):
        """Waits, and notes the memory meanwhile."""
        while (left := until - time.perf_counter()) > 0:
            time.sleep(min(left, SAMPLE_SECONDS))
            self.memory.append((len(self.activations) - 1, time.perf_counter(), memory_of(self.server.process.pid)["resident_mib"]))

    def may_answer(self, version, sent, first):
        """Whether a version was active at some time between a request and its first token; it was at most until the next activation was answered."""
        ends = [answered for _, answered, _ in self.activations[1:]] + [float("inf")]
        for index in range(bisect.bisect_left(ends, sent), len(ends)):
            begun, _, active = self.activations[index]
            if begun > first:
                return False
            if active == version:
                return True
        return False


class Soak:
    """A server with the name, what its versions answer, and what went wrong so far."""

    def __init__(self, options):
        self.options = options
        bench = Bench(options)
        bench.prepare({"Q4_1"}, VERSIONS)
        folders = [pathlib.Path(folder) for folder in bench.folders]
        self.files = [[(folder / file).read_bytes() for file in ("adapter_config.json", "adapter_model.safetensors")] for folder in folders]
        flags = ("--draft-tokens", "0", *shlex.split(options.flags))
        self.setup = {"binary": options.server, "model": bench.files["Q4_1"], "threads": options.threads, "flags": list(flags)}
        self.prompts = workloads.prompts(Shapes(bench.files["Q4_1"]).words, "swaps", len(TOKENS), WORDS)
        self.draw = random.Random(2)
        self.failures, self.wrong, self.seen = [], [], {}
        self.progress = Progress()

    def load(self, server):
        """Gives the name its versions, the last one active; returns them."""
        for number, files in enumerate(self.files):
            server.put(NAME, multipart(NAME, *files), method="PUT" if number else "POST")
        return [entry["version"] for entry in call(server.port, "GET", f"/v1/adapters/{NAME}")[1]["versions"]]

    def record(self):
        """What each version answers to each prompt, from a server of its own that keeps nothing and does one thing at a time."""
        server = Server(self.setup | {"flags": [*self.setup["flags"], "--prefix-cache", "off"]})
        try:
            self.versions = self.load(server)
            self.texts = {}
            for number, prompt in enumerate(self.prompts):
                for version in self.versions:
                    body = {"model": f"{NAME}@{version}", "prompt": prompt, "max_tokens": TOKENS[number], "temperature": 0, "ignore_eos": True}
                    status, answer = call(server.port, "POST", "/v1/completions", body)
                    if status != 200:
                        raise SystemExit(f"swaps.py: version {version} was answered {status}: {answer}")
                    self.texts[number, version] = answer["choices"][0]["text"]
                if len({self.texts[number, version] for version in self.versions}) < VERSIONS:
                    raise SystemExit(f"swaps.py: two versions answer the same to prompt {number}, so a mistake would not show")
        finally:
            server.stop()

    def warm_up(self, server):
        """Every version answers every prompt a few times, so that its tokens are in the cache and the memory for them is taken."""
        pairs = [(number, version) for number in range(len(TOKENS)) for version in self.versions] * WARM_ROUNDS
        warm = [Request(f"{NAME}@{version}", self.prompts[number], TOKENS[number]) for number, version in pairs]
        for done, answer in enumerate(answers(server.port, self.options.clients, warm), start=1):
            self.compare(answer)
            self.progress.say(done / len(warm), f"warming up, {done}/{len(warm)} answers")
        self.progress.end()

    def requests(self, seconds):
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            number = self.draw.randrange(len(TOKENS))
            yield Request(NAME, self.prompts[number], TOKENS[number])

    def stream(self, server, seconds, swapper=None):
        """Clients stream for some time; gives the gaps between their tokens and how many answers came."""
        gaps, finished, began = [], [], time.perf_counter()
        if swapper:
            swapper.start()
        for answer in answers(server.port, self.options.clients, self.requests(seconds)):
            finished.append(answer)
            gaps += timing.gaps(answer.times)
            self.compare(answer)
            done, swaps = time.perf_counter() - began, f"{len(swapper.activations) - 1}/{swapper.count} swaps, " if swapper else ""
            memory = memory_of(server.process.pid)["resident_mib"]
            text = f"{swaps}{max(0, seconds - done):.0f} s left, {len(finished)} answers, {len(self.failures)} failed, {len(self.wrong)} wrong, {memory:.0f} MiB"
            self.progress.say(done / seconds, text)
        self.progress.end()
        if swapper:
            swapper.join()
            self.failures += swapper.errors
            self.compare_times(finished, swapper)
        return gaps, len(finished)

    def compare(self, answer):
        """The text is that of the version which the answer names, to the letter."""
        if answer.error:
            self.failures.append(answer.error)
            return
        try:
            chunks = answer.chunks()
        except ValueError as error:
            self.failures.append(str(error))
            return
        answer.pieces.clear()
        named = {(chunk["adapter"]["name"], chunk["adapter"]["version"]) for chunk in chunks if chunk.get("adapter")}
        text = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
        prompt = self.prompts.index(answer.request.prompt)
        answer.version = min(version for _, version in named) if named else None
        if len(named) != 1 or (NAME, answer.version) != min(named):
            self.wrong.append(f"an answer names {sorted(named)}")
        elif self.texts.get((prompt, answer.version)) != text:
            others = [version[:8] for version in self.versions if self.texts[prompt, version] == text]
            self.wrong.append(f"prompt {prompt}, version {answer.version[:8]}: {text!r}, which is that of {others or 'no version'}")
        else:
            self.seen[answer.version] = self.seen.get(answer.version, 0) + 1

    def compare_times(self, finished, swapper):
        """The version is one that was active between the request and its first token."""
        for answer in finished:
            version = getattr(answer, "version", None)
            if version and not swapper.may_answer(version, answer.start, answer.times[0]):
                self.wrong.append(f"version {version[:8]} answered a request when it was not active")

    def run(self):
        """Everything; gives the figures and which checks hold."""
        options = self.options
        self.record()
        server = Server(self.setup)
        try:
            if self.load(server) != self.versions:
                raise SystemExit("swaps.py: the same files are other versions on another server")
            self.warm_up(server)
            seconds, half = 60 * options.minutes, 60 * options.quiet_minutes / 2
            before, quiet_answers = self.stream(server, half)
            swapper = Swapper(server, self.versions, options.swaps, seconds)
            self.seen.clear()
            during, swap_answers = self.stream(server, seconds, swapper)
            seen = dict(self.seen)
            after, more = self.stream(server, half)
            left = sum(entry["in_flight"] for entry in call(server.port, "GET", f"/v1/adapters/{NAME}")[1]["versions"])
        except OSError as error:
            raise SystemExit(f"swaps.py: {error}; the server's last words:\n{server.last_words()}") from error
        finally:
            server.stop()
        quiet, swapped = figures(before + after), figures(during)
        swaps_done = [1e3 * (answered - begun) for begun, answered, _ in swapper.activations[1:]]
        found = {
            "answers": {"quiet": quiet_answers + more, "swaps": swap_answers, "by_version": seen},
            "gaps": {"quiet": quiet, "before": figures(before), "after": figures(after), "swaps": swapped},
            "swaps": len(swaps_done),
            "activation_p50_ms": timing.median(swaps_done),
            "activation_p99_ms": timing.percentile(swaps_done, 0.99),
            "memory": memory_line(swapper.memory, options.swaps),
            "failures": self.failures[:20],
            "wrong": self.wrong[:20],
        }
        return found | {"checks": checks(found, self, left)}


def figures(gaps):
    return {"p50_ms": 1e3 * timing.median(gaps), "p99_ms": 1e3 * timing.percentile(gaps, 0.99), "largest_ms": 1e3 * max(gaps), "gaps": len(gaps)}


def memory_line(samples, swaps):
    """The memory from the time on at which every version has been used, and the line through it."""
    settled_swaps = min(SETTLED_SWAPS, swaps // 2)
    settled = [(at, mib) for done, at, mib in samples if done >= settled_swaps]
    times, values = [at - settled[0][0] for at, _ in settled], [mib for _, mib in settled]
    slope = statistics.linear_regression(times, values).slope
    return {
        "after_swaps": settled_swaps,
        "start_mib": values[0],
        "end_mib": values[-1],
        "max_mib": max(values),
        "slope_mib_per_minute": 60 * slope,
        "growth_mib": slope * times[-1],
        "samples": len(values),
    }


def checks(found, soak, left):
    """What must hold: (what, whether it does)."""
    gaps, memory = found["gaps"], found["memory"]
    ratio = gaps["swaps"]["p99_ms"] / gaps["quiet"]["p99_ms"]
    return {
        f"{len(soak.failures)} requests or activations failed, 0 may": not soak.failures,
        f"{len(soak.wrong)} answers were not those of the version they name, or of one that was not active, 0 may be": not soak.wrong,
        f"{len(found['answers']['by_version'])} of {VERSIONS} versions answered while they were exchanged": len(found["answers"]["by_version"]) == VERSIONS,
        f"{found['swaps']} of {soak.options.swaps} activations were made": found["swaps"] == soak.options.swaps,
        f"the 99th percentile of the token gap is {ratio:.2f} times that without exchanges, at most {GAP_FACTOR}": ratio <= GAP_FACTOR,
        f"memory grew by {memory['growth_mib']:.1f} MiB, at most {GROWTH_MIB:.0f}": memory["growth_mib"] <= GROWTH_MIB,
        f"{left} requests are said to be in flight when none is": left == 0,
    }


def show(found):
    for phase in ("before", "swaps", "after"):
        values = found["gaps"][phase]
        print(f"token gap, {phase:7} p50 {values['p50_ms']:7.2f} ms  p99 {values['p99_ms']:7.2f} ms  largest {values['largest_ms']:7.1f} ms  of {values['gaps']}")
    print(f"activation        p50 {found['activation_p50_ms']:7.2f} ms  p99 {found['activation_p99_ms']:7.2f} ms")
    memory = found["memory"]
    print(f"memory            {memory['start_mib']:.1f} MiB after {memory['after_swaps']} swaps, {memory['end_mib']:.1f} at the end, {memory['max_mib']:.1f} at most, {memory['slope_mib_per_minute']:+.2f} a minute")
    for line in [*found["failures"], *found["wrong"]]:
        print(f"  {line}")
    for what, holds in found["checks"].items():
        print(f"{'ok    ' if holds else 'FAILED'} {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the server's binary")
    parser.add_argument("--minutes", type=float, default=10, help="time in which versions are exchanged (10)")
    parser.add_argument("--quiet-minutes", type=float, help="time in which they are not, half before and half after (a fifth of --minutes, at least 1)")
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flags", default="", help="more flags of the server")
    parser.add_argument("--model", default=str(ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"), help="the Q4_1 file")
    parser.add_argument("--out", default=str(ROOT / "bench/results/swaps.json"), help="file for the figures")
    options = parser.parse_args()
    options.server = str(pathlib.Path(options.server).resolve())
    options.quiet_minutes = options.quiet_minutes or max(1.0, options.minutes / 5)
    facts = {
        "command": shlex.join(["python", "bench/swaps.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "server": subprocess.run([options.server, "--version"], capture_output=True, text=True).stdout.strip(),
    }
    found = Soak(options).run()
    show(found)
    out = pathlib.Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts | found, indent=1) + "\n")
    sys.exit(0 if all(found["checks"].values()) else 1)


if __name__ == "__main__":
    main()
