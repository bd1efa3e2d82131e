"""Power cuts: the file operations of a collection's life are recorded, and what a disk may hold after each of them (writes
lost, torn, reordered) is opened. It must be the state before a command or the one after it, whole, and go on from there."""
import hashlib
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import unittest

from common import LIKENESS, Case, png, run, run_json

sys.path.insert(0, str(pathlib.Path(__file__).parent / "faults"))
import disk as disks  # noqa: E402

TRACER = pathlib.Path(LIKENESS).resolve().parents[2] / "tests" / "e2e" / "faults" / "trace.so"
STATES = int(os.environ.get("LIKENESS_FAULTS", 240))  # disks looked at; a larger number looks at more moments


def content(collection):
    with sqlite3.connect(f"file:{collection}/catalog.db", uri=True) as db:
        return db.execute("SELECT id, path, hash, labels, state FROM images ORDER BY id").fetchall()


def digest(folder):
    hash = hashlib.sha256()
    for path in sorted(pathlib.Path(folder).rglob("*")):
        hash.update(str(path.relative_to(folder)).encode() + b"\0")
        if path.is_file():
            data = path.read_bytes()
            hash.update(len(data).to_bytes(8, "little") + data)
    return hash.digest()


class Faults(Case):
    def traced(self, *arguments):
        done = subprocess.run([LIKENESS, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                              env={**os.environ, "LD_PRELOAD": str(TRACER), "LIKENESS_TRACE": str(self.trace)})
        self.assertEqual(done.returncode, 0, done.stderr)

    def live(self):
        """The life of a collection. Each command, with what was there after it: how many events, pictures, kind of index."""
        first, more = self.folder / "first", self.folder / "more"
        for folder, numbers in ((first, range(40)), (more, range(40, 52))):
            folder.mkdir()
            for i in numbers:
                png(folder / f"{i:03}.png", 64, 64, lambda x, y: 255 * ((x * (i % 13 + 1) ^ y * (i % 7 + 1)) >> 5 & 1), grey=True)
        self.disk_root.mkdir()
        index = ["index", first, "--into", self.collection, "--sample", 40, "--words", 8, "--dim", 32, "-q", "--recall", 1]
        commands = [
            [*index, "--index", "graph"],
            ["index", more, "--into", self.collection, "-q"],
            ["remove", self.collection, *[f"id:{i}" for i in range(3, 44, 5)]],
            [*index, "--index", "partitioned", "--rebuild"],
            ["compact", self.collection],
            [*index, "--index", "graph", "--rebuild"],
        ]
        steps = [(0, None, None)]
        for command in commands:
            self.traced(*command)
            copy = self.folder / f"copy{len(steps)}.lk"  # even looking at a collection may write to it
            shutil.copytree(self.collection, copy)
            steps.append((len(disks.read_trace(self.trace)), content(copy), run_json("info", copy)["index"]["kind"]))
        self.assertEqual([s[2] for s in steps[1:]], ["graph", "graph", "graph", "partitioned", "partitioned", "graph"])
        self.last = commands[-1]
        return steps

    def look(self, target, before, after, whole, note):
        """The disk in target must hold the one state or the other. `whole`: nothing was lost that had been acknowledged."""
        collection = target / "c.lk"
        if not collection.exists():
            self.assertIsNone(before[1], note)
            self.assertFalse(whole, note)
            return False
        done = run("verify", collection, status=None)
        self.assertEqual(done.returncode, 0, f"{note}: {done.stdout}{done.stderr}")
        now, kind = content(collection), run_json("info", collection)["index"]["kind"]
        # A new collection's pictures come after it, and its index after them.
        allowed = [after[1]] if whole else [before[1] or [], after[1]]
        kinds = {after[2]} if whole else {before[2] or "flat", after[2]} | ({"flat"} if now == after[1] else set())
        self.assertIn(now, allowed, note)
        self.assertIn(kind, kinds, note)
        if now:
            query = f"id:{now[len(now) // 2][0]}"
            found, exact = (run_json("search", collection, query, "-k", 12, *how)["results"] for how in ([], ["--exact"]))
            self.assertEqual([(r["id"], r["score"]) for r in found], [(r["id"], r["score"]) for r in exact], note)
        return True

    def go_on(self, target, note):
        """The next writer has nothing to repair by hand."""
        collection = target / "c.lk"
        run(*[collection if a == self.collection else a for a in self.last])
        run("verify", collection)
        paths = {pathlib.Path(r[1]).name for r in content(collection)}
        self.assertLessEqual({f"{i:03}.png" for i in range(40)}, paths, note)
        self.assertEqual(run_json("info", collection)["index"]["kind"], "graph", note)
        self.assertEqual([p.name for p in (collection / "index").iterdir() if p.suffix != ".ann"], [], note)
        self.assertEqual(len(list((collection / "index").iterdir())), 1, note)

    def test_every_power_cut_leaves_the_state_before_or_after(self):
        self.trace, self.disk_root = self.folder / "trace", self.folder / "disk"
        self.collection = self.disk_root / "c.lk"
        steps = self.live()
        disk = disks.Disk(self.disk_root, disks.read_trace(self.trace))
        seed = int(os.environ.get("LIKENESS_SEED", random.randrange(1 << 30)))
        chance = random.Random(seed)
        policies = {"killed": disks.everything, "all lost": disks.nothing, "names alone": disks.names_alone,
                    "contents alone": disks.contents_alone, "torn at 512": disks.torn(512), "torn at 4096": disks.torn(4096),
                    "scattered 512": disks.scattered(512, chance), "scattered 4096": disks.scattered(4096, chance)}
        # A moment is just after an event. The ends of commands always; of the others as many as there is time for.
        ends = {s[0] for s in steps[1:]}
        self.assertGreater(len(disk.steps), 200)
        moments = [(n + 1, p) for n in disk.steps for p in policies]
        chance.shuffle(moments)
        plan = [(n, p) for n in sorted(ends) for p in policies] + moments
        seen, looked, existed = set(), 0, 0
        for n, policy in plan:
            if looked >= STATES:
                break
            target = self.folder / "state"
            shutil.rmtree(target, ignore_errors=True)
            disk.write(target, n, policies[policy])
            here = digest(target), n in ends
            if here in seen:
                continue
            seen.add(here)
            looked += 1
            step = next(i for i in range(1, len(steps)) if n <= steps[i][0])
            note = f"seed {seed}, after event {n} (command {step}), {policy}"
            if self.look(target, steps[step - 1], steps[step], n in ends, note):
                existed += 1
                if looked % 12 == 0:
                    self.go_on(target, note)
        self.assertGreater(existed, STATES // 2)


if __name__ == "__main__":
    unittest.main()
