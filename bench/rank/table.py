#!/usr/bin/env python3
"""Every metric before and after every expansion and re-ranker, with intervals and paired tests.

    bench/rank/table.py --build BUILD --collections logo=logo.lk,vlad=vlad.lk,bovw=bovw.lk [--query split=test]
                        [--methods NAME,...] [--write FILE.md] [--json FILE]

The program ranks and judges: `likeness eval` with each method writes its ranking of the best 1000, and one more run of it
judges them all and compares each with the plain ranking, query by query. Methods have the program's defaults unless they are
given with parameters (kreciprocal:20:6:0.3). dba is `likeness augment`, evaluated in the collection that it writes.

feedback is Rocchio's, simulated: a user sees the first ten results and marks each as right or wrong. Those ten are then taken
out of both rankings and of the truth, so that nothing is won by what the user has said already (the residual collection);
queries to which nothing right is left do not count.

Prints a summary; --write adds the table of all metrics.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")
METHODS = "aqe,rank,alpha,dba,kreciprocal,alone,diffusion,superglobal,geometric,feedback"
EXPANSIONS = ("aqe", "rank", "alpha")
SHOWN = ("mAP", "hit@1", "recall@10", "nDCG@10")
DEPTH, SEEN = 1000, 10


class Bench:
    def __init__(self, options, name, collection, folder):
        self.program = os.path.join(options.build, "src", "cli", "likeness")
        self.build, self.query, self.name = options.build, options.query, name
        self.collection, self.folder = collection, folder
        self.seconds = {}

    def run(self, *args):
        done = subprocess.run([self.program, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"likeness {' '.join(map(str, args))}: {done.stderr.strip()}")
        return done.stdout

    def ranking(self, name, collection, *args):
        """Writes a ranking of the best DEPTH of every query."""
        out, started = os.path.join(self.folder, name), time.perf_counter()
        self.run("eval", collection, "--query", self.query, "--depth", DEPTH, "--resamples", 100, "--write-run", out, "-q", *args)
        self.seconds[name] = time.perf_counter() - started
        return out

    def without_table(self, use):
        """Runs use() while the collection's table of neighbours is away."""
        table = os.path.join(self.collection, "neighbours.knn")
        aside = os.path.join(self.folder, "neighbours.knn")
        shutil.move(table, aside)
        try:
            return use()
        finally:
            shutil.move(aside, table)

    def method(self, text):
        name, _, parameters = text.partition(":")
        if name == "dba":
            into = os.path.join(self.folder, "augmented.lk")
            self.run("augment", self.collection, "--into", into, "-q", *(["--expand", "alpha:" + parameters] if parameters else []))
            out = self.ranking("dba", into)
            self.same_ids(into)
            shutil.rmtree(into)
            return out
        if name == "alone":
            return self.without_table(lambda: self.ranking("alone", self.collection, "--rerank", "kreciprocal" + (":" + parameters if parameters else "")))
        return self.ranking(text.replace(":", "-"), self.collection, "--expand" if name in EXPANSIONS else "--rerank", text)

    def same_ids(self, other):
        import sqlite3
        rows = [sqlite3.connect(os.path.join(c, "catalog.db")).execute("SELECT id, path FROM images ORDER BY id").fetchall()
                for c in (self.collection, other)]
        if rows[0] != rows[1]:
            raise SystemExit(f"{self.collection}: the augmented copy numbers its pictures otherwise; make the collection anew")

    def judge(self, methods):
        plain = self.ranking("none", self.collection)
        runs = [self.method(m) for m in methods]
        qrels = os.path.join(self.folder, "qrels")
        self.run("eval", self.collection, "--query", self.query, "--depth", DEPTH, "--resamples", 100, "--write-qrels", qrels, "-q")
        arguments = [a for r in [plain, *runs] for a in ("--run", r)]
        return json.loads(self.run("eval", *arguments, "--qrels", qrels, "--json", "-q"))

    # ---- feedback ----

    def feedback(self):
        """Both rankings of what is left when the first SEEN are known, judged."""
        sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
        import numpy
        import judge
        import library
        lib = library.Library(self.build)
        vectors, rows = lib.collection(self.collection)
        column, _, value = self.query.partition("=")
        data = judge.Judge(vectors, [r.get("label") for r in rows], [i for i, r in enumerate(rows) if "label" in r and str(r.get(column)) == value],
                           DEPTH + SEEN)
        moved, residual = [], []
        for q, near, relevant in zip(data.queries, data.near, data.relevant):
            seen = near[:SEEN]
            right = numpy.isin(seen, relevant)
            moved.append(lib.feedback(data.x[q], data.x[seen[right]], data.x[seen[~right]]))
            residual.append(numpy.setdiff1d(relevant, seen))
        files = {n: open(os.path.join(self.folder, n), "w") for n in ("before", "feedback", "left")}
        marked = counted = 0
        for at, scores in data.blocks(numpy.stack(moved)):
            if len(residual[at]) == 0:
                continue
            counted += 1
            marked += numpy.isin(data.near[at][:SEEN], data.relevant[at]).any()
            scores[data.near[at][:SEEN]] = -numpy.inf
            head = numpy.argpartition(-scores, DEPTH)[:DEPTH]
            head = head[numpy.lexsort((head, -scores[head]))]
            for name, ranking in (("before", data.near[at][SEEN:]), ("feedback", head)):
                files[name].writelines(f"{at} Q0 {item} 0 {len(ranking) - place} {name}\n" for place, item in enumerate(ranking))
            files["left"].writelines(f"{at} 0 {item} 1\n" for item in residual[at])
        for f in files.values():
            f.close()
        path = lambda n: os.path.join(self.folder, n)
        out = json.loads(self.run("eval", "--run", path("before"), "--run", path("feedback"), "--qrels", path("left"), "--json", "-q"))
        out["marked"] = int(marked)
        return out


