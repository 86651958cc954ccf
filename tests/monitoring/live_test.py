#!/usr/bin/env python3
"""A small training run under `pompc train --monitor`, with the real Prometheus.

All processes are scraped, every rule can be evaluated, and every query of the consoles and dashboards
returns data, but for ALLOWED_EMPTY. Nothing is wrong, so no alert may fire; then an actor is stopped
(SIGSTOP): its alert goes pending, fires, and resolves once the actor goes on. Prometheus' own copy of
the configuration is made faster for this: scrapes each second, and no alert waits for minutes. At the
end Prometheus leaves with the run. A port that is taken is refused before anything starts.
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import monitoring

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))
from train_run import checks  # noqa: E402

BIN = pathlib.Path(os.environ["POMPC_BUILD"]) / "bin"
DEADLINE = time.monotonic() + float(os.environ.get("MONITORING_SECONDS", 240))

# Query (a part of it): why it may be without data here.
ALLOWED_EMPTY = {
    "ALERTS{alertstate=": "nothing is wrong",
    "pompc_relay_": "no relay takes part",
    "sum by (run, code)": "no call fails",
}
# Alerts that say nothing bad about a run of seconds on a busy machine.
HARMLESS = {"PompcLearnerStarved"}

CONFIG = """
preset: "monitoring" total_decisions: 1000000
environment { task: "cartpole-swingup" episode_steps: 60 }
model { latent_dim: 16 encoder_dim: 24 mlp_dim: 24 num_value_heads: 2 }
planner { num_samples: 32 num_elites: 8 num_policy_samples: 4 iterations: 2 }
learning { batch_size: 16 seed_decisions: 100 seed_episodes: 1 reanalyze_windows: 2 }
replay { capacity_rows: 10000 rate_tolerance_updates: 60 servers: 1 }
actor { num_actors: 2 segment_rows: 7 }
learner { log_every: 20 }
evaluation { every_decisions: 300 episodes: 1 }
"""
folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_monitoring_"))
run = folder / "run"
train = address = None
_, expect, wait_for = checks(DEADLINE, lambda: train, lambda: [folder / "train.out", *run.glob("logs/*.log")])


def api(path, **arguments):
    """The data of an answer; None while there is none."""
    try:
        url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        return json.load(urllib.request.urlopen(url, timeout=5))["data"]
    except OSError:
        return None


def children():
    """{name: pid} of pompc's processes; actors by their index."""
    found = {}
    for pid in (pathlib.Path(f"/proc/{train.pid}/task/{train.pid}/children").read_text()).split():
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        name = pathlib.Path(words[0]).name
        if name == "pompc-actor":
            name = f"{words[words.index('--role') + 1]}-{words[words.index('--index') + 1]}"
        found[name] = int(pid)
    return found


def alert_states():
    """{(alert, process): state} of the alerts that are not inactive."""
    answer = api("alerts")
    return {(a["labels"]["alertname"], a["labels"].get("process")): a["state"] for a in answer["alerts"]} if answer else {}


def hasten():
    """A faster copy of the configuration takes its place."""
    rules = run / "monitor/rules.yml"
    rules.write_text(re.sub(r"for: \d+m", "for: 3s", rules.read_text()))
    config = run / "monitor/prometheus.yml"
    config.write_text(re.sub(r"(\w+_interval): \d+s", r"\1: 1s", config.read_text()))
    os.kill(children()["prometheus"], signal.SIGHUP)


def without_data(queries):
    allowed = tuple(ALLOWED_EMPTY)
    return [(where, query) for where, query in queries
            if not any(part in query for part in allowed) and not (api("query", query=query) or {}).get("result")]


def a_taken_port_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = subprocess.run([BIN / "pompc", "train", "--run-dir", folder / "none", "--monitor", "--monitor-port", port],
                                 capture_output=True, text=True, timeout=60)
    expect(refused.returncode == 1 and port in refused.stderr and "--monitor-port" in refused.stderr
           and not (folder / "none").exists(), f"a taken port: {refused}")
    refused = subprocess.run([BIN / "pompc", "train", "--run-dir", folder / "none", "--monitor"], env={"PATH": "/none"},
                             capture_output=True, text=True, timeout=60)
    expect(refused.returncode == 1 and "apt-get install" in refused.stderr, f"without Prometheus: {refused}")


def main():
    global train, address
    a_taken_port_is_refused()
    (folder / "run.textproto").write_text(CONFIG)
    out = folder / "train.out"
    train = subprocess.Popen([BIN / "pompc", "train", "--config", folder / "run.textproto", "--run-dir", run,
                              "--monitor", "--monitor-port", "0"], stdout=out.open("w"), stderr=subprocess.STDOUT)
    address = wait_for("the address is told", lambda: re.search(r"Prometheus is at (\S+)", out.read_text()))[1]
    wait_for("Prometheus answers", lambda: api("rules"))
    hasten()
    processes = {"replay-0", "learner", "actor-0", "actor-1", "evaluator"}
    wait_for("all processes are scraped", lambda: {
        s["metric"]["process"] for s in (api("query", query='up{job="pompc"} == 1') or {"result": []})["result"]} == processes)

    queries = [(f"rule {r}", r) for r in monitoring.recorded()]
    queries += monitoring.console_queries() + monitoring.dashboard_queries()
    empty = queries
    def all_have_data():
        nonlocal empty
        empty = without_data(empty)
        return not empty
    wait_for(lambda: f"these return data: {empty}", all_have_data)
    for group in api("rules")["groups"]:
        for rule in group["rules"]:
            expect(rule["health"] == "ok", f"rule {rule['name']}: {rule.get('lastError')}")
    firing = {name for (name, _), state in alert_states().items() if state == "firing"} - HARMLESS
    expect(not firing, f"fires in a healthy run: {firing}")
    page = urllib.request.urlopen(f"{address}/consoles/run.html", timeout=10).read().decode()
    expect("<td>cartpole-swingup</td><td>monitoring</td>" in page and "No alert is firing" in page, f"run.html: {page[:3000]}")

    actor, alert = children()["actor-0"], ("PompcActorMissing", "actor-0")
    os.kill(actor, signal.SIGSTOP)
    seen = set()
    def fires():
        seen.add(alert_states().get(alert))
        return "firing" in seen
    wait_for("the alert of the actor that stands fires", fires)
    expect("pending" in seen, f"it fired at once: {seen}")
    os.kill(actor, signal.SIGCONT)
    wait_for("it resolves", lambda: alert not in alert_states())

    pid = children()["prometheus"]
    train.send_signal(signal.SIGINT)
    train.wait(timeout=max(1, DEADLINE - time.monotonic()))
    expect(train.returncode == 130, f"exit code {train.returncode}")
    expect(not pathlib.Path(f"/proc/{pid}").exists(), "Prometheus is still there")
    expect("prometheus ended" not in out.read_text(), "Prometheus ended before the run")
    print(json.dumps({"queries": len(queries), "rules": len(monitoring.recorded()) + len(monitoring.alerts())}))


if __name__ == "__main__":
    main()
