#!/usr/bin/env python3
"""Makes tests/fixtures/miners.h: the pairs and triplets that every deterministic miner finds, for tests/unit/test_miners.c.

In f64, by PyTorch Metric Learning 2.9 and, for the hardest triplets, also Open Metric Learning 4.0.
"""
import itertools
import os

import torch
from oml.miners.inbatch_hard_tri import HardTripletsMiner
from pytorch_metric_learning import distances, miners
from pytorch_metric_learning.utils import loss_and_miner_utils

N, DIM = 24, 16
torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(23)


def draw():
    return torch.round(torch.randn(N, DIM, generator=generator) * 64) / 64


def near():
    x = draw() * 0.7
    for i in range(N):
        x[i, i // 4] += 1.5
    return torch.round(x * 64) / 64


def doubled():
    x = near()
    x[1], x[6] = x[0], x[2]
    return x


SIX = [i // 4 for i in range(N)]
UNEVEN = [0, 0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 5, 5, 5, 5, 6, 6, 7, 8, 8, 8, 3]
BATCHES = [(near(), SIX), (near(), UNEVEN), (draw(), [3] * N), (draw(), list(range(N))), (doubled(), SIX)]
ALL, HARD, SEMI, EASY = (getattr(miners.BatchEasyHardMiner, k) for k in ("ALL", "HARD", "SEMIHARD", "EASY"))
NAMES = {ALL: "ALL", HARD: "HARD", SEMI: "SEMI_HARD", EASY: "EASY"}
cases = []


class AllPairs:
    def __call__(self, x, y):
        return loss_and_miner_utils.get_all_pairs_indices(y)


class Hardest:
    def __call__(self, x, y):
        d = torch.cdist(x, x)
        found = HardTripletsMiner()._sample_from_distmat(d, y)
        return tuple(torch.tensor(v) for v in found)


def add(name, kind, miner, options="", batches=(0, 1, 2, 3), prepare=lambda x: x):
    for b in batches:
        x, y = BATCHES[b]
        found = [t.tolist() for t in miner(prepare(x), torch.tensor(y))]
        if len(found) == 3:
            groups = [sorted(zip(*found))]
        else:
            groups = [sorted(zip(*found[:2])), sorted(zip(*found[2:]))]
        cases.append((f"{name}, batch {b}", kind, options, b, len(found) == 3, groups))


def set_distance(kind, raw=False):
    return f"o->distance.kind = LK_DISTANCE_{kind};" + (" o->distance.raw = true;" if raw else "")


def main():
    unit = torch.nn.functional.normalize
    every = (0, 1, 2, 3, 4)
    cosine = distances.CosineSimilarity
    add("all", "ALL", AllPairs(), batches=every)
    add("batch hard", "BATCH_HARD", miners.BatchHardMiner())
    add("batch hard by cosine", "BATCH_HARD", miners.BatchHardMiner(distance=cosine()), set_distance("COSINE"))
    add("batch hard raw", "BATCH_HARD", miners.BatchHardMiner(distance=distances.LpDistance(normalize_embeddings=False)),
        set_distance("L2", True), (0, 1))
    add("batch hard of oml", "BATCH_HARD", Hardest(), batches=(0,), prepare=unit)
    for pos, neg in itertools.product((ALL, HARD, SEMI, EASY), repeat=2):
        if SEMI in (pos, neg) and (pos == neg or ALL in (pos, neg)):
            continue
        options = f"o->positive = LK_STRATEGY_{NAMES[pos]}; o->negative = LK_STRATEGY_{NAMES[neg]};"
        add(f"easy hard {NAMES[pos]} {NAMES[neg]}", "BATCH_EASY_HARD", miners.BatchEasyHardMiner(pos, neg), options, (0, 1, 2))
        if SEMI in (pos, neg):
            add(f"easy hard {NAMES[pos]} {NAMES[neg]} by cosine", "BATCH_EASY_HARD",
                miners.BatchEasyHardMiner(pos, neg, distance=cosine()), options + set_distance("COSINE"), (1,))
    add("hard positive", "HARD_POSITIVE", miners.BatchEasyHardMiner(HARD, ALL))
    add("hard negative", "HARD_NEGATIVE", miners.BatchEasyHardMiner(ALL, HARD))
    add("semi-hard", "SEMI_HARD", miners.TripletMarginMiner(type_of_triplets="semihard"), batches=every)
    add("triplet margin", "TRIPLET_MARGIN", miners.TripletMarginMiner(0.1), "o->margin = 0.1;", every)
    add("triplet margin by cosine", "TRIPLET_MARGIN", miners.TripletMarginMiner(0.05, distance=cosine()),
        "o->margin = 0.05;" + set_distance("COSINE"))
    add("multi-similarity", "MULTI_SIMILARITY", miners.MultiSimilarityMiner(), batches=every)
    add("multi-similarity by l2", "MULTI_SIMILARITY", miners.MultiSimilarityMiner(0.05, distance=distances.LpDistance()),
        "o->epsilon = 0.05;" + set_distance("L2"), every)
    add("pair margin", "PAIR_MARGIN", miners.PairMarginMiner(1.0, 1.1), "o->positive_margin = 1.0; o->negative_margin = 1.1;", every)
    add("pair margin by cosine", "PAIR_MARGIN", miners.PairMarginMiner(0.5, 0.2, distance=cosine()),
        "o->positive_margin = 0.5; o->negative_margin = 0.2;" + set_distance("COSINE"), every)
    add("angular", "ANGULAR", miners.AngularMiner(30), "o->angle = 30 * 3.14159265358979323846 / 180;", every, unit)
    out = ["/* Made by tools/reference/miners.py: do not edit. */\n#include <likeness/metric.h>\n\n"
           f"enum {{ FIXTURE_N = {N}, FIXTURE_DIM = {DIM} }};\n"]
    for i, (x, y) in enumerate(BATCHES):
        out.append(f"static const float x{i}[] = {{{','.join(f'{v:.7g}f' if '.' in f'{v:.7g}' else f'{v:.7g}.0f' for v in x.flatten().tolist())}}};\n")
        out.append(f"static const int32_t classes{i}[] = {{{','.join(map(str, y))}}};\n")
    rows, shared = [], {}
    for i, (name, kind, options, batch, triplets, groups) in enumerate(cases):
        names = []
        for g, group in enumerate(groups):
            text = ",".join(str(v) for t in group for v in t) or "0"
            if text not in shared:
                shared[text] = f"t{i}_{g}"
                out.append(f"static const uint8_t t{i}_{g}[] = {{{text}}};\n")
            names += [str(len(group)), shared[text]]
        if triplets:
            names += ["0", "NULL"]
        if options:
            out.append(f"static void set{i}(lk_miner_options *o) {{ {options} }}\n")
        rows.append(f'    {{"{name}", LK_MINER_{kind}, {f"set{i}" if options else "NULL"}, {batch}, {str(triplets).lower()}, {", ".join(names)}}},\n')
    out.append(f"static const float *const fixture_x[] = {{{', '.join(f'x{i}' for i in range(len(BATCHES)))}}};\n")
    out.append(f"static const int32_t *const fixture_classes[] = {{{', '.join(f'classes{i}' for i in range(len(BATCHES)))}}};\n")
    out.append("/* first: triplets (a, p, n), or positive pairs (a, p); second: negative pairs (a, n). Sorted. */\n"
               "static const struct fixture_case {\n    const char *name;\n    lk_miner_kind kind;\n    void (*set)(lk_miner_options *);\n"
               "    int batch;\n    bool triplets;\n    size_t count;\n    const uint8_t *first;\n    size_t negatives;\n"
               "    const uint8_t *second;\n} fixture_cases[] = {\n" + "".join(rows) + "};\n")
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "miners.h"), "w") as file:
        file.write("".join(out))
    print(len(cases), "cases;", {n: [len(g) for g in gs] for n, *_, gs in cases})


if __name__ == "__main__":
    main()
