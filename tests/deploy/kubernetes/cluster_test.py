#!/usr/bin/env python3
"""Trains on a real Kubernetes cluster of three nodes, and takes away one part of it after the other.

cluster_test.sh runs this in the control plane's network namespace, where pods can be reached. From
beginning to end a thread watches what may never go back: the decisions of the run, the rows of each
replay server, the parameter versions. After each step the run has to go on. In the end the rows that are
stored are compared with the decisions that were made and the episodes that were reported.
"""
import csv
import json
import os
import pathlib
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

import yaml

HERE = pathlib.Path(__file__).resolve().parent
FILES = HERE.parents[2] / "deploy/kubernetes"
sys.path.insert(0, str(HERE.parents[1] / "e2e"))
import waiting  # noqa: E402

STATE = pathlib.Path(os.environ["POMPC_CLUSTER"])
NAMESPACE = "run"
NODES = ["n1", "n2", "n3"]
PATIENCE = 240  # Seconds for each thing that has to happen; a busy machine is slow.


def fail(message):
    print("FAILED:", message, flush=True)
    print(kubectl("get", "pods,jobs,pvc", "-A", "-o", "wide", check=False))
    print(kubectl("get", "events", "-A", "--sort-by=.lastTimestamp", check=False)[-4000:])
    for pod in pods():
        name = pod["metadata"]["name"]
        print(f"--- {name}\n" + kubectl("logs", name, "--tail=15", check=False))
    os._exit(1)


def expect(condition, message):
    if not condition:
        fail(message)


