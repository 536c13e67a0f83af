"""Evaluations that are started, watched, paused, gone on with, cancelled; the figures of those that end are always the same."""

import json
import random
import threading
import time

FIGURES_SAME = "an evaluation that ends, paused or not, has the figures that it had in quiet"
STATES_FOLLOW = "an evaluation is cancelled, paused or running when it was told to be"
BODIES = (
    {"kind": "in_domain", "adapters": ["sentiment-ft"], "tasks": ["sentiment"], "shots": [0], "datasets": ["amazon"], "limit": 4},
    {"kind": "cross_task", "adapters": ["question-fticl"], "tasks": ["sentiment"], "shots": [2], "datasets": ["sst2"], "limit": 3},
)
ENDED = ("completed", "cancelled", "failed")
POLL_SECONDS = 0.3


def figures(record):
    """What of a record must be the same each time."""
    return json.dumps(record["cells"], sort_keys=True)


class Evaluator(threading.Thread):
    """One evaluation after another until it is told to stop."""

    def __init__(self, world):
        super().__init__(daemon=True)
        self.world, self.ledger, self.client, self.error = world, world.ledger, world.client(), None
        self.draw = random.Random(f"{world.options.seed}/evaluations")
        self.expected, self.made = {}, 0

    def prepare(self, progress):
        """In quiet: the figures of each."""
        for index in range(len(BODIES)):
            progress.say(index / len(BODIES), f"evaluations in quiet, {index}/{len(BODIES)}")
            record = self.wait(self.start_one(index))
            if record is None or record["status"] != "completed":
                raise SystemExit(f"soak.py: an evaluation did not complete in quiet: {record}")
            self.expected[index] = figures(record)

    def start_one(self, index):
        answer = self.client.request("POST", "/v1/evaluations", BODIES[index], allowed=(202,))
        return answer.json()["id"] if answer is not None and answer.status == 202 else None

    def look(self, identity):
        answer = self.client.request("GET", f"/v1/evaluations/{identity}")
        return answer.json() if answer is not None and answer.status == 200 else None

    def wait(self, identity, states=ENDED, seconds=600):
        """The record once it is in one of `states`; what it is when time is up or the soak ends."""
        until, record = time.perf_counter() + seconds, None
        while identity and time.perf_counter() < until:
            record = self.look(identity) or record
            if record and record["status"] in states or self.world.stopped.is_set():
                break
            time.sleep(POLL_SECONDS)
        return record

    def run(self):
        try:
            while not self.world.stopped.is_set():
                index = self.draw.randrange(len(BODIES))
                identity = self.start_one(index)
                if identity is None:
                    self.world.stopped.wait(1)
                    continue
                self.made += 1
                self.go_through(identity, index)
                self.world.stopped.wait(self.draw.uniform(0, 2))
        except Exception as error:
            self.error = error
            raise
        finally:
            self.client.close()

    def go_through(self, identity, index):
        """To its end, with a pause or not, or not to its end."""
        kind = self.draw.choice(["through", "paused", "paused", "cancelled", "watched"])
        if kind == "watched":
            self.watch(identity)
        if kind == "paused":
            self.pause(identity)
        if kind == "cancelled":
            self.world.stopped.wait(self.draw.uniform(0, 2))
            self.cancel(identity)
        elif (record := self.wait(identity)) and record["status"] in ENDED:
            self.ledger.hold(FIGURES_SAME, record["status"] == "completed" and figures(record) == self.expected[index], f"evaluation {identity}", self.expected[index], record)
            self.report(identity)
        else:
            self.cancel(identity)
        self.ledger.did(f"evaluation: {kind}")

    def pause(self, identity):
        self.world.stopped.wait(self.draw.uniform(0, 2))
        answer = self.client.request("POST", f"/v1/evaluations/{identity}/pause", allowed=(200, 202, 409))
        if answer is None or answer.status == 409:
            return
        record = self.wait(identity, (*ENDED, "paused"))
        self.ledger.hold(STATES_FOLLOW, record is not None and record["status"] in ("paused", "completed") or self.world.stopped.is_set(), f"pause of {identity}", "paused", record)
        if record and record["status"] == "paused":
            self.world.stopped.wait(self.draw.uniform(0, 1))
            self.client.request("POST", f"/v1/evaluations/{identity}/resume", allowed=(200, 202))

    def cancel(self, identity):
        answer = self.client.request("DELETE", f"/v1/evaluations/{identity}", allowed=(200, 202, 204, 409))
        record = self.look(identity)
        if answer is not None and answer.status != 409 and record:
            self.ledger.hold(STATES_FOLLOW, record["status"] in ("cancelled", "completed"), f"cancellation of {identity}", "cancelled", record)

    def watch(self, identity):
        """Follows the events for a while and hangs up."""
        try:
            answer, response = self.client.send("GET", f"/v1/evaluations/{identity}/events", None, {})
            for _ in range(self.draw.randint(1, 4)):
                if answer.status != 200 or not response.readline():
                    break
        except OSError:
            pass
        self.client.hang_up()

    def report(self, identity):
        for form in ("json", "csv", "md", "html"):
            self.client.request("GET", f"/v1/evaluations/{identity}/report?format={form}")
        self.client.request("GET", f"/v1/evaluations/{identity}/predictions")
