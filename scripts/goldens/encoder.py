#!/usr/bin/env python3
"""Writes models/testdata/encoder: small encoders with random weights, and what Hugging Face's
`transformers` answers with them.

    python3 -m venv target/venvs/goldens
    target/venvs/goldens/bin/pip install torch==2.9.1 transformers==5.24.0
    target/venvs/goldens/bin/python scripts/goldens/encoder.py

Each folder is a model as its authors would publish it, with `expected.json` beside: texts, the
ids that the tokenizer makes of them, and the outputs of the model in 32 bits. Weights are random
and large enough for attention to differ between tokens; most are stored in 16 bits, and outputs
are computed from what was stored. Everything follows from SEED.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SEED = 20261127
OUT = Path(__file__).resolve().parents[2] / "models/testdata/encoder"
POSITIONS = 40
TOKENS_MAX = 24

CORPUS = [
    "a paceline is a line of riders who take turns at the front",
    "the wind is hard on whoever rides first and easy on the rest",
    "they share the effort and so they go faster than any one of them",
    "what is a paceline? who rides in front? where does the wind blow?",
    "bread, milk and two apples were on the table in the kitchen",
]
TEXTS = [
    "a paceline is a line of riders",
    "Who takes turns AT the front?",
    "",
    "x",
    "naïve café — ütterly ünknown 字 words \u200b!",
    " ".join(CORPUS[:3]),
]
QUERIES = ["what is a paceline?", "who rides in front?", "wind", "", "apples and milk", " ".join(CORPUS[3:5])]


def word_piece():
    words = sorted({word for line in CORPUS for word in line.replace("?", "").replace(",", "").split()})
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", ",", "!", *letters, *("##" + c for c in letters)]
    tokens += [word for word in words if word not in tokens]
    tokenizer = Tokenizer(models.WordPiece({token: id for id, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = decoders.WordPiece()
    # What the files of well-known models hold, and what must not be followed.
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(length=12, pad_id=0, pad_token="[PAD]")
    return tokenizer, dict(unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, dict(unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>")


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, dict(unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>")


SIZES = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=POSITIONS,
)
DISTIL_SIZES = dict(dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=POSITIONS)
T = transformers

# Folder: tokenizer, model, config and its arguments, how it is stored, and what lies beside it.
CASES = {
    "bert": dict(
        tokenizer=word_piece, model=T.BertModel, config=T.BertConfig, arguments=SIZES, dtype=torch.float32,
        pooling="mean", normalize=True,
    ),
    "roberta": dict(
        tokenizer=byte_level, model=T.RobertaModel, config=T.RobertaConfig,
        arguments=SIZES | dict(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, hidden_act="gelu_new"),
        dtype=torch.float16, pooling="cls", normalize=False,
    ),
    "distilbert": dict(
        tokenizer=word_piece, model=T.DistilBertModel, config=T.DistilBertConfig,
        arguments=DISTIL_SIZES | dict(activation="relu"), dtype=torch.bfloat16, pooling=None, normalize=False,
    ),
    "xlm-roberta": dict(
        tokenizer=unigram, model=T.XLMRobertaModel, config=T.XLMRobertaConfig,
        arguments=SIZES | dict(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1),
        dtype=torch.float16, pooling="mean", normalize=True,
    ),
    "bert-classes": dict(
        tokenizer=word_piece, model=T.BertForSequenceClassification, config=T.BertConfig,
        arguments=SIZES | dict(id2label={0: "road", 1: "wind", 2: "bread"}), dtype=torch.float16,
    ),
    "roberta-classes": dict(
        tokenizer=byte_level, model=T.RobertaForSequenceClassification, config=T.RobertaConfig,
        arguments=SIZES | dict(
            type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, num_labels=4,
            problem_type="multi_label_classification",
        ),
        dtype=torch.float16,
    ),
    "distilbert-classes": dict(
        tokenizer=word_piece, model=T.DistilBertForSequenceClassification, config=T.DistilBertConfig,
        arguments=DISTIL_SIZES | dict(num_labels=2), dtype=torch.float16,
    ),
    "bert-pairs": dict(
        tokenizer=word_piece, model=T.BertForSequenceClassification, config=T.BertConfig,
        arguments=SIZES | dict(
            num_labels=1, sbert_ce_default_activation_function="torch.nn.modules.linear.Identity"
        ),
        dtype=torch.float16,
    ),
    "xlm-roberta-pairs": dict(
        tokenizer=unigram, model=T.XLMRobertaForSequenceClassification, config=T.XLMRobertaConfig,
        arguments=SIZES | dict(type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, num_labels=1),
        dtype=torch.float16,
    ),
}


def randomize(model):
    """Weights that tell tokens and heads apart; biases and normalizations that are not 0 and 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape) * (0.35 if parameter.dim() == 2 else 0.1)
            parameter.copy_(values + (1.0 if "LayerNorm.weight" in name or "layer_norm.weight" in name else 0.0))


