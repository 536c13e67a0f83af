"""The samples of a run as medians with their spread. The median of a round's repeats stands for the round."""

import dataclasses

from timing import median


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, least and greatest over the rounds."""

    middle: float
    least: float
    greatest: float


class Samples:
    """What measurements.json holds, by peer, workload and metric."""

    def __init__(self, result):
        self.result = result
        self.peers = [peer["name"] for peer in result["peers"]]
        self.narrow = {peer["name"] for peer in result["peers"] if peer["narrow"]}
        self.ours = [peer["name"] for peer in result["peers"] if peer["module"] == "quickchange"]
        self.others = [name for name in self.peers if name not in self.ours]

    def value(self, peer, workload, metric):
        """A metric's spread, or None where it was not measured."""
        rounds = {}
        for sample in self.result["samples"]:
            if sample["peer"] == peer and sample["workload"] == workload and metric in sample["values"]:
                rounds.setdefault(sample["round"], []).append(sample["values"][metric])
        return spread([median(values) for values in rounds.values()])

    def cold(self, peer, metric):
        """The same of what is measured on a fresh process."""
        found = []
        for sample in self.result["cold"]:
            value = sample["values"].get(metric)
            if sample["peer"] == peer and value not in (None, []):
                found.append(median(value) if isinstance(value, list) else value)
        return spread(found)

    def best(self, workload, metric):
        """The greatest median among the other programs: (peer, spread), or None."""
        found = [(peer, self.value(peer, workload, metric)) for peer in self.others]
        found = [(peer, value) for peer, value in found if value]
        return max(found, key=lambda pair: pair[1].middle) if found else None


def spread(values):
    """Of at least one value."""
    return Spread(median(values), min(values), max(values)) if values else None
