"""Triton's own client over gRPC, and the health service that load balancers ask."""

import asyncio
import queue
import unittest

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

import cluster
import values


def ones(number, columns=16):
    array = np.full((1, columns), number, dtype=np.float32)
    return triton.InferInput("INPUT0", [1, columns], "FP32").set_data_from_numpy(array)


class OverGrpc(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nodes = cluster.shared().grpc
        cls.client = triton.InferenceServerClient(cls.nodes[0])
        cls.addClassCleanup(cls.client.close)

    def test_health_and_metadata(self):
        for address in self.nodes:
            with triton.InferenceServerClient(address) as client:
                self.assertTrue(client.is_server_live())
                self.assertTrue(client.is_server_ready())
                self.assertTrue(client.is_model_ready("digits"))
                self.assertFalse(client.is_model_ready("no-such-model"))
        self.assertEqual(self.client.get_server_metadata().name, "paceline")
        digits = self.client.get_model_metadata("digits")
        self.assertEqual(list(digits.versions), ["1"])
        self.assertEqual((digits.inputs[0].name, list(digits.inputs[0].shape)), ("pixels", [-1, 64]))

    def test_the_standard_health_service(self):
        with grpc.insecure_channel(self.nodes[1]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for service in ("", "inference.GRPCInferenceService"):
                answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
            with self.assertRaises(grpc.RpcError) as caught:
                stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=10)
            self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
            watch.cancel()

    def test_every_datatype_comes_back_as_it_went(self):
        sent = values.every()
        inputs = []
        for datatype, array in sent.items():
            tensor = triton.InferInput(f"IN_{datatype}", list(array.shape), datatype)
            inputs.append(tensor.set_data_from_numpy(array))
        result = self.client.infer("every", inputs, request_id="every-1")
        self.assertEqual(result.get_response().id, "every-1")
        self.assertEqual(len(sent), len(result.get_response().outputs))
        for datatype, array in sent.items():
            got = result.as_numpy(f"OUT_{datatype}")
            self.assertTrue(values.same(array, got), f"{datatype}: {got}")

    def test_a_digit_is_recognised_with_its_classes(self):
        pixels = triton.InferInput("pixels", [1, 64], "FP32").set_data_from_numpy(values.DIGIT)
        result = self.client.infer("digits", [pixels])
        self.assertEqual(result.as_numpy("label").tolist(), [[b"0"]])
        best = triton.InferRequestedOutput("probabilities", class_count=2)
        classes = self.client.infer("digits", [pixels], outputs=[best]).as_numpy("probabilities")
        self.assertEqual(classes[0][0].split(b":")[1], b"0")

    def test_compressed_requests(self):
        for algorithm in ("gzip", "deflate"):
            result = self.client.infer("identity", [ones(3, 100_000)], compression_algorithm=algorithm)
            self.assertEqual(result.as_numpy("OUTPUT0").sum(), 300_000.0)

    def test_large_tensors(self):
        array = np.arange(5_000_000, dtype=np.float32).reshape(5, 1_000_000)
        tensor = triton.InferInput("INPUT0", list(array.shape), "FP32").set_data_from_numpy(array)
        result = self.client.infer("identity", [tensor])
        self.assertTrue(values.same(array, result.as_numpy("OUTPUT0")))

    def test_asynchronous_requests_with_callbacks_and_on_an_event_loop(self):
        done = queue.Queue()
        for number in range(32):
            self.client.async_infer("identity", [ones(number)], callback=lambda result, error: done.put((result, error)))
        got = []
        for _ in range(32):
            result, error = done.get(timeout=20)
            self.assertIsNone(error)
            got.append(int(result.as_numpy("OUTPUT0")[0, 0]))
        self.assertEqual(sorted(got), list(range(32)))

        async def together():
            async with triton_aio.InferenceServerClient(self.nodes[2]) as client:
                return await asyncio.gather(*(client.infer("identity", [ones(number)]) for number in range(32)))

        answers = asyncio.run(together())
        self.assertEqual([answer.as_numpy("OUTPUT0")[0, 0] for answer in answers], list(range(32)))

    def test_a_stream_answers_each_request_and_survives_one_that_fails(self):
        done = queue.Queue()
        self.client.start_stream(callback=lambda result, error: done.put((result, error)))
        for number in range(16):
            self.client.async_stream_infer("identity", [ones(number)], request_id=str(number))
        self.client.async_stream_infer("no-such-model", [ones(1)], request_id="lost")
        self.client.async_stream_infer("identity", [ones(99)], request_id="99")
        got, errors = [], []
        for _ in range(18):
            result, error = done.get(timeout=20)
            if error is None:
                got.append((result.get_response().id, int(result.as_numpy("OUTPUT0")[0, 0])))
            else:
                errors.append(error.message())
        self.client.stop_stream()
        self.assertEqual(sorted(got), sorted([(str(number), number) for number in range(16)] + [("99", 99)]))
        self.assertEqual(len(errors), 1)
        self.assertIn("no-such-model", errors[0])

    def test_a_stream_on_an_event_loop(self):
        async def stream():
            async def requests():
                for number in range(8):
                    yield {"model_name": "identity", "inputs": [ones(number)], "request_id": str(number)}

            async with triton_aio.InferenceServerClient(self.nodes[0]) as client:
                got = []
                async for result, error in client.stream_infer(requests()):
                    self.assertIsNone(error)
                    got.append(int(result.as_numpy("OUTPUT0")[0, 0]))
                return got

        self.assertEqual(sorted(asyncio.run(stream())), list(range(8)))

    def test_statistics_configuration_and_repository(self):
        def count():
            stats = self.client.get_inference_statistics("identity").model_stats[0]
            return stats.inference_count, stats.inference_stats.queue.count

        before = count()
        for _ in range(30):
            self.client.infer("identity", [ones(1)])
        after = count()
        self.assertTrue(after[0] > before[0] and after[1] > before[1], (before, after))
        config = self.client.get_model_config("digits").config
        self.assertEqual((config.name, config.input[0].name), ("digits", "pixels"))
        index = self.client.get_model_repository_index().models
        self.assertIn(("identity", "READY"), [(model.name, model.state) for model in index])
        self.client.unload_model("machine-failure")
        self.assertFalse(self.client.is_model_ready("machine-failure"))
        self.client.load_model("machine-failure")
        self.assertTrue(self.client.is_model_ready("machine-failure"))

    def test_errors_have_a_status_and_a_sentence(self):
        def raised(status, sentence, call):
            with self.assertRaises(InferenceServerException) as caught:
                call()
            self.assertEqual(caught.exception.status(), f"StatusCode.{status}")
            self.assertIn(sentence, caught.exception.message())

        wrong = triton.InferInput("pixels", [1, 63], "FP32").set_data_from_numpy(np.ones((1, 63), np.float32))
        raised("INVALID_ARGUMENT", "pixels", lambda: self.client.infer("digits", [wrong]))
        raised("NOT_FOUND", "no-such-model", lambda: self.client.infer("no-such-model", [ones(1)]))
        raised("UNIMPLEMENTED", "", lambda: self.client.register_system_shared_memory("region", "/key", 64))
        self.assertEqual(len(self.client.get_system_shared_memory_status().regions), 0)
        self.client.unregister_system_shared_memory()


if __name__ == "__main__":
    unittest.main()