def cluster(*args, check=True, stdin=None):
    done = subprocess.run([HERE / "cluster.sh", *map(str, args)], input=stdin, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if check:
        expect(done.returncode == 0, f"{' '.join(map(str, args))}: {done.stdout}")
    return done.stdout


def kubectl(*args, namespace=NAMESPACE, **options):
    return cluster("kubectl", "-n", namespace, *args, **options)


class Api:
    """Reads objects, without starting kubectl for each."""

    def __init__(self):
        config = yaml.safe_load((STATE / "kubeconfig").read_text())
        self.server = config["clusters"][0]["cluster"]["server"]
        self.token = config["users"][0]["user"]["token"]
        self.context = ssl._create_unverified_context()

    def get(self, path):
        request = urllib.request.Request(self.server + path,
                                         headers={"Authorization": f"Bearer {self.token}"})
        return json.load(urllib.request.urlopen(request, context=self.context, timeout=20))


api = Api()


def pods(component=None, namespace=NAMESPACE):
    """Pods that are not on their way out."""
    selector = f"?labelSelector=app.kubernetes.io/component={component}" if component else ""
    return [p for p in api.get(f"/api/v1/namespaces/{namespace}/pods{selector}")["items"]
            if "deletionTimestamp" not in p["metadata"] and p["status"]["phase"] in ("Pending", "Running")]


def component_of(pod):
    return pod["metadata"]["labels"]["app.kubernetes.io/component"]


def ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def metrics(pod, port=7300):
    """{name: value} of the metrics without labels, or {} while it does not answer."""
    try:
        url = f"http://{pod['status']['podIP']}:{port}/metrics"
        text = urllib.request.urlopen(url, timeout=5).read().decode()
    except (OSError, KeyError):
        return {}
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


def wait_for(what, condition, patience=PATIENCE):
    nothing_went_back = lambda _: expect(not watch.violations, "; ".join(watch.violations))
    return waiting.wait_for(what, condition, time.monotonic() + patience, expect, nothing_went_back, pause=0.5)


class Watch(threading.Thread):
    """Follows what may never go back."""

    def __init__(self):
        super().__init__(daemon=True)
        self.last, self.violations, self.best_return = {}, [], 0

    def see(self, name, value):
        if value < self.last.get(name, 0):
            self.violations.append(f"{name} went back from {self.last[name]} to {value}")
        self.last[name] = value

    def run(self):
        while True:
            try:
                for pod in pods("learner"):
                    now = metrics(pod)
                    # 0: it has just started, and has not asked replay yet.
                    for name in ("pompc_learner_decisions", "pompc_learner_params_version"):
                        if now.get(name, 0) > 0:
                            self.see(name, now[name])
                    self.best_return = max(self.best_return, now.get("pompc_learner_evaluation_return", 0))
                for pod in pods("replay"):
                    now = metrics(pod)
                    if "pompc_replay_items" in now:
                        self.see(f"rows of {pod['metadata']['name']}", now["pompc_replay_items"])
            except OSError:
                pass  # The API server is busy.
            time.sleep(1)

    def decisions(self):
        return self.last.get("pompc_learner_decisions", 0)


watch = Watch()


def step(what):
    print(f"[{time.monotonic() - START:5.0f} s] {watch.decisions():6.0f} decisions: {what}", flush=True)


def goes_on(what, actors, more=150):
    """All pods are ready, the learner has everybody and new rows arrive at both replay servers."""
    def complete():
        now = {c: [ready(p) for p in pods(c)] for c in ("learner", "replay", "actor", "evaluator")}
        return all(all(v) for v in now.values()) and [len(v) for v in now.values()] == [1, 2, actors, 1]
    wait_for(f"{what}: all pods are ready", complete)
    subscribers = lambda: metrics(pods("learner")[0]).get("pompc_learner_subscribers") == actors + 1
    wait_for(f"{what}: all have joined", lambda: len(pods("learner")) == 1 and subscribers())
    before = dict(watch.last)
    wait_for(f"{what}: the run goes on", lambda: all(
        watch.last[name] >= before[name] + more / (1 if "decisions" in name else 4)
        for name in ("pompc_learner_decisions", "rows of replay-0", "rows of replay-1")))
    job = api.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/learner")
    expect("completionTime" not in job["status"], f"{what}: the Job counts the run as complete")


def process_of(pod, program):
    """Its pid on this machine."""
    uid = pod["metadata"]["uid"]
    for proc in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (proc / "comm").read_text().strip() == program and uid in (proc / "cgroup").read_text():
                return int(proc.name)
        except OSError:
            pass  # It has ended.
    fail(f"no process {program} of {pod['metadata']['name']}")


def restarts(pod):
    return sum(c["restartCount"] for c in pod["status"].get("containerStatuses", []))


def volume(number, size="1Gi"):
    folder = STATE / f"volumes/{number}"
    folder.mkdir(parents=True)
    os.chown(folder, 10001, 10001)
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"volume-{number}"},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                     "hostPath": {"path": str(folder), "type": "Directory"}}}


def apply(overlay, total_decisions=None, namespace=NAMESPACE, cpu=None, component=None):
    """With validation by the server; `total_decisions` as another run.textproto would say it, `cpu`: what
    each pod requests, where nodes of two cores are too small for the overlay; `component`: added to it."""
    folder = STATE / "kustomization"
    folder.mkdir(exist_ok=True)
    kustomization = {"resources": [os.path.relpath(FILES / "overlays" / overlay, folder)]}
    if total_decisions:
        config = (FILES / "overlays" / overlay / "run.textproto").read_text()
        (folder / "run.textproto").write_text(f"{config}total_decisions: {total_decisions}\n")
        kustomization["generatorOptions"] = {"disableNameSuffixHash": True}
        kustomization["configMapGenerator"] = [
            {"name": "pompc-run", "behavior": "merge", "files": ["run.textproto"]}]
    if component:
        kustomization["components"] = [os.path.relpath(FILES / "components" / component, folder)]
        kustomization["images"] = [
            {"name": "pompc-servers", "newName": "localhost/pompc-servers", "newTag": "0.1.0"}]
    if cpu:
        path = "/spec/template/spec/containers/0/resources/requests/cpu"
        kustomization["patches"] = [{"target": {"kind": "Job|StatefulSet|Deployment"},
                                     "patch": json.dumps([{"op": "replace", "path": path, "value": cpu}])}]
    (folder / "kustomization.yaml").write_text(yaml.dump(kustomization))
    return kubectl("apply", "--validate=strict", "-k", folder, namespace=namespace)


