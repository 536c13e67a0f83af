"""What must hold throughout, how often it was looked at, and where it did not."""

import collections
import threading

# Evidence of more failures of one kind says no more.
KEPT = 5
SHOWN = 600


class Ledger:
    """Counts of requests and answers, and failures by the sentence that they break. Threads may share it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.looked, self.broken, self.evidence = collections.Counter(), collections.Counter(), collections.defaultdict(list)
        self.traffic, self.statuses, self.notes = collections.Counter(), collections.Counter(), collections.Counter()

    def hold(self, invariant, holds, request="", expected="", got=""):
        """Looks at one thing that must hold; gives whether it does."""
        with self.lock:
            self.looked[invariant] += 1
            if not holds:
                self.broken[invariant] += 1
                if len(self.evidence[invariant]) < KEPT:
                    self.evidence[invariant].append({name: shortened(value) for name, value in (("request", request), ("expected", expected), ("got", got))})
        return holds

    def did(self, kind):
        """One more of this kind of traffic."""
        with self.lock:
            self.traffic[kind] += 1

    def answered(self, status):
        """One more answer with this status."""
        with self.lock:
            self.statuses[status] += 1

    def note(self, what):
        """Something that may happen, and should be known."""
        with self.lock:
            self.notes[what] += 1

    def failures(self):
        """How many things did not hold."""
        return sum(self.broken.values())


def shortened(value):
    """Evidence as text that a person can read."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
