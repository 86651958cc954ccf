#!/usr/bin/env python3
"""A run whose rows are spread over two replay servers: 1 learner, 2 actors.

What the servers' /metrics say must add up over both, as e2e_test.py asks of one: rows decided = rows
stored + rows in the actors' hands, updates per decision inside their band. Then one server is killed;
when another one has taken up its journal the counts must add up as before, and the run finishes.
"""
import json
import pathlib
import signal
import tempfile
import time

from e2e_test import (BIN, CONFIG, DEADLINE, SEED, TOLERANCE, TOTAL, Program, expect, free_port,
                      programs, wait_for)


def stand_still(learner, actors, replays):
    """Stops the learner. Returns rows queued, finished episodes, and the servers' metrics."""
    learner.process.send_signal(signal.SIGSTOP)
    last = None
    while True:
        at_actors, at_replays = ([p.metrics() for p in group] for group in (actors, replays))
        counts = ([(m["pompc_actor_decisions_total"], m["pompc_actor_episodes_total"],
                    m["pompc_actor_upload_queue_rows"]) for m in at_actors],
                  [m["pompc_replay_items"] for m in at_replays])  # Ever: no table gets full.
        if counts == last:
            break
        last = counts
        expect(time.monotonic() < DEADLINE, "the actors go on although the learner stands still")
        time.sleep(1)
    decided = sum(decisions + episodes for decisions, episodes, _ in counts[0])
    queued = sum(queue for _, _, queue in counts[0])
    stored = sum(counts[1])
    # An actor that replay holds back has at most one row in hand that is not queued yet.
    expect(0 <= decided - stored - queued <= len(actors),
           f"{decided} rows decided, {stored} stored, {queued} queued")
    return queued, sum(episodes for _, episodes, _ in counts[0]), at_replays


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pompc_sharded_"))
    (folder / "run.textproto").write_text(CONFIG)
    *replay_addresses, learner_address = (f"127.0.0.1:{free_port()}" for _ in range(3))

    def start_replay(i, name):
        return Program(folder, name, BIN / "pompc-replay", "--listen", replay_addresses[i],
                       "--journal", folder / f"journal-{i}")

    replays = [start_replay(i, f"replay-{i}") for i in range(2)]
    programs.extend(replays)
    learner = Program(folder, "learner", BIN / "pompc-learner", "--config", folder / "run.textproto",
                      "--run-dir", folder, "--listen", learner_address,
                      "--replay", ",".join(replay_addresses))
    programs.append(learner)
    actors = [Program(folder, f"actor-{i}", BIN / "pompc-actor", "--learner", learner_address,
                      "--index", i) for i in range(2)]
    programs.extend(actors)

    wait_for("the run is in the middle",
             lambda: learner.metrics().get("pompc_learner_decisions", 0) > SEED + 300)
    queued, episodes, at_replays = stand_still(learner, actors, replays)
    items = [m["pompc_replay_items"] for m in at_replays]
    stored = sum(items)
    expect(min(items) > 0.25 * stored, f"unevenly spread: {items} rows")
    expect(sum(m["pompc_replay_inserts_total"] for m in at_replays) == stored,
           "rows stored are not the rows inserted")
    expect(all(m["pompc_replay_duplicate_segments_total"] == 0 for m in at_replays),
           "segments were sent twice")
    decisions = stored - episodes
    # Each server has a part of every batch, but of one in 65536 that all 16 windows avoid.
    batches = max(m["pompc_replay_batches_total"] for m in at_replays)
    lead = batches - SEED - (decisions - SEED)
    # Beyond the band: a segment and a decision of each server, and the episodes' last rows.
    expect(abs(lead) <= TOLERANCE + 10, f"{batches} updates for {decisions} decisions: lead {lead}")
    learner.process.send_signal(signal.SIGCONT)

    items_of_1 = lambda: replays[1].metrics().get("pompc_replay_items", 0)
    wait_for("replay-1 works again", lambda: items_of_1() > items[1] + 50)
    acknowledged = items_of_1()
    replays[1].process.kill()
    replays[1].process.wait()
    programs[1] = replays[1] = start_replay(1, "replay-1-again")
    wait_for("replay-1 is back", lambda: "pompc_replay_items" in replays[1].metrics())
    restored = items_of_1()
    expect(restored >= acknowledged, f"{restored} rows restored of {acknowledged}")
    wait_for("rows arrive at replay-1", lambda: items_of_1() > restored + 50)
    stand_still(learner, actors, replays)
    learner.process.send_signal(signal.SIGCONT)

    wait_for("the run finishes", lambda: learner.process.poll() is not None)
    for p in (learner, *actors):
        wait_for(f"{p.name} exits", lambda p=p: p.process.poll() is not None)
    stored_in_the_end = sum(p.metrics()["pompc_replay_items"] for p in replays)
    expect(stored_in_the_end >= TOTAL, f"{stored_in_the_end} rows of {TOTAL} decisions")
    for p in replays:
        p.process.send_signal(signal.SIGTERM)
        wait_for(f"{p.name} exits", lambda p=p: p.process.poll() is not None)
    for p in programs:
        expect(p.process.returncode == 0, f"{p.name} did not exit cleanly")
    print(json.dumps({"rows_stored": items, "rows_queued": queued, "lead_updates": lead}))


if __name__ == "__main__":
    main()