def node_of(pod):
    return pod["spec"].get("nodeName")


def comes_up():
    for number in range(3):
        cluster("kubectl", "apply", "-f", "-", stdin=json.dumps(volume(number)))
    cluster("kubectl", "create", "namespace", NAMESPACE)
    apply("cpu-small", total_decisions=1_000_000)
    watch.start()
    wait_for("decisions", lambda: watch.decisions() > 0)
    goes_on("the start", actors=2)
    by_node = {c: [node_of(p) for p in pods(c)] for c in ("replay", "actor", "learner", "evaluator")}
    for component in ("replay", "actor"):
        expect(len(set(by_node[component])) == 2, f"two pods of {component} on one node: {by_node}")
    expect(len({n for nodes in by_node.values() for n in nodes}) >= 2, f"all on one node: {by_node}")


def actor_is_killed():
    victim = pods("actor")[0]
    os.kill(process_of(victim, "pompc-actor"), signal.SIGKILL)
    wait_for("its container is started again", lambda: any(
        restarts(p) == restarts(victim) + 1 for p in pods("actor")
        if p["metadata"]["name"] == victim["metadata"]["name"]))
    goes_on("a killed actor", actors=2)
    kubectl("delete", "pod", victim["metadata"]["name"], "--force", "--grace-period=0")
    goes_on("a deleted actor", actors=2)


def actors_are_scaled():
    for actors in (4, 1, 2):
        kubectl("scale", "deployment", "actor", f"--replicas={actors}")
        goes_on(f"{actors} actors", actors=actors)


def learner_is_killed():
    """Twice: that it crashes often must not make the Job fail, nor count with it."""
    first = pods("learner")[0]
    name = first["metadata"]["name"]
    for times in (1, 2):
        os.kill(process_of(first, "pompc-learner"), signal.SIGKILL)
        wait_for("it is started again", lambda: [
            restarts(p) for p in pods("learner") if p["metadata"]["name"] == name] == [restarts(first) + times])
        goes_on("a killed learner", actors=2)
        expect("replay kept rows" in kubectl("logs", "job/learner"), "the learner has not resumed")
    status = api.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/learner")["status"]
    expect(status.get("failed", 0) == 0, f"the Job counts crashes, each of which doubles its wait: {status}")


def learner_is_deleted():
    first = pods("learner")[0]
    kubectl("delete", "pod", first["metadata"]["name"])
    goes_on("a deleted learner", actors=2)


def replay_is_killed():
    victim = pods("replay")[0]
    name = victim["metadata"]["name"]
    rows = watch.last[f"rows of {name}"]
    os.kill(process_of(victim, "pompc-replay"), signal.SIGKILL)
    wait_for("it is started again", lambda: restarts(next(
        p for p in pods("replay") if p["metadata"]["name"] == name)) == restarts(victim) + 1)
    again = wait_for("it answers", lambda: metrics(victim).get("pompc_replay_items"))
    expect(again >= rows, f"{name} had {rows} rows, and has {again}")
    goes_on("a killed replay server", actors=2)
    kubectl("delete", "pod", name)
    goes_on("a deleted replay server", actors=2)


def node_dies():
    """That of replay-1: killed with all its processes; later it comes back."""
    victim = next(node_of(p) for p in pods("replay") if p["metadata"]["name"] == "replay-1")
    cluster("kill-node", victim[1:])
    cluster("kubectl", "wait", "--for=condition=Ready=Unknown", f"node/{victim}", f"--timeout={PATIENCE}s")
    wait_for("the pods of deployments are replaced", lambda: all(
        node_of(p) != victim for c in ("actor", "evaluator") for p in pods(c)))
    step(f"   {victim} is away")
    cluster("start-node", victim[1:])
    cluster("kubectl", "wait", "--for=condition=Ready", f"node/{victim}", f"--timeout={PATIENCE}s")
    goes_on("a node that died", actors=2)


