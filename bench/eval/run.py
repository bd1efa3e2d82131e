#!/usr/bin/env python3
"""Evaluates n embeddings, each a query among all others, beside pytorch-metric-learning and Open Metric Learning.

    bench/eval/run.py --build BUILD [--venv DIR] [--sizes 20000,100000] [--sides NAME,...] [--limit GIB] [--repeats N]

Prints a row a side and size: wall and processor seconds (the fastest of the repeats, sides taking turns), peak memory, and
figures that both sides must agree on. Every side is a process of its own with --limit GiB of address space beyond what its
libraries take; one that needs more is shown as stopped. Embeddings are 128 wide, in n / 20 overlapping classes.
  likeness          all metrics from the exact rank of every relevant item
  likeness-depth    the same from the best 100
  pml-r             PML's AccuracyCalculator, k = the largest class: precision@1, R-precision, MAP@R
  pml-all           the same with the whole ranking, as its mean_average_precision over all results needs
  oml               OML's batched_knn (best 100) and calc_retrieval_metrics: CMC, precision and mAP at 1, 10, 100
Peers are installed into DIR (made when missing) at the versions below.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

PEERS = ["pytorch-metric-learning==2.9.0", "faiss-cpu==1.15.1", "torch==2.15.0", "numpy==2.4.6",
         "gdown==6.5.1", "matplotlib==3.11.2", "omegaconf==2.4.0", "pandas==3.1.1", "validators==0.36.0"]  # what OML imports
ALONE = ["open-metric-learning==4.0.0"]  # it asks for a numpy below 2 and works with this one
SIDES = ("likeness", "likeness-depth", "pml-r", "pml-all", "oml")
DIM = 128


def enter_venv(directory):
    """Runs this script again with the interpreter of the virtual environment, which gets the packages first."""
    python = os.path.join(directory, "bin", "python")
    if not os.path.exists(os.path.join(directory, "installed")):
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *ALONE], check=True)
        open(os.path.join(directory, "installed"), "w").close()
    os.environ["LIKENESS_EVAL_VENV"] = directory
    os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])


def make(n, folder):
    import numpy
    rng = numpy.random.default_rng(1)
    labels = rng.integers(0, n // 20, n)
    x = rng.standard_normal((n // 20, DIM)).astype("float32")[labels] + 1.6 * rng.standard_normal((n, DIM)).astype("float32")
    x /= numpy.linalg.norm(x, axis=1, keepdims=True)
    numpy.save(os.path.join(folder, "x.npy"), x)
    numpy.save(os.path.join(folder, "labels.npy"), labels)


def peer(side, folder, limit):
    """In a process of its own: loads, evaluates, prints its figures and the seconds without the imports."""
    import numpy
    import torch
    x, labels = (torch.tensor(numpy.load(os.path.join(folder, f))) for f in ("x.npy", "labels.npy"))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if side == "oml":
        from oml.functional.knn import batched_knn
        from oml.functional.metrics import calc_retrieval_metrics
    else:
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
        import faiss
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    with open("/proc/self/statm") as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    wall, processor = time.perf_counter(), time.process_time()
    if side == "oml":
        ids = torch.arange(len(x))
        _, found, truth = batched_knn(x, ids, ids, 100, labels_gt=labels)
        out = calc_retrieval_metrics(found, truth, cmc_top_k=(1, 10, 100), precision_top_k=(1, 10, 100), map_top_k=(1, 10, 100), verbose=False)
        figures = {"hit@1": float(out["cmc"][1]), "hit@10": float(out["cmc"][10])}
    else:
        names = ("precision_at_1", "r_precision", "mean_average_precision_at_r") + (("mean_average_precision",) if side == "pml-all" else ())
        out = AccuracyCalculator(include=names, k=None if side == "pml-all" else "max_bin_count", device=torch.device("cpu")).get_accuracy(x, labels)
        figures = {"hit@1": out["precision_at_1"], "R-precision": out["r_precision"], "MAP@R": out["mean_average_precision_at_r"]}
    print(json.dumps({"wall": time.perf_counter() - wall, "processor": time.process_time() - processor, "figures": figures}))


def run_side(side, program, folder, limit):
    """Wall seconds, processor seconds, peak MiB and figures; figures None when it stopped."""
    if side.startswith("likeness"):
        command = [program, "eval", "--vectors", os.path.join(folder, "x.npy"), "--labels", os.path.join(folder, "labels.npy"), "--json", "-q"]
        command += ["--depth", "100"] if side == "likeness-depth" else []
        before = lambda: resource.setrlimit(resource.RLIMIT_AS, (limit + (1 << 30), limit + (1 << 30)))
    else:
        command = [sys.executable, os.path.abspath(__file__), "--peer", side, "--folder", folder, "--limit", str(limit / 2**30), "--build", "-"]
        before = None
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before)
    text, errors = child.communicate()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = {"wall": time.perf_counter() - started, "processor": None, "figures": None}
    if child.returncode == 0:
        found = json.loads(text)
        out = found if "figures" in found else {"wall": out["wall"], "processor": None, "figures": found}
    else:
        out["why"] = (errors.strip().splitlines() or [f"signal {-child.returncode}"])[-1][:100]
    out["usage"] = (usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    return out


def isolated(side, program, folder, limit):
    """run_side in a child of its own, so that the usage of children is that of one side."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            with os.fdopen(write, "w") as f:
                json.dump(run_side(side, program, folder, limit), f)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        out = json.load(f)
    os.waitpid(pid, 0)
    if out["processor"] is None:
        out["processor"] = out["usage"][0]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--venv", default=os.path.join(tempfile.gettempdir(), "likeness-bench-eval"))
    parser.add_argument("--sizes", default="20000,100000")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--limit", type=float, default=8)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit = int(options.limit * 2**30)
    if options.peer:
        return peer(options.peer, options.folder, limit)
    if os.environ.get("LIKENESS_EVAL_VENV") != options.venv:
        enter_venv(options.venv)
    program = os.path.join(options.build, "src", "cli", "likeness")
    print("| n | side | wall s | processor s | peak MiB | hit@1 | R-precision | MAP@R |\n|---|---|---|---|---|---|---|---|", flush=True)
    for n in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            make(n, folder)
            best = {}
            for _ in range(options.repeats):
                for side in options.sides.split(","):
                    out = isolated(side, program, folder, limit)
                    if side not in best or out["processor"] < best[side]["processor"]:
                        best[side] = out
            for side, out in best.items():
                figures = out["figures"]
                cells = [f"{figures[m]:.6f}" if m in figures else "" for m in ("hit@1", "R-precision", "MAP@R")] if figures else \
                    [f"stopped: {out['why']}", "", ""]
                print(f"| {n} | {side} | {out['wall']:.1f} | {out['processor']:.1f} | {out['usage'][1]:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
