"""Many small adapters in less memory than they need, asked for as names usually are: a few often, most hardly ever.

    python bench/many_adapters.py SERVER --adapters 1000 --memory-mb 64 --requests 3000 --clients 8

Registers the adapters with a server that keeps `--memory-mb` of them in memory, sends completions to names drawn by Zipf's law, and compares each answer, text and
log-probabilities, with what the version answered right after its upload. Says from /metrics how often an adapter was in memory and how long one that was not took.
It fails, with exit code 1, when one of its checks does not hold. A server without --adapter-memory-bytes keeps all in memory; then only the answers are checked.
"""

import argparse
import datetime
import json
import pathlib
import random
import re
import shlex
import subprocess
import sys
import threading
import time

import numpy
import safetensors.numpy

import timing
import workloads
from adapters import Shapes
from closed_loop import Progress, answers
from load_client import Request, call, multipart
from machine import ROOT, machine
from peers.worker import memory_of
from server_process import Server

FLAG = "--adapter-memory-bytes"
PREFIX = "quickchange_adapter_"
RANK, ALPHA = 4, 8
TARGETS = ("self_attn.q_proj", "self_attn.v_proj")
# So large that names answer differently; of two that do not, one could stand in for the other unseen.
B_DEVIATION = 0.3
PROMPTS, WORDS, TOKENS = 4, 32, 8
POLL_SECONDS = 1.0


