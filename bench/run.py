"""Measures our server, llama.cpp and PyTorch + PEFT in turns: see README.md. `make bench` calls this."""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import time
import zlib
from statistics import mean

import adapters
import chart
import report
import workloads
from machine import ROOT, commit, machine
from peers.worker import BENCH, Failed, Worker

# Mean difference of a log-probability among a peer's five likeliest tokens. llama.cpp's activations have 8 bits, which alone is 0.1 on average
# and now and then 0.3; more than this on average is a wrong answer, not rounding.
AGREEMENT = 0.25
TEXTS = (
    "The capital of France is",
    "Once upon a time, in a small village",
    "The three primary colours are red, yellow and",
    "Water boils at a temperature of one hundred degrees",
)


@dataclasses.dataclass(frozen=True)
class Peer:
    """A program with a model file and flags. `narrow` ones are variants: they run the workloads that the targets are about."""

    name: str
    module: str
    file: str
    flags: tuple = ()
    adapters: int = 32
    narrow: bool = False

    def measures(self, workload):
        """Whether this peer can do a workload, in a time worth its figure."""
        if self.narrow:
            return workload.kind == "clients" and workload.clients in (1, 8) or workload.kind == "prefill" and workload.prompt == 512
        if self.module == "quickchange":
            return True
        if workload.adapters == "different" and (workload.clients > self.adapters or self.file == "Q4_1" and workload.clients > 16):
            return False
        unsupported = {"llama_cpp": ("adapter_cost", "swap"), "peft": ("adapter_cost", "swap", "long_prompt", "shared_context")}
        return workload.kind not in unsupported[self.module]


class Bench:
    """One run: the files it needs, the peers that are up, the samples so far."""

    def __init__(self, options):
        self.options = options
        self.cache = pathlib.Path(os.environ.get("QUICKCHANGE_CACHE", ROOT / ".cache")).resolve() / "bench"
        self.logs = self.cache / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.samples, self.cold, self.facts = [], [], {}

    def prepare(self, types, count):
        """The files of `types`, Q4_0 by llama.cpp from the shipped Q4_1, and `count` adapters, made once and kept."""
        shipped = pathlib.Path(self.options.model).resolve()
        requantised = self.cache / f"{shipped.stem.removesuffix('.Q4_1')}.Q4_0.gguf"
        if "Q4_0" in types and not requantised.exists():
            aside = requantised.with_suffix(".part")
            with open(self.logs / "quantise.log", "wb") as log:
                subprocess.run([sys.executable, "-m", "peers.llama_cpp", "quantise", str(shipped), str(aside)], cwd=BENCH, check=True, stdout=log, stderr=log)
            aside.rename(requantised)
        self.files = {"Q4_1": str(shipped), "Q4_0": str(requantised)}
        shapes = adapters.Shapes(shipped)
        # Adapters made by another version of that file are others.
        made = zlib.crc32((BENCH / "adapters.py").read_bytes())
        self.folders = [adapters.write(self.cache / f"adapters-{made:08x}", shapes, number) for number in range(count)]

    def setup(self, peer, count):
        """What a peer is started with."""
        return {
            "binary": self.options.server,
            "model": self.files[peer.file],
            "threads": self.options.threads,
            "flags": list(peer.flags),
            "adapters": self.folders[:count],
        }

    def start(self, peer, count):
        return Worker(peer.module, self.setup(peer, count), self.logs / f"{peer.name}.log")

    def measure_cold(self, peer, turn):
        """A fresh process: its start, eight adapters, eight requests with one each, its memory."""
        worker = self.start(peer, 8)
        try:
            worker.ask("run", workload=dataclasses.asdict(workloads.Workload("clients", "different", clients=8)), seed=f"cold/{turn}")
            facts = {name: value for name, value in worker.facts.items() if name != "version"}
            self.cold.append({"peer": peer.name, "round": turn, "values": facts | worker.ask("memory")})
        finally:
            worker.stop()

    def measure(self, workers, peers, workload, turn):
        """One workload on each peer that can do it, the one to begin changing from round to round."""
        able = [peer for peer in peers if peer.measures(workload)]
        shift = turn % len(able)
        for peer in able[shift:] + able[:shift]:
            for repeat in range(workload.repeats):
                seed = f"{turn}/{repeat}/{workload.name}"
                values = workers[peer.name].ask("run", workload=dataclasses.asdict(workload), seed=seed)
                self.samples.append({"peer": peer.name, "workload": workload.name, "round": turn, "repeat": repeat, "values": values})
            say(f"  {workload.name:26} {peer.name:24} {brief(values)}")

    def agree(self, workers, peers):
        """Every peer's five likeliest tokens against ours on the same file, base and adapter; a bench of wrong answers is void."""
        found = []
        for peer in peers:
            if peer.module == "quickchange":
                continue
            ours = workers.get(f"quickchange {peer.file}")
            if ours is None:
                continue
            for adapter in (None, self.folders[0], self.folders[1]):
                differences, without = [], []
                for text in TEXTS:
                    ids = ours.ask("tokenize", text=text)
                    top = workers[peer.name].ask("top", ids=ids, adapter=adapter)
                    differences += ours.ask("agreement", ids=ids, adapter=adapter, expected=top)
                    without += ours.ask("agreement", ids=ids, adapter=None, expected=top)
                name = pathlib.Path(adapter).name if adapter else "base"
                line = {"peer": peer.name, "adapter": name, "mean": mean(differences), "worst": max(differences), "without_adapter": mean(without)}
                found.append(line)
                say(f"  agreement of {peer.name} with ours, {name}: mean {line['mean']:.3f}, worst {line['worst']:.3f} (our base: {line['without_adapter']:.3f})")
                if line["mean"] > AGREEMENT:
                    raise Failed(f"{peer.name} with {name} is {line['mean']:.3f} in log-probability away from ours, at most {AGREEMENT}: one of them is wrong")
                if adapter and line["without_adapter"] < 2 * AGREEMENT:
                    raise Failed(f"{name} moves {peer.name} by {line['without_adapter']:.3f} only: too little to see that it is applied")
        return found

    def run(self, peers):
        """Everything, in turns; gives what report.py and chart.py read."""
        options, began = self.options, time.perf_counter()
        # Now: the tree may have changed by the end.
        self.versions = versions()
        self.prepare({peer.file for peer in peers}, 8 if options.quick else 32)
        result = {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "command": "make bench" + (f" BENCH=\"{' '.join(options.given)}\"" if options.given else ""),
            "machine": machine(),
            "settings": {"threads": options.threads, "rounds": options.rounds, "quick": options.quick},
            "peers": [dataclasses.asdict(peer) for peer in peers],
            "registered": [],
        }
        if result["machine"]["load_before"] > 0.5:
            say(f"the machine is busy: load average {result['machine']['load_before']:.1f}. The peers that spin lose more by it than we do; such figures are no result")
        workers = {}
        try:
            for peer in peers:
                count = min(peer.adapters, len(self.folders))
                workers[peer.name] = self.start(peer, count)
                self.facts[peer.name] = workers[peer.name].facts["version"]
                say(f"{peer.name} is up")
            result["agreement"] = self.agree(workers, peers)
            first = peers[0]
            if first.module == "quickchange" and not options.quick:
                say("registered adapters")
                result["registered"] = workers[first.name].ask("registered", points=workloads.REGISTERED, repeats=options.rounds)
            for turn in range(options.rounds):
                say(f"round {turn + 1} of {options.rounds}, {time.perf_counter() - began:.0f} s after the start")
                for peer in peers:
                    if not peer.narrow:
                        self.measure_cold(peer, turn)
                for workload in workloads.every(options.quick):
                    self.measure(workers, peers, workload, turn)
                self.keep(result, began)
        finally:
            for worker in workers.values():
                worker.kill()
        return self.keep(result, began)

    def keep(self, result, began):
        """Writes what there is so far, so that a run that is interrupted has shown something; gives the whole result."""
        result["machine"]["load_after"] = os.getloadavg()[0]
        whole = result | {"versions": self.facts | self.versions, "samples": self.samples, "cold": self.cold, "seconds": time.perf_counter() - began}
        folder = pathlib.Path(self.options.out) / "results"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "measurements.json").write_text(json.dumps(whole, indent=1) + "\n")
        return whole


