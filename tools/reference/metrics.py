#!/usr/bin/env python3
"""Makes tests/fixtures/metrics.h: retrieval metrics that trec_eval computes, for tests/unit/test_eval.c.

Needs pytrec-eval-terrier 0.5.11 (trec_eval's own C code) and numpy 2.4.6.
"""
import os

import numpy
import pytrec_eval

KS = (1, 5, 10, 100)
GALLERY = 120


def main():
    rng = numpy.random.default_rng(3)
    lines = [f"/* Made by tools/reference/metrics.py with pytrec_eval-terrier 0.5.11: do not edit. */\n#include <stdint.h>\n\n"
             f"enum {{ METRIC_GALLERY = {GALLERY}, METRIC_KS = {len(KS)} }};\nstatic const uint32_t metric_ks[] = {{{', '.join(map(str, KS))}}};\n"]
    rows = []
    # relevant items of which so many are in the ranking; graded or not
    cases = [(1, 1, 1), (1, 0, 1), (3, 3, 1), (7, 5, 1), (12, 12, 3), (30, 30, 1), (110, 110, 1), (40, 25, 4), (2, 2, 2), (119, 119, 5)]
    for number, (relevant, found, grades) in enumerate(cases):
        scores = rng.permutation(GALLERY).astype(float)  # no ties: trec_eval orders those by name
        chosen = rng.choice(GALLERY, found, replace=False)
        gains = rng.integers(1, grades + 1, relevant)
        names = [f"d{i}" for i in chosen] + [f"missing{i}" for i in range(relevant - found)]
        measures = {"map", "Rprec", "recip_rank", *(f"{m}.{','.join(map(str, KS))}" for m in ("P", "recall", "success", "ndcg_cut"))}
        result = pytrec_eval.RelevanceEvaluator({"q": {n: int(g) for n, g in zip(names, gains)}}, measures).evaluate(
            {"q": {f"d{i}": s for i, s in enumerate(scores)}})["q"]
        order = sorted(range(found), key=lambda i: -scores[chosen[i]])
        ranks = [int((scores > scores[chosen[i]]).sum()) + 1 for i in order]
        array = lambda values: "{" + ", ".join(values) + "}"
        real = lambda x: f"{x:.17g}" if "." in f"{x:.17g}" or "e" in f"{x:.17g}" else f"{x:.17g}.0"
        lines.append(f"static const float metric_scores_{number}[] = {array([f'{s:.0f}' for s in scores])};")
        lines.append(f"static const size_t metric_relevant_{number}[] = {array([str(c) for c in chosen] or ['0'])};")
        lines.append(f"static const uint64_t metric_ranks_{number}[] = {array([str(r) for r in ranks] or ['0'])};")
        lines.append(f"static const double metric_gains_{number}[] = {array([str(gains[i]) for i in order] or ['0'])};")
        lines.append(f"static const double metric_ideal_{number}[] = {array([str(g) for g in sorted(gains, reverse=True)])};")
        per_k = lambda name: array([real(result[f"{name}_{k}"]) for k in KS])
        rows.append(f"    {{{relevant}, {found}, metric_scores_{number}, metric_relevant_{number}, metric_ranks_{number}, metric_gains_{number}, "
                    f"metric_ideal_{number}, {real(result['map'])}, {real(result['Rprec'])}, {real(result['recip_rank'])}, "
                    f"{per_k('P')}, {per_k('recall')}, {per_k('success')}, {per_k('ndcg_cut')}}},")
    lines.append("\nstatic const struct {\n    size_t relevant, found;\n    const float *scores;\n    const size_t *items;\n    const uint64_t *ranks;\n"
                 "    const double *gains, *ideal; /* gains by rank; all of them, descending */\n    double map, r_precision, reciprocal_rank;\n"
                 "    double precision[METRIC_KS], recall[METRIC_KS], success[METRIC_KS], ndcg[METRIC_KS];\n} metric_cases[] = {\n"
                 + "\n".join(rows) + "\n};\n")
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "tests", "fixtures", "metrics.h"), "w") as out:
        out.write("\n".join(lines))


if __name__ == "__main__":
    main()
