"""What the server must reach, each target computed from the samples of a run."""

import dataclasses

RATE = "tokens_per_second"
PROMPT_RATE = "prompt_tokens_per_second"
DECODE_RATE = "decode_tokens_per_second"
FAST = "llama.cpp Q4_0"
# A prefix is kept in whole blocks, so up to a block of the shared tokens may be computed again.
BLOCK = 32

# How many times PEFT's speed a training workload must have, by what is in its name; 8 × 256 has no target.
TRAINING = {"4 × 128": 1.0, "8 × 256": None, "FT,": 1.5, "FTICL,": 3.0}


@dataclasses.dataclass(frozen=True)
class Line:
    """A target with one of our configurations: texts for the table, and whether it is met (None: not measured)."""

    target: str
    peer: str
    ours: str
    theirs: str
    ratio: str
    met: bool | None


def ratio(samples, ours, text, key, at_least, best=False):
    """Ours over a peer's: `key` is (workload, metric)."""
    value = samples.value(ours, *key)
    other = samples.best(*key) if best else (FAST, samples.value(FAST, *key))
    if not value or not other or not other[1]:
        return Line(text, ours, "", "", "", None)
    quotient = value.middle / other[1].middle
    return Line(text, ours, f"{value.middle:.0f} tok/s", f"{other[1].middle:.0f} tok/s, {other[0]}", f"{quotient:.2f}", quotient >= at_least)


def bound(text, ours, value, at_most, unit):
    """A figure of ours alone."""
    if not value:
        return Line(text, ours, "", "", "", None)
    return Line(text, ours, f"{value.middle:.{1 if at_most < 10 else 0}f} {unit}".rstrip(), "", "", value.middle <= at_most)


def gap(samples, ours, text, workload):
    """The largest gap while something happens, less what the machine adds to the largest one while nothing does, over the usual one."""
    net, whole, machine = (samples.value(ours, workload, metric) for metric in ("net_stall_ratio", "stall_ratio", "machine_ms"))
    if not net:
        return Line(text, ours, "", "", "", None)
    figure = f"{net.middle:.2f} × ({whole.middle:.1f} × with the {machine.middle:.1f} ms that the machine adds while nothing happens)"
    return Line(text, ours, figure, "", "", net.middle <= 2)


def cost_of_adapters(samples, ours, text):
    """How much longer eight clients take with an adapter each than on the base, right after each other."""
    cost = samples.value(ours, "adapter_cost-64-different", "cost_of_adapters")
    if not cost:
        return Line(text, ours, "", "", "", None)
    return Line(text, ours, f"{100 * cost.middle:.0f} % ({100 * cost.least:.0f}–{100 * cost.greatest:.0f})", "", "", cost.middle <= 0.25)


def shared_context(samples, ours, text):
    """Whether a request behind a known context computes only its own tokens."""
    name = "shared_context-512-one"
    first, nth, cached = (samples.value(ours, name, metric) for metric in ("first_ms", "nth_ms", "cached_tokens"))
    if not cached:
        return Line(text, ours, "", "", "", None)
    figure = f"{cached.middle:.0f} of 512 tokens reused, {first.middle:.0f} → {nth.middle:.0f} ms"
    other = samples.value(FAST, name, "nth_ms")
    theirs = f"{other.middle:.0f} ms, {FAST}" if other else ""
    return Line(text, ours, figure, theirs, "", 512 - cached.middle <= BLOCK)


def lines(samples):
    """Every target with each of our full configurations."""
    found = []
    for ours in samples.ours:
        if ours in samples.narrow:
            continue
        found += [
            ratio(samples, ours, "prefill of 512 tokens with an adapter: 2 × the best peer", ("prefill-512-one", PROMPT_RATE), 2.0, best=True),
            ratio(samples, ours, "decoding, one stream, base: 1.15 × llama.cpp", ("clients-1-base", DECODE_RATE), 1.15),
            ratio(samples, ours, "decoding, one stream, one adapter: 1.5 × llama.cpp", ("clients-1-one", DECODE_RATE), 1.5),
            ratio(samples, ours, "8 clients, 8 different adapters: 5 × llama.cpp", ("clients-8-different", RATE), 5.0),
            cost_of_adapters(samples, ours, "8 different adapters take at most 25 % longer than 8 × base"),
            shared_context(samples, ours, "a shared context is computed once"),
            bound("start to ready: at most 500 ms", ours, samples.cold(ours, "ready_ms"), 500, "ms"),
            bound("adapter upload to servable: at most 100 ms", ours, samples.cold(ours, "adapter_load_ms"), 100, "ms"),
            gap(samples, ours, "largest token gap while an adapter is replaced: at most 2 × the usual", "swap-64-one"),
            gap(samples, ours, "largest token gap while a prompt of 2048 is read: at most 2 × the usual", "long_prompt-2048-base"),
            bound("memory with 8 adapters after 8 requests: at most 400 MiB", ours, samples.cold(ours, "resident_mib"), 400, "MiB"),
        ]
    return found