def peers_of(options):
    """Our server on both files and its variants, then the others."""
    text = subprocess.run([options.server, "--help"], check=True, capture_output=True, text=True).stdout
    plain = ("--draft-tokens", "0") if "--draft-tokens" in text else ()
    peers = [Peer(f"quickchange {file}", "quickchange", file, plain) for file in ("Q4_1", "Q4_0")]
    if plain:
        peers.append(Peer("quickchange Q4_1, drafts", "quickchange", "Q4_1", adapters=8, narrow=True))
    bits = re.search(r"--activation-bits.*?\[default:\s+(\w+)\]", text, re.DOTALL)
    for other in ("8", "16"):
        if bits and other != bits[1]:
            flags = (*plain, "--activation-bits", other)
            peers.append(Peer(f"quickchange Q4_1, {other} bits", "quickchange", "Q4_1", flags, adapters=8, narrow=True))
    peers += [Peer(f"llama.cpp {file}", "llama_cpp", file) for file in ("Q4_1", "Q4_0")]
    peers.append(Peer("PEFT f32", "peft", "Q4_1", adapters=16))
    if options.only:
        peers = [peer for peer in peers if any(word in peer.name for word in options.only.split(","))]
        if not peers:
            raise SystemExit(f"run.py: no peer's name contains one of {options.only!r}")
    return peers


def versions():
    """Of this repository and of the interpreter."""
    found = {"commit": commit(), "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in ("llama_cpp_python", "torch", "transformers", "peft")}


def brief(values):
    """The figures of a sample on one line."""
    shown = ("prompt_tokens_per_second", "tokens_per_second", "decode_tokens_per_second", "gap_p50_ms", "gap_p99_ms", "stall_ratio", "net_stall_ratio", "first_ms", "nth_ms", "base_per_second", "adapters_per_second")
    return "  ".join(f"{name} {values[name]:.1f}" for name in shown if name in values)


def say(text):
    """Progress, for the person who waits."""
    print(text, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of the workloads that the targets are about, about 5 minutes")
    parser.add_argument("--only", help="peers whose name contains one of these words, separated by commas, e.g. 'quickchange,llama.cpp Q4_0'")
    parser.add_argument("--rounds", type=int, help="rounds over all peers (3; 1 with --quick)")
    parser.add_argument("--threads", type=int, default=2, help="threads of every peer (2)")
    parser.add_argument("--out", default=str(BENCH), help="folder that gets RESULTS.md and results/")
    parser.add_argument("--server", default=str(ROOT / "target/release/server"), help="the server's binary")
    parser.add_argument("--model", default=str(ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"), help="the Q4_1 file")
    options = parser.parse_args()
    options.given = [word for name in ("only", "rounds") if getattr(options, name) for word in (f"--{name}", shlex.quote(str(getattr(options, name))))]
    options.given += ["--quick"] if options.quick else []
    options.server = str(pathlib.Path(options.server).resolve())
    options.rounds = options.rounds or (1 if options.quick else 3)
    result = Bench(options).run(peers_of(options))
    out = pathlib.Path(options.out)
    chart.draw(result, out / "results/chart.svg")
    text = report.markdown(report.load(out / "results/measurements.json"))
    (out / "RESULTS.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
