#!/usr/bin/env python3
"""Times losses with their gradients beside PyTorch Metric Learning, one thread each, in the same run.

    bench/losses/run.py --build BUILD [--venv DIR] [--repeats N] [--batch N] [--dim D] [--per-class K] [--heavy]
                        [--json FILE]

BUILD is the folder Meson built into; its bench/bench_losses does our side. Both sides hold the same batch in f32 and take turns.
Seconds are medians over the repeats, the ratio is the median of the peer's seconds over ours within a turn (above 1: ours is
faster). Values of losses with drawn class weights differ, the others' are compared.
The peer is installed into DIR (made when missing) at the versions below; an interpreter that has them may run this itself
with --venv ''.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

PACKAGES = ["torch==2.15.0", "pytorch-metric-learning==2.9.0", "numpy==2.4.6"]
LOSSES = [  # ours, miner, theirs, its miner
    ("contrastive", None, "ContrastiveLoss", None), ("triplet", None, "TripletMarginLoss", None),
    ("triplet", "batch-hard", "TripletMarginLoss", "BatchHardMiner"), ("n-pairs", None, "NPairsLoss", None),
    ("multi-similarity", None, "MultiSimilarityLoss", None),
    ("multi-similarity", "multi-similarity", "MultiSimilarityLoss", "MultiSimilarityMiner"), ("circle", None, "CircleLoss", None),
    ("lifted", None, "LiftedStructureLoss", None), ("generalised-lifted", None, "GeneralizedLiftedStructureLoss", None),
    ("nt-xent", None, "NTXentLoss", None), ("supcon", None, "SupConLoss", None), ("fast-ap", None, "FastAPLoss", None),
    ("smooth-ap", None, "SmoothAPLoss", None), ("angular", None, "AngularLoss", None), ("margin", None, "MarginLoss", None),
    ("arcface", None, "ArcFaceLoss", None), ("proxy-anchor", None, "ProxyAnchorLoss", None),
    ("proxy-nca", None, "ProxyNCALoss", None)]
DRAWN = {"arcface", "proxy-anchor", "proxy-nca"}
HEAVY = {"lifted", "nt-xent", "smooth-ap"}  # several gigabytes there: only with --heavy


def enter_venv(directory):
    python = os.path.join(directory, "bin", "python")
    if not os.path.exists(os.path.join(directory, "installed")):
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        open(os.path.join(directory, "installed"), "w").close()
    os.environ["LIKENESS_LOSSES_VENV"] = directory
    os.execv(python, [python, *sys.argv])


class Ours:
    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def time(self, loss, miner):
        self.process.stdin.write(f"{loss} {miner or ''}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline().split()
        if len(line) != 2:
            sys.exit(f"bench_losses failed at {loss}")
        return float(line[0]), float(line[1])


class Peer:
    def __init__(self, x, y, classes):
        import torch
        from pytorch_metric_learning import losses, miners
        torch.set_num_threads(1)
        torch.manual_seed(1)
        self.losses, self.miners, self.torch = losses, miners, torch
        self.x, self.y, self.classes = torch.tensor(x, requires_grad=True), torch.tensor(y, dtype=torch.long), classes
        self.made = {}

    def time(self, loss, miner):
        if (loss, miner) not in self.made:
            own = loss in ("ArcFaceLoss", "ProxyAnchorLoss", "ProxyNCALoss")
            sizes = {"num_classes": self.classes, "embedding_size": self.x.shape[1]} if own else {}
            self.made[loss, miner] = (getattr(self.losses, loss)(**sizes), getattr(self.miners, miner)() if miner else None)
        function, mine = self.made[loss, miner]
        self.x.grad = None
        start = time.perf_counter()
        value = function(self.x, self.y, mine(self.x, self.y) if mine else None)
        value.backward()
        return time.perf_counter() - start, float(value.detach())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "likeness-bench-losses"))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--heavy", action="store_true", help="also losses for which the peer takes gigabytes")
    parser.add_argument("--json")
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if options.venv and os.environ.get("LIKENESS_LOSSES_VENV") != options.venv:
        enter_venv(options.venv)
    import numpy
    rng = numpy.random.default_rng(1)
    classes = options.batch // options.per_class
    y = numpy.repeat(numpy.arange(classes, dtype=numpy.int32), options.per_class)
    x = (rng.standard_normal((classes, options.dim))[y] * 0.5 + rng.standard_normal((len(y), options.dim)))
    x = (x / numpy.linalg.norm(x, axis=1, keepdims=True)).astype("float32")  # both sides then mean the same by every loss
    peer, rows = Peer(x, y, classes), []
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("x", "y")]
        x.tofile(paths[0]), y.tofile(paths[1])
        ours = Ours(os.path.join(options.build, "bench", "bench_losses"), *paths, str(len(y)), str(options.dim), str(classes))
        print(f"batch {len(y)}, {options.dim} dimensions, {options.per_class} per class, one thread; peer {', '.join(PACKAGES[:2])}")
        print(f"{'loss':20}{'miner':18}{'ours ms':>10}{'peer ms':>10}{'ratio':>8}{'value off':>12}")
        for loss, miner, theirs, their_miner in LOSSES:
            if loss in HEAVY and not options.heavy:
                continue
            turns = []
            for turn in range((2 if loss in HEAVY else options.repeats) + 1):
                a, b = ours.time(loss, miner), peer.time(theirs, their_miner)
                if turn:  # the first warms both up
                    turns.append((a[0], b[0]))
            off = "" if loss in DRAWN else f"{abs(a[1] - b[1]) / max(abs(b[1]), 1e-12):.1e}"
            row = {"loss": loss, "miner": miner, "ours": statistics.median(t[0] for t in turns),
                   "peer": statistics.median(t[1] for t in turns), "ratio": statistics.median(t[1] / t[0] for t in turns)}
            rows.append(row)
            print(f"{loss:20}{miner or '':18}{row['ours'] * 1e3:10.2f}{row['peer'] * 1e3:10.2f}{row['ratio']:8.2f}{off:>12}", flush=True)
        ours.process.stdin.close()
    if options.json:
        with open(options.json, "w") as out:
            json.dump({"peer": PACKAGES, "batch": len(y), "dim": options.dim, "rows": rows}, out, indent=1)


if __name__ == "__main__":
    main()
