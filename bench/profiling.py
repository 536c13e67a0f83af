"""Where the server spends its time: samples of its threads by `perf` under three workloads, as shares of stages in results/profile.json.

    python bench/profiling.py && python bench/report.py bench/results/measurements.json > bench/RESULTS.md
"""

import collections
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import adapters
import workloads
from peers.quickchange import Quickchange
from peers.worker import BENCH

ROOT = BENCH.parent
# The first stage with a word that is in a stack names its samples.
STAGES = (
    ("products with the base's weights", ("quantized::",)),
    ("x · Aᵀ of the adapters", ("product::reduction",)),
    ("· Bᵀ of the adapters", ("product::floats",)),
    ("attention", ("kernels::attention",)),
    ("rotary embedding, keys and values stored", ("kernels::rotary",)),
    ("norms, activations, quantising", ("kernels::norm", "kernels::activation", "kernels::elementwise")),
    ("sampling", ("engine::sampling",)),
    ("waiting for the other thread, sharing work", ("kernels::pool", "__rust_begin_short_backtrace")),
    ("the step and the scheduler", ("engine::",)),
)
WORKLOADS = {
    "prefill of 512, one adapter": (workloads.Workload("prefill", "one", prompt=512, tokens=1), 24),
    "one stream, base": (workloads.Workload("clients", "base", tokens=256), 6),
    "8 clients, 8 adapters": (workloads.Workload("clients", "different", clients=8, tokens=128), 4),
}


def stage(stack, thread):
    """The stage that a stack, a list of symbols, belongs to."""
    text = "\n".join(stack)
    for name, words in STAGES:
        if any(word in text for word in words):
            return name
    return "the engine's threads, unknown" if thread.startswith("engine") else "HTTP, tokens to text, the kernel"


def shares(recorded):
    """Stage to its share of the samples in a recording."""
    text = subprocess.run(["perf", "script", "--no-inline", "-i", recorded, "-F", "comm,ip,sym"], check=True, capture_output=True, text=True).stdout
    counts = collections.Counter()
    for sample in text.split("\n\n"):
        lines = sample.strip("\n").split("\n")
        if len(lines) > 1:
            counts[stage([re.sub(r"^\s*[0-9a-f]+ ", "", line) for line in lines[1:]], lines[0].strip())] += 1
    total = sum(counts.values())
    return {name: counts[name] / total for name in sorted(counts, key=counts.get, reverse=True)}


def main():
    if not shutil.which("perf"):
        raise SystemExit("profiling.py: `perf` is not installed")
    server, model = ROOT / "target/release/server", ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    shapes = adapters.Shapes(model)
    with tempfile.TemporaryDirectory() as folder:
        peer = Quickchange()
        folders = [adapters.write(pathlib.Path(folder), shapes, number) for number in range(8)]
        try:
            peer.start({"binary": str(server), "model": str(model), "threads": 2, "flags": ["--draft-tokens", "0"], "adapters": folders})
            found = {}
            for name, (workload, repeats) in WORKLOADS.items():
                recorded = f"{folder}/perf.data"
                command = ["perf", "record", "-q", "-F", "499", "--call-graph", "dwarf,4096", "-p", str(peer.server.process.pid), "-o", recorded]
                perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(0.5)
                for repeat in range(repeats):
                    getattr(peer, workload.kind)(workload, f"profile/{repeat}")
                perf.send_signal(2)
                perf.wait()
                found[name] = shares(recorded)
                print(name, {key: round(value, 3) for key, value in found[name].items()}, flush=True)
        finally:
            if peer.server:
                peer.server.stop()
    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    result = {"command": shlex.join(["python", "bench/profiling.py", *sys.argv[1:]]), "commit": commit, "shares": found}
    (BENCH / "results/profile.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
