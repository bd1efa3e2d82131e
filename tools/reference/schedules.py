#!/usr/bin/env python3
"""Makes tests/fixtures/schedules.h: learning rates and momenta of PyTorch's schedulers, for tests/unit/test_schedule.c."""
import os
import warnings

import torch
from torch.optim import lr_scheduler as lr

warnings.filterwarnings("ignore")
parts = []


def record(name, make, steps, rate=0.1, momentum=False):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate, momentum=0.9)
    scheduler = make(optimiser)
    rates, momenta = [], []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        momenta.append(optimiser.param_groups[0]["momentum"])
        optimiser.step()
        scheduler.step()
    parts.append(f"static const double {name}[] = {{{', '.join(map(repr, rates))}}};\n")
    if momentum:
        parts.append(f"static const double {name}_momentum[] = {{{', '.join(map(repr, momenta))}}};\n")


def main():
    record("cosine", lambda o: lr.CosineAnnealingLR(o, 20, 0.003), 21)
    record("steps", lambda o: lr.StepLR(o, 4, 0.3), 21)
    record("warmup", lambda o: lr.LinearLR(o, 0.05, 1, 7), 12)
    record("warmup_cosine", lambda o: lr.SequentialLR(o, [lr.LinearLR(o, 0.05, 1, 5), lr.CosineAnnealingLR(o, 15, 0.002)], [5]), 20)
    for name, options in (("one_cycle", {}), ("one_cycle_linear", {"anneal_strategy": "linear", "pct_start": 0.25}),
                          ("one_cycle_three", {"three_phase": True, "div_factor": 10.0, "final_div_factor": 100.0})):
        record(name, lambda o: lr.OneCycleLR(o, 0.4, total_steps=23, **options), 22, momentum=True)
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "schedules.h"), "w") as out:
        out.write("/* Made by tools/reference/schedules.py: do not edit. */\n" + "".join(parts))


if __name__ == "__main__":
    main()
