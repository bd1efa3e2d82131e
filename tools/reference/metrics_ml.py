#!/usr/bin/env python3
"""Makes tests/fixtures/metrics_ml.h: what pytorch-metric-learning's AccuracyCalculator and Open Metric Learning say of a
small set of embeddings, for tests/unit/test_evaluate.c; with --program, compares the program with both on larger ones.

    tools/reference/metrics_ml.py
    tools/reference/metrics_ml.py --program build/release/src/cli/likeness

Needs pytorch-metric-learning 2.9.0, open-metric-learning 4.0.0, faiss-cpu 1.15.1, torch and numpy.
"""
import argparse
import csv
import json
import os
import subprocess
import tempfile

import numpy
import torch
from oml.functional.metrics import calc_retrieval_metrics
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
KS = (1, 5, 10)
PML = {"precision_at_1": "precision@1", "r_precision": "R-precision", "mean_average_precision_at_r": "MAP@R",
       "mean_reciprocal_rank": "MRR", "mean_average_precision": "mAP"}


def embeddings(seed, count, dim, classes):
    """Overlapping clusters of uneven sizes, some of one member."""
    rng = numpy.random.default_rng(seed)
    labels = numpy.minimum(rng.geometric(3 / classes, count) - 1, classes - 1)
    centres = rng.standard_normal((classes, dim))
    x = centres[labels] + 1.2 * rng.standard_normal((count, dim))
    x = numpy.round(x * 64) / 64
    return x.astype("float32"), labels


def from_pml(x, labels):
    unit = torch.nn.functional.normalize(torch.tensor(x, dtype=torch.float32))
    out = AccuracyCalculator(include=tuple(PML), k=len(x) - 1, device=torch.device("cpu")).get_accuracy(unit, torch.tensor(labels))
    return {PML[n]: v for n, v in out.items()}


def from_oml(x, labels):
    """OML's figures per query with something to find, and how they follow from ours: OML divides precision@k by min(k, R) and
    map@k by the relevant ones among the first k."""
    unit = x.astype("float64") / numpy.linalg.norm(x.astype("float64"), axis=1, keepdims=True)
    scores = unit @ unit.T
    numpy.fill_diagonal(scores, -numpy.inf)
    order = numpy.argsort(-scores, axis=1, kind="stable")[:, :-1]
    keep = [q for q in range(len(x)) if (labels == labels[q]).sum() > 1]
    truth = [torch.tensor([i for i in range(len(x)) if labels[i] == labels[q] and i != q]) for q in keep]
    out = calc_retrieval_metrics([torch.tensor(order[q]) for q in keep], truth, cmc_top_k=KS, precision_top_k=KS, map_top_k=KS,
                                 reduce=False, verbose=False)
    return keep, {f"{n}@{k}": out[n][k].numpy() for n in ("cmc", "precision", "map") for k in KS}


def write_fixture():
    x, labels = embeddings(3, 90, 6, 12)
    pml, (keep, oml) = from_pml(x, labels), from_oml(x, labels)
    lines = [f"enum {{ ML_COUNT = {len(x)}, ML_DIM = {x.shape[1]}, ML_QUERIES = {len(keep)} }};",
             "static const float ml_vectors[ML_COUNT * ML_DIM] = {"]
    lines += ["    " + ", ".join(f"{v:.9g}f" if "." in f"{v:.9g}" else f"{v:.9g}.0f" for v in row) + "," for row in x]
    lines += ["};", "static const int ml_labels[ML_COUNT] = {" + ", ".join(map(str, labels)) + "};"]
    lines.append("static const struct {\n    const char *name;\n    double value;\n} ml_pml[] = {")
    lines += [f'    {{"{n}", {float(v)!r}}},' for n, v in pml.items()]
    lines.append("};\n/* OML, one value a query. */")
    for n, values in oml.items():
        lines.append(f"static const float ml_oml_{n.replace('@', '_')}[ML_QUERIES] = {{{', '.join(f'{v:.9g}f' if '.' in f'{v:.9g}' else f'{v:.9g}.0f' for v in values)}}};")
    with open(os.path.join(ROOT, "tests", "fixtures", "metrics_ml.h"), "w") as out:
        out.write("/* Made by tools/reference/metrics_ml.py with pytorch-metric-learning 2.9.0 and open-metric-learning 4.0.0: do not edit. */\n"
                  + "\n".join(lines) + "\n")


def compare_program(program):
    worst = {}
    for seed in range(10):
        x, labels = embeddings(seed, 2000, 32, 150)
        pml, (keep, oml) = from_pml(x, labels), from_oml(x, labels)
        with tempfile.TemporaryDirectory() as folder:
            v, l, c = (os.path.join(folder, n) for n in ("v.npy", "l.npy", "c.csv"))
            numpy.save(v, x)
            numpy.save(l, labels)
            out = json.loads(subprocess.run([program, "eval", "--vectors", v, "--labels", l, "--csv", c, "--json", "-q", "-k",
                                             ",".join(map(str, KS))], check=True, stdout=subprocess.PIPE, text=True).stdout)
            with open(c) as f:
                rows = {int(row["query"]): row for row in csv.DictReader(f)}
        assert sorted(rows) == keep, "not the same queries"
        for name, value in pml.items():
            worst["PML " + name] = max(worst.get("PML " + name, 0), abs(out[name] - value))
        for k in KS:
            for i, q in enumerate(keep):
                row = {n: float(t) for n, t in rows[q].items()}
                hits = row[f"precision@{k}"] * k
                ours = {"cmc": row[f"hit@{k}"], "precision": hits / min(k, row["relevant"]),
                        "map": row[f"map_cut@{k}"] * row["relevant"] / hits if hits else 0}
                for n, value in ours.items():
                    worst[f"OML {n}@k"] = max(worst.get(f"OML {n}@k", 0), abs(value - oml[f"{n}@{k}"][i]))
    for name, error in worst.items():
        print(f"  {name:18} largest difference {error:.2e}")
    # PML and OML sum in float32, and PML ranks by f32 distances; OML's figures are per query.
    if max(worst.values()) > 1e-6:
        raise SystemExit("the program and the references differ by more than 1e-6")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program")
    options = parser.parse_args()
    compare_program(options.program) if options.program else write_fixture()
