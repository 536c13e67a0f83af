"""Two builds of the server in pairs of turns, for changes smaller than what the machine does from minute to minute.

    python bench/pairs.py BEFORE AFTER --pairs 16
    python bench/pairs.py SERVER SERVER --after-flags "--device cuda" --clients 1 8 32

BEFORE and AFTER are binaries, which may be one and the same with other flags. Who begins changes from pair to pair; of each workload the medians and the ratio
by pairs are printed. Two processes of one build differ too, so a build against a copy of itself tells what a ratio is worth.
"""

import argparse
import dataclasses
import pathlib
import shlex
import statistics

import workloads
from run import ROOT, Bench, Peer


def measured(counts):
    """Clients on the base and with an adapter each, and a prompt of 512 tokens."""
    found = []
    for count in counts:
        found += [workloads.Workload("clients", adapters, clients=count) for adapters in ("base", "different" if count > 1 else "one")]
    return [*found, workloads.Workload("prefill", "one", prompt=512, tokens=1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a server's binary")
    parser.add_argument("after", help="another")
    parser.add_argument("--before-flags", default="", help="flags of the first server")
    parser.add_argument("--after-flags", default="", help="flags of the second server")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], help="how many at once")
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default=str(ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"), help="the Q4_1 file")
    options = parser.parse_args()
    bench = Bench(options)
    count = max(8, *options.clients)
    bench.prepare({"Q4_1"}, count)
    chosen = measured(options.clients)
    workers, rates = {}, {}
    try:
        for name in ("before", "after"):
            # A worker runs in a folder of its own.
            options.server = str(pathlib.Path(getattr(options, name)).resolve())
            flags = ("--draft-tokens", "0", *shlex.split(getattr(options, f"{name}_flags")))
            workers[name] = bench.start(Peer(name, "quickchange", "Q4_1", flags), count)
        for pair in range(options.pairs):
            for workload in chosen:
                for name in ("before", "after") if pair % 2 else ("after", "before"):
                    values = workers[name].ask("run", workload=dataclasses.asdict(workload), seed=f"{pair}/{workload.name}")
                    rate = values["prompt_tokens_per_second" if workload.kind == "prefill" else "tokens_per_second"]
                    rates.setdefault((workload.name, name), []).append(rate)
    finally:
        for worker in workers.values():
            worker.kill()
    for workload in chosen:
        before, after = (rates[workload.name, name] for name in ("before", "after"))
        low, middle, high = statistics.quantiles((new / old for old, new in zip(before, after, strict=True)), n=4)
        print(f"{workload.name:22} {statistics.median(before):7.0f} {statistics.median(after):7.0f} tok/s  ratio {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