# ---- tables ----

def value(run, metric):
    low, high = run["intervals"][metric]
    return f"{run[metric]:.4f} [{low:.4f}, {high:.4f}]"


def change(comparison):
    low, high = comparison["interval"]
    p = comparison["p_randomisation"]
    return f"{comparison['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" + (" *" if p < 0.05 else "")


def summary(out, labels):
    lines = ["| method | " + " | ".join(SHOWN) + " | p of mAP |", "|---" * (len(SHOWN) + 2) + "|"]
    base = out["runs"][0]
    lines.append(f"| {labels[0]} | " + " | ".join(value(base, m) for m in SHOWN) + " | |")
    for label, comparison in zip(labels[1:], out["comparisons"]):
        metrics = comparison["metrics"]
        lines.append(f"| {label} | " + " | ".join(change(metrics[m]) for m in SHOWN) + f" | {metrics['mAP']['p_randomisation']:.4f} |")
    return lines


def everything(out, labels):
    metrics = [m for m in out["runs"][0]["intervals"]]
    lines = ["| metric | " + " | ".join(labels) + " |", "|---" * (len(labels) + 1) + "|"]
    for m in metrics:
        cells = [value(out["runs"][0], m)] + [change(c["metrics"][m]) for c in out["comparisons"]]
        lines.append(f"| {m} | " + " | ".join(cells) + " |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--collections", required=True)
    parser.add_argument("--query", default="split=test")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--write")
    parser.add_argument("--json")
    options = parser.parse_args()
    methods = options.methods.split(",")
    page, report = [], {}
    for text in options.collections.split(","):
        name, _, collection = text.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(options, name, collection, folder)
            out = bench.judge([m for m in methods if m != "feedback"])
            labels = ["none"] + [m for m in methods if m != "feedback"]
            print(f"\n{name}: {out['runs'][0]['queries']} queries\n\n" + "\n".join(summary(out, labels)), flush=True)
            page += [f"## {name}", "", f"{out['runs'][0]['queries']} queries.", "", *everything(out, labels), ""]
            report[name] = {"all": out}
            if "feedback" in methods:
                left = bench.feedback()
                note = (f"{left['runs'][0]['queries']} queries have something right left behind the first {SEEN}; in {left['marked']} of them "
                        f"something right was among these.")
                print("\n" + note + "\n\n" + "\n".join(summary(left, ["before", "feedback"])), flush=True)
                page += [note, "", *everything(left, ["before", "feedback"]), ""]
                report[name]["feedback"] = left
            report[name]["seconds"] = bench.seconds
    if options.write:
        pathlib.Path(options.write).write_text("\n".join(page))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
