"""tests/run itself: a test program that does not run to its end must never count as passed."""
import contextlib
import importlib.util
import io
import pathlib
import unittest
from importlib.machinery import SourceFileLoader

from common import Case

RUN = pathlib.Path(__file__).resolve().parents[1] / "run"
HEAD = "echo '[==========] Running 2 test(s).'\necho '[       OK ] a'\n"


class Runner(Case):
    def counts(self, script, names=("test_*",)):
        """(passed, failed, skipped) for a unit test program that is this shell script."""
        loader = SourceFileLoader("tests_run", str(RUN))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tests_run", loader))
        loader.exec_module(module)
        program = self.folder / "tests" / "unit" / "test_fake"
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        with contextlib.redirect_stdout(io.StringIO()):
            module.unit("fake", self.folder, names=names)
        self.assertEqual(bool(module.failures), module.failed > 0)
        return module.passed, module.failed, module.skipped

    def test_a_whole_program_is_counted(self):
        self.assertEqual(self.counts(HEAD + "echo '[       OK ] b'"), (2, 0, 0))
        self.assertEqual(self.counts(HEAD + "echo '[  FAILED  ] b'\necho ' 1 FAILED TEST(S)'\nexit 1"), (1, 1, 0))
        skipped = "echo '[  SKIPPED ] b'\necho '[  SKIPPED ] 1 test(s), listed below:'\necho '[  SKIPPED ] b'"
        self.assertEqual(self.counts(HEAD + skipped), (1, 0, 1))

    def test_a_crash_is_a_failure(self):
        self.assertEqual(self.counts(HEAD + "kill -SEGV $$"), (1, 1, 0))
        self.assertEqual(self.counts(HEAD + "kill -ABRT $$"), (1, 1, 0))
        self.assertEqual(self.counts(HEAD + "echo '[       OK ] b'\nkill -SEGV $$"), (2, 1, 0))  # while it tidies up
        self.assertEqual(self.counts("kill -SEGV $$"), (0, 1, 0))

    def test_an_end_before_the_last_test_is_a_failure(self):
        self.assertEqual(self.counts(HEAD + "exit 0"), (1, 1, 0))
        self.assertEqual(self.counts("exit 0"), (0, 1, 0))

    def test_a_name_without_a_program_is_a_failure(self):
        whole = HEAD + "echo '[       OK ] b'"
        self.assertEqual(self.counts(whole, ["test_none*"]), (0, 1, 0))
        self.assertEqual(self.counts(whole, ["test_*", "test_none*"]), (2, 1, 0))
        self.assertEqual(self.counts(whole, ["test_*", "test_fake"]), (2, 0, 0))


if __name__ == "__main__":
    unittest.main()
