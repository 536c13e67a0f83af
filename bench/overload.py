"""What a server does with more than it can do.

    python3 bench/overload.py SERVER --seconds 60

First its capacity, by clients that send one request after another. Then requests arrive by a Poisson process, whatever became of those before, at 0.5, 1, 2 and
5 times that; each has a deadline (`x-request-timeout`) and nobody retries, but a few that are refused come again after the time that Retry-After gave them, once.
Goodput is answers in full within their deadline, per second. Exit code 1 when a check does not hold: at 5 times the capacity goodput is at least 90 % of its
peak, what is refused has a Retry-After, and who was refused in the last second comes back to a server that has a place. Needs nothing but Python; --chart needs matplotlib.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import random
import shlex
import subprocess
import sys
import time

import timing
from closed_loop import Progress
from load_client import call
from machine import ROOT, commit, machine
from server_process import Server
from traffic.arrivals import Arrival, Arrivals
from traffic.cases import words

LOADS = (0.5, 1.0, 2.0, 5.0)
# The mix: models with their weights, and tokens of an answer.
MODELS = {"": 4, "sentiment-ft": 1, "question-ft": 1, "summary-ft": 1, "inference-ft": 1}
WORDS, TOKENS = 24, (16, 32, 64)
WARM_SECONDS = 5.0
PEAK_SHARE = 0.9
# Of the refused, one in so many seconds comes again, and at the end so many.
RETRY_SECONDS, LAST_RETRIES = 2.0, 8
REFUSED = (429, 503)


class Overload:
    """A server, and what became of what it was asked."""

    def __init__(self, options):
        self.options = options
        flags = ["--pretrained", str(options.pretrained), *shlex.split(options.flags)]
        self.server = Server({"binary": options.server, "model": options.model, "threads": options.threads, "flags": flags})
        self.draw = random.Random(options.seed)
        self.progress = Progress()

    def message(self, deadline):
        """A request of the mix, as it goes over the wire, and how many tokens it asks for."""
        (model,) = self.draw.choices(list(MODELS), list(MODELS.values()))
        tokens = self.draw.choice(TOKENS)
        body = {"model": model, "prompt": words(self.draw.randrange(10**9), WORDS), "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        text = json.dumps(body).encode()
        timeout = f"x-request-timeout: {deadline:g}\r\n" if deadline else ""
        head = f"POST /v1/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{timeout}content-length: {len(text)}\r\n\r\n"
        return head.encode() + text, tokens

    def arrival(self, due, deadline=None, retry_of=None):
        return Arrival(due, *self.message(deadline), retry_of=retry_of)

    def capacity(self, seconds):
        """Requests per second of clients that ask one after another, after a warm-up."""
        began = time.perf_counter()

        def react(arrival):
            now = time.perf_counter()
            if now - began < WARM_SECONDS + seconds:
                self.progress.say((now - began) / (WARM_SECONDS + seconds), "capacity")
                return self.arrival(now)
            return None

        load = Arrivals(self.server.port, 120.0, react)
        finished = load.run([self.arrival(began) for _ in range(self.options.clients)])
        self.progress.end()
        broken = [arrival for arrival in finished if arrival.status != 200]
        if broken:
            raise SystemExit(f"overload.py: one of {self.options.clients} clients was answered {broken[0].status} {broken[0].code} {broken[0].error}")
        counted = [arrival for arrival in finished if began + WARM_SECONDS <= arrival.ended < began + WARM_SECONDS + seconds]
        return {"requests_per_second": len(counted) / seconds, "tokens_per_second": sum(arrival.tokens for arrival in counted) / seconds, **latency(counted)}

    def open_loop(self, load, rate):
        """Arrivals at `rate` a second for --seconds; what became of them."""
        seconds, began = self.options.seconds, time.perf_counter() + 0.1
        arrivals, due = [], began
        while (due := due + self.draw.expovariate(rate)) < began + seconds:
            arrivals.append(self.arrival(due, self.options.deadline))
        retries = {"next": began, "last": 0}
        statuses = collections.Counter()

        def react(arrival):
            statuses[arrival.status] += 1
            done = (time.perf_counter() - began) / seconds
            self.progress.say(done, f"{load:g} times the capacity, {statuses[200]} answered, {sum(statuses[status] for status in REFUSED)} refused")
            return self.retry(arrival, retries, began + seconds) if arrival.status in REFUSED and not arrival.retry_of else None

        processor, server = time.process_time(), processor_seconds(self.server.process.pid)
        open_ = Arrivals(self.server.port, self.options.deadline, react)
        open_.run(arrivals)
        passed = time.perf_counter() - began
        self.progress.end()
        shares = {"client_share": (time.process_time() - processor) / passed, "server_share": (processor_seconds(self.server.process.pid) - server) / passed}
        late = {"sent_late_p99_ms": 1e3 * timing.percentile(open_.late, 0.99), "connections": open_.most_open}
        return {"load": load, "rate": rate, "arrivals": len(arrivals)} | shares | late | self.figures(open_.finished, began)

    def retry(self, arrival, retries, end):
        """The same client once more after the time it was given: now and then, and some of those whom the last second refused."""
        now = time.perf_counter()
        last = end - 1 <= arrival.due and retries["last"] < LAST_RETRIES
        if arrival.retry_after is None or not last and (now < retries["next"] or arrival.due > end - 1):
            return None
        if last:
            retries["last"] += 1
        else:
            retries["next"] = now + RETRY_SECONDS
        return self.arrival(now + arrival.retry_after, self.options.deadline, retry_of="last" if last else "now and then")

    def figures(self, finished, began):
        """Goodput is counted from the first deadline on: before, the queue fills, and afterwards it empties."""
        options = self.options
        warm = min(options.deadline, options.seconds / 3)
        good = [arrival for arrival in finished if arrival.status == 200 and arrival.seconds() <= options.deadline]
        counted = [arrival for arrival in good if began + warm <= arrival.ended < began + options.seconds]
        refused = [arrival for arrival in finished if arrival.status in REFUSED]
        return {
            "goodput": len(counted) / (options.seconds - warm),
            "good_tokens_per_second": sum(arrival.tokens for arrival in counted) / (options.seconds - warm),
            "statuses": dict(collections.Counter(f"{arrival.status} {arrival.code}".strip() if arrival.status else arrival.error for arrival in finished)),
            "late": sum(arrival.status == 200 for arrival in finished) - len(good),
            **latency([arrival for arrival in finished if arrival.status == 200]),
            "refusal_p99_ms": 1e3 * timing.percentile([arrival.seconds() for arrival in refused], 0.99) if refused else None,
            "retry_after": dict(sorted(collections.Counter(str(arrival.retry_after) for arrival in refused).items())),
            "without_retry_after": sum(arrival.retry_after is None for arrival in refused),
            "retries": {kind: taken([arrival for arrival in finished if arrival.retry_of == kind]) for kind in ("now and then", "last")},
            "fresh": taken([arrival for arrival in finished if arrival.retry_of is None]),
        }

    def rest(self):
        """Until the server has nothing to do."""
        until = time.perf_counter() + 120
        while time.perf_counter() < until:
            text = call(self.server.port, "GET", "/metrics")[1]
            busy = [line for line in text.splitlines() if line.startswith(("quickchange_requests_running ", "quickchange_requests_waiting ")) and not line.endswith(" 0")]
            if not busy:
                return
            time.sleep(0.2)
        raise SystemExit(f"overload.py: the server is still busy two minutes after the last client left: {busy}")

    def run(self):
        options = self.options
        try:
            capacity = self.capacity(options.capacity_seconds)
            loads = []
            for load in options.loads:
                self.rest()
                loads.append(self.open_loop(load, load * capacity["requests_per_second"]))
                show_load(loads[-1])
            self.rest()
        except OSError as error:
            raise SystemExit(f"overload.py: {error}; the server's last words:\n{self.server.last_words()}") from error
        finally:
            self.server.stop()
        found = {"capacity": capacity, "loads": loads}
        return found | {"checks": checks(found)}


def latency(answered):
    """Milliseconds from sending a request to the end of its answer."""
    if not answered:
        return {"p50_ms": None, "p99_ms": None}
    values = [1e3 * arrival.seconds() for arrival in answered]
    return {"p50_ms": timing.median(values), "p99_ms": timing.percentile(values, 0.99)}


def taken(arrivals):
    """How many of these were answered."""
    return {"sent": len(arrivals), "answered": sum(arrival.status == 200 for arrival in arrivals)}


def processor_seconds(process):
    """What a process has taken of the processor so far."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def checks(found):
    """What must hold: {what: whether it does}."""
    loads = found["loads"]
    peak, most = max(load["goodput"] for load in loads), loads[-1]
    without = sum(load["without_retry_after"] for load in loads)
    last = [load["retries"]["last"] for load in loads]
    sent, answered = sum(entry["sent"] for entry in last), sum(entry["answered"] for entry in last)
    broken = sum(count for load in loads for what, count in load["statuses"].items() if not what[:3].isdecimal() or what[:3] in ("500", "502"))
    return {
        f"goodput at {most['load']:g} times the capacity is {most['goodput'] / peak if peak else 0:.2f} of its peak, at least {PEAK_SHARE}": peak > 0 and most["goodput"] >= PEAK_SHARE * peak,
        f"{without} refusals have no Retry-After, 0 may": without == 0,
        f"{broken} requests were left without a stated answer, 0 may be": broken == 0,
        f"{answered} of {sent} who were refused in a last second found a place after the time they were given, all and more than none must": sent == answered > 0,
        f"the client took {max(load['client_share'] for load in loads):.2f} of a core at most, and 99 of 100 requests left within {max(load['sent_late_p99_ms'] for load in loads):.0f} ms of their time; at most 0.5 and 250": all(
            load["client_share"] <= 0.5 and load["sent_late_p99_ms"] <= 250 for load in loads
        ),
    }


