#!/usr/bin/env python3
"""Rules, alerts, consoles and dashboards against the table of metrics, and promtool's own checks.

They name only metrics that exist (docs/metrics.md, which metrics_test keeps equal to the code); every
rule has a case in rules_test.yml, and every alert a runbook.
"""
import json
import pathlib
import re
import subprocess
import sys

import yaml

import monitoring

failures = []


def expect(condition, message):
    if not condition:
        failures.append(message)


def names_are_known(where, text):
    table, recorded = monitoring.table(), set(monitoring.recorded())
    for name in re.findall(r"\brun:[a-z_:0-9]+", text):
        expect(name in recorded, f"{where}: no rule records {name}")
    for name in re.findall(r"(?<![\w:/.-])(?:pompc|process)_\w+", re.sub(r"\brun:[a-z_:0-9]+", "", text)):
        known = name in table
        for suffix in ("_bucket", "_sum", "_count"):
            if table.get(name.removesuffix(suffix)) == "histogram":
                known = name.endswith(suffix)
        expect(known, f"{where}: no metric {name}")


def relabelling(rule):
    """(what it reads, label it makes), of either spelling."""
    source = (rule.get("source_labels") or rule.get("sourceLabels") or [rule.get("regex")])[0]
    return source, rule.get("target_label") or rule.get("targetLabel") or rule.get("replacement")


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], cwd=monitoring.PROMETHEUS, capture_output=True, text=True)
    expect(done.returncode == 0, f"promtool {' '.join(arguments)}: {done.stdout}{done.stderr}")


def main():
    expect(len(monitoring.table()) > 50, "docs/metrics.md cannot be read")
    rules = (monitoring.PROMETHEUS / "rules.yml").read_text()
    names_are_known("rules.yml", "\n".join(line for line in rules.splitlines() if "runbook_url" not in line))
    for where, query in monitoring.console_queries() + monitoring.dashboard_queries():
        names_are_known(where, query)
    tests = (monitoring.PROMETHEUS / "rules_test.yml").read_text()
    for rule in monitoring.recorded():
        expect(f"expr: {rule}\n" in tests, f"rules_test.yml has no case of {rule}")
    runbooks = pathlib.Path("docs/monitoring.md").read_text()
    for alert in monitoring.alerts():
        expect(re.search(rf"alertname: {alert}\n        exp_alerts:\n", tests), f"rules_test.yml never sees {alert} fire")
        expect(re.search(rf"alertname: {alert}\n        exp_alerts: \[\]", tests), f"rules_test.yml never sees {alert} silent")
        expect(f"\n### {alert}\n" in runbooks, f"docs/monitoring.md has no runbook of {alert}")
        expect(f"runbook_url: docs/monitoring.md#{alert.lower()}\n" in rules, f"{alert} does not link its runbook")
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml")
    promtool("test", "rules", "rules_test.yml")

    # Without and with the operator, pods get the same labels, those that the rules go by.
    config = yaml.safe_load((monitoring.PROMETHEUS / "kubernetes.yml").read_text())
    by_annotation = {relabelling(r) for r in config["scrape_configs"][0]["relabel_configs"]}
    monitor = yaml.safe_load((monitoring.PROMETHEUS / "podmonitor.yml").read_text())
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    by_operator = {relabelling(r) for r in endpoint["relabelings"]}
    targets = {target for _, target in by_annotation & by_operator}
    expect({"run", "role", "process", "$1"} <= targets, f"kubernetes.yml and podmonitor.yml share only {targets}")
    expect(config["scrape_configs"][0]["job_name"] == "pompc" and (None, "job") in by_operator, "job is not pompc")
    pods = "".join(p.read_text() for p in pathlib.Path("deploy/kubernetes").rglob("*.yaml"))
    for needed in ("prometheus.io/scrape:", "prometheus.io/port:", f"name: {endpoint['port']},", "app.kubernetes.io/name: pompc",
                   "app.kubernetes.io/component:", "pompc/task:", "pompc/seed:"):
        expect(needed in pods, f"deploy/kubernetes has no {needed}")

    for file in monitoring.GRAFANA.glob("dashboards/*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            expect(panel.get("description"), f"{file.name}: {panel['title']} does not say what it answers")
    for failure in failures:
        print("FAILED:", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
