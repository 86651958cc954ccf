#!/usr/bin/env python3
"""A run over three hosts with mutual TLS and a token: one with learner and relay, one with replay, one
with actors and an evaluator behind the relay.

The hosts are those of hosts.py. Certificates and token are made by the very lines of docs/security.md.
Along the way: a server that would listen to the network without TLS, and actors without certificate,
with another authority's, with a wrong token and without a key are turned away and told why.
"""
import csv
import pathlib
import re
import signal
import tempfile

from e2e_test import BIN, CONFIG, expect, expect_end, programs, wait_for
from hosts import Host, inside_its_network, run

ROOT = pathlib.Path(__file__).parents[2]
TOTAL = 1500
LEARNER, REPLAY, ACTORS = "10.77.0.11", "10.77.0.12", "10.77.0.13"  # As in docs/security.md.


def make_certificates(folder):
    """Runs what docs/security.md tells to, and adds what a stranger has."""
    lines = re.search(r"```sh\n(# Certificates.*?)```", (ROOT / "docs/security.md").read_text(), re.DOTALL)[1]
    lines += ("\nmkdir ../stranger && cd ../stranger && make_authority && make_certificate actor DNS:actor"
              "\nopenssl rand -hex 32 > token\n")
    run("bash", "-euc", lines, cwd=folder, capture_output=True)
    return folder / "tls", folder / "stranger"


def main():
    inside_its_network(__file__)
    hosts = [Host(address) for address in (LEARNER, REPLAY, ACTORS)]
    learner_host, replay_host, actor_host = hosts
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_secure_"))
    tls, stranger = make_certificates(folder)
    (folder / "run.textproto").write_text(CONFIG)

    def flags(name, folder=tls, token=tls, key=None):
        return ["--tls-cert", folder / f"{name}.pem", "--tls-key", key or folder / f"{name}.key",
                "--tls-ca", folder / "ca.pem", "--token-file", token / "token"]

    def refused(name, status, why, *args):
        """A program that has to end at once, with this exit status."""
        program = actor_host.start(folder, name, *args)
        code = program.process.wait(timeout=60)
        log = program.log.read_text()
        expect(code == status and why in log, f"{name} ends with {code}: {log}")

    refused("open-server", 2, "--insecure", BIN / "pompc-replay", "--listen", "0.0.0.0:7201")
    replay = replay_host.start(folder, "replay", BIN / "pompc-replay", "--listen", "0.0.0.0:7201",
                         "--journal", folder / "journal", *flags("replay"))
    programs.append(replay)
    learner = learner_host.start(folder, "learner", BIN / "pompc-learner", "--config",
                          folder / "run.textproto", "--set", f"total_decisions={TOTAL}", "--run-dir", folder,
                          "--listen", f"{LEARNER}:7000", "--replay", f"{REPLAY}:7201", *flags("learner"))
    programs.append(learner)
    acts = [BIN / "pompc-actor", "--learner", f"{LEARNER}:7000"]
    wait_for("the learner serves", learner.metrics)
    refused("wrong-token", 1, "has to be a line of the server's", *acts, *flags("actor", token=stranger))
    refused("no-key", 2, "--tls-key: ", *acts, *flags("actor", key=folder / "absent.key"))
    refused("clear-token", 2, "is not sent to", *acts, "--token-file", tls / "token")
    # These may only be early: they go on trying for a minute, and say why.
    for name, why, args in (("no-certificate", "asks for a certificate", ["--tls-ca", tls / "ca.pem"]),
                            ("no-tls", "speaks TLS", []),
                            ("distrusting", "is not of an authority in --tls-ca", flags("actor", stranger))):
        program = actor_host.start(folder, name, *acts, *args)
        wait_for(f"{name} is told why", lambda: why in program.log.read_text())
        program.process.send_signal(signal.SIGTERM)
        expect(program.process.wait(timeout=60) == 130, f"{name} does not leave when told to")

    by_environment = {"POMPC_TLS_CERT": tls / "actor.pem", "POMPC_TLS_KEY": tls / "actor.key",
                      "POMPC_TLS_CA": tls / "ca.pem", "POMPC_TOKEN_FILE": tls / "token"}
    actors = [actor_host.start(folder, "actor-0", *acts, *flags("actor")),
              actor_host.start(folder, "actor-1", *acts, environment=by_environment)]
    programs.extend(actors)
    programs.append(learner_host.start(folder, "relay", BIN / "pompc-relay", "--upstream", f"{LEARNER}:7000",
                                "--listen", f"{LEARNER}:7100", *flags("learner")))
    programs.append(actor_host.start(folder, "evaluator", BIN / "pompc-actor", "--learner",
                                f"{LEARNER}:7100", "--role", "evaluator", *flags("actor")))
    expect_end(folder, learner, replay, TOTAL)

    evaluations = list(csv.DictReader((folder / "evaluations.csv").open()))
    expect(evaluations and int(evaluations[-1]["decisions"]) >= TOTAL, "the final parameters were not evaluated")
    joined = re.findall(r"joined the run as ACTOR index=(\d+)", "".join(a.log.read_text() for a in actors))
    expect(sorted(joined) == ["0", "1"], f"actors {joined} have joined")


if __name__ == "__main__":
    main()
