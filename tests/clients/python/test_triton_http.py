"""Triton's own client over HTTP: health, metadata, every datatype, binary and JSON, asynchronous."""

import asyncio
import unittest

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

import cluster
import values


class OverHttp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nodes = cluster.shared().http
        cls.client = triton.InferenceServerClient(cls.nodes[0], concurrency=4, network_timeout=20)
        cls.addClassCleanup(cls.client.close)

    def test_health_and_metadata(self):
        for address in self.nodes:
            with triton.InferenceServerClient(address) as client:
                self.assertTrue(client.is_server_live())
                self.assertTrue(client.is_server_ready())
                self.assertTrue(client.is_model_ready("digits"))
                self.assertTrue(client.is_model_ready("digits", "1"))
                self.assertFalse(client.is_model_ready("no-such-model"))
        self.assertEqual(self.client.get_server_metadata()["name"], "paceline")
        digits = self.client.get_model_metadata("digits")
        self.assertEqual(digits["versions"], ["1"])
        self.assertEqual(digits["inputs"], [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}])

    def test_extensions_are_advertised_as_they_work(self):
        extensions = self.client.get_server_metadata()["extensions"]
        for name in ("binary_tensor_data", "classification", "statistics", "model_configuration", "model_repository"):
            self.assertIn(name, extensions)
        for name in ("system_shared_memory", "cuda_shared_memory"):
            self.assertNotIn(name, extensions)

    def test_every_datatype_comes_back_as_it_went(self):
        for binary in (True, False):
            kept = {}
            inputs, outputs = [], []
            for datatype, array in values.every().items():
                if not binary and datatype in ("FP16", "BF16"):
                    continue  # they have no JSON form
                tensor = triton.InferInput(f"IN_{datatype}", list(array.shape), datatype)
                tensor.set_data_from_numpy(array, binary_data=binary)
                inputs.append(tensor)
                outputs.append(triton.InferRequestedOutput(f"OUT_{datatype}", binary_data=binary))
                kept[datatype] = array
            for datatype in () if binary else ("FP16", "BF16"):
                array = values.every()[datatype]
                tensor = triton.InferInput(f"IN_{datatype}", list(array.shape), datatype)
                inputs.append(tensor.set_data_from_numpy(array, binary_data=True))
            if not binary:
                # JSON has no infinity.
                self.assertTrue(np.isfinite(kept["FP32"]).all() and np.isfinite(kept["FP64"]).all())
            result = self.client.infer("every", inputs, outputs=outputs, request_id="every-1")
            self.assertEqual(result.get_response()["id"], "every-1")
            self.assertEqual(len(kept), len(result.get_response()["outputs"]))
            for datatype, array in kept.items():
                got = result.as_numpy(f"OUT_{datatype}")
                self.assertTrue(values.same(array, got), f"{datatype}, binary {binary}: {got}")

    def test_a_digit_is_recognised_with_its_classes(self):
        pixels = triton.InferInput("pixels", [1, 64], "FP32").set_data_from_numpy(values.DIGIT)
        result = self.client.infer("digits", [pixels])
        self.assertEqual(result.as_numpy("label").tolist(), [[b"0"]])
        self.assertAlmostEqual(float(result.as_numpy("probabilities").sum()), 1.0, places=5)
        best = triton.InferRequestedOutput("probabilities", class_count=3)
        classes = self.client.infer("digits", [pixels], outputs=[best]).as_numpy("probabilities")
        self.assertEqual(classes.shape, (1, 3))
        self.assertTrue(classes[0][0].split(b":")[1:2] == [b"0"], classes)

    def test_compressed_both_ways(self):
        array = np.ones((1, 100_000), dtype=np.float32)
        for algorithm in ("gzip", "deflate"):
            tensor = triton.InferInput("INPUT0", list(array.shape), "FP32").set_data_from_numpy(array)
            result = self.client.infer(
                "identity", [tensor], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
            )
            self.assertTrue(values.same(array, result.as_numpy("OUTPUT0")), algorithm)

    def test_asynchronous_requests_in_threads_and_on_an_event_loop(self):
        def tensor(number):
            array = np.full((1, 16), number, dtype=np.float32)
            return triton.InferInput("INPUT0", [1, 16], "FP32").set_data_from_numpy(array)

        handles = [self.client.async_infer("identity", [tensor(number)]) for number in range(32)]
        for number, handle in enumerate(handles):
            self.assertEqual(handle.get_result().as_numpy("OUTPUT0")[0, 0], number)

        async def together():
            async with triton_aio.InferenceServerClient(self.nodes[1]) as client:
                return await asyncio.gather(*(client.infer("identity", [tensor(number)]) for number in range(32)))

        answers = asyncio.run(together())
        self.assertEqual([answer.as_numpy("OUTPUT0")[0, 0] for answer in answers], list(range(32)))

    def test_sequences_priorities_and_timeouts_are_taken(self):
        tensor = triton.InferInput("INPUT0", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
        for sequence in (7, "user-7"):
            result = self.client.infer(
                "identity", [tensor], sequence_id=sequence, sequence_start=True, priority=2, timeout=5_000_000
            )
            self.assertEqual(result.as_numpy("OUTPUT0").tolist(), [[1.0, 1.0]])

    def test_statistics_and_configuration(self):
        def count():
            stats = self.client.get_inference_statistics("identity")["model_stats"][0]
            self.assertEqual((stats["name"], stats["version"]), ("identity", "1"))
            for key in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
                self.assertIn(key, stats["inference_stats"])
            return stats["inference_count"], stats["inference_stats"]["queue"]["count"]

        before = count()
        tensor = triton.InferInput("INPUT0", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
        for _ in range(30):
            self.client.infer("identity", [tensor])
        after = count()
        self.assertTrue(after[0] > before[0] and after[1] > before[1], (before, after))
        config = self.client.get_model_config("digits")
        self.assertEqual(config["name"], "digits")
        self.assertEqual(config["input"][0]["data_type"], "TYPE_FP32")
        self.assertEqual(config["output"][1]["data_type"], "TYPE_STRING")

    def test_the_repository_loads_and_unloads(self):
        index = self.client.get_model_repository_index()
        self.assertIn(("digits", "READY"), [(model["name"], model.get("state")) for model in index])
        self.client.unload_model("machine-failure")
        self.assertFalse(self.client.is_model_ready("machine-failure"))
        self.client.load_model("machine-failure")
        self.assertTrue(self.client.is_model_ready("machine-failure"))

    def test_errors_have_a_status_and_a_sentence(self):
        def raised(status, sentence, call):
            with self.assertRaises(InferenceServerException) as caught:
                call()
            self.assertEqual(caught.exception.status(), status)
            self.assertIn(sentence, caught.exception.message())

        wrong = triton.InferInput("pixels", [1, 63], "FP32").set_data_from_numpy(np.ones((1, 63), np.float32))
        raised("400", "pixels", lambda: self.client.infer("digits", [wrong]))
        right = triton.InferInput("pixels", [1, 64], "FP32").set_data_from_numpy(values.DIGIT)
        raised("404", "no-such-model", lambda: self.client.infer("no-such-model", [right]))
        raised("404", "", lambda: self.client.infer("digits", [right], model_version="99"))
        raised("501", "shared memory", lambda: self.client.register_system_shared_memory("region", "/key", 64))
        self.assertEqual(self.client.get_system_shared_memory_status(), [])
        self.client.unregister_system_shared_memory()


if __name__ == "__main__":
    unittest.main()
