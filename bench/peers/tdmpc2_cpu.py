#!/usr/bin/env python3
"""Plans and updates per CPU second of nicklashansen/tdmpc2, eager, one CPU thread.

  tdmpc2_cpu.py CHECKOUT KEY=VALUE...

CHECKOUT: a clone of the peer's repository, used as it is. KEY=VALUE override its config.yaml; obs_dim
is the size of the observation. Prints one JSON line: the best of ROUNDS rounds of each.
The peer asks for the device "cuda:0" by name and for Adam's CUDA-graph mode: this script answers the
first with the CPU and switches the second off. Nothing else is changed.
"""
import json
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch  # noqa: E402
import yaml  # noqa: E402

ROUNDS = 3
ROUND_SECONDS = 1.5
EPISODE_LENGTH = 500


class TorchOnCpu:
    """The module torch for which every device is the CPU."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def device(self, *_):
        return torch.device("cpu")


def config(checkout, overrides):
    """The peer's config as its parser would give it, without Hydra."""
    with open(os.path.join(checkout, "tdmpc2", "config.yaml"), encoding="utf-8") as file:
        fields = yaml.safe_load(file)
    fields["lr"] = float(fields["lr"])  # YAML 1.1 reads 3e-4 as text.
    fields["entropy_coef"] = float(fields["entropy_coef"])
    fields["vmax"] = float(fields["vmax"])
    overrides = {key: yaml.safe_load(value) for key, value in (o.split("=") for o in overrides)}
    obs_dim = overrides.pop("obs_dim")
    fields.update(overrides)
    fields.update(compile=False, multitask=False, task_dim=0, tasks=[fields["task"]],
                  obs_shape={"state": (obs_dim,)}, episode_length=EPISODE_LENGTH,
                  bin_size=(fields["vmax"] - fields["vmin"]) / (fields["num_bins"] - 1))
    return type("Config", (), dict(fields, get=lambda self, key, default=None:
                                   getattr(self, key, default)))(), obs_dim


def rate(function):
    """Calls per CPU second, best round."""
    function()
    best = 0
    for _ in range(ROUNDS):
        start, calls = time.process_time(), 0
        while time.process_time() - start < ROUND_SECONDS:
            function()
            calls += 1
        best = max(best, calls / (time.process_time() - start))
    return best


def main():
    checkout = os.path.abspath(sys.argv[1])
    cfg, obs_dim = config(checkout, sys.argv[2:])
    torch.set_num_threads(1)
    torch.manual_seed(1)
    sys.path.insert(0, os.path.join(checkout, "tdmpc2"))
    sys.stdout, stdout = sys.stderr, sys.stdout
    import common.scale
    import tdmpc2
    common.scale.torch = tdmpc2.torch = TorchOnCpu()
    agent = tdmpc2.TDMPC2(cfg)
    for optim in (agent.optim, agent.pi_optim):
        for group in optim.param_groups:
            group["capturable"] = False
    obs = torch.randn(obs_dim)
    steps, batch = cfg.horizon, cfg.batch_size
    window = (torch.randn(steps + 1, batch, obs_dim), torch.rand(steps, batch, cfg.action_dim) * 2 - 1,
              torch.rand(steps, batch, 1), torch.zeros(steps, batch, 1))
    result = {"plans_per_second": rate(lambda: agent.act(obs)),
              "updates_per_second": rate(lambda: agent._update(*window)),
              "torch": torch.__version__}
    print(json.dumps(result), file=stdout)


if __name__ == "__main__":
    main()
