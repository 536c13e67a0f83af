"""RESULTS.md from the samples of a run: `python report.py results/measurements.json` prints it again without measuring anything."""

import json
import pathlib
import sys

import targets
from samples import Samples, spread
from targets import DECODE_RATE, PROMPT_RATE, RATE
from timing import median
from workloads import BATCHES, DEPTHS

ADAPTERS = {"base": "base", "one": "one adapter", "different": "different adapters"}


def markdown(result):
    """The whole page."""
    samples = Samples(result)
    parts = [
        heading(result),
        must_reach(samples),
        throughput(samples),
        latency(samples),
        growth(samples),
        disturbances(samples),
        cold(samples),
        training(result),
        profile(result),
        agreement(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def number(value):
    """Three figures are enough beside the spread of this kind of machine."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(spread):
    """Median (least–greatest)."""
    if not spread:
        return "–"
    if spread.least == spread.greatest:
        return number(spread.middle)
    return f"{number(spread.middle)} ({number(spread.least)}–{number(spread.greatest)})"


def table(head, rows):
    """A Markdown table; the first column is text, the others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def by_peer(samples, columns, metric):
    """Peers down, `columns` of (title, workload) across, then our ratios to the best peer."""
    columns = [column for column in columns if any(samples.value(peer, column[1], metric) for peer in samples.peers)]
    if not columns:
        return ""
    rows = []
    for peer in samples.peers:
        values = [samples.value(peer, workload, metric) for _, workload in columns]
        if any(values):
            rows.append([peer] + [cell(value) for value in values])
    for ours in samples.ours:
        quotients = []
        for _, workload in columns:
            value, best = samples.value(ours, workload, metric), samples.best(workload, metric)
            quotients.append(f"**{value.middle / best[1].middle:.2f}**" if value and best else "–")
        if ours not in samples.narrow and any(quotient != "–" for quotient in quotients):
            rows.append([f"**{ours} / best peer**"] + quotients)
    return table([""] + [title for title, _ in columns], rows)


def heading(result):
    """What the figures belong to."""
    machine, settings, versions = result["machine"], result["settings"], result["versions"]
    llama = next((facts["system"] for facts in versions.values() if isinstance(facts, dict) and "system" in facts), "")
    enabled = " ".join(part.split(" = ")[0].strip().removeprefix("CPU : ") for part in llama.split("|") if part.strip().endswith("= 1"))
    measured, asked = len({sample["round"] for sample in result["samples"]}), settings["rounds"]
    rounds = f"{measured} round{'s' * (measured > 1)}" if measured == asked else f"{measured} of {asked} rounds"
    kernels = next((facts.get("kernels") for name, facts in versions.items() if name.startswith("quickchange")), None)
    lines = [
        "# Results",
        "",
        f"Measured {result['date']} with `{result['command']}` in {result['seconds'] / 60:.0f} minutes: {rounds} in turns, {settings['threads']} threads for every peer.",
        "Figures are the median over the rounds, with the least and the greatest round in brackets. README.md says how each is taken.",
        "",
        f"- Machine: {machine['processor']}, {machine['cores']} cores ({', '.join(machine['features'])}), {machine['memory_gib']} GiB, {machine['system']}.",
        f"  Load average {machine['load_before']:.1f} before the run, {machine['load_after']:.1f} at its end.",
        f"- This repository at `{versions['commit']}`" + (f", kernels {kernels}." if kernels else "."),
        f"- llama.cpp through llama_cpp_python {versions['llama_cpp_python']}, built for this CPU ({enabled}), the library without HTTP.",
        f"- PyTorch {versions['torch']}, transformers {versions['transformers']}, PEFT {versions['peft']}, Python {versions['python']}, without HTTP.",
    ]
    flags = [f"`{peer['name']}` runs with `{' '.join(peer['flags'])}`" for peer in result["peers"] if peer["flags"]]
    if flags:
        lines.append(f"- {'; '.join(flags)}.")
    return "\n".join(lines + ["", "![Curves](results/chart.svg)"])


def must_reach(samples):
    """The targets."""
    verdict = {True: "met", False: "**missed**", None: "not measured"}
    found = targets.lines(samples)
    if not found:
        return ""
    order = [line.target for line in found]
    found = sorted(found, key=lambda line: order.index(line.target))
    rows = [[line.target, line.peer, line.ours, line.theirs, line.ratio, verdict[line.met]] for line in found]
    return "## Must reach\n\n" + table(["target", "with", "ours", "peer", "ratio", ""], rows)


def throughput(samples):
    """Tokens per second."""
    prompt = [(f"{length}, {ADAPTERS[adapters]}", f"prefill-{length}-{adapters}") for length in (128, 512, 2048) for adapters in ("base", "one")]
    single = [(ADAPTERS[adapters], f"clients-1-{adapters}") for adapters in ("base", "one")]
    text = "## Prefill, prompt tokens per second\n\n" + by_peer(samples, prompt, PROMPT_RATE)
    text += "\n\n## Decoding, one stream, tokens per second\n\n" + by_peer(samples, single, DECODE_RATE)
    for adapters, title in ADAPTERS.items():
        columns = [(f"{count} client{'s' * (count > 1)}", f"clients-{count}-{adapters}") for count in BATCHES]
        text += f"\n\n## Clients at once, {title}: tokens per second of all, prompts included\n\n" + by_peer(samples, columns, RATE)
    return text


def latency(samples):
    """Time to the first token and between tokens. The wait of the slowest client is what a queue shows in."""
    text = "## Time to the first token and between tokens, ms"
    metrics = [("first p50", "first_token_p50_ms"), ("first p99", "first_token_p99_ms"), ("gap p50", "gap_p50_ms"), ("gap p99", "gap_p99_ms")]
    cases = [(f"clients-{count}-{adapters}", f"{count} clients, {ADAPTERS[adapters]}") for count in (4, 8, 16, 32) for adapters in ("base", "different")]
    for workload, title in cases:
        rows = [[peer] + [cell(samples.value(peer, workload, metric)) for _, metric in metrics] for peer in samples.peers if samples.value(peer, workload, RATE)]
        if rows:
            text += f"\n\n### {title}\n\n" + table([""] + [name for name, _ in metrics], rows)
    shares = [samples.value(peer, "clients-32-base", "client_share") or samples.value(peer, "clients-8-base", "client_share") for peer in samples.ours]
    shares = [share.middle for share in shares if share]
    if shares:
        text += f"\n\nOurs includes HTTP and a client on the same cores, which took up to {100 * max(shares):.0f} % of one core at the largest number of clients."
    return text


def growth(samples):
    """How cost grows with context and with registered adapters."""
    columns = [(str(length), f"depth-{length}-base") for length in DEPTHS]
    text = "## Behind a long context\n\nTime between tokens, ms:\n\n" + gaps_by_depth(samples, columns)
    text += "\n\nPrompt tokens per second:\n\n" + by_peer(samples, columns, PROMPT_RATE)
    points = samples.result["registered"]
    if points:
        rows = []
        for point in points:
            rates = [sample[RATE] for sample in point["samples"]]
            gap = median([sample["gap_p50_ms"] for sample in point["samples"]])
            figures = [f"{number(median(rates))} ({number(min(rates))}–{number(max(rates))})", number(gap)]
            rows.append([str(point["registered"]), *figures, number(point["adapter_load_ms"]), number(point["resident_mib"])])
        head = ["registered", "tokens per second", "gap p50, ms", "upload of one, ms", "memory, MiB"]
        text += "\n\n## Registered adapters, 16 clients on up to 16 of them\n\n" + table(head, rows)
    return text


def gaps_by_depth(samples, columns):
    """Smaller is better here, so there is no ratio to the greatest."""
    columns = [column for column in columns if any(samples.value(peer, column[1], "gap_p50_ms") for peer in samples.peers)]
    rows = [[peer] + [cell(samples.value(peer, workload, "gap_p50_ms")) for _, workload in columns] for peer in samples.peers if peer not in samples.narrow]
    return table([""] + [title for title, _ in columns], rows)


def disturbances(samples):
    """What one request costs another."""
    text = "## What one request costs another"
    metrics = [("usual gap, ms", "usual_gap_ms"), ("its p99, ms", "usual_gap_p99_ms"), ("p50 meanwhile", "meanwhile_p50_ms"), ("p99 meanwhile", "meanwhile_p99_ms"), ("largest meanwhile", "largest_gap_ms"), ("largest / usual", "stall_ratio"), ("it lasted, ms", "disturbance_ms"), ("largest while nothing happens", "quiet_largest_ms"), ("net", "net_stall_ratio")]
    cases = (("long_prompt-2048-base", "Four running streams meet a prompt of 2048 tokens"), ("swap-64-one", "Four running streams, two on an adapter that is replaced by an upload"))
    for workload, title in cases:
        rows = [[peer] + [cell(samples.value(peer, workload, metric)) for _, metric in metrics] for peer in samples.peers if samples.value(peer, workload, "stall_ratio")]
        if rows:
            text += f"\n\n### {title}\n\n" + table([""] + [name for name, _ in metrics], rows)
    name = "shared_context-512-one"
    columns = [("first, ms", "first_ms"), ("n-th, ms", "nth_ms"), ("tokens reused", "cached_tokens")]
    rows = [[peer] + [cell(samples.value(peer, name, metric)) for _, metric in columns] for peer in samples.peers if samples.value(peer, name, "nth_ms")]
    if rows:
        text += "\n\n### A context of 512 tokens that requests share, 32 tokens of their own, to the first token\n\n" + table([""] + [title for title, _ in columns], rows)
    return text


def cold(samples):
    """Fresh processes."""
    columns = [("ready, ms", "ready_ms"), ("an adapter, ms", "adapter_load_ms"), ("memory, MiB", "resident_mib"), ("not from files, MiB", "anonymous_mib"), ("most, MiB", "peak_mib"), ("before the model, MiB", "before_model_mib")]
    rows = [[peer] + [cell(samples.cold(peer, metric)) for _, metric in columns] for peer in samples.peers if samples.cold(peer, "ready_ms")]
    if not rows:
        return ""
    note = "Ours: from the start of the process to an answer of 200 from `/ready`, an adapter by HTTP upload (sent, checked, stored, prepared, probed). The peers: loading by function call in a running interpreter. Memory of the whole process with 8 adapters after 8 requests."
    return "## Start, adapters, memory\n\n" + table([""] + [title for title, _ in columns], rows) + "\n\n" + note


def training(result):
    """Optimizer steps, what training.py found."""
    found = result.get("training")
    if not found:
        return ""
    rows = []
    for workload in dict.fromkeys(sample["workload"] for sample in found["samples"]):
        metric = "tokens_per_second" if "logits" in workload else "examples_per_second"
        values = {peer: [sample["values"] for sample in found["samples"] if (sample["workload"], sample["peer"]) == (workload, peer)] for peer in ("quickchange", "PEFT f32")}
        speed = {peer: spread([value[metric] for value in own]) for peer, own in values.items()}
        memory = {peer: median([value["peak_mib"] for value in own]) for peer, own in values.items()}
        ratio = speed["quickchange"].middle / speed["PEFT f32"].middle
        target = targets.TRAINING[next(name for name in targets.TRAINING if name in workload)]
        verdict = "" if target is None else "met" if ratio >= target else "**missed**"
        unit = metric.split("_")[0] + "/s"
        rows.append([f"{workload} ({unit})", *map(cell, speed.values()), f"**{ratio:.2f}**", f"{target} ×" if target else "", verdict, *map(number, memory.values())])
    head = ["", "ours", "PEFT f32", "ratio", "must reach", "", "ours, most MiB", "PEFT f32, most MiB"]
    note = f"Forward, backward, clipping and AdamW over rank 8 on all seven projections, {found['steps']} steps after one to warm up, the same batches; PEFT's are padded to the longest sequence. Taken at `{found['commit']}` with `{found['command']}`."
    return "## Training\n\n" + table(head, rows) + "\n\n" + note


def profile(result):
    """Shares of the processor's time, what profiling.py found."""
    found = result.get("profile")
    if not found:
        return ""
    stages = list(dict.fromkeys(stage for shares in found["shares"].values() for stage in shares))
    rows = [[stage] + [f"{100 * shares.get(stage, 0):.1f} %" for shares in found["shares"].values()] for stage in stages]
    note = f"Samples of the server's threads by `perf`, taken at `{found['commit']}` with `{found['command']}`. Both engine threads are counted whole, so waiting for the other one shows."
    return "## Where the time goes\n\n" + table([""] + list(found["shares"]), rows) + "\n\n" + note


def agreement(result):
    """That all computed the same thing."""
    rows = [[line["peer"], line["adapter"]] + [f"{line[name]:.3f}" for name in ("mean", "worst", "without_adapter")] for line in result["agreement"]]
    if not rows:
        return ""
    title = "## Agreement\n\nDifferences between a peer's five likeliest log-probabilities and ours on the same file, before anything was timed; in the last column ours without the adapter, to show that the adapters do something.\n\n"
    return title + table(["", "adapter", "mean", "largest", "mean against our base"], rows)


def load(path):
    """The samples of a run, and what profiling.py and training.py left beside them."""
    path = pathlib.Path(path)
    result = json.loads(path.read_text(encoding="utf-8"))
    for name in ("profile", "training"):
        beside = path.with_name(f"{name}.json")
        if beside.exists():
            result[name] = json.loads(beside.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    print(markdown(load(sys.argv[1])), end="")
