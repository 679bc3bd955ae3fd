"""`/v1/models` for three families of clients at once: OpenAI's, KServe v1's, TensorFlow Serving's."""

import json
import subprocess
import unittest

import openai

import cluster
import values


class ModelsApi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.base = f"http://{cluster.shared().http[0]}"

    def curl(self, path, *words, status=200):
        """The JSON that curl gets, as someone at a terminal would."""
        done = subprocess.run(
            ["curl", "-sS", "-m", "20", "-w", "\n%{http_code}", self.base + path, *words],
            capture_output=True,
            text=True,
            check=True,
        )
        body, code = done.stdout.rsplit("\n", 1)
        self.assertEqual(int(code), status, body)
        return json.loads(body)

    def test_the_openai_client_lists_models(self):
        for prefix in ("/v1", "/openai/v1"):
            client = openai.OpenAI(base_url=self.base + prefix, api_key="nothing", max_retries=0)
            self.assertIn("digits", [model.id for model in client.models.list()])
            self.assertEqual(client.models.retrieve("digits").id, "digits")
            with self.assertRaises(openai.NotFoundError):
                client.models.retrieve("no-such-model")

    def test_kserve_v1(self):
        self.assertIn("digits", self.curl("/v1/models")["models"])
        model = self.curl("/v1/models/digits")
        self.assertEqual((model["name"], model["ready"]), ("digits", True))
        body = json.dumps({"instances": values.DIGIT.tolist()})
        answer = self.curl("/v1/models/digits:predict", "-d", body)
        self.assertEqual(len(answer["predictions"]), 1)
        self.assertEqual(answer["predictions"][0]["label"], ["0"])
        self.curl("/v1/models/digits:explain", "-d", body, status=501)
        self.curl("/v1/models/no-such-model:predict", "-d", body, status=404)
        self.curl("/v1/models/digits:predict", "-d", '{"instances":[[1,2]]}', status=400)

    def test_tensorflow_serving(self):
        status = self.curl("/v1/models/identity/versions/1")["model_version_status"][0]
        self.assertEqual((status["version"], status["state"]), ("1", "AVAILABLE"))
        self.assertEqual(status["status"]["error_code"], "OK")
        metadata = self.curl("/v1/models/identity/metadata")
        inputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
        self.assertEqual(inputs["INPUT0"]["dtype"], "DT_FLOAT")
        rows = self.curl("/v1/models/identity/versions/1:predict", "-d", '{"instances":[[1,2],[3,4]]}')
        self.assertEqual(rows, {"predictions": [[1.0, 2.0], [3.0, 4.0]]})
        columns = self.curl("/v1/models/identity:predict", "-d", '{"inputs":{"INPUT0":[[1,2]]}}')
        self.assertEqual(columns, {"outputs": [[1.0, 2.0]]})
        both = '{"instances":[[1]],"inputs":{"INPUT0":[[1]]}}'
        self.assertIn("error", self.curl("/v1/models/identity:predict", "-d", both, status=400))


if __name__ == "__main__":
    unittest.main()
