"""A model folder of the family `mlp`: how it is written, read and computed, in numpy.

`forward` is the reference for the arithmetic: what a server answers for the same rows must agree
with it to float32 rounding. README.md beside this file describes the format in a table.
"""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Model:
    """An mlp as it lies on disk: what model.toml says, and its tensors (all float32)."""

    spec: dict
    tensors: dict[str, np.ndarray]
    weights_sha256: str

    def forward(self, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Rows [n, in] -> probabilities [n, out] and n labels; float32 throughout."""
        mlp = self.spec["mlp"]
        assert mlp["activation"] == "relu", f"activation {mlp['activation']}: only relu is trained here"
        x = rows.astype(np.float32)
        x = (x - self.tensors["normalize.mean"]) / self.tensors["normalize.scale"]
        for layer in range(self.layers):
            if layer > 0:
                x = np.maximum(x, np.float32(0))
            x = x @ self.tensors[f"dense.{layer}.weight"].T + self.tensors[f"dense.{layer}.bias"]
        if mlp["head"] == "softmax":
            x = np.exp(x - x.max(axis=1, keepdims=True))  # the maximum taken off: exp cannot overflow
            x /= x.sum(axis=1, keepdims=True)
            chosen = x.argmax(axis=1)
        else:
            assert mlp["head"] == "sigmoid", f"head {mlp['head']}: only softmax and sigmoid are trained here"
            small = np.exp(-np.abs(x))  # of -|x|, for the same reason
            x = np.where(x >= 0, 1 / (1 + small), small / (1 + small))
            chosen = (x[:, 0] >= np.float32(mlp["threshold"])).astype(int)
        return x, [mlp["labels"][i] for i in chosen]

    @property
    def layers(self) -> int:
        """How many dense layers there are."""
        return sum(name.endswith(".weight") for name in self.tensors)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds that one row costs."""
        return sum(t.size for name, t in self.tensors.items() if name.endswith(".weight"))

    @property
    def widths(self) -> list[int]:
        """Input width, hidden widths, output width."""
        weights = [self.tensors[f"dense.{layer}.weight"] for layer in range(self.layers)]
        return [weights[0].shape[1], *(w.shape[0] for w in weights)]


def tensors_of(classifier, mean: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
    """The named float32 tensors of a fitted scikit-learn MLPClassifier.

    scikit-learn keeps weights as [in, out]; the folder keeps [out, in].
    """
    tensors = {"normalize.mean": mean, "normalize.scale": scale}
    for layer, (weight, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        tensors[f"dense.{layer}.weight"] = weight.T
        tensors[f"dense.{layer}.bias"] = bias
    return {name: np.ascontiguousarray(t, dtype="<f4") for name, t in tensors.items()}


def write(folder: Path, toml: str, tensors: dict[str, np.ndarray]) -> None:
    """Writes model.toml and the weights; `folder` is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(toml, encoding="utf-8")
    (folder / WEIGHTS).write_bytes(safetensors(tensors))


def read(folder: Path) -> Model:
    """Reads back what `write` wrote, so that figures are those of the files."""
    spec = tomllib.loads((folder / "model.toml").read_text(encoding="utf-8"))
    data = (folder / spec["mlp"]["weights"]).read_bytes()
    return Model(spec, parse_safetensors(data), hashlib.sha256(data).hexdigest())


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """Encodes little-endian float32 tensors: u64 length of the header, JSON header, data.

    The header is padded with spaces to eight bytes, so that the data is aligned when mapped.
    """
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(t.astype("<f4").tobytes() for t in tensors.values())


def parse_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """Decodes what `safetensors` encodes; float32 only."""
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        assert entry["dtype"] == "F32", f"{name} is {entry['dtype']}; only F32 is read here"
        begin, end = (start + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], dtype="<f4").reshape(entry["shape"])
    return tensors