def show_load(load):
    shown = lambda value: "     –" if value is None else f"{value:6.0f}"  # noqa: E731
    statuses = "  ".join(f"{status}: {count}" for status, count in sorted(load["statuses"].items()))
    print(f"{load['load']:4g} x  {load['rate']:6.1f}/s  goodput {load['goodput']:6.2f}/s  p50 {shown(load['p50_ms'])} ms  p99 {shown(load['p99_ms'])} ms  late {load['late']:4}  {statuses}")
    given = ", ".join(f"{seconds} s: {count}" for seconds, count in load["retry_after"].items())
    again = "; ".join(f"{kind} {entry['answered']} of {entry['sent']}" for kind, entry in load["retries"].items() if entry["sent"])
    print(f"        Retry-After {given or 'none'}; came again and were answered: {again or 'nobody'}, of the others {load['fresh']['answered']} of {load['fresh']['sent']}; client {load['client_share']:.2f} of a core, server {load['server_share']:.2f}", flush=True)


def draw(found, path):
    """Goodput and latency by load."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "quickchange", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    loads, capacity = found["loads"], found["capacity"]["requests_per_second"]
    places = [load["load"] for load in loads]
    left.plot(places, [load["rate"] for load in loads], linestyle=":", color="#888888", label="arriving")
    left.plot(places, [load["goodput"] for load in loads], marker="o", color="#0b5fa5", label="answered in time")
    left.axhline(capacity, linestyle="--", color="#888888", linewidth=0.8, label="capacity")
    left.set(title="Goodput", xlabel="arrivals, times the capacity", ylabel="requests per second", ylim=(0, 2 * capacity))
    left.legend(frameon=False)
    for name, colour in (("p50_ms", "#4fa3e0"), ("p99_ms", "#0b5fa5")):
        right.plot(places, [(load[name] or float("nan")) / 1e3 for load in loads], marker="o", color=colour, label=name[:3])
    right.set(title="Latency of what was answered", xlabel="arrivals, times the capacity", ylabel="seconds", ylim=(0, None))
    right.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the server's binary")
    parser.add_argument("--seconds", type=float, default=60, help="of each load (60)")
    parser.add_argument("--capacity-seconds", type=float, default=20, help="of measuring the capacity (20)")
    parser.add_argument("--clients", type=int, default=32, help="that measure the capacity (32)")
    parser.add_argument("--deadline", type=float, default=10, help="of each request, in seconds (10)")
    parser.add_argument("--loads", type=lambda text: [float(part) for part in text.split(",")], default=list(LOADS), help="multiples of the capacity, the last judged (0.5,1,2,5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of the server's engine (2)")
    parser.add_argument("--flags", default="", help="more flags of the server")
    parser.add_argument("--model", default=str(pathlib.Path(os.environ.get("QUICKCHANGE_CACHE", ROOT / ".cache")) / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--pretrained", type=pathlib.Path, default=ROOT / "pretrained", help="folder of adapters")
    parser.add_argument("--chart", help="file for an SVG chart; needs matplotlib")
    parser.add_argument("--out", default=str(ROOT / "bench/results/overload.json"), help="file for the figures")
    options = parser.parse_args()
    options.server = str(pathlib.Path(options.server).resolve())
    facts = {
        "command": shlex.join(["python3", "bench/overload.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "commit": commit(),
        "server": subprocess.run([options.server, "--version"], capture_output=True, text=True).stdout.strip(),
    }
    found = Overload(options).run()
    capacity = found["capacity"]
    print(f"capacity {capacity['requests_per_second']:.1f} requests per second with {options.clients} clients, {capacity['tokens_per_second']:.0f} tokens per second, p50 {capacity['p50_ms']:.0f} ms, p99 {capacity['p99_ms']:.0f} ms")
    for what, holds in found["checks"].items():
        print(f"{'ok    ' if holds else 'FAILED'} {what}")
    out = pathlib.Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(facts | found, indent=1) + "\n")
    if options.chart:
        draw(found, options.chart)
    sys.exit(0 if all(found["checks"].values()) else 1)


if __name__ == "__main__":
    main()
