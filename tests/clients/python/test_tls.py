"""Triton's client over TLS, on HTTP and gRPC, with a certificate that the test makes."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

import grpc
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

import cluster


class OverTls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="paceline-tls-"))
        cls.addClassCleanup(shutil.rmtree, directory, ignore_errors=True)
        cls.cert, key = directory / "cert.pem", directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
             "-subj", "/CN=paceline", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cls.cert)],
            check=True, capture_output=True,
        )  # fmt: skip
        data = directory / "data"
        words = ["serve", "--demo", "--http-port", "0", "--data-dir", str(data), "--tls-cert", str(cls.cert), "--tls-key", str(key)]
        node = subprocess.Popen([cluster.PACELINE, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(node.wait, timeout=30)
        cls.addClassCleanup(node.terminate)
        addresses = data / "addresses.json"
        until = time.monotonic() + cluster.START_LIMIT_S
        while not addresses.exists() and time.monotonic() < until:
            time.sleep(0.1)
        cls.addresses = json.loads(addresses.read_text())
        cls.pem = cls.cert.read_bytes()
        channel = grpc.secure_channel(cls.addresses["grpc"], grpc.ssl_channel_credentials(cls.pem))
        grpc.channel_ready_future(channel).result(timeout=cluster.START_LIMIT_S)
        channel.close()

    def test_over_http(self):
        import gevent.ssl

        def context():
            return gevent.ssl.create_default_context(cafile=str(self.cert))

        with triton_http.InferenceServerClient(self.addresses["http"], ssl=True, ssl_context_factory=context) as client:
            self.answered(client, triton_http)

    def test_over_grpc(self):
        certificate = str(self.cert)
        with triton_grpc.InferenceServerClient(self.addresses["grpc"], ssl=True, root_certificates=certificate) as client:
            self.answered(client, triton_grpc)

    def test_another_authority_is_not_trusted(self):
        channel = grpc.secure_channel(self.addresses["grpc"], grpc.ssl_channel_credentials())
        with self.assertRaises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=2)
        channel.close()

    def answered(self, client, triton):
        until = time.monotonic() + cluster.START_LIMIT_S
        while not client.is_model_ready("identity") and time.monotonic() < until:
            time.sleep(0.1)
        array = np.arange(16, dtype=np.float32).reshape(1, 16)
        tensor = triton.InferInput("INPUT0", [1, 16], "FP32").set_data_from_numpy(array)
        got = client.infer("identity", [tensor]).as_numpy("OUTPUT0")
        self.assertEqual(got.tolist(), array.tolist())


if __name__ == "__main__":
    unittest.main()
