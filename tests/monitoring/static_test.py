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
import tempfile

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


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], cwd=monitoring.PROMETHEUS, capture_output=True, text=True)
    expect(done.returncode == 0, f"promtool {' '.join(arguments)}: {done.stdout}{done.stderr}")


def discovered(relabelling, **labels):
    """The labels, by Prometheus itself, of what a pod with these metadata serves; {}: it is not scraped."""
    target = {"targets": ["unset:0"], "labels": {f"__meta_kubernetes_{name}": value for name, value in labels.items()}}
    job = {"job_name": "pompc", "static_configs": [target], "relabel_configs": relabelling}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        yaml.safe_dump({"scrape_configs": [job]}, config)
        config.flush()
        done = subprocess.run(["promtool", "check", "service-discovery", "--timeout=2s", config.name, "pompc"],
                              capture_output=True, text=True)
    expect(done.returncode == 0, f"promtool check service-discovery: {done.stdout}{done.stderr}")
    return {k: v for k, v in json.loads(done.stdout)[0]["labels"].items() if k == "__address__" or not k.startswith("__")}


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

    # Without and with the operator, which gives them more, pods get the labels that the rules go by.
    pod = {"namespace": "walk", "pod_name": "pompc-actor-0", "pod_ip": "10.0.0.9", "pod_node_name": "node1",
           "pod_label_app_kubernetes_io_name": "pompc", "pod_label_app_kubernetes_io_component": "actor",
           "pod_label_pompc_task": "walker-walk", "pod_label_pompc_preset": "pompc", "pod_label_pompc_seed": "3",
           "pod_annotation_prometheus_io_scrape": "true", "pod_annotation_prometheus_io_port": "7300"}
    wanted = {"job": "pompc", "run": "walk", "role": "actor", "process": "pompc-actor-0", "node": "node1",
              "task": "walker-walk", "preset": "pompc", "seed": "3"}
    config = yaml.safe_load((monitoring.PROMETHEUS / "kubernetes.yml").read_text())
    by_annotation = config["scrape_configs"][0].pop("relabel_configs")
    expect(config["scrape_configs"] == [{"job_name": "pompc", "kubernetes_sd_configs": [{"role": "pod"}]}], f"kubernetes.yml: {config}")
    labels = discovered(by_annotation, **pod)
    expect(wanted.items() <= labels.items() and labels["__address__"] == "10.0.0.9:7300", f"kubernetes.yml: {labels}")
    expect(not discovered(by_annotation, **{**pod, "pod_label_app_kubernetes_io_name": "other"}), "kubernetes.yml takes pods of others")
    monitor = yaml.safe_load((monitoring.PROMETHEUS / "podmonitor.yml").read_text())
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    spelling = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    labels = discovered([{spelling.get(k, k): v for k, v in rule.items()} for rule in endpoint["relabelings"]], **pod)
    expect(wanted.items() <= labels.items(), f"podmonitor.yml: {labels}")
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