def small_adapter(shapes, number, layers):
    """The bytes of adapter_config.json and adapter_model.safetensors: queries and values of some layers, spread over all, random A and B from `number`."""
    source = numpy.random.default_rng([7, number])
    chosen = sorted({index * shapes.layers // layers for index in range(layers)})
    targets = [f"model.layers.{layer}.{name}" for layer in chosen for name in TARGETS]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False}
    config |= {"inference_mode": True, "target_modules": targets}
    tensors = {}
    for layer in chosen:
        for name in TARGETS:
            inputs, outputs = shapes.projection(name)
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = source.standard_normal((RANK, inputs), dtype=numpy.float32) / numpy.float32(inputs**0.5)
            tensors[f"{prefix}.lora_B.weight"] = source.standard_normal((outputs, RANK), dtype=numpy.float32) * numpy.float32(B_DEVIATION)
    return json.dumps(config).encode(), safetensors.numpy.save(tensors)


class LogprobRequest(Request):
    """A completion with the log-probability of each of its tokens."""

    def bytes(self):
        body = {"model": self.model, "prompt": self.prompt, "max_tokens": self.tokens, "temperature": 0, "ignore_eos": True, "logprobs": 0, "stream": True}
        text = json.dumps(body).encode()
        return b"POST /v1/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text) + text


def content(answer):
    """(version, text, log-probabilities) of a whole answer."""
    chunks = answer.chunks()
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    logprobs = [value for choice in choices for value in (choice["logprobs"] or {}).get("token_logprobs", [])]
    if len(logprobs) != answer.request.tokens:
        raise ValueError(f"{len(logprobs)} log-probabilities came for {answer.request.tokens} tokens")
    adapter = chunks[0]["adapter"]
    if adapter["name"] != answer.request.model:
        raise ValueError(f"the answer names {adapter['name']}")
    return adapter["version"], "".join(choice["text"] for choice in choices), tuple(logprobs)


def scrape(port):
    """Series of /metrics without labels other than `le`: {name or (name, le): value}; and the bytes and seconds it took."""
    began = time.perf_counter()
    text = call(port, "GET", "/metrics")[1]
    took, series = time.perf_counter() - began, {}
    for name, bound, value in re.findall(rf'^({PREFIX}\w+)(?:\{{le="([^"]+)"\}})? (\S+)$', text, re.MULTILINE):
        series[(name, float(bound)) if bound else name] = float(value)
    return series, len(text), took


class Watch(threading.Thread):
    """Polls what the adapters in memory take until it is told to end."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.over = server, threading.Event()
        self.most, self.polls, self.seconds, self.bytes, self.memory = 0.0, 0, [], 0, 0.0

    def run(self):
        while not self.over.wait(POLL_SECONDS):
            self.poll()

    def poll(self):
        try:
            series, self.bytes, took = scrape(self.server.port)
        except OSError:
            return
        self.polls += 1
        self.seconds.append(took)
        self.most = max(self.most, series.get(f"{PREFIX}memory_bytes", 0.0))
        self.memory = max(self.memory, memory_of(self.server.process.pid)["resident_mib"])


class Load:
    """A server with its adapters, what they answered, and what went wrong so far."""

    def __init__(self, options):
        self.options = options
        help_text = subprocess.run([options.server, "--help"], check=True, capture_output=True, text=True).stdout
        self.budget = options.memory_mb * 2**20 if FLAG in help_text else None
        if self.budget is None:
            print(f"many_adapters.py: this server has no {FLAG}, so nothing leaves its memory; the answers are checked all the same, hits and misses are not", file=sys.stderr)
        flags = shlex.split(options.flags) + ([FLAG, str(self.budget)] if self.budget else [])
        self.setup = {"binary": options.server, "model": options.model, "threads": options.threads, "flags": flags}
        self.shapes = Shapes(options.model)
        self.prompts = workloads.prompts(self.shapes.words, "many", PROMPTS, WORDS)
        self.names = [f"many-{number:05}" for number in range(options.adapters)]
        # Which name is how popular has nothing to do with the order of the uploads.
        ranked = self.names.copy()
        random.Random(3).shuffle(ranked)
        weights = [1 / rank**options.exponent for rank in range(1, len(ranked) + 1)]
        self.drawn = random.Random(4).choices(ranked, weights, k=options.requests)
        self.failures, self.wrong, self.expected, self.first_ms = [], [], {}, []
        self.progress = Progress()

    def request(self, name):
        # Names end in their number.
        return LogprobRequest(name, self.prompts[int(name[-5:]) % PROMPTS], TOKENS)

    def register(self, server):
        """Uploads every adapter, and asks each that the load will ask for."""
        needed, took, size = set(self.drawn), [], 0
        for number, name in enumerate(self.names):
            config, weights = small_adapter(self.shapes, number, self.options.layers)
            size += len(weights)
            took.append(server.put(name, multipart(name, config, weights))[0])
            if name in needed:
                (answer,) = answers(server.port, 1, [self.request(name)])
                if answer.error:
                    raise SystemExit(f"many_adapters.py: {name} right after its upload: {answer.error}")
                self.expected[name] = content(answer)
            self.progress.say((number + 1) / len(self.names), f"{number + 1}/{len(self.names)} adapters, {size / 2**20:.0f} MiB of files")
        self.progress.end()
        return {"files_mib": size / 2**20, "upload_p50_ms": timing.median(took), "upload_p99_ms": timing.percentile(took, 0.99)}

    def send(self, server):
        """The load; gives its seconds."""
        began = time.perf_counter()
        for number, answer in enumerate(answers(server.port, self.options.clients, map(self.request, self.drawn)), start=1):
            self.compare(answer)
            self.progress.say(number / len(self.drawn), f"{number}/{len(self.drawn)} answers, {len(self.failures)} failed, {len(self.wrong)} wrong")
        self.progress.end()
        return time.perf_counter() - began

    def compare(self, answer):
        name = answer.request.model
        try:
            if answer.error:
                raise ValueError(answer.error)
            found = content(answer)
        except ValueError as error:
            self.failures.append(f"{name}: {error}")
            return
        answer.pieces.clear()
        self.first_ms.append(1e3 * (answer.times[0] - answer.start))
        if found != self.expected[name]:
            others = [other for other, expected in self.expected.items() if expected[1:] == found[1:]]
            self.wrong.append(f"{name} answered {found}, and {self.expected[name]} right after its upload; the new answer is that of {others or 'no other'}")

    def run(self):
        """Everything; gives the figures and which checks hold."""
        server = Server(self.setup)
        try:
            watch = Watch(server)
            watch.start()
            registered = self.register(server)
            before, _, _ = scrape(server.port)
            seconds = self.send(server)
            after, size, _ = scrape(server.port)
            watch.over.set()
            watch.join()
            watch.poll()
        except OSError as error:
            raise SystemExit(f"many_adapters.py: {error}; the server's last words:\n{server.last_words()}") from error
        finally:
            server.stop()
        texts = {expected[1] for expected in self.expected.values()}
        found = {
            "adapters": len(self.names),
            "names_hit": len(self.expected),
            "distinct_texts": len(texts),
            "distinct_answers": len({expected[1:] for expected in self.expected.values()}),
            "registered": registered,
            "seconds": seconds,
            "requests_per_second": len(self.drawn) / seconds,
            "first_token_p50_ms": timing.median(self.first_ms),
            "first_token_p99_ms": timing.percentile(self.first_ms, 0.99),
            "process_mib": watch.memory,
            "scrape": {"bytes": size, "p50_ms": 1e3 * timing.median(watch.seconds), "largest_ms": 1e3 * max(watch.seconds), "polls": watch.polls},
            "residency": residency(before, after, watch) if self.budget else None,
            "failures": self.failures[:20],
            "wrong": self.wrong[:20],
        }
        return found | {"checks": self.checks(found, after)}

    def checks(self, found, after):
        """What must hold: (what, whether it does)."""
        held = {
            f"{len(self.failures)} requests failed, 0 may": not self.failures,
            f"{len(self.wrong)} answers were not those right after the upload, 0 may be": not self.wrong,
            f"{found['distinct_answers']} of {found['names_hit']} adapters have an answer of their own": found["distinct_answers"] == found["names_hit"],
        }
        if self.budget:
            values, told = found["residency"], after.get(f"{PREFIX}memory_budget_bytes")
            held |= {
                f"the server says that the budget is {told}, it is {self.budget}": told == self.budget,
                f"adapters took {values['most_mib']:.1f} MiB of memory at most, the budget is {self.budget / 2**20:.1f}": 0 < values["most_mib"] <= self.budget / 2**20,
                f"{values['evictions']:.0f} adapters had to leave; 0 would mean that the budget was for all of them": values["evictions"] > 0,
                f"{values['hits'] + values['misses']:.0f} hits and misses were counted for {len(self.drawn)} requests": values["hits"] + values["misses"] >= len(self.drawn),
            }
        return held


def residency(before, after, watch):
    """Hits, misses and load times between two scrapes."""
    difference = lambda name: after.get(PREFIX + name, 0.0) - before.get(PREFIX + name, 0.0)  # noqa: E731
    hits, misses = difference("residency_hits_total"), difference("residency_misses_total")
    bucket = f"{PREFIX}residency_load_seconds_bucket"
    counts = sorted((key[1], after[key] - before.get(key, 0.0)) for key in after if isinstance(key, tuple) and key[0] == bucket)
    loads = difference("residency_load_seconds_count")
    return {
        "hits": hits,
        "misses": misses,
        "hit_rate": hits / (hits + misses) if hits + misses else None,
        "evictions": after.get(f"{PREFIX}residency_evictions_total", 0.0),
        "loads": loads,
        "load_mean_ms": 1e3 * difference("residency_load_seconds_sum") / loads if loads else None,
        "load_p50_ms": quantile(counts, 0.5),
        "load_p99_ms": quantile(counts, 0.99),
        "most_mib": watch.most / 2**20,
        "at_end_mib": after.get(f"{PREFIX}memory_bytes", 0.0) / 2**20,
    }


def quantile(counts, share):
    """Milliseconds that `share` of a histogram's values do not exceed, between the bounds of its bucket by linear interpolation; None without any."""
    if not counts or not counts[-1][1]:
        return None
    wanted, below, lower = share * counts[-1][1], 0.0, 0.0
    for bound, count in counts:
        if count >= wanted:
            return 1e3 * (lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / max(count - below, 1e-9))
        below, lower = count, bound
    return None


def show(found):
    registered, scrape_ = found["registered"], found["scrape"]
    print(f"{found['adapters']} adapters, {registered['files_mib']:.0f} MiB of files; uploads p50 {registered['upload_p50_ms']:.1f} ms, p99 {registered['upload_p99_ms']:.1f} ms")
    print(f"{found['names_hit']} of them asked for, {found['distinct_texts']} different texts; {found['requests_per_second']:.1f} requests per second, first token p50 {found['first_token_p50_ms']:.1f} ms, p99 {found['first_token_p99_ms']:.1f} ms")
    print(f"process {found['process_mib']:.0f} MiB at most; a scrape of {scrape_['bytes'] / 1024:.0f} KiB took {scrape_['p50_ms']:.1f} ms (p50), {scrape_['largest_ms']:.1f} ms at most")
    if values := found["residency"]:
        shown = lambda value, pattern: "none" if value is None else pattern.format(value)  # noqa: E731
        print(f"hit rate {shown(values['hit_rate'], '{:.3f}')} ({values['hits']:.0f} hits, {values['misses']:.0f} misses), {values['evictions']:.0f} evictions in all")
        print(f"load of one that had left: mean {shown(values['load_mean_ms'], '{:.2f}')} ms, p50 {shown(values['load_p50_ms'], '{:.2f}')}, p99 {shown(values['load_p99_ms'], '{:.2f}')}, {values['loads']:.0f} loads; {values['most_mib']:.1f} MiB in memory at most")
    for line in [*found["failures"], *found["wrong"]]:
        print(f"  {line}")
    for what, holds in found["checks"].items():
        print(f"{'ok    ' if holds else 'FAILED'} {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the server's binary")
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--memory-mb", type=int, default=64, help="MiB of adapters in memory")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--exponent", type=float, default=1.0, help="of Zipf's law")
    parser.add_argument("--layers", type=int, default=16, help="layers that an adapter changes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flags", default="", help="more flags of the server")
    parser.add_argument("--model", default=str(ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"), help="the Q4_1 file")
    parser.add_argument("--out", default=str(ROOT / "bench/results/many_adapters.json"), help="file for the figures")
    options = parser.parse_args()
    options.server = str(pathlib.Path(options.server).resolve())
    facts = {
        "command": shlex.join(["python", "bench/many_adapters.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
    }
    found = Load(options).run()
    show(found)
    out = pathlib.Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts | found, indent=1) + "\n")
    sys.exit(0 if all(found["checks"].values()) else 1)


if __name__ == "__main__":
    main()
