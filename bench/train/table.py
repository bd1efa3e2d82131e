#!/usr/bin/env python3
"""Trains the logo corpus in a reduced setting with several losses and poolings, and sets each beside words of SIFT and no training.

    bench/train/table.py --build BUILD [--out DIR] [--epochs N] [--seeds 1,2,3] [--losses A,B] [--poolings A,B] [--beside A,B]
                         [--threads N] [--jobs N]

Pictures: build/logos (tools/logos/build). Setting: 64 pixels, the network of models/logo/backbone.json, 128 dimensions, batch-norm
neck, AdamW 2e-3 with cosine, decay 0.02, 37 batches of 128 an epoch; two drawings a class for losses of pairs, as published
(docs/losses.md); ArcFace with scale 16, margin 0.2 and class weights at ten times the rate, on the 214 classes of four drawings and
more, which was chosen on the validation brands (docs/results.md); the epoch that does best on the validation brands is kept. Measured
on the test split, brands never seen: each of its drawings that has another one of its brand is a query among all drawings of the
split. Words and VLAD are learnt from all labelled drawings.

Prints the table, and again as results come. What is finished in DIR (default build/table) is not done again, what was cut off goes
on: run the same command. Quality does not depend on the load of the machine.
"""
import argparse
import concurrent.futures
import csv
import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOSSES, POOLINGS = ["contrastive", "triplet", "n-tuple", "arcface"], ["avg", "gem", "rmac"]
METRICS = {"mAP": "mAP", "recall@1": "hit@1", "recall@10": "recall@10", "nDCG@10": "nDCG@10"}  # as in docs/results.md
QUEUE = [("bovw", None), ("vlad", None), ("untrained", "gem")]


def write_labelled(out):
    """The corpus without its unlabelled drawings, and the test split alone."""
    source = ROOT / "build/logos/logos.csv"
    with open(source) as file:
        rows = list(csv.DictReader(file))
    for name, splits in (("labelled", ("train", "validation", "test")), ("test", ("test",))):
        path = out / f"{name}.csv"
        if path.exists():
            continue
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split"])
            for row in rows:
                if row["split"] in splits:
                    writer.writerow([source.parent / row["path"], row["label"], row["split"]])


class Runner:
    def __init__(self, arguments):
        self.arguments, self.out = arguments, pathlib.Path(arguments.out)
        self.program = str(pathlib.Path(arguments.program or pathlib.Path(arguments.build) / "src/cli/likeness").resolve())
        self.out.mkdir(parents=True, exist_ok=True)
        write_labelled(self.out)

    def likeness(self, *words):
        command = [self.program, *map(str, words), "--threads", str(self.arguments.threads), "-q"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def model(self, loss, pool, seed, into):
        common = ["--backbone", ROOT / "models/logo/backbone.json", "--size", 64, "--pool", pool, "--dim", 128, "--batch", 128,
                  "--decay", 0.02, "--rate", 2e-3, "--seed", seed]
        data = ROOT / "build/logos/logos.csv"
        if loss == "untrained":  # one epoch at a rate of next to nothing: batch norms learn their statistics
            common[common.index("--rate") + 1] = 1e-12
            self.likeness("train", data, *common, "--no-neck", "--loss", "contrastive", "--epochs", 1, "--overwrite", "--into", into)
            return
        how = ["--loss", loss, "--sampler", "pk", "--per-class", 2]
        if loss == "arcface":  # class weights start at a length of about 11, which steps of the network's rate hardly turn
            how = ["--loss", "arcface:scale=16,margin=0.2", "--least-per-class", 4, "--loss-rate", 10, "--batches", 37]
        self.likeness("train", data, *common, *how, "--epochs", self.arguments.epochs, "--resume", "--into", into)

    def run(self, loss, pool, seed):
        name = "-".join(str(x) for x in (loss, pool, seed) if x is not None)
        result, collection = self.out / f"{name}.json", self.out / f"{name}.lk"
        if result.exists():
            return
        if pool:
            self.model(loss, pool, seed, self.out / name)
            self.likeness("index", self.out / "test.csv", "--model", self.out / name, "--into", collection)
        else:
            self.likeness("index", self.out / "labelled.csv", "--kind", loss, "--into", collection)
        text = self.likeness("eval", collection, "--query", "split=test", "--gallery", "split=test", "--json")
        result.with_suffix(".part").write_text(text)
        result.with_suffix(".part").rename(result)

    def table(self):
        def cell(values):
            middle = sum(values) / len(values)
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            return f"{middle:.3f}{spread}"
        print("\n| loss | pooling | seeds | " + " | ".join(METRICS) + " |")
        print("|---|---|---|" + "---|" * len(METRICS))
        for loss, pool in QUEUE + [(l, p) for l in LOSSES for p in POOLINGS]:
            files = sorted(self.out.glob(f"{loss}-{pool}-[0-9]*.json" if pool else f"{loss}.json"))
            found = [json.loads(f.read_text()) for f in files]
            if found:
                print(f"| {loss} | {pool or ''} | {len(found)} | "
                      + " | ".join(cell([r[key] for r in found]) for key in METRICS.values()) + " |")
        print(flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--program", help="another program than BUILD's")
    parser.add_argument("--out", default=str(ROOT / "build/table"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--poolings", default=",".join(POOLINGS))
    parser.add_argument("--beside", default=",".join(l for l, _ in QUEUE), help="what the losses are set beside")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    runner = Runner(arguments)
    seeds = [int(s) for s in arguments.seeds.split(",")]
    poolings = sorted(arguments.poolings.split(","), key=lambda p: p != "gem")
    work = [(l, p, s) for s in seeds for p in poolings for l in arguments.losses.split(",")]
    work += [(l, p, seeds[0] if p else None) for l, p in QUEUE if l in arguments.beside.split(",")]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for job in concurrent.futures.as_completed([pool.submit(runner.run, *one) for one in work]):
            job.result()
            runner.table()


if __name__ == "__main__":
    main()
