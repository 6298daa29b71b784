"""The crash tests with many more crashes. Slow: runs with tests/run --full only."""

import unittest

import test_crash

LABELS = "full"


class ManyCrashes(test_crash.Crash):
    rounds = 60


if __name__ == "__main__":
    unittest.main()