def link_is_cut():
    victim = node_of(pods("learner")[0])
    cluster("cut", victim[1:])
    time.sleep(30)
    cluster("mend", victim[1:])
    cluster("kubectl", "wait", "--for=condition=Ready", f"node/{victim}", f"--timeout={PATIENCE}s")
    goes_on("a partition", actors=2)


def rolls():
    for workload in ("deployment/actor", "deployment/evaluator", "statefulset/replay"):
        kubectl("rollout", "restart", workload)
        kubectl("rollout", "status", workload, f"--timeout={PATIENCE}s")
    goes_on("a rolling restart", actors=2)


def node_is_drained():
    victim = node_of(pods("learner")[0])
    cluster("kubectl", "drain", victim, "--ignore-daemonsets", "--delete-emptydir-data",
            f"--timeout={PATIENCE}s")
    goes_on("a drained node", actors=2)
    expect(all(node_of(p) != victim for p in pods()), f"pods are left on {victim}")
    cluster("kubectl", "uncordon", victim)


def it_learns():
    wait_for("a return of 300", lambda: watch.best_return > 300, patience=4 * PATIENCE)


def connected(namespace):
    """{(client, server)}: components between which gRPC connections stand, as servers' pods see them."""
    role_of, found = {p["status"]["podIP"]: component_of(p) for p in pods(namespace=namespace)}, set()
    for server in pods(namespace=namespace):
        process = process_of(server, server["spec"]["containers"][0]["command"][0])
        for table in ("tcp", "tcp6"):
            for line in pathlib.Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
                local, remote, state = line.split()[1:4]
                # The last four bytes of an address are those of IPv4, the other way round.
                client = role_of.get(".".join(map(str, reversed(bytes.fromhex(remote.split(":")[0][-8:])))))
                if state == "01" and int(local.split(":")[1], 16) in (7000, 7201) and client:  # Established.
                    found.add((client, component_of(server)))
    return found


