"""Triton's load generator, over HTTP and gRPC, by concurrency and by request rate.

`PERF_ANALYZER` names its binary: scripts/clients finds it. It ends with 0 only if it could measure.
"""

import csv
import os
import pathlib
import subprocess
import tempfile
import unittest

import cluster


class PerfAnalyzer(unittest.TestCase):
    def measured(self, protocol, *words):
        """Requests a second, as it reports them itself."""
        nodes = cluster.shared()
        address = {"http": nodes.http, "grpc": nodes.grpc}[protocol][0]
        with tempfile.TemporaryDirectory() as directory:
            report = pathlib.Path(directory) / "report.csv"
            done = subprocess.run(
                [os.environ["PERF_ANALYZER"], "-m", "identity", "-i", protocol, "-u", address, "--shape", "INPUT0:16",
                 "-b", "1", "--measurement-mode", "count_windows", "--measurement-request-count", "200",
                 "--stability-percentage", "999", "--max-trials", "6", "-f", str(report), *words],
                capture_output=True, text=True, timeout=180,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open(report, newline="") as file:
                return [float(row["Inferences/Second"]) for row in csv.DictReader(file)]

    def test_over_http_with_concurrency(self):
        self.assertTrue(all(rate > 100 for rate in self.measured("http", "--concurrency-range", "1:4:3")))

    def test_over_grpc_with_concurrency(self):
        self.assertTrue(all(rate > 100 for rate in self.measured("grpc", "--concurrency-range", "1:4:3")))

    def test_over_grpc_in_a_stream(self):
        self.assertTrue(all(rate > 50 for rate in self.measured("grpc", "--streaming", "--concurrency-range", "2")))

    def test_at_a_request_rate(self):
        for protocol in ("http", "grpc"):
            rates = self.measured(protocol, "--request-rate-range", "100")
            self.assertTrue(all(50 < rate < 150 for rate in rates), (protocol, rates))


if __name__ == "__main__":
    unittest.main()
