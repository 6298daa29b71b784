"""A server that does whatever a seed says: nothing is lost, nothing comes twice without need, no limit is crossed."""

import unittest

from chaos import Chaos
from harness import EndToEnd


class FewSeeds(EndToEnd):
    def test_several_in_flight(self):
        Chaos(self, 1, in_flight=4, calm_after=2).play()

    def test_one_in_flight(self):
        Chaos(self, 2, in_flight=1, count=24, calm_after=2).play()

    def test_a_server_without_chunks(self):
        Chaos(self, 3, chunking=False, in_flight=4, count=24, calm_after=2).play()


if __name__ == "__main__":
    unittest.main()
