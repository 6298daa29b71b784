"""That the benchmarks work; how fast anything is, is not asked."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

import servers

HERE = pathlib.Path(__file__).resolve().parent


class Smoke(unittest.TestCase):
    def setUp(self):
        servers.build_tools()
        temporary = tempfile.TemporaryDirectory(prefix="outtray-bench-")
        self.addCleanup(temporary.cleanup)
        self.directory = pathlib.Path(temporary.name)

    def run_script(self, name, *arguments):
        done = subprocess.run([sys.executable, HERE / name, "--plain", f"--work={self.directory / 'work'}", *arguments],
                              capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_the_driver_sends_what_it_is_told(self):
        server = servers.Outtray(self.directory)
        self.addCleanup(server.stop)
        server.start()
        for options in ({"messages": 300, "connections": 10}, {"messages": 30, "connections": 5, "per_session": 1},
                        {"messages": 4, "connections": 2, "size": 1_000_000}):
            measured = servers.load(server.port, **options)
            self.assertEqual(measured["messages"], options["messages"], options)
            self.assertGreater(measured["p99_ms"], 0)
        self.assertEqual(server.output().count("event=accepted"), 334)
        self.assertGreater(server.cpu_ms(), 0)
        self.assertGreater(server.memory_kb(), 1000)

    def test_a_refusal_ends_the_driver_with_its_reason(self):
        server = servers.Outtray(self.directory)
        self.addCleanup(server.stop)
        server.start()
        with self.assertRaisesRegex(RuntimeError, "MAIL was answered: 501 "):
            servers.load(server.port, messages=1, sender="a b@office.test")

    def test_accept_prints_a_table(self):
        table = self.run_script("accept", "--modes=many-10,one-10", "--servers=outtray", "--rounds=1", "--seconds=0.3",
                                "--no-source")
        self.assertRegex(table, r"\| outtray \| [0-9.,]+ \| 1\.00 × \|")
        self.assertRegex(table, r"\| 64 \| [0-9.,]+ \| [0-9.,]+ \| [0-9.,]+ \|")

    def test_queue_size_prints_a_table_and_draws(self):
        plot = self.directory / "plot.svg"
        table = self.run_script("queue_size", "--sizes=300,600", f"--plot={plot}")
        self.assertRegex(table, r"\| 300 \|.*\|\n\| 600 \|")
        self.assertIn("</svg>", plot.read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main()
