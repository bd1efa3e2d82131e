"""An installation in a folder of its own: the program runs there, and a program of somebody else's builds and runs with it."""
import os
import pathlib
import shutil
import subprocess
import unittest

from common import LIKENESS, ROOT, Case, logos

BUILD = pathlib.Path(LIKENESS).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "example.c"


@unittest.skipUnless(shutil.which("meson") and shutil.which("pkg-config") and (BUILD / "build.ninja").exists(),
                     "wants a build folder, meson and pkg-config")
class Installed(Case):
    def setUp(self):
        super().setUp()
        self.root = self.folder / "staged"
        subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet"], env={**os.environ, "DESTDIR": str(self.root)},
                       check=True, capture_output=True, timeout=300)
        self.without = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}

    def only(self, pattern):
        found = list(self.root.rglob(pattern))
        self.assertEqual(len(found), 1, found)
        return found[0]

    def test_program_runs_where_it_was_staged(self):
        done = subprocess.run([self.only("bin/likeness"), "--version"], capture_output=True, text=True, env=self.without, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_example_builds_and_runs_with_it(self):
        program = self.folder / "example"
        package = self.only("likeness.pc").parent
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "likeness"], capture_output=True, text=True, check=True, timeout=60,
                               env={**os.environ, "PKG_CONFIG_PATH": str(package), "PKG_CONFIG_SYSROOT_DIR": str(self.root)}).stdout
        built = subprocess.run(["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-pedantic", EXAMPLE, "-o", program, *flags.split()],
                               capture_output=True, text=True, timeout=60)
        self.assertEqual(built.returncode, 0, built.stderr)
        csv = logos(self.folder / "logos")
        done = subprocess.run([program, csv, self.folder / "model", self.folder / "x.lk", self.folder / "logos" / "fish-0.svg"],
                              capture_output=True, text=True, timeout=300,
                              env={**self.without, "LD_LIBRARY_PATH": str(package.parent)})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[1] for line in lines[:3]], ["fish"] * 3, done.stdout)


if __name__ == "__main__":
    unittest.main()
