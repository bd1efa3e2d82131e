"""kill -9 at random moments of an index run: nothing acknowledged is lost, nothing is double, the end result is the same."""
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
import unittest

from common import LIKENESS, Case, png, run, run_json

KILLS, PICTURES = 50, 160


def content(collection):
    """Path, hash, size and labels of every picture: all that does not depend on the order of runs."""
    with sqlite3.connect(f"file:{collection}/catalog.db?mode=ro", uri=True) as db:
        return db.execute("SELECT path, hash, width, height, labels, state FROM images ORDER BY path").fetchall()


class Killing(Case):
    def test_fifty_kills_lose_nothing(self):
        pictures, whole, killed = self.folder / "pictures", self.folder / "whole.lk", self.folder / "killed.lk"
        pictures.mkdir()
        for i in range(PICTURES):
            png(pictures / f"{i:03}.png", 64, 64, lambda x, y: 255 * ((x * (i % 13 + 1) ^ y * (i % 7 + 1)) >> 5 & 1), grey=True)
        arguments = ["index", str(pictures), "--sample", "40", "--words", "8", "--dim", "32", "--commit-every", "3", "-q"]
        run(*arguments, "--into", whole)
        started = time.time()
        run(*arguments, "--into", self.folder / "timing.lk")
        full = time.time() - started

        seed = int(os.environ.get("LIKENESS_SEED", random.randrange(1 << 30)))
        chance = random.Random(seed)
        acknowledged, kills, runs = 0, 0, 0
        while kills < KILLS:
            runs += 1
            process = subprocess.Popen([LIKENESS, *arguments, "--into", str(killed)], stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, full * (1 if chance.random() < 0.3 else 0.15)))
            process.send_signal(signal.SIGKILL)
            killed_it = process.wait() == -signal.SIGKILL
            kills += killed_it
            if killed.exists():
                done = run("verify", killed, status=None)
                self.assertEqual(done.returncode, 0, f"seed {seed}, kill {kills}: {done.stdout}{done.stderr}")
                now = run_json("info", killed)["indexed"]
                self.assertGreaterEqual(now, acknowledged, f"seed {seed}, kill {kills}")
                acknowledged = now
            if acknowledged == PICTURES and kills < KILLS:  # everything is done: begin anew for the remaining kills
                run("remove", killed, *[f"id:{r[0]}" for r in self.ids(killed)[: PICTURES * 3 // 4]])
                acknowledged = run_json("info", killed)["indexed"]
        run(*arguments, "--into", killed)
        run("verify", killed)
        self.assertEqual(content(killed), content(whole))
        self.assertGreater(runs, 0)
        # The vectors are the same too: every ranking agrees.
        for name in ("000.png", "057.png", f"{PICTURES - 1:03}.png"):
            rank = lambda c: [(r["path"], round(r["score"], 5)) for r in
                              run_json("search", c, pictures / name, "-k", PICTURES)["results"]]
            ours, theirs = rank(killed), rank(whole)
            self.assertEqual(sorted(ours), sorted(theirs))
        leftovers = [p for p in (killed / "vectors").iterdir() if p.suffix not in (".seg", ".blocks")]
        leftovers += [p for folder in (killed, self.folder) for p in folder.iterdir()
                      if p.suffix == ".tmp" or p.name.startswith(".killed.lk")]
        self.assertEqual(leftovers, [])

    def ids(self, collection):
        with sqlite3.connect(f"file:{collection}/catalog.db?mode=ro", uri=True) as db:
            return db.execute("SELECT id FROM images ORDER BY id").fetchall()


if __name__ == "__main__":
    unittest.main()
