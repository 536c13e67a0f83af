"""The SVG chart of a run: `python chart.py results/measurements.json results/chart.svg` draws it again."""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as pyplot  # noqa: E402

from samples import Samples, spread  # noqa: E402
from targets import PROMPT_RATE, RATE  # noqa: E402
from workloads import BATCHES, DEPTHS  # noqa: E402

COLOURS = {
    "quickchange Q4_1": "#0b5fa5",
    "quickchange Q4_0": "#4fa3e0",
    "llama.cpp Q4_1": "#b35c00",
    "llama.cpp Q4_0": "#f0a04b",
    "PEFT f32": "#5f8f3a",
}


def draw(result, path):
    """Six panels: 8 clients, clients on the base, clients with an adapter each, context twice, registered adapters."""
    samples = Samples(result)
    peers = [peer for peer in samples.peers if peer not in samples.narrow]
    matplotlib.rcParams.update({"svg.hashsalt": "quickchange", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3})
    figure, panels = pyplot.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    bars(panels[0][0], samples, peers)
    for panel, adapters, title in ((panels[0][1], "base", "Clients on the base"), (panels[0][2], "different", "Clients with an adapter each")):
        keys = {count: f"clients-{count}-{'base' if count == 1 and adapters == 'base' else 'one' if count == 1 else adapters}" for count in BATCHES}
        curve(panel, samples, peers, keys, RATE)
        panel.set(title=title, xlabel="clients", ylabel="tokens per second, all together")
    keys = {length: f"depth-{length}-base" for length in DEPTHS}
    curve(panels[1][0], samples, peers, keys, "gap_p50_ms")
    panels[1][0].set(title="Decoding behind a context", xlabel="tokens of context", ylabel="ms between tokens")
    curve(panels[1][1], samples, peers, keys, PROMPT_RATE)
    panels[1][1].set(title="Prefill", xlabel="tokens of prompt", ylabel="prompt tokens per second")
    registered(panels[1][2], result["registered"])
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), frameon=False)
    settings = result["settings"]
    figure.suptitle(f"{result['machine']['processor']}, {settings['threads']} threads, median of {settings['rounds']} rounds with least and greatest, {result['date']}")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def bars(panel, samples, peers):
    """8 clients on base, one adapter, eight adapters."""
    kinds = ("base", "one", "different")
    width = 0.8 / max(1, len(peers))
    for index, peer in enumerate(peers):
        values = [samples.value(peer, f"clients-8-{kind}", RATE) or spread([0.0]) for kind in kinds]
        places = [position + (index - (len(peers) - 1) / 2) * width for position in range(len(kinds))]
        errors = [[value.middle - value.least for value in values], [value.greatest - value.middle for value in values]]
        panel.bar(places, [value.middle for value in values], width, yerr=errors, label=peer, color=COLOURS.get(peer), error_kw={"elinewidth": 0.8})
    panel.set_xticks(range(len(kinds)), ["base", "one adapter", "8 adapters"])
    panel.set(title="8 clients", ylabel="tokens per second, all together")


def curve(panel, samples, peers, keys, metric):
    """One line for each peer, the spread as a band."""
    for peer in peers:
        points = [(place, samples.value(peer, workload, metric)) for place, workload in keys.items()]
        points = [(place, value) for place, value in points if value]
        if points:
            places = [place for place, _ in points]
            panel.plot(places, [value.middle for _, value in points], marker="o", markersize=3, color=COLOURS.get(peer))
            panel.fill_between(places, [value.least for _, value in points], [value.greatest for _, value in points], alpha=0.2, color=COLOURS.get(peer), linewidth=0)
    panel.set_xscale("log", base=2)
    panel.set_xticks(list(keys), [str(place) for place in keys])
    panel.set_ylim(bottom=0)


def registered(panel, points):
    """Throughput and memory over registered adapters."""
    panel.set(title="Adapters registered, up to 16 in use by 16 clients", xlabel="adapters registered", ylabel="tokens per second")
    if not points:
        return
    places = [point["registered"] for point in points]
    values = [spread([sample[RATE] for sample in point["samples"]]) for point in points]
    panel.plot(places, [value.middle for value in values], marker="o", markersize=3, color=COLOURS["quickchange Q4_1"])
    panel.fill_between(places, [value.least for value in values], [value.greatest for value in values], alpha=0.2, color=COLOURS["quickchange Q4_1"], linewidth=0)
    panel.set_xscale("log", base=2)
    panel.set_xticks(places, [str(place) for place in places])
    panel.set_ylim(bottom=0)
    memory = panel.twinx()
    memory.plot(places, [point["resident_mib"] for point in points], linestyle="--", color="#888888")
    memory.set(ylabel="memory of the process, MiB (dashed)", ylim=(0, None))
    memory.grid(False)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        draw(json.load(file), sys.argv[2])
