"""From the times at which tokens arrived to the figures of a sample. Every peer's times go through here, so all mean the same."""


def percentile(values, share):
    """The value that `share` of `values` (0 to 1) do not exceed, between neighbours by linear interpolation."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values):
    """The middle value."""
    return percentile(values, 0.5)


def gaps(times):
    """Seconds between neighbouring tokens of one stream."""
    return [later - earlier for earlier, later in zip(times, times[1:])]


def summary(streams):
    """Figures of streams that ran together. `streams` holds (start, [time of each token]), in seconds of one clock."""
    starts = [start for start, _ in streams]
    firsts = [times[0] for _, times in streams]
    lasts = [times[-1] for _, times in streams]
    tokens = sum(len(times) for _, times in streams)
    waits = [times[0] - start for start, times in streams]
    values = {
        "tokens_per_second": tokens / (max(lasts) - min(starts)),
        "first_token_p50_ms": 1e3 * median(waits),
        "first_token_p99_ms": 1e3 * percentile(waits, 0.99),
    }
    between = [gap for _, times in streams for gap in gaps(times)]
    if between:
        values["decode_tokens_per_second"] = (tokens - len(streams)) / (max(lasts) - min(firsts))
        values["gap_p50_ms"] = 1e3 * median(between)
        values["gap_p99_ms"] = 1e3 * percentile(between, 0.99)
    return values


def disturbed(streams, begin, end):
    """How much longer the gaps between tokens are that touch [begin, end] than the usual one, which is the median of the others."""
    inside, outside = [], []
    for _, times in streams:
        for earlier, later in zip(times, times[1:]):
            (inside if later > begin and earlier < end else outside).append(later - earlier)
    if not inside or not outside:
        raise ValueError("the disturbance did not fall between the tokens of a running stream; the streams are too short for this machine")
    usual = median(outside)
    return {
        "usual_gap_ms": 1e3 * usual,
        "usual_gap_p99_ms": 1e3 * percentile(outside, 0.99),
        "meanwhile_p50_ms": 1e3 * median(inside),
        "meanwhile_p99_ms": 1e3 * percentile(inside, 0.99),
        "largest_gap_ms": 1e3 * max(inside),
        "stall_ratio": max(inside) / usual,
        "disturbance_ms": 1e3 * (end - begin),
    }


def net_of(found, quiet):
    """`found`, what `disturbed` says, beside the same of as long a time in which nothing happened.

    The largest of many gaps is longer than the usual one by what the machine takes for itself; what is left without that is net.
    """
    machine = quiet["largest_gap_ms"] - quiet["usual_gap_ms"]
    return found | {
        "quiet_usual_ms": quiet["usual_gap_ms"],
        "quiet_largest_ms": quiet["largest_gap_ms"],
        "machine_ms": machine,
        "net_stall_ratio": (found["largest_gap_ms"] - machine) / found["usual_gap_ms"],
    }
