"""What static_test.py and live_test.py share: the names and queries of deploy/prometheus and
deploy/grafana."""
import json
import pathlib
import re

PROMETHEUS = pathlib.Path("deploy/prometheus")
GRAFANA = pathlib.Path("deploy/grafana")


def table():
    """{metric: type} of the project."""
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", pathlib.Path("docs/metrics.md").read_text(), re.MULTILINE))


def recorded():
    return re.findall(r"- record: (\S+)", (PROMETHEUS / "rules.yml").read_text())


def alerts():
    return re.findall(r"- alert: (\S+)", (PROMETHEUS / "rules.yml").read_text())


def console_queries():
    """[(where, query)] of the charts, then of the template."""
    found = []
    for console in sorted(PROMETHEUS.glob("consoles/*.html")):
        page = console.read_text()
        panels = json.loads(re.search(r'id="panels">(.*?)</script>', page, re.DOTALL)[1])
        found += [(f"{console.name}: {p['title']}", q) for p in panels for q in p["queries"].values()]
        templates = re.findall(r'(?:query|printf) "([^"]*[({_][^"]*)"', page)
        found += [(f"{console.name}: template", q.replace("%s", ".*").replace("run='", "run=~'")) for q in templates]
    return found


def dashboard_queries():
    """[(where, query)], with variables that match everything."""
    found = []
    for file in sorted(GRAFANA.glob("dashboards/*.json")):
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                query = re.sub(r"\$(run|task|seed|instance)\b", ".*", target["expr"])
                found.append((f"{file.name}: {panel['title']}", query.replace("$__rate_interval", "1m")))
    return found
