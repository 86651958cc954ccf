"""How fast dm-reverb stores and samples rows; prints one JSON line.

reverb_replay.py OBSERVATION ACTION WRITERS ROWS BATCHES

The server is a process of its own, and so is each writer. A row has the columns of ours; an item of 4
consecutive rows is made for each, because ours can be drawn from any row on. Appending: WRITERS
processes write ROWS rows each in episodes of 500 and wait for all items. Sampling: batches of 256 items
through the TensorFlow dataset with as many workers as are fastest; the first few are not timed. Sizes
are those of floats in the rows.
"""
import json
import multiprocessing
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import numpy as np  # noqa: E402
import reverb  # noqa: E402
import tensorflow as tf  # noqa: E402

WINDOW, BATCH, EPISODE, FLUSH = 4, 256, 500, 50
TABLE = "rows"


def row(observation, action):
    return {
        "observation": np.zeros(observation, np.float32),
        "action": np.zeros(action, np.float32),
        "reward": np.zeros(1, np.float32),
        "prior_mean": np.zeros(action, np.float32),
        "prior_std": np.zeros(action, np.float32),
        "discount": np.zeros(1, np.float32),
        "version": np.zeros(1, np.int64),
    }


def serve(example, ports):
    signature = {name: tf.TensorSpec((WINDOW, *value.shape), value.dtype)
                 for name, value in example.items()}
    server = reverb.Server([reverb.Table(
        TABLE, reverb.selectors.Uniform(), reverb.selectors.Fifo(), max_size=100_000,
        rate_limiter=reverb.rate_limiters.MinSize(1), signature=signature)])
    ports.put(server.port)
    server.wait()


def write(port, example, rows, start):
    client = reverb.Client(f"localhost:{port}")
    with client.trajectory_writer(num_keep_alive_refs=WINDOW) as writer:
        writer.append(example)  # Connects, and builds what is built once.
        writer.end_episode()
        start.wait()
        for i in range(rows):
            writer.append(example)
            if i % EPISODE >= WINDOW - 1:
                writer.create_item(TABLE, 1.0, {name: column[-WINDOW:]
                                                for name, column in writer.history.items()})
            if i % EPISODE == EPISODE - 1:
                writer.end_episode()
            elif i % FLUSH == FLUSH - 1:
                writer.flush(block_until_num_items=2 * FLUSH)
        writer.flush()


def measure_sampling(port, batches, workers):
    dataset = reverb.TrajectoryDataset.from_table_signature(
        f"localhost:{port}", TABLE, max_in_flight_samples_per_worker=2 * BATCH,
        num_workers_per_iterator=workers).batch(BATCH).prefetch(4)
    iterator = iter(dataset)
    for _ in range(5):
        next(iterator)
    begin = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return batches / (time.perf_counter() - begin)


def main():
    observation, action, writers, rows, batches = map(int, sys.argv[1:])
    example = row(observation, action)
    fork = multiprocessing.get_context("fork")  # Before anything is connected.
    ports, start = fork.Queue(), fork.Barrier(writers + 1)
    server = fork.Process(target=serve, args=(example, ports), daemon=True)
    server.start()
    port = ports.get()
    processes = [fork.Process(target=write, args=(port, example, rows, start))
                 for _ in range(writers)]
    for process in processes:
        process.start()
    start.wait()
    begin = time.perf_counter()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    result = {"rows_per_second": writers * rows / (time.perf_counter() - begin)}
    if batches > 0:
        result["batches_per_second"] = max(
            measure_sampling(port, batches, workers) for workers in (1, 2, 4))
    print(json.dumps(result))
    server.kill()


if __name__ == "__main__":
    main()
