"""Prometheus' text format, and what must hold of one scrape and between two."""

import re

LINE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
KINDS = {"counter", "gauge", "histogram", "summary", "untyped"}


class Scrape:
    """The series of one scrape, {(name, ((label, value), …)): number}, and the type of each family."""

    def __init__(self, text):
        self.series, self.kinds, self.problems = {}, {}, []
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, family, kind = line.split()
                if kind not in KINDS or family in self.kinds:
                    self.problems.append(f"{line!r} is a wrong type or comes twice")
                self.kinds[family] = kind
            elif line and not line.startswith("#"):
                self.add(line)
        self.look_at_histograms()

    def add(self, line):
        found = LINE.match(line)
        try:
            name, labels, value = found.groups()
            key = (name, tuple(sorted(LABEL.findall(labels or ""))))
            if key in self.series:
                self.problems.append(f"{line!r} comes twice")
            self.series[key] = float(value)
        except (AttributeError, ValueError):
            self.problems.append(f"{line!r} cannot be read")
            return
        if not self.family(name):
            self.problems.append(f"{line!r} has no type")

    def family(self, name):
        """The family that a series belongs to."""
        if name in self.kinds:
            return name
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        return base if self.kinds.get(base) in ("histogram", "summary") else None

    def look_at_histograms(self):
        """Buckets never fall with their bound, and the last is the count."""
        buckets = {}
        for (name, labels), value in self.series.items():
            if name.endswith("_bucket"):
                rest = tuple(label for label in labels if label[0] != "le")
                buckets.setdefault((name.removesuffix("_bucket"), rest), []).append((float(dict(labels)["le"].replace("+Inf", "inf")), value))
        for (name, rest), found in buckets.items():
            counts = [count for _, count in sorted(found)]
            if counts != sorted(counts) or counts[-1] != self.series.get((f"{name}_count", rest)):
                self.problems.append(f"the buckets of {name}{dict(rest)} are {counts} and its count is {self.series.get((f'{name}_count', rest))}")

    def value(self, name, **labels):
        """One series; 0 when it is not there."""
        return self.series.get((name, tuple(sorted(labels.items()))), 0.0)

    def total(self, name, **labels):
        """All series of a name that have these labels."""
        return sum(value for (found, own), value in self.series.items() if found == name and set(labels.items()) <= set(own))

    def counters(self):
        """The series that may only grow."""
        for (name, labels), value in self.series.items():
            if self.kinds.get(self.family(name)) in ("counter", "histogram"):
                yield (name, labels), value


def decreased(before, after, gone):
    """Counters that are less than they were. Series of adapters in `gone`, which went away in between, begin anew."""
    earlier = dict(before.counters())
    for key, value in after.counters():
        if value < earlier.get(key, 0.0) and dict(key[1]).get("adapter") not in gone:
            yield f"{key[0]}{dict(key[1])} was {earlier[key]} and is {value}"
