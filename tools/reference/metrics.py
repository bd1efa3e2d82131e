#!/usr/bin/env python3
"""Makes tests/fixtures/metrics.h: what pytrec_eval, ranx and the revisited protocol say of small random runs, for
tests/unit/test_metrics.c; then, with --program, checks the program against them on 1,000 random runs.

    tools/reference/metrics.py                                    # the fixture
    tools/reference/metrics.py --program build/release/src/cli/likeness   # the large comparison

Needs pytrec_eval-terrier 0.5.11, ranx 0.3.21 and numpy. Runs have ties (scores of few values), gaps (items without a
judgement, queries that the run does not answer, queries with nothing relevant) and grades from -1 to 3.
"""
import argparse
import json
import os
import subprocess
import tempfile

import numpy
import pytrec_eval

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
KS = (1, 3, 5, 10, 20)
TREC = {"map": "mAP", "Rprec": "R-precision", "recip_rank": "MRR", "ndcg": "nDCG", "P": "precision", "recall": "recall",
        "success": "hit", "map_cut": "map_cut", "ndcg_cut": "nDCG"}


def random_run(rng, queries, items):
    """qrels and run as dictionaries; queries and items are strings."""
    qrels, run = {}, {}
    for q in range(queries):
        name = f"q{q}"
        judged = rng.choice(items, rng.integers(1, max(2, items // 2)), replace=False)
        qrels[name] = {f"d{d}": int(rng.choice([-1, 0, 1, 2, 3], p=[.05, .35, .3, .2, .1])) for d in judged}
        if rng.random() < .1:
            qrels[name] = {d: min(g, 0) for d, g in qrels[name].items()}  # nothing to find
        if rng.random() < .08:
            continue  # not answered
        ranked = rng.choice(items, rng.integers(1, items + 1), replace=False)
        levels = int(rng.choice([2, 4, 1000]))  # few levels: many ties
        run[name] = {f"d{d}": float(numpy.float32(rng.integers(0, levels) / 8)) for d in ranked}
    return qrels, run


def trec_order(scores):
    """Items best first as trec_eval ranks: score, then item name, both descending."""
    return sorted(scores, key=lambda d: (scores[d], d), reverse=True)


def expected(qrels, run):
    """Per query with something to find: metrics by our names, from pytrec_eval."""
    measures = {"map", "Rprec", "recip_rank", "ndcg"}
    for m in ("P", "recall", "success", "map_cut", "ndcg_cut"):
        measures.add(m + "." + ",".join(map(str, KS)))
    answered = {q: run[q] for q in run}
    out = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(answered)
    result = {}
    for q, grades in qrels.items():
        if max(grades.values()) <= 0:
            continue
        if q not in run:
            result[q] = None  # all zero
            continue
        row = {}
        for name, value in out[q].items():
            base, _, k = name.rpartition("_")
            row[f"{TREC[base]}@{k}" if k.isdigit() else TREC[name]] = value
        result[q] = row
    return result


def from_ranx(qrels, run):
    """The same from ranx, ties broken beforehand, because ranx leaves their order open."""
    from ranx import Qrels, Run, evaluate
    wanted = {q: {d: g for d, g in grades.items() if g > 0} for q, grades in qrels.items()}
    wanted = {q: grades for q, grades in wanted.items() if grades and q in run}
    strict = {q: {d: float(len(run[q]) - i) for i, d in enumerate(trec_order(run[q]))} for q in wanted}
    names = {"map": "mAP", "mrr": "MRR", "r-precision": "R-precision", "ndcg": "nDCG", "ndcg_burges": "nDCG-exp"}
    for k in KS:
        for ranx_name, ours in (("precision", "precision"), ("recall", "recall"), ("hit_rate", "hit"), ("map", "map_cut"),
                                ("ndcg", "nDCG"), ("ndcg_burges", "nDCG-exp")):
            names[f"{ranx_name}@{k}"] = f"{ours}@{k}"
    r = Run(strict)
    evaluate(Qrels(wanted), r, list(names), return_mean=False)
    return {q: {ours: r.scores[name][q] for name, ours in names.items()} for q in wanted}


def revisited(order, easy, hard, junk):
    """AP and mP@k of the three set-ups, from the formulas of the protocol, in float64. order: items best first."""
    out = []
    for good, ignored in ((easy, junk | hard), (easy | hard, junk), (hard, junk | easy)):
        if not good:
            out.append([float("nan")] * (1 + len(KS)))
            continue
        positions, seen = [], 0
        for item in order:
            if item in ignored:
                continue
            if item in good:
                positions.append(seen)
            seen += 1
        positions = numpy.array(positions)
        area = 0.0
        for j, p in enumerate(positions):
            left = 1.0 if p == 0 else j / p
            right = (j + 1) / (p + 1)
            area += (left + right) / (2 * len(good))
        ranks = positions + 1
        row = [area]
        for k in KS:
            depth = min(ranks.max(), k)
            row.append((ranks <= depth).sum() / depth)
        out.append(row)
    return out


def number(x):
    return "NAN" if x != x else repr(float(x))


def write_fixture():
    rng = numpy.random.default_rng(11)
    cases, lines = [], []
    while len(cases) < 60:
        qrels, run = random_run(rng, 1, int(rng.integers(4, 40)))
        if "q0" not in run or max(qrels["q0"].values()) <= 0:
            continue
        want = expected(qrels, run)["q0"]
        want.update({n: v for n, v in from_ranx(qrels, run)["q0"].items() if n.startswith("nDCG-exp")})
        order = trec_order(run["q0"])
        ranks = [i + 1 for i, d in enumerate(order) if qrels["q0"].get(d, 0) > 0]
        grades = [qrels["q0"][d] for d in order if qrels["q0"].get(d, 0) > 0]
        ideal = sorted((g for g in qrels["q0"].values() if g > 0), reverse=True)
        cases.append((ranks, grades, ideal, want))
    names = ["mAP", "R-precision", "MRR", "nDCG", "nDCG-exp"]
    for base in ("precision", "recall", "hit", "map_cut", "nDCG", "nDCG-exp"):
        names += [f"{base}@{k}" for k in KS]
    lines.append(f"static const uint32_t fixture_ks[] = {{{', '.join(map(str, KS))}}};")
    lines.append("static const char *const fixture_names[] = {" + ", ".join(f'"{n}"' for n in names) + "};")
    lines.append(f"enum {{ FIXTURE_CASES = {len(cases)}, FIXTURE_NAMES = {len(names)}, FIXTURE_LONGEST = 40 }};")
    lines.append("static const struct metrics_case {\n    size_t found, relevant;\n    uint64_t ranks[FIXTURE_LONGEST];\n"
                 "    double grades[FIXTURE_LONGEST], ideal[FIXTURE_LONGEST], values[FIXTURE_NAMES];\n} fixture_cases[] = {")
    for ranks, grades, ideal, want in cases:
        lines.append(f"    {{{len(ranks)}, {len(ideal)}, {{{', '.join(map(str, ranks or [0]))}}}, {{{', '.join(map(str, grades or [0]))}}}, "
                     f"{{{', '.join(map(str, ideal))}}},\n     {{{', '.join(number(want[n]) for n in names)}}}}},")
    lines.append("};")
    # The revisited protocol: the order of a gallery of 30, and which items are easy, hard and junk.
    lines.append("\nenum { REVISITED_CASES = 20, REVISITED_GALLERY = 30 };\nstatic const struct revisited_case {\n"
                 "    char kinds[REVISITED_GALLERY + 1]; /* best first: e, h, j or . for nothing */\n"
                 "    double values[3][6];\n} revisited_cases[] = {")
    for _ in range(20):
        kinds = rng.choice(list("ehj......"), 30)
        kinds[rng.integers(0, 30)] = "e"
        sets = {c: {i for i in range(30) if kinds[i] == c} for c in "ehj"}
        rows = revisited(range(30), sets["e"], sets["h"], sets["j"])
        lines.append('    {"' + "".join(kinds) + '", {' + ", ".join("{" + ", ".join(map(number, r)) + "}" for r in rows) + "}},")
    lines.append("};")
    # scipy's exact permutation test of paired samples.
    from scipy.stats import permutation_test
    lines.append("\nenum { PAIRED_CASES = 6, PAIRED_QUERIES = 9 };\nstatic const struct paired_case {\n"
                 "    double a[PAIRED_QUERIES], b[PAIRED_QUERIES], p;\n} paired_cases[] = {")
    for shift in (0, 0, .1, .2, .4, 1):
        a = rng.integers(0, 1024, 9) / 1024
        b = rng.integers(0, 1024, 9) / 1024 + shift
        p = permutation_test((a, b), lambda x, y: numpy.mean(y - x), permutation_type="samples", n_resamples=numpy.inf).pvalue
        lines.append(f"    {{{{{', '.join(map(number, a))}}}, {{{', '.join(map(number, b))}}}, {number(p)}}},")
    lines.append("};")
    with open(os.path.join(ROOT, "tests", "fixtures", "metrics.h"), "w") as out:
        out.write("/* Made by tools/reference/metrics.py with pytrec_eval-terrier 0.5.11, ranx 0.3.21 and scipy: do not edit. */\n"
                  "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>\n\n" + "\n".join(lines) + "\n")


def compare_program(program, runs):
    """1,000 random runs in one: every query of every run has a name of its own, so the program reads two files."""
    rng = numpy.random.default_rng(12)
    qrels, run = {}, {}
    for i in range(runs):
        q, r = random_run(rng, int(rng.integers(1, 6)), int(rng.integers(4, 80)))
        qrels.update({f"{i}-{n}": v for n, v in q.items()})
        run.update({f"{i}-{n}": v for n, v in r.items()})
    with tempfile.TemporaryDirectory() as folder:
        paths = {n: os.path.join(folder, n) for n in ("run", "qrels", "csv")}
        with open(paths["run"], "w") as f:
            for q, scores in run.items():
                for d in rng.permutation(list(scores)):  # the order of lines means nothing
                    f.write(f"{q} Q0 {d} 0 {scores[d]!r} t\n")
        with open(paths["qrels"], "w") as f:
            f.writelines(f"{q} 0 {d} {g}\n" for q, grades in qrels.items() for d, g in grades.items())
        out = subprocess.run([program, "eval", "--run", paths["run"], "--qrels", paths["qrels"], "--csv", paths["csv"], "--json",
                              "-k", ",".join(map(str, KS)), "-q"], check=True, stdout=subprocess.PIPE, text=True).stdout
        with open(paths["csv"]) as f:
            header, *rows = [line.rstrip("\n").split(",") for line in f]
    ours = {row[0]: dict(zip(header[2:], map(float, row[2:]))) for row in rows}
    worst = {}
    for source, want in (("pytrec_eval", expected(qrels, run)), ("ranx", from_ranx(qrels, run))):
        if source == "pytrec_eval":
            assert set(want) == set(ours), "not the same queries"
        for q, row in want.items():
            for name, value in (row or {n: 0.0 for n in ours[q]}).items():
                error = abs(ours[q][name] - value)
                base = (source, name.split("@")[0] + ("@k" if "@" in name else ""))
                worst[base] = max(worst.get(base, 0), error)
    summary = json.loads(out)
    print(f"{runs} runs, {len(ours)} queries, {summary['queries_without_relevant']} without relevant items, "
          f"{summary['queries_not_answered']} not answered")
    for (source, name), error in sorted(worst.items()):
        print(f"  {source:12} {name:14} largest difference {error:.2e}")
    if max(worst.values()) > 1e-9:
        raise SystemExit("the program and the references differ by more than 1e-9")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program")
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    if options.program:
        compare_program(options.program, options.runs)
    else:
        write_fixture()
