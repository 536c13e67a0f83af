"""A fixed request, sent in quiet before and after, to the server that has worked and in turns to one that has not."""

import random

import timing
from closed_loop import answers
from load_client import Request

REQUESTS, TOKENS = 40, 8
RESAMPLES = 2000
# What two processes of the same build may differ by on a shared machine.
FACTOR = 1.1


class Probe:
    """Sends blocks of the same requests, and keeps milliseconds by who was asked and when."""

    def __init__(self, prompt):
        self.prompt, self.blocks = prompt, {}

    def block(self, port):
        """Milliseconds of each of REQUESTS completions, one after another."""
        request = Request(None, self.prompt, TOKENS)
        return [1e3 * (answer.times[-1] - answer.start) for answer in answers(port, 1, [request] * REQUESTS)]

    def measure(self, ports, blocks, progress):
        """In turns; `ports` is {name: port}. The first block of each warms it up and is forgotten."""
        for turn in range(blocks + 1):
            progress.say(turn / (blocks + 1), f"the fixed request, {' and '.join(ports)}: {turn}/{blocks + 1} blocks")
            for name in list(ports) if turn % 2 else list(ports)[::-1]:
                found = self.block(ports[name])
                if turn:
                    self.blocks.setdefault(name, []).append(found)

    def compare(self, name, other, paired):
        """The 99th percentile of `name` over that of `other`, with the 95 % interval of a bootstrap over blocks, in pairs where they ran in turns."""
        first, second, draw = self.blocks[name], self.blocks[other], random.Random(0)
        ratios = []
        for _ in range(RESAMPLES):
            chosen = draw.choices(range(len(first)), k=len(first))
            others = chosen if paired else draw.choices(range(len(second)), k=len(second))
            ratios.append(p99(first[index] for index in chosen) / p99(second[index] for index in others))
        return {"ratio": p99(first) / p99(second), "low": timing.percentile(ratios, 0.025), "high": timing.percentile(ratios, 0.975)}

    def figures(self):
        """p50 and p99 by who was asked."""
        return {name: {"p50_ms": timing.median([value for block in blocks for value in block]), "p99_ms": p99(blocks), "requests": sum(map(len, blocks))} for name, blocks in self.blocks.items()}


def p99(blocks):
    return timing.percentile([value for block in blocks for value in block], 0.99)
