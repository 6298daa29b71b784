"""The crash tests with many more crashes. Slow: runs with tests/run --full only."""

import unittest

import test_crash
import test_kill_loop

LABELS = "full"


class ManyCrashes(test_crash.Crash):
    rounds = 60


class ManyKills(test_kill_loop.KillLoop):
    rounds = 120


if __name__ == "__main__":
    unittest.main()
