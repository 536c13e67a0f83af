"""What deploy/check asks of the dashboard: that Grafana can import it, that Prometheus can parse its queries, and that they find something.

    dashboard.py rules FILE              checks the file's shape and prints its queries as rules, for promtool to parse
    dashboard.py traffic SERVER          sends a server requests of each kind, in rounds that Prometheus scrapes between
    dashboard.py live FILE PROMETHEUS    asks a Prometheus that has scraped such a server every query, and for the health of its rules

Only Python's standard library is needed.
"""

import json
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

# What Grafana puts in for its variables, as this check does.
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*", "$adapter": ".*"}
# What a server in good order has no series of.
QUIET = ('status=~"5..', 'status=~"429|503"', 'status="504"', "budget_bytes", "key_requests", "rate_limited", "reload_failures", "ALERTS")
REVIEW = "### Input:\nThe battery died after two days.\n### Sentiment:"


def queries(dashboard):
    """Every query with where it stands and, of panels, its legend."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"], ""


def filled(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    if "$" in expression:
        sys.exit(f"dashboard: a variable that this check does not know is in {expression}")
    return expression


def overlap(one, other):
    """Whether two panels lie on each other."""
    return all(one[start] < other[start] + other[size] and other[start] < one[start] + one[size] for start, size in (("x", "w"), ("y", "h")))


def faults(dashboard):
    """What Grafana would refuse or show wrongly, in words."""
    panels = dashboard["panels"]
    if not isinstance(dashboard.get("schemaVersion"), int) or not dashboard.get("uid") or not dashboard.get("title"):
        yield "schemaVersion, uid or title is missing"
    identifiers = [panel["id"] for panel in panels]
    if len(set(identifiers)) < len(identifiers):
        yield "two panels have the same id"
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    if variables.get("datasource", {}).get("type") != "datasource":
        yield "there is no variable datasource to choose a Prometheus with"
    for index, panel in enumerate(panels):
        name, place = panel["title"], panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{name} is wider than the page"
        for other in panels[:index]:
            if overlap(place, other["gridPos"]):
                yield f"{name} lies on {other['title']}"
        if panel["type"] == "row":
            continue
        if not panel["fieldConfig"]["defaults"].get("unit") or not panel.get("description"):
            yield f"{name} has no unit or no description"
        letters = [target["refId"] for target in panel["targets"]]
        if not letters or len(set(letters)) < len(letters):
            yield f"{name} has no query, or two with the same letter"
        if any(source.get("uid") != "${datasource}" for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"]))):
            yield f"{name} does not ask the chosen data source"


def rules(path):
    dashboard = json.loads(pathlib.Path(path).read_text())
    found = list(faults(dashboard))
    if found:
        sys.exit("\n".join(f"dashboard: {fault}" for fault in found))
    # Names are numbers, for a title is no metric's name; JSON is YAML.
    listed = [{"record": f"query:{index}", "expr": filled(expression), "labels": {"panel": where}} for index, (where, expression, _) in enumerate(queries(dashboard))]
    print(json.dumps({"groups": [{"name": "dashboard", "rules": listed}]}, indent=1))


def call(address, method, path, body=None, expected=(200, 201, 202, 204)):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    if status not in expected:
        sys.exit(f"dashboard: {method} {path} was answered {status}: {text.decode(errors='replace')}")
    return text


def traffic(server):
    evaluation = {"kind": "in_domain", "adapters": ["base", "sentiment-ft"], "tasks": ["sentiment"], "shots": [0], "limit": 2}
    call(server, "POST", "/v1/adapters", {"name": "mine", "path": "sentiment-ft"})
    for method in ("fticl", "ft") * 2:
        for model in ("base", "sentiment-ft", "mine"):
            request = {"model": "" if model == "base" else model, "prompt": REVIEW, "max_tokens": 24, "ignore_eos": True}
            call(server, "POST", "/v1/completions", request)
            call(server, "POST", "/v1/completions", request | {"stream": True})
        call(server, "POST", "/v1/classify", {"model": "sentiment-ft", "inputs": ["Great sound.", "{\"0x7f\": [12345, ~~~~]}"]})
        call(server, "POST", "/v1/completions", {"model": "nobody", "prompt": "a"}, [404])
        call(server, "PUT", "/v1/adapters/mine", {"path": f"sentiment-{method}"})
        call(server, "POST", "/v1/adapters", {"name": "absent", "path": "absent"}, [404])
        call(server, "POST", "/v1/adapters", {"name": "passing", "path": "question-ft"})
        call(server, "DELETE", "/v1/adapters/passing")
        started = json.loads(call(server, "POST", "/v1/evaluations", evaluation))
        call(server, "GET", f"/v1/evaluations/{started['id']}/events")
        # A scrape in between, or Prometheus would not see that anything grew.
        time.sleep(2)


def ask(prometheus, path, **parameters):
    return json.loads(call(prometheus, "GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}", expected=(200, 400, 422)))


def emptiness(prometheus, where, expression, legend):
    """What is wrong with a query's answer, if anything."""
    answer = ask(prometheus, "query", query=filled(expression))
    if answer["status"] != "success":
        return f"{where}: {answer['error']}"
    series = answer["data"]["result"]
    if not series:
        return None if any(part in expression for part in QUIET) else f"{where}: finds nothing"
    missing = set(re.findall(r"\{\{(\w+)\}\}", legend)) - {label for one in series for label in one["metric"]}
    return f"{where}: the legend names {', '.join(sorted(missing))}, which no series has" if missing else None


def live(path, prometheus):
    dashboard = json.loads(pathlib.Path(path).read_text())
    asked = list(queries(dashboard))
    found = [fault for fault in (emptiness(prometheus, *query) for query in asked) if fault]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
            if not ask(prometheus, f"label/{label}/values", **{"match[]": filled(metric)})["data"]:
                found.append(f"variable {variable['name']}: has no values")
    if not [target for target in ask(prometheus, "targets")["data"]["activeTargets"] if target["health"] == "up"]:
        found.append("the server is not scraped")
    checked = [rule for group in ask(prometheus, "rules")["data"]["groups"] for rule in group["rules"]]
    found += [f"rule {rule['name']}: {rule['health']}, {rule.get('lastError')}" for rule in checked if rule["health"] != "ok"]
    firing = [rule["name"] for rule in checked if rule.get("state") == "firing"]
    found += [f"alert {name} fires on a server in good order" for name in firing if name != "QuickchangeAdapterBelowBase"]
    if found:
        sys.exit("\n".join(f"dashboard: {fault}" for fault in found))
    print(f"{len(asked)} queries of the dashboard and {len(checked)} rules answered by a Prometheus that scraped a server")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"rules": rules, "traffic": traffic, "live": live}[command](*arguments)
