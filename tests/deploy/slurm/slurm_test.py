#!/usr/bin/env python3
"""Runs on a real Slurm of three nodes, by the scripts of deploy/slurm. Needs root.

Each node is a slurmd in network, process and mount namespaces of its own, with a name and an address;
all share this machine's files, as a cluster's nodes do a file system. A run over two nodes is
preempted (USR1), then the learner's node is killed; both times the job goes back into the queue, starts
again and goes on, and in the end all updates have been made. Actors and a reanalyze worker come and go
during the run. After that an array of three seeds.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import waiting  # noqa: E402
from e2e_test import BIN, CONFIG  # noqa: E402
from hosts import Host, make_bridge, run  # noqa: E402

DEADLINE = time.monotonic() + float(os.environ.get("TEST_DEPLOY_SECONDS", 300))
TOTAL, SEED_TOTAL = 25000, 800
folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_slurm_"))


def fail(message):
    print("FAILED:", message)
    for log in sorted([*folder.glob("*.out"), *folder.glob("*/logs/*.log"), folder / "slurm/slurmctld.log"]):
        if log.exists():
            print(f"--- {log}\n{log.read_text()[-2500:]}")
    sys.exit(1)


def expect(condition, message):
    if not condition:
        fail(message)


def wait_for(what, condition):
    value = waiting.wait_for(what, condition, DEADLINE, expect)
    print(f"{time.monotonic() - BEGIN:6.1f} s  {what}", flush=True)
    return value


def output(*command):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout.strip()


class Slurm:
    def __init__(self):
        self.state = folder / "slurm"
        (self.state / "state").mkdir(parents=True)
        (folder / "slurm").chmod(0o755)
        self.children = []
        conf = (HERE / "slurm.conf").read_text().replace("@D@", str(self.state))
        (self.state / "slurm.conf").write_text(conf)
        os.environ["SLURM_CONF"] = str(self.state / "slurm.conf")
        self.hosts = self.state / "hosts"
        nodes = re.findall(r"^NodeName=(\S+) NodeAddr=(\S+)", conf, re.MULTILINE)
        self.hosts.write_text("127.0.0.1 localhost\n10.77.0.1 head\n"
                              + "".join(f"{address} {name}\n" for name, address in nodes))
        run("mount", "--bind", self.hosts, "/etc/hosts")  # In the mount namespace of this test.
        run("hostname", "head")
        key = self.state / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.spawn("munged", "--force", "--foreground", f"--key-file={key}", f"--socket={self.state}/munge.socket",
                   f"--pid-file={self.state}/munged.pid", f"--log-file={self.state}/munged.log",
                   f"--seed-file={self.state}/munge.seed")
        wait_for("munged serves", (self.state / "munge.socket").exists)
        self.spawn("slurmctld", "-D", "-i")
        make_bridge()
        self.nodes = {name: Host(address) for name, address in nodes}
        self.slurmds = {}
        for name in self.nodes:
            self.boot(name)
        wait_for("three nodes are idle", lambda: output("sinfo", "-h", "-t", "idle", "-o", "%D") == "3")

    def spawn(self, *command):
        log = (self.state / f"{pathlib.Path(command[0]).name}.out").open("a")
        self.children.append(subprocess.Popen(list(map(str, command)), stdout=log, stderr=log))
        return self.children[-1]

    def boot(self, name):
        self.slurmds[name] = self.spawn(
            *self.nodes[name].enter, "unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child",
            "--mount-proc", "bash", "-c", f"hostname {name} && exec slurmd -D -N {name}")

    def kill_node(self, name):
        """With all that runs on it, as a power failure does."""
        self.slurmds[name].kill()
        self.slurmds[name].wait()

    def stop(self):
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()


def submit(*arguments):
    return output("sbatch", "--parsable", f"--chdir={folder}", "--mem-per-cpu=64", *arguments)


def job(number):
    text = output("scontrol", "show", "job", number)
    return dict(field.split("=", 1) for field in text.split() if "=" in field)


def start_again(number, restarts):
    """The queue waits two minutes before it starts a requeued job."""
    wait_for(f"job {number} is in the queue again",
             lambda: job(number)["Restarts"] == str(restarts) and job(number)["JobState"] == "PENDING")
    # Not within the second in which it was stopped: its nodes take no credential from then any more.
    output("scontrol", "update", f"jobid={number}", "StartTime=now+3")
    wait_for(f"job {number} runs again", lambda: job(number)["JobState"] == "RUNNING")


def metrics(of):
    """Of all processes of a run, found as Prometheus does: {process: {name: value}}."""
    found = {}
    for target in (of / "metrics_targets").glob("*.json"):
        try:
            entry = json.loads(target.read_text())[0]
            text = urllib.request.urlopen(f"http://{entry['targets'][0]}/metrics", timeout=5).read().decode()
        except (OSError, ValueError):
            continue  # Gone, or about to come.
        labels = entry["labels"]
        expect(set(labels) == {"run", "task", "preset", "seed", "role", "process"} and all(labels.values()) and
               labels["role"] in ("learner", "actor", "evaluator", "reanalyze"),
               f"labels that rules do not know: {entry}")
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        found[labels["process"]] = {name: float(value) for name, value in lines}
    return found


def decisions(of):
    return metrics(of).get("learner", {}).get("pompc_learner_decisions", 0)


def starts(of):
    """What the learner had each time it started: [(run id, decisions)]."""
    log = (of / "logs/learner.log").read_text()
    return [(m[1], int(m[2])) for m in re.finditer(r"run started run_id=(\S+) .*? decisions=(\d+) ", log)]


def updates(of):
    return int(re.search(r"^updates: (\d+)", (of / "status.textproto").read_text(), re.MULTILINE)[1])


def interrupted_run(slurm):
    of = folder / "run"
    number = submit("--nodes=2", "--ntasks=4", ROOT / "deploy/slurm/run.sbatch", of, "--config",
                    folder / "run.textproto", "--set", f"total_decisions={TOTAL}")
    wait_for("the run makes progress over two nodes", lambda: decisions(of) > 600)
    actors = submit("--ntasks=2", ROOT / "deploy/slurm/actors.sbatch", of)
    wait_for("two more actors act", lambda: sum(
        m.get("pompc_actor_decisions_total", 0) > 0 for name, m in metrics(of).items()
        if name.startswith(f"actor-{actors}")) == 2)
    workers = submit("--ntasks=1", ROOT / "deploy/slurm/actors.sbatch", of, "reanalyze")
    wait_for("a worker re-plans", lambda: metrics(of).get(f"reanalyze-{workers}-0", {}).get(
        "pompc_actor_reanalyzed_rows_total", 0) > 0)
    output("scancel", actors, workers)

    before = decisions(of)
    output("scancel", "--signal=USR1", "--batch", number)
    start_again(number, 1)
    wait_for("the run goes on", lambda: len(starts(of)) == 2 and decisions(of) > before + 300)
    expect(starts(of)[1][0] == starts(of)[0][0], "another run has begun")
    expect(starts(of)[1][1] >= before, f"{starts(of)[1][1]} decisions after the preemption, {before} before")

    before = decisions(of)
    lost = job(number)["BatchHost"]
    slurm.kill_node(lost)
    start_again(number, 2)
    expect(job(number)["BatchHost"] != lost, "the job starts on the node that is lost")
    slurm.boot(lost)
    wait_for("the run goes on", lambda: len(starts(of)) == 3 and decisions(of) > before)
    expect(starts(of)[2][0] == starts(of)[0][0], "another run has begun")
    expect(starts(of)[2][1] >= before, f"{starts(of)[2][1]} decisions after the node's death, {before} before")
    wait_for("the run is complete", lambda: job(number)["JobState"] == "COMPLETED")
    expect(updates(of) == TOTAL, f"{updates(of)} updates for {TOTAL} decisions")
    # Of the jobs that were cancelled some may be left.
    left = [t.stem for t in (of / "metrics_targets").iterdir()
            if not t.stem.startswith((f"actor-{actors}-", f"reanalyze-{workers}-"))]
    expect(not left, f"{left} have ended and left their targets")


def array_of_seeds():
    number = submit("--array=1-3", "--ntasks=3", ROOT / "deploy/slurm/run.sbatch", folder / "seeds", "--config",
                    folder / "run.textproto", "--set", f"total_decisions={SEED_TOTAL}")
    wait_for("three seeds are complete", lambda: not output("squeue", "-h", "-j", number))
    for seed in (1, 2, 3):
        of = folder / f"seeds-s{seed}"
        expect(updates(of) == SEED_TOTAL, f"{updates(of)} updates of seed {seed}")
        expect(re.search(rf"^seed: {seed}$", (of / "config.textproto").read_text(), re.MULTILINE),
               f"{of} has another seed")


def main():
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"
    (folder / "run.textproto").write_text(CONFIG)
    slurm = Slurm()
    try:
        interrupted_run(slurm)
        array_of_seeds()
    finally:
        slurm.stop()


BEGIN = time.monotonic()
if __name__ == "__main__":
    if len(sys.argv) == 1:
        run(HERE.parent / "packages.sh")
        os.execvp("unshare", ["unshare", "--net", "--uts", "--mount", sys.executable, __file__, "inside"])
    main()
