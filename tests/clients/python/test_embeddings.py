"""Embeddings with OpenAI's client, held to what `transformers` says of the same texts."""

import json
import unittest

import openai

import cluster


class Embeddings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        base = f"http://{cluster.shared().http[0]}/v1"
        cls.client = openai.OpenAI(base_url=base, api_key="nothing", max_retries=0)
        cls.rows = json.loads((cluster.ENCODER / "expected.json").read_text())["rows"]
        cls.texts = [row["text"] for row in cls.rows]

    def assert_known(self, answer):
        self.assertEqual([item.index for item in answer.data], list(range(len(self.rows))))
        for item, row in zip(answer.data, self.rows):
            self.assertEqual(len(item.embedding), len(row["outputs"]))
            for found, wanted in zip(item.embedding, row["outputs"]):
                self.assertAlmostEqual(found, wanted, delta=2e-5)

    def test_texts(self):
        # The client asks for base64 unless it is told otherwise.
        cut = {"truncate": True}
        answer = self.client.embeddings.create(model="bert", input=self.texts, extra_body=cut)
        self.assert_known(answer)
        self.assertEqual(answer.usage.total_tokens, sum(len(row["ids"]) for row in self.rows))
        answer = self.client.embeddings.create(
            model="bert", input=self.texts, encoding_format="float", extra_body=cut
        )
        self.assert_known(answer)

    def test_dimensions(self):
        answer = self.client.embeddings.create(model="bert", input=self.texts[0], dimensions=4)
        cut = answer.data[0].embedding
        self.assertEqual(len(cut), 4)
        self.assertAlmostEqual(sum(value * value for value in cut), 1.0, delta=1e-5)

    def test_refusals(self):
        with self.assertRaises(openai.NotFoundError) as refused:
            self.client.embeddings.create(model="no-such-model", input="a")
        self.assertEqual(refused.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError):
            self.client.embeddings.create(model="bert", input=[])
        with self.assertRaises(openai.BadRequestError) as refused:
            self.client.embeddings.create(model="bert", input="too long " * 40)
        self.assertIn("24 tokens", str(refused.exception))
        with self.assertRaises(openai.APIStatusError) as refused:
            self.client.embeddings.create(model="bert", input=[1, 2, 3])
        self.assertIn("input_ids", str(refused.exception))