def connections_are_the_policies(namespace=NAMESPACE, without=()):
    """Who is connected to whom is what the network policies let through, and all of it but `without`. (The
    network of this cluster does not enforce them.)"""
    policies = api.get(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")["items"]
    present = {component_of(p) for p in pods(namespace=namespace)}
    allowed = {(client, policy["metadata"]["name"]) for policy in policies
               for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": "grpc", "protocol": "TCP"}]
               for source in rule["from"] for client in source["podSelector"]["matchExpressions"][0]["values"]
               if client in present} - set(without)
    found = wait_for("all of them are connected", lambda: (now := connected(namespace)) >= allowed and now)
    expect(found == allowed, f"connected {sorted(found)}, but allowed {sorted(allowed)}")


def a_worker_joins_and_leaves():
    """Beside the two actors and the evaluator, until it is not wanted any more."""
    kubectl("scale", "deployment", "reanalyze", "--replicas=1")
    wait_for("the learner has it", lambda: metrics(pods("learner")[0]).get("pompc_learner_subscribers") == 4)
    wait_for("it re-plans rows", lambda: [
        metrics(p).get("pompc_actor_reanalyzed_rows_total", 0) > 0 for p in pods("reanalyze")] == [True])
    connections_are_the_policies()
    kubectl("scale", "deployment", "reanalyze", "--replicas=0")
    goes_on("a worker that left", actors=2)


def rows_are_even():
    """Without actors the counts stand still, and nothing may be missing from them."""
    kubectl("scale", "deployment", "actor", "--replicas=0")
    kubectl("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=actor", f"--timeout={PATIENCE}s")

    def counts():
        rows = [metrics(p).get("pompc_replay_items") for p in pods("replay")]
        return [*rows, metrics(pods("learner")[0]).get("pompc_learner_decisions")]
    last = [None]

    def still():
        before, last[0] = last[0], counts()
        time.sleep(3)
        return None not in last[0] and before == last[0]
    wait_for("the counts stand still", still)
    *rows, decisions = last[0]
    books = next((STATE / "volumes").glob("*/run/returns.csv"))
    episodes = [tuple(row.values()) for row in csv.DictReader(books.open()) if row["role"] == "actor"]
    expect(len(set(episodes)) == len(episodes), "an episode is reported twice")
    # Each row is a decision or the last observation of an episode. An actor that is killed may have
    # reported an episode and not sent its end, or the reverse: up to six were.
    ends = sum(rows) - decisions
    print(f"{sum(rows):.0f} rows stored = {decisions:.0f} decisions + {ends:.0f} ends of episodes; "
          f"{len(episodes)} episodes reported", flush=True)
    expect(abs(ends - len(episodes)) <= 6, "rows, decisions and episodes do not add up")
    kubectl("scale", "deployment", "actor", "--replicas=2")
    goes_on("the stop", actors=2)


def the_run_completes():
    """Shortened by another run.textproto."""
    total = int(watch.decisions()) + 800
    apply("cpu-small", total_decisions=total)
    kubectl("delete", "pod", pods("learner")[0]["metadata"]["name"])
    kubectl("wait", "--for=condition=complete", "job/learner", f"--timeout={PATIENCE}s")
    status = next((STATE / "volumes").glob("*/run/status.textproto")).read_text()
    decisions = int(re.search(r"^decisions: (\d+)", status, re.MULTILINE)[1])
    expect(decisions >= total, f"complete with {decisions} of {total} decisions")
    print(f"best evaluation return {watch.best_return:.0f}", flush=True)
    watch.last.clear()
    cluster("kubectl", "delete", "namespace", NAMESPACE)


def tls_overlay_trains():
    """With a secret made by the lines of the documents."""
    blocks = lambda file: re.findall(r"```sh\n(.*?)```", (FILES.parents[1] / "docs" / file).read_text(), re.DOTALL)
    functions = re.findall(r"^make_\w+\(\) \{.*?^\}", "".join(blocks("security.md")), re.DOTALL | re.MULTILINE)
    lines = next(b for b in blocks("kubernetes.md") if "pompc-tls" in b).replace("my-run", "secure")
    script = f"kubectl() {{ {HERE}/cluster.sh kubectl \"$@\"; }}\n" + "\n".join(functions) + "\n" + "\n".join(
        line for line in lines.splitlines() if " apply " not in line)
    for number in range(3):
        cluster("kubectl", "apply", "-f", "-", stdin=json.dumps(volume(f"tls-{number}")))
    cluster("kubectl", "create", "namespace", "secure")
    folder = STATE / "tls"
    folder.mkdir()
    made = subprocess.run(["bash", "-euc", script], cwd=folder, capture_output=True, text=True)
    expect(made.returncode == 0, f"the lines of docs/kubernetes.md: {made.stdout}{made.stderr}")
    apply("tls", namespace="secure")
    wait_for("decisions over TLS", lambda: any(
        metrics(p).get("pompc_learner_decisions", 0) > 300 for p in pods("learner", "secure")))
    cluster("kubectl", "delete", "namespace", "secure")


def relays_pass_parameters_on():
    """Actors and evaluator ask relays, and only these the learner."""
    for number in range(3):
        cluster("kubectl", "apply", "-f", "-", stdin=json.dumps(volume(f"relays-{number}")))
    cluster("kubectl", "create", "namespace", "relays")
    apply("cpu-small", namespace="relays", cpu="100m", component="relays")
    of = lambda component, name: [metrics(p).get(name, 0) for p in pods(component, "relays")]
    wait_for("decisions with relays", lambda: any(d > 300 for d in of("learner", "pompc_learner_decisions")))
    wait_for("relays have the learner, and the others relays", lambda: (
        of("learner", "pompc_learner_subscribers") == [2] and sum(of("relay", "pompc_relay_subscribers")) == 3))
    connections_are_the_policies("relays", without=[
        ("actor", "learner"), ("evaluator", "learner"), ("relay", "relay")])
    cluster("kubectl", "delete", "namespace", "relays")


def one_machine_file():
    cluster("kubectl", "apply", "-f", "-", stdin=json.dumps(volume("one-machine")))
    cluster("kubectl", "create", "namespace", "one")
    kubectl("apply", "--validate=strict", "-f", FILES / "one-machine.yaml", namespace="one")
    wait_for("decisions in one pod", lambda: any(
        metrics(p).get("pompc_learner_decisions", 0) > 300 for p in pods(namespace="one")))
    cluster("kubectl", "delete", "namespace", "one")


def other_overlays_are_accepted():
    """By the server, as if applied: admission included."""
    for overlay in ("many-actors", "many-seeds"):
        rendered = list(yaml.safe_load_all(cluster("kubectl", "kustomize", FILES / "overlays" / overlay)))
        spaces = [o["metadata"]["name"] for o in rendered if o["kind"] == "Namespace"] or [overlay]
        for space in spaces:  # A dry run makes none for the objects that belong there.
            cluster("kubectl", "create", "namespace", space)
        said = cluster("kubectl", "apply", "--dry-run=server", "--validate=strict", "-k",
                       FILES / "overlays" / overlay, *(["-n", overlay] if spaces == [overlay] else []))
        expect(said.count("(server dry run)") == len(rendered), f"{overlay}: {said}")
        cluster("kubectl", "delete", "namespace", "--wait=false", *spaces)


def gpu_overlay_is_scheduled():
    for number in range(3):
        cluster("kubectl", "apply", "-f", "-", stdin=json.dumps(volume(f"gpu-{number}", "10Gi")))
    cluster("kubectl", "create", "namespace", "gpu")
    apply("gpu", namespace="gpu", cpu="100m")
    wanting = ("learner", "actor", "evaluator")
    condition = lambda c: [(q["status"], q.get("message", "")) for p in pods(c, namespace="gpu")
                           for q in p["status"].get("conditions", []) if q["type"] == "PodScheduled"]
    wait_for("it waits for GPUs", lambda: all(
        condition(c) and condition(c)[0][0] == "False" and "nvidia.com/gpu" in condition(c)[0][1]
        for c in wanting))
    patch = json.dumps([{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "1"}])
    for node in NODES:
        cluster("kubectl", "patch", "node", node, "--subresource=status", "--type=json", "-p", patch)
    wait_for("it is scheduled", lambda: all(condition(c) and condition(c)[0][0] == "True" for c in wanting))
    nodes = [node_of(p) for c in wanting for p in pods(c, namespace="gpu")]
    expect(sorted(nodes) == NODES, f"one GPU for each, but on {nodes}")
    cluster("kubectl", "delete", "namespace", "gpu")


STEPS = (comes_up, connections_are_the_policies, a_worker_joins_and_leaves, actor_is_killed, actors_are_scaled,
         learner_is_killed, learner_is_deleted, replay_is_killed, node_dies, link_is_cut, rolls,
         node_is_drained, it_learns, rows_are_even, the_run_completes, tls_overlay_trains,
         relays_pass_parameters_on, one_machine_file, other_overlays_are_accepted, gpu_overlay_is_scheduled)
START = time.monotonic()


def main():
    for test in STEPS:
        step(test.__name__.replace("_", " "))
        test()
        expect(not watch.violations, "; ".join(watch.violations))
    step("all steps passed")


main()
