"""Measures optimizer steps: ours and PyTorch + PEFT in turns, on the same batches. Writes results/training.json, which report.py shows.

    python bench/training.py --data DIR && python bench/report.py bench/results/measurements.json > bench/RESULTS.md
"""

import argparse
import json
import os
import pathlib
import random
import shlex
import subprocess
import sys

import adapters
from peers.worker import BENCH
from timing import median

ROOT = BENCH.parent
# (name, sequences, tokens each): every next token counts.
SHAPES = (("4 × 128 tokens, all logits", 4, 128), ("8 × 256 tokens, all logits", 8, 256))
METHODS = (("sentiment, FT, 8 examples", "ft"), ("sentiment, FTICL, 8 examples", "fticl"))
# Examples of a batch; twice as many take PEFT all the memory of a machine of 24 GiB.
BATCH = 8
STEPS = 3
PEERS = ("quickchange", "PEFT f32")


class Bench:
    """One run: where its files are, and the samples so far."""

    def __init__(self, options):
        self.options = options
        self.folder = pathlib.Path(os.environ.get("QUICKCHANGE_CACHE", ROOT / ".cache")).resolve() / "bench" / "training"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.binary = built()
        self.samples = []
        self.commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def random_batches(self, name, sequences, length):
        """The first token is the prompt, so that every other one is predicted."""
        words = adapters.Shapes(self.options.model).words
        source = random.Random(name)
        draw = lambda: {"prompt": [source.choice(words)], "completion": source.choices(words, k=length)}  # noqa: E731
        return self.write(name, [[draw() for _ in range(sequences)] for _ in range(1 + STEPS)])

    def task_batches(self, name, method):
        """As `trainer train` would make them of the paper's data."""
        command = [self.binary, "batches", "--count", str(1 + STEPS), "--task", "sentiment", "--method", method, "--train-size", "2000", "--batch-size", str(BATCH)]
        command += ["--data", self.options.data, "--model", self.options.model, "--out", str(self.folder / "none")]
        return self.write(name, json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))

    def write(self, name, batches):
        path = self.folder / f"{name.replace(' ', '-')}.json"
        path.write_text(json.dumps(batches))
        return path, batches

    def measure(self, peer, path):
        """A process of its own, so that its memory is its own."""
        program = [self.binary, "run"] if peer == "quickchange" else [sys.executable, "-m", "peers.peft_training"]
        command = [*program, "--model", self.options.model, "--batches", str(path), "--threads", str(self.options.threads)]
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.options.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        with open(self.folder / f"{peer}.log", "ab") as log:
            answer = subprocess.run(command, cwd=BENCH, env=environment, check=True, stdout=subprocess.PIPE, stderr=log).stdout
        return json.loads(answer.splitlines()[-1])

    def run(self):
        workloads = {name: self.random_batches(name, *shape) for name, *shape in SHAPES}
        if self.options.data:
            workloads |= {name: self.task_batches(name, method) for name, method in METHODS}
        for turn in range(self.options.rounds):
            for name, (path, batches) in workloads.items():
                tokens = [sum(len(example["prompt"]) + len(example["completion"]) - 1 for example in batch) for batch in batches[1:]]
                for peer in PEERS if turn % 2 == 0 else PEERS[::-1]:
                    found = self.measure(peer, path)
                    seconds = sum(found["seconds"])
                    values = {"tokens_per_second": sum(tokens) / seconds, "examples_per_second": sum(map(len, batches[1:])) / seconds}
                    self.samples.append({"workload": name, "peer": peer, "round": turn, "values": values | {"peak_mib": found["peak_mib"]}, "losses": found["losses"]})
                    self.keep()
                    print(f"round {turn + 1}: {name:30} {peer:12} {values['tokens_per_second']:8.0f} tok/s {values['examples_per_second']:6.2f} examples/s {found['peak_mib']:6.0f} MiB", flush=True)

    def keep(self):
        """Writes what there is so far, so that a run that is interrupted has shown something."""
        result = {"command": shlex.join(["python", "bench/training.py", *sys.argv[1:]]), "commit": self.commit, "steps": STEPS, "samples": self.samples}
        (BENCH / "results" / "training.json").write_text(json.dumps(result, indent=1) + "\n")


def built():
    """The benchmark of the trainer, compiled."""
    command = ["cargo", "bench", "--locked", "--package", "trainer", "--bench", "training", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [line["executable"] for line in map(json.loads, lines) if line.get("executable") and line["target"]["name"] == "training"]
    return found[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"), type=os.path.abspath)
    parser.add_argument("--data", default=os.environ.get("QUICKCHANGE_DATA"), type=os.path.abspath, help="folder of the paper's data sets; without it only random tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    Bench(parser.parse_args()).run()


if __name__ == "__main__":
    main()
