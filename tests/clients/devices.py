"""Serves a model on another device and on the CPU and compares the two: python devices.py SERVER MODEL DEVICE

DEVICE is what --device takes, cuda for a build with that feature. Log-probabilities of a few prompts and of 24 greedy tokens behind each, with
the likeliest alternatives; the server on the CPU computes with 16 bits. `make test-clients` does not run this: it has no such device.
"""

import sys

from served import Server

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village",
    "Water boils at",
    "def quicksort(items):\n    ",
    "The three primary colours are red, yellow and",
    "Q: What is 7 times 8?\nA:",
]
TOKENS = 24
# Keys and values in f16 and sums in another order move a log-probability by a few thousandths.
GATE = 0.05


def largest_difference(ours, theirs):
    """Over the alternatives both name, as far as the texts are the same; infinite where one lacks the other's likeliest."""
    worst, shared = 0.0, 0
    for token, other, left, right in zip(ours["tokens"], theirs["tokens"], ours["top_logprobs"], theirs["top_logprobs"], strict=True):
        if left and right:
            likeliest = {max(left, key=left.get), max(right, key=right.get)}
            both = left.keys() & right.keys()
            worst = max([worst, *(abs(left[name] - right[name]) for name in both)]) if likeliest <= both else float("inf")
        if token != other:
            break
        shared += 1
    return worst, shared


def main(binary, model, device):
    failed = 0
    with Server(binary, model) as cpu, Server(binary, model, "--device", device) as other:
        for prompt in PROMPTS:
            ids = cpu.tokenize(prompt)
            answers = [server.complete(ids, tokens=TOKENS, alternatives=5) for server in (cpu, other)]
            worst, shared = largest_difference(*answers)
            failed += worst > GATE
            print(f"{prompt[:24]!r}: the first {shared - len(ids)} of {TOKENS} tokens are the same, log-probabilities differ by at most {worst:.4f}", flush=True)
    print(f"{device}: {len(PROMPTS) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
