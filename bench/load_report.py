"""Writes docs/reliability/load.md from what soak.py, overload.py and connections.py found: `python3 bench/load_report.py`. What was not measured is left out."""

import json
import pathlib

from machine import ROOT

RESULTS, PAGE = ROOT / "bench" / "results", ROOT / "docs" / "reliability" / "load.md"


def measured(name):
    """What a program found, None when it has not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def source(found):
    """What was run, where and when."""
    machine, command = found["machine"], found["command"]
    return f"`{command}` with `{found['server']}` of `{found['commit']}` on {found['date']}: {machine['cores']} cores of {machine['processor']}, load average {machine['load_before']:.1f} when it began."


def milliseconds(value):
    return "–" if value is None else f"{value:.0f} ms"


def overload(found):
    """Goodput, statuses and latency by load."""
    capacity, loads = found["capacity"], found["loads"]
    peak = max(load["goodput"] for load in loads)
    yield from ("## More than it can do", "", source(found), "")
    yield f"Capacity, by clients that ask one after another: {capacity['requests_per_second']:.1f} requests and {capacity['tokens_per_second']:.0f} tokens per second, p50 {milliseconds(capacity['p50_ms'])}, p99 {milliseconds(capacity['p99_ms'])}. Then Poisson arrivals, each with a deadline, no retries:"
    yield from ("", "| arrivals | per second | goodput per second | of the peak | answered | late | refused | 504 | other | p50 of answered | p99 | p99 of refusals |", "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for load in loads:
        statuses = load["statuses"]
        count = lambda *starts: sum(number for status, number in statuses.items() if status.startswith(starts))  # noqa: E731, B023
        others = sum(statuses.values()) - count("200", "429", "503", "504")
        yield f"| {load['load']:g} × | {load['rate']:.1f} | {load['goodput']:.2f} | {load['goodput'] / peak if peak else 0:.2f} | {count('200')} | {load['late']} | {count('429', '503')} | {count('504')} | {others} | {milliseconds(load['p50_ms'])} | {milliseconds(load['p99_ms'])} | {milliseconds(load['refusal_p99_ms'])} |"
    again = [(load, load["retries"]["now and then"]) for load in loads if load["retries"]["now and then"]["sent"]]
    last = [load["retries"]["last"] for load in loads]
    yield ""
    yield f"Is `Retry-After` true? Of {sum(entry['sent'] for entry in last)} requests that the last second of a load refused, {sum(entry['answered'] for entry in last)} were answered when they came again after the time they were given. While arrivals went on: " + (
        "; ".join(f"at {load['load']:g} × {entry['answered']} of {entry['sent']} that came again, where {load['fresh']['answered']} of {load['fresh']['sent']} of the others were answered" for load, entry in again) or "nobody was refused"
    ) + "."
    yield from ("", f"The client took {max(load['client_share'] for load in loads):.2f} of a core at most; 99 of 100 requests left within {max(load['sent_late_p99_ms'] for load in loads):.0f} ms of their time.", "", *checks(found), "")


def soak(found):
    """How much was asked, what held, what stayed flat."""
    memory, files = found["memory_mib"], found["descriptors"]
    looked = sum(counts["looked"] for counts in found["invariants"].values())
    broken = sum(counts["broken"] for counts in found["invariants"].values())
    yield from ("## Everything at once", "", source(found), "")
    yield f"{sum(found['answers'].values())} answers in {found['seconds'] / 60:.0f} minutes ({', '.join(f'{count} of {status}' for status, count in found['answers'].items())}), {len(found['invariants'])} invariants looked at {looked} times, {broken} broken."
    yield from ("", "| | after the warm-up | a minute | in all | most |", "|---|---:|---:|---:|---:|")
    for name, values in (("memory, MiB", memory), ("descriptors", files), ("threads", found["threads"])):
        yield f"| {name} | {values['at_start']:.1f} | {values['per_minute']:+.3f} | {values['growth']:+.2f} in {values['minutes']:.0f} minutes | {values['most']:.1f} |"
    if probe := found.get("probe"):
        yield from ("", "| a fixed request | p50 | p99 |", "|---|---:|---:|")
        for name in ("before", "after", "fresh"):
            yield f"| {'a fresh server, in turns with after' if name == 'fresh' else name} | {probe[name]['p50_ms']:.2f} ms | {probe[name]['p99_ms']:.2f} ms |"
        for name in ("after_over_before", "after_over_fresh"):
            yield from ("", f"p99 {name.replace('_', ' ')}: {probe[name]['ratio']:.3f} (95 % interval {probe[name]['low']:.3f} to {probe[name]['high']:.3f}).")
    yield ""
    for name, counts in found["invariants"].items():
        yield f"- {'' if not counts['broken'] else 'BROKEN: '}{name}: looked at {counts['looked']} times" + (f", {counts['broken']} times not so" if counts["broken"] else "")
    yield ""


def connections(found):
    """What those that take their time cost, and how long each is held."""
    idle, stalled, bare = found["idle"], found["stalled"], found["no_descriptors"]
    yield from ("## Those that take their time", "", source(found), "", "| a usual client's short requests | p50 | p99 | largest |", "|---|---:|---:|---:|")
    for phase, values in found["usual"].items():
        yield f"| {phase} | {values['p50_ms']:.0f} ms | {values['p99_ms']:.0f} ms | {values['largest_ms']:.0f} ms |"
    yield from ("", "| who | what becomes of them |", "|---|---|")
    yield f"| {idle['connections']} connections that are kept and not used | {idle['kib_per_connection']:.1f} KiB each; all that asked again, at once, were answered in {idle['all_at_once_seconds']:.1f} s ({idle['answered_again']}); {idle['descriptors'][2] - idle['descriptors'][0]} descriptors stayed open |"
    for name, values in found["trickle"].items():
        ended = f"ended after {values['seconds'][0]:.1f} to {values['seconds'][1]:.1f} s, {', '.join(values['statuses'])}" if values["seconds"] else "held as long as was looked"
        yield f"| {name} | {values['closed']} of {values['connections']} {ended} |"
    ended = f"ended after {stalled['ended_after_seconds']:.0f} s" if stalled["ended_after_seconds"] is not None else "held as long as was looked"
    yield f"| {stalled['streams']} streams whose readers stop | {ended}; memory {' → '.join(f'{mib:.0f}' for mib in stalled['memory_mib'])} MiB before, at most, after |"
    yield f"| {bare['crowd']} connections to a server with descriptors for half of them | {bare['answered']} were answered, the others waited; one that was there was answered in {bare['kept_ms']:.1f} ms, a new one {bare['again_ms']:.0f} ms after there was room; {bare['processor_share']:.2f} of a core |"
    yield from ("", *checks(found), "")


def checks(found):
    return [f"- {'' if holds else 'FAILED: '}{what}" for what, holds in found["checks"].items()]


def main():
    lines = ["# Load", "", "Written by `python3 bench/load_report.py` from the figures that the commands named here left in `bench/results/`; bench/README.md says what each of them does.", ""]
    for name, section in (("overload", overload), ("soak", soak), ("connections", connections)):
        if found := measured(name):
            lines += section(found)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
    print(pathlib.Path(PAGE).relative_to(ROOT))


if __name__ == "__main__":
    main()
