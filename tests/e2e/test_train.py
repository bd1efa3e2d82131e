"""`likeness train` from outside: bad data, training gone astray, and the first run of someone who reads no manual."""
import json
import pathlib
import signal
import subprocess
import time
import unittest

from common import LIKENESS, SHAPES, Case, logo, logos, run, run_json

BACKBONE = {"architecture": "resnet18", "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8}}


class Train(Case):
    def small(self, source, *options, status=0):
        backbone = self.folder / "backbone.json"
        backbone.write_text(json.dumps(BACKBONE))
        return run("train", source, "--backbone", backbone, "--size", "32", "--dim", "16", "--epochs", "1", "--batches", "2",
                   "--into", self.folder / "model", "--overwrite", *options, status=status)

    def test_twenty_classes_in_folders_without_any_option(self):
        for c in range(20):
            folder = self.folder / "pictures" / f"class{c:02}"
            folder.mkdir(parents=True)
            for i in range(2):
                logo(folder / f"{i}.svg", list(SHAPES)[c % len(SHAPES)], c // len(SHAPES) + i)
        training = subprocess.Popen([LIKENESS, "train", "pictures/"], cwd=self.folder, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)
        model, until = self.folder / "model", time.time() + 240
        while not (model / "history.csv").exists() and training.poll() is None and time.time() < until:
            time.sleep(0.1)
        training.send_signal(signal.SIGINT)  # all thirty epochs would take minutes
        output, errors = training.communicate(timeout=120)
        self.assertIn("32 pictures of 16 classes to train on, 8 of 4 other classes to validate with", output)
        self.assertEqual(training.returncode, 1, errors)
        self.assertIn("--resume", errors)
        run("index", self.folder / "pictures", "--model", model, "--into", self.folder / "p.lk", "-q")
        found = run_json("search", self.folder / "p.lk", self.folder / "pictures" / "class03" / "0.svg")
        self.assertEqual(len(found["results"]), 10)

    def test_missing_pictures_are_named_and_the_rest_is_trained_on(self):
        csv = logos(self.folder / "data")
        csv.write_text(csv.read_text() + "gone.svg,ring,set0,1999\n")
        done = self.small(csv, status=3)
        self.assertIn("gone.svg", done.stderr)
        self.assertIn("1 are missing", done.stdout)
        csv.write_text("path,label\na.svg,x\nb.svg,y\n")
        self.assertIn("none of the 2 pictures", self.small(csv, status=1).stderr)

    def test_one_class_alone_is_refused(self):
        csv = logos(self.folder / "data")
        rows = csv.read_text().splitlines()
        csv.write_text("\n".join([rows[0], *(r for r in rows if ",ring," in r)]) + "\n")
        self.assertIn("same label", self.small(csv, status=1).stderr)

    def test_training_gone_astray_says_what_to_lower(self):
        csv = logos(self.folder / "data")
        self.small(csv)
        before = {p: p.read_bytes() for p in (self.folder / "model").rglob("*.safetensors")}
        self.assertEqual(len(before), 2)
        done = self.small(csv, "--rate", "1e30", "--warmup", "0", status=1)
        self.assertIn("Lower --rate", done.stderr)
        self.assertEqual({p: p.read_bytes() for p in before}, before)

    def test_a_model_is_not_replaced_unasked(self):
        csv = logos(self.folder / "data")
        self.small(csv)
        model = self.folder / "model"
        before = {p: p.read_bytes() for p in model.rglob("*") if p.is_file()}
        options = ["train", csv, "--backbone", self.folder / "backbone.json", "--size", "32", "--dim", "16", "--batches", "2", "--into", model]
        refused = run(*options, "--epochs", "1", status=1).stderr
        for word in (str(model), "--resume", "--overwrite"):
            self.assertIn(word, refused)
        self.assertIn("give one", run(*options, "--resume", "--overwrite", status=2).stderr)
        done = run(*options, "--epochs", "1", "--resume")
        self.assertIn("all 1 epochs are done", done.stderr)
        for path in ("model.safetensors", "config.json", "history.csv"):
            self.assertEqual((model / path).read_bytes(), before[model / path])
        run(*options, "--epochs", "2", "--resume")
        self.assertEqual(len((model / "history.csv").read_text().splitlines()), 3)
        (model / "checkpoint" / "last.safetensors").unlink()
        self.assertIn("no checkpoint", run(*options, "--resume", status=1).stderr)

    def test_validation_of_one_class_is_left_out_with_a_reason(self):
        csv = logos(self.folder / "data")
        rows = [r.split(",") for r in csv.read_text().splitlines()]
        label = rows[0].index("label")
        split = ["validation" if r[label] == "ring" else "train" for r in rows[1:]]
        csv.write_text("\n".join(",".join(r + [s]) for r, s in zip(rows, ["split", *split])) + "\n")
        done = self.small(csv)
        self.assertIn("one class alone", done.stderr)
        self.assertIn("none to validate with", done.stdout)
        self.assertNotIn("mAP 1", done.stdout)

    def test_a_whitened_model_is_indexed_and_searched(self):
        csv = logos(self.folder / "data")
        for options, dim in ((["--whiten", "pca:5"], 5), (["--whiten", "learnt", "--pool", "rmac:2,whiten"], 16),
                             (["--pool", "cgd", "--auxiliary", "1:temperature=0.5,smoothing=0.1", "--whiten", "pca:7"], 7)):
            with self.subTest(" ".join(options)):
                self.small(csv, *options)
                collection = self.folder / f"{'-'.join(options).replace(':', '')}.lk"
                run("index", csv, "--model", self.folder / "model", "--into", collection, "-q")
                self.assertIn(f"{dim} dimensions", run("info", collection).stdout)

    def test_class_weights_of_few_pictures_are_advised_against(self):
        csv = logos(self.folder / "data")
        done = self.small(csv, "--loss", "arcface")
        self.assertIn("--least-per-class", done.stderr)
        self.assertIn("at least two are needed", self.small(csv, "--loss", "arcface", "--least-per-class", "1000", status=1).stderr)

    def test_every_way_of_typing_a_loss_a_miner_and_a_head(self):
        csv = logos(self.folder / "data")
        for options in (["--loss", "triplet:margin=0.2,form=smooth,distance=squared-l2", "--miner", "semi-hard:margin=0.1"],
                        ["--loss", "margin:learn-beta=yes,beta-per-class=yes", "--miner", "distance-weighted:cutoff=0.4"],
                        ["--loss", "contrastive:memory=64,memory-miner=pair-margin", "--pool", "cgd:avg+gem"],
                        ["--loss", "subcenter-arcface:subcenters=2", "--pool", "rmac:2", "--dropblock", "0.33"],
                        ["--miner", "batch-easy-hard:positive=easy,negative=semi-hard", "--pool", "gem-channels"],
                        ["--levels", "set,label", "--pairs", "soft"],
                        ["--levels", "set,label", "--loss", "triplet", "--pairs", "0.6,0.2", "--sampler", "hard-class"]):
            with self.subTest(" ".join(options)):
                self.small(csv, *options)
        for options, why in ((["--loss", "triplet:edge=1"], "there is no edge; there are margin"),
                             (["--loss", "triplet:form=flat"], "hinge, smooth, soft-margin"),
                             (["--loss", "triplet:margin"], "KEY=VALUE"), (["--loss", "tripled"], "no loss is named"),
                             (["--pool", "rmac:3,flat"], "only whiten can"), (["--whiten", "zca"], "pca"),
                             (["--pool", "rmac:"], "nothing follows"), (["--auxiliary", "1:edge=2"], "there are temperature, smoothing"),
                             (["--pool", "cgd:avg+sum"], "avg, max, gem"), (["--pool", "avg:3"], "nothing after a colon"),
                             (["--pairs", "0.2,0.5"], "less alike"), (["--miner", "semi-hard:margin=x"], "a number")):
            with self.subTest(" ".join(options)):
                self.assertIn(why, self.small(csv, *options, status=2).stderr)
        self.assertIn("no column", self.small(csv, "--levels", "maker", status=1).stderr)


if __name__ == "__main__":
    unittest.main()
