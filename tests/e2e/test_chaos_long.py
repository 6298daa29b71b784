"""What test_chaos does, with more seeds."""

import unittest

from chaos import Chaos
from harness import EndToEnd

LABELS = "full"
SEEDS = range(100, 120)


class ManySeeds(EndToEnd):
    def test_every_seed(self):
        for seed in SEEDS:
            with self.subTest(seed=seed):
                Chaos(self, seed, chunking=seed % 4 != 3, in_flight=4 if seed % 3 else 1,
                      day=60 if seed % 5 == 0 else 0).play()


if __name__ == "__main__":
    unittest.main()
