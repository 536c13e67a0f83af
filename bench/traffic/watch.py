"""What is seen of the server while it works: its metrics, its memory, its descriptors."""

import os
import statistics
import threading
import time

from peers.worker import memory_of
from traffic.scrape import Scrape, decreased

METRICS_PARSE = "every scrape of /metrics can be read, each series has a type and comes once, and buckets add up"
COUNTERS_GROW = "no counter and no bucket is ever less than before, but of an adapter that went away"
GAUGES_FIT = "no more requests are running, and no more cache blocks used, than there is room for"
ALIVE = "the server's process lives"


class Watch(threading.Thread):
    """Looks every `interval` seconds until it is told to stop. `samples` are (seconds, MiB, descriptors, threads)."""

    def __init__(self, world, process, interval=1.0):
        super().__init__(daemon=True)
        self.world, self.ledger, self.process, self.interval = world, world.ledger, process, interval
        self.client, self.samples, self.last, self.last_time, self.error = world.client(), [], None, 0.0, None
        self.most = {}

    def run(self):
        try:
            while not self.world.stopped.wait(self.interval):
                self.look()
        except Exception as error:
            self.error = error
            raise

    def look(self):
        """One sample; the scrape that it was made of."""
        alive = self.process.poll() is None
        self.ledger.hold(ALIVE, alive, "poll", "running", self.process.returncode)
        if not alive:
            self.world.stopped.set()
            return None
        self.samples.append((time.perf_counter(), memory_of(self.process.pid)["resident_mib"], descriptors(self.process.pid), threads(self.process.pid)))
        asked = time.perf_counter()
        answer = self.client.request("GET", "/metrics")
        if answer is None:
            return None
        scrape = Scrape(answer.body.decode())
        self.ledger.hold(METRICS_PARSE, not scrape.problems, "GET /metrics", "text that can be read", scrape.problems[:3])
        if self.last:
            gone = {name for name, target in self.world.names.items() if target.gone_since(self.last_time)}
            fallen = list(decreased(self.last, scrape, gone))
            self.ledger.hold(COUNTERS_GROW, not fallen, "GET /metrics", "counters that grow", fallen[:3])
        for name in ("quickchange_requests_running", "quickchange_requests_waiting", "quickchange_kv_blocks_used", "quickchange_requests_in_flight"):
            self.most[name] = max(self.most.get(name, 0), scrape.value(name))
        fits = scrape.value("quickchange_kv_blocks_used") <= scrape.value("quickchange_kv_blocks")
        fits = fits and scrape.value("quickchange_requests_running") <= self.world.options.max_running
        self.ledger.hold(GAUGES_FIT, fits, "GET /metrics", "gauges within their bounds", {name: scrape.value(name) for name in self.most})
        self.last, self.last_time = scrape, asked
        return scrape


def descriptors(process):
    return len(os.listdir(f"/proc/{process}/fd"))


def threads(process):
    return len(os.listdir(f"/proc/{process}/task"))


def robust_line(samples):
    """Theil and Sen's line through (time, value): (slope per second, value at the first time). Half of the samples may be anywhere."""
    # Every pair of 1,800 samples would be a million and a half.
    step = max(1, len(samples) // 300)
    chosen = samples[::step]
    slopes = [(later[1] - earlier[1]) / (later[0] - earlier[0]) for index, earlier in enumerate(chosen) for later in chosen[index + 1 :]]
    slope = statistics.median(slopes)
    return slope, statistics.median(value - slope * (at - samples[0][0]) for at, value in chosen)


def growth(samples, warm_share):
    """What a quantity gained on the robust line from `warm_share` of the time on, as figures."""
    begin = samples[0][0] + warm_share * (samples[-1][0] - samples[0][0])
    settled = [sample for sample in samples if sample[0] >= begin]
    slope, start = robust_line(settled)
    seconds = settled[-1][0] - settled[0][0]
    values = [value for _, value in settled]
    return {"samples": len(settled), "minutes": seconds / 60, "at_start": start, "per_minute": 60 * slope, "growth": slope * seconds, "least": min(values), "most": max(values)}
