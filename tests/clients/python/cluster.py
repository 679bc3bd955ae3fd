"""A cluster of real processes for clients of other projects, started once for all tests.

`paceline up` starts three nodes on free ports of loopback and stops them when the pipe that it
reads is closed, however this process ends. A client finds the doors as an operator does: with
`paceline nodes`.
"""

import atexit
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).parent
PACELINE = os.environ.get("PACELINE", str(HERE.parents[2] / "target/debug/paceline"))
# An encoder of random weights, and what `transformers` says of some texts.
ENCODER = HERE.parents[2] / "models/testdata/encoder/bert"
START_LIMIT_S = 120


class Cluster:
    """Three nodes with the demo's models, one that repeats every datatype, and a small encoder."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="paceline-clients-"))
        self.log = open(self.directory / "up.log", "w+")
        words = ["up", "--demo", "--http-port", "0", "--data-dir", str(self.directory / "cluster")]
        self.process = subprocess.Popen(
            [PACELINE, *words], stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )
        atexit.register(self.stop)
        self._wait()
        self.command("model", "push", "every", str(HERE / "models/every"), "--deploy", "--replicas", "each")
        self.command("model", "push", "bert", str(ENCODER), "--deploy", "--replicas", "each")
        nodes = json.loads(self.command("nodes", "-o", "json"))
        self.http = [node["addresses"]["http"] for node in nodes]
        self.grpc = [node["addresses"]["grpc"] for node in nodes]

    def command(self, *words):
        """The output of one command of `paceline` about this cluster."""
        context = self.directory / "cluster/context.toml"
        done = subprocess.run(
            [PACELINE, *words, "--context", str(context)], capture_output=True, text=True, timeout=120
        )
        if done.returncode != 0:
            raise RuntimeError(f"paceline {' '.join(words)}: {done.stderr}")
        return done.stdout

    def stop(self):
        """Ends all nodes and removes what they kept."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait(self):
        until = time.monotonic() + START_LIMIT_S
        while time.monotonic() < until:
            said = pathlib.Path(self.log.name).read_text()
            if any(line.startswith("ready") for line in said.splitlines()):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the cluster is not ready: {pathlib.Path(self.log.name).read_text()}")


_shared = None


def shared():
    """The cluster of this run."""
    global _shared
    if _shared is None:
        _shared = Cluster()
    return _shared