def balance(model):
    """Random classes have favourites: each gets a bias with which all are about as likely."""
    last = getattr(model.classifier, "out_proj", model.classifier)
    with torch.no_grad():
        ids = torch.randint(5, model.config.vocab_size, (64, 12))
        last.bias -= model(input_ids=ids).logits.mean(0)


def write(name, case):
    folder = OUT / name
    folder.mkdir(parents=True)
    tokenizer, specials = case["tokenizer"]()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = case["config"](vocab_size=tokenizer.get_vocab_size(), **case["arguments"])
    model = case["model"](config).eval()
    randomize(model)
    if hasattr(model, "num_labels"):
        balance(model)
    stored = {key: value.to(case["dtype"]).contiguous() for key, value in model.state_dict().items()}
    save_file(stored, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config.architectures = [case["model"].__name__]
    config.to_json_file(folder / "config.json")
    settings(folder, case)

    # As a user would: from the folder, in 32 bits.
    loaded = case["model"].from_pretrained(folder, dtype=torch.float32).eval()
    wrapped = T.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **specials)
    pairs = name.endswith("-pairs")
    arguments = (QUERIES, TEXTS) if pairs else (TEXTS,)
    encoded = wrapped(
        *arguments, truncation=True, max_length=TOKENS_MAX, padding="longest", return_tensors="pt",
        return_token_type_ids=name.startswith("bert"),
    )
    encoded = {key: value for key, value in encoded.items() if key != "token_type_ids" or name.startswith("bert")}
    with torch.no_grad():
        answer = loaded(**encoded)
    outputs = answer.logits if hasattr(answer, "logits") else pooled(answer.last_hidden_state, encoded, case)
    rows = []
    for row, text in enumerate(TEXTS):
        mask = encoded["attention_mask"][row].bool()
        rows.append({
            **({"query": QUERIES[row]} if pairs else {}),
            "text": text,
            "ids": encoded["input_ids"][row][mask].tolist(),
            "outputs": [float(f"{value:.7g}") for value in outputs[row].tolist()],
        })
    assert {len(row["ids"]) == TOKENS_MAX for row in rows} == {True, False}, "one text is cut"
    expected = {"transformers": T.__version__, "torch": torch.__version__.split("+")[0], "rows": rows}
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


def settings(folder, case):
    """The files of sentence-transformers, and the tokenizer's."""
    dump = lambda path, value: path.write_text(json.dumps(value) + "\n")
    if case.get("pooling"):
        kinds = ["Transformer", "Pooling"] + (["Normalize"] if case["normalize"] else [])
        dump(folder / "modules.json", [
            {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
            for i, kind in enumerate(kinds)
        ])
        (folder / "1_Pooling").mkdir()
        dump(folder / "1_Pooling/config.json", {
            "word_embedding_dimension": 16,
            "pooling_mode_cls_token": case["pooling"] == "cls",
            "pooling_mode_mean_tokens": case["pooling"] == "mean",
            "pooling_mode_max_tokens": False,
        })
        dump(folder / "sentence_bert_config.json", {"max_seq_length": TOKENS_MAX, "do_lower_case": False})
    else:
        dump(folder / "tokenizer_config.json", {"model_max_length": TOKENS_MAX})


def pooled(hidden, encoded, case):
    """As sentence-transformers' Pooling and Normalize do it."""
    if case["pooling"] == "cls":
        vectors = hidden[:, 0]
    else:
        mask = encoded["attention_mask"].unsqueeze(-1).float()
        vectors = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(vectors, dim=1) if case["normalize"] else vectors


def main():
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    shutil.rmtree(OUT, ignore_errors=True)
    for number, (name, case) in enumerate(CASES.items()):
        torch.manual_seed(SEED + number)
        write(name, case)
    total = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    print(f"{OUT}: {len(CASES)} models, {total} bytes")


if __name__ == "__main__":
    main()
