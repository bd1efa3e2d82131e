"""Training over two processes joined by MPI. Run by tests/run mpi with the program built for it: LIKENESS."""
import array
import json
import os
import pathlib
import signal
import struct
import subprocess
import time
import unittest

from common import LIKENESS, Case, logos

BACKBONE = {"architecture": "resnet18", "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "stem_width": 8}}
# mpirun refuses root and more processes than processors unless told; waiting processes give way on small machines.
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]


def tensors(path):
    """The f32 tensors of a safetensors file, by name."""
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + size])
    out = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            out[name] = array.array("f", data[8 + size + begin:8 + size + end])
    return out


def distance(a, b, skip=()):
    """Largest distance of two sets of tensors, each relative to the length of the tensor."""
    assert a.keys() == b.keys()
    worst, where = 0, ""
    for name in a:
        if name.startswith(skip):
            continue
        length = sum(x * x for x in b[name]) ** 0.5
        off = sum((x - y) ** 2 for x, y in zip(a[name], b[name])) ** 0.5 / max(length, 1e-6)
        worst, where = max((worst, where), (off, name))
    return worst, where


class Processes(Case):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        self.csv = logos(self.data, variants=6)
        (self.data / "backbone.json").write_text(json.dumps(BACKBONE))

    def command(self, into, batch, *options):
        return [LIKENESS, "train", str(self.csv), "--backbone", str(self.data / "backbone.json"), "--size", "32", "--dim", "16",
                "--epochs", "2", "--batches", "4", "--batch", str(batch), "--threads", "1", "--optimiser", "sgd", "--rate", "0.01",
                "--seed", "5", "--into", str(self.folder / into), *options]

    def train(self, processes, into, batch, *options, status=0):
        start = [*MPIRUN, "-np", str(processes)] if processes > 1 else []
        done = subprocess.run([*start, *self.command(into, batch, *options)], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done

    def checkpoint(self, into):
        return self.folder / into / "checkpoint" / "last.safetensors"

    def test_two_processes_do_what_one_does_with_twice_the_batch(self):
        # Sums over the batch are in another order, so that weights differ by 1e-6 of a tensor's length after one step. From
        # there differences grow with every step, faster the longer the steps are: at this rate to 3e-5 after two.
        # The bias in front of the neck is left out: it has no gradient but what rounding leaves.
        for name, options in {
            "softmax": ["--loss", "arcface", "--sampler", "plain"],
            "memory": ["--loss", "contrastive:memory=32", "--accumulate", "2", "--ema", "0.9"],
            "heads": ["--loss", "supcon", "--pool", "cgd", "--auxiliary", "1", "--dropblock", "0.3"],
            "regions": ["--loss", "supcon", "--pool", "rmac:2,whiten"],
        }.items():
            for steps, tolerance in (1, 1e-5), (2, 3e-4):
                with self.subTest(name, steps=steps):
                    batches = 2 * steps if "--accumulate" in options else steps
                    each = [*options, "--epochs", "1", "--batches", str(batches), "--schedule", "constant", "--warmup", "0"]
                    two = self.train(2, f"{name}2-{steps}", 8, *each)
                    self.train(1, f"{name}1-{steps}", 16, *each)
                    self.assertEqual(two.stdout.count("images/s"), 1, "the first process alone speaks")
                    a, b = (tensors(self.checkpoint(f"{name}{k}-{steps}")) for k in (2, 1))
                    off, where = distance(a, b, skip=("likeness_head.bias", "likeness_drop.bias"))
                    self.assertLess(off, tolerance, where)
            self.train(1, name + "-half", 8, *each)
            half = tensors(self.checkpoint(name + "-half"))
            self.assertGreater(distance(half, b, skip=("loss", "likeness"))[0], 1e-1, "half the batch would pass as well")

    def test_the_same_bytes_every_time(self):
        for into in ("a", "b"):
            self.train(2, into, 8, "--loss", "arcface")
        self.assertEqual(self.checkpoint("a").read_bytes(), self.checkpoint("b").read_bytes())

    def test_killed_run_resumes_to_the_same_bytes(self):
        options = ["--loss", "contrastive:memory=32", "--ema", "0.9", "--epochs", "40", "--checkpoint-every", "1", "--resume"]
        self.train(2, "whole", 8, *options)
        run = subprocess.Popen([*MPIRUN, "-np", "2", *self.command("killed", 8, *options)], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
        until = time.time() + 120
        while not self.checkpoint("killed").exists() and time.time() < until:
            time.sleep(0.01)
        ranks = [int(p) for p in subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()]
        victim = [p for p in ranks if "OMPI_COMM_WORLD_RANK=1\0" in pathlib.Path(f"/proc/{p}/environ").read_text()]
        self.assertEqual(len(victim), 1)
        os.kill(victim[0], signal.SIGKILL)
        output, _ = run.communicate(timeout=120)
        self.assertNotEqual(run.returncode, 0)
        self.assertRegex(output, r"rank 1 .*signal 9|process 0 of 2: .*another process has died")
        self.train(2, "killed", 8, *options)
        self.assertEqual(self.checkpoint("killed").read_bytes(), self.checkpoint("whole").read_bytes())
        self.assertEqual((self.folder / "killed" / "model.safetensors").read_bytes(),
                         (self.folder / "whole" / "model.safetensors").read_bytes())

    def test_failure_of_one_is_told_by_all(self):
        (self.folder / "file").write_text("")
        done = self.train(2, "file/model", 8, status=1)
        self.assertEqual(done.stderr.count("likeness: train:"), 1, done.stderr)
        self.assertIn("file/model", done.stderr)
        done = self.train(2, "few", 8, "--rate", "1e30", status=1)
        self.assertEqual(done.stderr.count("Lower --rate"), 1, done.stderr)

    def test_processes_that_are_told_different_things_stop(self):
        first, second = (self.command("mixed", 8, "--seed", seed) for seed in ("5", "6"))
        done = subprocess.run([*MPIRUN, "-np", "1", *first, ":", "-np", "1", *second], capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("other options", done.stderr)

    def test_data_that_does_not_part_evenly_is_fitted(self):
        done = self.train(2, "odd", 7, "--loss", "supcon", "--per-class", "3")
        self.assertIn("batches of 12", done.stderr)


if __name__ == "__main__":
    unittest.main()
