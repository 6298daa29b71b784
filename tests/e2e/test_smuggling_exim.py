"""Exim as the judge of what test_smuggling hands in. It reads mail data quite differently from Postfix."""

import unittest

from exim import Exim, Unavailable
from test_smuggling import Judge

LABELS = "full"


class WithExim(Judge):
    def test_exim_counts_one_message_for_each(self):
        try:
            server = Exim(self.directory)
        except Unavailable as error:
            self.skipTest(f"no Exim: {error}")
        self.judge(server)


if __name__ == "__main__":
    unittest.main()
