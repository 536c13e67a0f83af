"""What is measured: the workloads of a full and of a quick run, and the prompts they are given.

Nothing here knows a peer; a peer turns a workload into calls, and every peer gets the same token ids for the same round and repeat.
"""

import dataclasses
import random

KINDS = ("prefill", "clients", "adapter_cost", "depth", "shared_context", "long_prompt", "swap")
BATCHES = (1, 4, 8, 16, 32)
DEPTHS = (128, 256, 512, 1024, 2048, 4096)
REGISTERED = (1, 4, 16, 64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Workload:
    """One thing to measure.

    kind      prefill: prompt tokens to the first token. clients: `clients` requests at once, greedy, `tokens` each.
              adapter_cost: the same clients on the base and with an adapter each, one right after the other.
              depth: one stream behind a prompt of `prompt` tokens. shared_context: requests one after another that share
              `prompt` tokens and differ in 32. long_prompt: running streams meet a prompt of `prompt` tokens.
              swap: running streams meet an adapter's replacement. After both, the same streams meet nothing for as long.
    adapters  base: none. one: the same for every client. different: one of its own for each client.
    """

    kind: str
    adapters: str = "base"
    clients: int = 1
    prompt: int = 64
    tokens: int = 64
    repeats: int = 1

    @property
    def name(self):
        """The key of its samples."""
        if self.kind == "clients":
            return f"clients-{self.clients}-{self.adapters}"
        return f"{self.kind}-{self.prompt}-{self.adapters}"


def prefill(quick):
    """Prompts of three lengths, with and without an adapter."""
    lengths = ((512, 2),) if quick else ((128, 4), (512, 3), (2048, 1))
    return [Workload("prefill", adapters, prompt=length, tokens=1, repeats=repeats) for length, repeats in lengths for adapters in ("base", "one")]


def clients(quick):
    """1 to 32 clients on the base, on one adapter, on an adapter each."""
    found = []
    for count in (1, 8) if quick else BATCHES:
        for adapters in ("base", "one") if count == 1 else ("base", "one", "different"):
            repeats = 3 if count == 1 else 2 if count <= 8 and not quick else 1
            found.append(Workload("clients", adapters, clients=count, repeats=repeats))
    return found


def adapter_cost():
    """What an adapter for each client costs; in pairs and often, for the machine changes more from minute to minute than adapters do."""
    return [Workload("adapter_cost", "different", clients=8, repeats=8)]


def depth(quick):
    """One stream behind ever longer prompts."""
    return [Workload("depth", prompt=length, tokens=32) for length in ((128, 1024) if quick else DEPTHS)]


def disturbances():
    """What one request costs another."""
    return [
        Workload("shared_context", "one", prompt=512, tokens=1),
        Workload("long_prompt", clients=4, prompt=2048, tokens=192, repeats=4),
        Workload("swap", "one", clients=4, prompt=64, tokens=192, repeats=6),
    ]


def every(quick):
    """All workloads of a run, in the order they are measured."""
    return prefill(quick) + clients(quick) + adapter_cost() + disturbances() + depth(quick)


def prompts(words, seed, count, length):
    """`count` prompts of `length` token ids, each drawn at random from `words`.

    Random words repeat neither each other nor an earlier round, so that neither a prefix cache nor prompt lookup finds anything in them.
    """
    source = random.Random(seed)
    return [[source.choice(words) for _ in range(length)] for _ in range(count)]


def assigned(workload, adapters):
    """The adapter of each client, None for the base."""
    if workload.adapters == "base":
        return [None] * workload.clients
    if workload.adapters == "one":
        return [adapters[0]] * workload.clients
    if len(adapters) < workload.clients:
        raise ValueError(f"{workload.name} needs {workload.clients} adapters, {len(adapters)} are loaded")
    return list(adapters[: workload.clients])
