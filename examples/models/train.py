"""Trains the example models, or checks that the committed ones give the figures on their cards.

    python train.py digits
    python train.py machine-failure --data ai4i2020.csv
    python train.py digits --check

Training writes DIR/<model>/: model.toml, model.safetensors, held_out.csv, held_out_probabilities.csv, figures.json and
MODEL_CARD.md. All seeds are fixed and everything runs on one thread: on one kind of processor, with the versions in
requirements.txt, the same bytes come out. On another kind the last bits of the weights may differ, and `--check`,
which compares figures within a tolerance, is the test that counts.
"""

import argparse
import csv
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, precision_recall_fscore_support
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import cards
import model_folder
from measures import best_threshold, bootstrap, calibration_error, normalized, reliability, rounded, wilson

SEED = 20  # of every split, initialisation and resampling; fixed before any held-out figure was seen
SENSORS = ["Air temperature [K]", "Process temperature [K]", "Rotational speed [rpm]", "Torque [Nm]", "Tool wear [min]"]
FEATURES = ["type_L", "type_M", "type_H", "air_temperature_K", "process_temperature_K", "rotational_speed_rpm",
            "torque_Nm", "tool_wear_min"]
SAMPLE_FAILURES, SAMPLE_OK = 40, 160  # held-out rows of machine-failure that are kept as a test
DECAYS, FOLDS = [0.001, 0.01, 0.1, 0.3, 1.0, 3.0], 5  # of the search for the weight decay
FIGURE_TOLERANCE = 1.5e-4  # figures are rounded to 1e-4
ANSWER_TOLERANCE = 1e-5  # float32 rounding over sums of at most 96 terms, with room to spare


class Digits:
    """8x8 handwritten digits, from the copy inside scikit-learn."""

    name = "digits"
    card = staticmethod(cards.digits)
    toml = """name = "digits"
family = "mlp"
description = "Reads a handwritten digit from 8x8 grey pixels (0 to 16)."
license = "CC-BY-4.0"

[[inputs]]
name = "pixels"
dtype = "FP32"
shape = [-1, 64]

[[outputs]]
name = "probabilities"
dtype = "FP32"
shape = [-1, 10]

[[outputs]]
name = "label"
dtype = "BYTES"
shape = [-1, 1]

[batching]
rows_max = 256

[mlp]
weights = "model.safetensors"
activation = "relu"
head = "softmax"
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
"""
    columns = [f"pixel_{i}" for i in range(64)], "label", [f"probability_{i}" for i in range(10)]

    def __init__(self, _data: Path | None):
        x, y = load_digits(return_X_y=True)
        self.digest = digest(x, y)
        self.train, self.held_out = split(x, y, 0.25)
        self.sample = self.held_out
        self.counts = {"rows": {"train": len(self.train[1]), "held_out": len(self.held_out[1])}}

    def fit(self, folder: Path) -> tuple[dict, dict]:
        """Trains and writes the model; returns the selection of its weight decay, and the baselines' figures."""
        x, y = self.train
        # One scale for all pixels: with its own, a border pixel that is nearly always 0 would be blown up.
        mean, scale = x.mean(axis=0), np.full(64, 16.0)
        mlp = MLPClassifier((96,), learning_rate_init=2e-3, max_iter=600, random_state=SEED)
        mlp, selection = with_best_decay(mlp, (x - mean) / scale, y)
        model_folder.write(folder, self.toml, model_folder.tensors_of(mlp, mean, scale))
        baselines = {
            "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
            "3 nearest neighbours": KNeighborsClassifier(3),
        }
        return selection, {name: self.figures(b.fit(x, y).predict_proba(self.held_out[0])) for name, b in baselines.items()}

    def evaluate(self, model: model_folder.Model) -> dict:
        """The model's figures on the held-out rows."""
        return self.figures(model.forward(self.held_out[0])[0])

    def figures(self, probabilities: np.ndarray) -> dict:
        """Figures of probabilities [held-out rows, 10]."""
        p, y = normalized(probabilities), self.held_out[1]
        right = p.argmax(axis=1) == y
        return rounded({
            "accuracy": right.mean(),
            "accuracy_interval_95": wilson(int(right.sum()), len(y)),
            "errors": int((~right).sum()),
            "log_loss": log_loss(y, p),
            "calibration_error": calibration_error(p.max(axis=1), right),
            "recall_per_digit": [right[y == d].mean() for d in range(10)],
        })

    @staticmethod
    def demand(f: dict) -> None:
        """The least that the model must reach to be published."""
        require(f["held_out"]["accuracy"] >= 0.97, f"held-out accuracy {f['held_out']['accuracy']} is below 0.97")


class MachineFailure:
    """The AI4I 2020 table; the kinds of failure and the identifiers are never read."""

    name = "machine-failure"
    card = staticmethod(cards.machine_failure)
    toml = """name = "machine-failure"
family = "mlp"
description = "The probability that a milling machine fails, from its product type and five sensors."
license = "CC-BY-4.0"

[[inputs]]
name = "features"
dtype = "FP32"
shape = [-1, 8]

[[outputs]]
name = "probability"
dtype = "FP32"
shape = [-1, 1]

[[outputs]]
name = "label"
dtype = "BYTES"
shape = [-1, 1]

[batching]
rows_max = 1024

[mlp]
weights = "model.safetensors"
activation = "relu"
head = "sigmoid"
labels = ["ok", "failure"]
threshold = {threshold:.4f}
"""
    columns = FEATURES, "failure", ["probability"]

    def __init__(self, data: Path):
        x, y = read_ai4i(data)
        self.digest = digest(x, y)
        rest, self.held_out = split(x, y, 0.25)
        self.train, self.validation = split(*rest, 0.2)
        parts = {"train": self.train, "validation": self.validation, "held_out": self.held_out}
        self.sample = sample_of(self.held_out)
        self.counts = {
            "rows": {name: len(part[1]) for name, part in parts.items()},
            "failures": {name: int(part[1].sum()) for name, part in parts.items()},
            "sample": {"rows": len(self.sample[1]), "failures": int(self.sample[1].sum())},
        }

    def fit(self, folder: Path) -> tuple[dict, dict]:
        """As Digits.fit; the threshold is chosen on the validation rows."""
        x, y = self.train
        mean, scale = x.mean(axis=0), x.std(axis=0)
        mlp = MLPClassifier((64, 32), learning_rate_init=3e-3, max_iter=600, random_state=SEED)
        mlp, selection = with_best_decay(mlp, (x - mean) / scale, y)
        tensors = model_folder.tensors_of(mlp, mean, scale)
        model_folder.write(folder, self.toml.format(threshold=0.5), tensors)
        probability = model_folder.read(folder).forward(self.validation[0])[0][:, 0]
        model_folder.write(folder, self.toml.format(threshold=best_threshold(self.validation[1], probability)), tensors)
        baselines = {
            "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
            "gradient boosting": HistGradientBoostingClassifier(random_state=SEED),
        }
        figures = {}
        for name, baseline in baselines.items():
            baseline.fit(x, y)
            threshold = best_threshold(self.validation[1], baseline.predict_proba(self.validation[0])[:, 1])
            figures[name] = self.figures(baseline.predict_proba(self.held_out[0])[:, 1], threshold)
        # A constant has no order, so bins of equal size would be arbitrary: no calibration error.
        figures["base rate"] = {**self.ranking(np.full(len(self.held_out[1]), y.mean())), "calibration_error": None}
        return selection, figures

    def evaluate(self, model: model_folder.Model) -> dict:
        """The model's figures on the held-out rows."""
        probability = model.forward(self.held_out[0])[0][:, 0]
        figures = self.figures(probability, model.spec["mlp"]["threshold"])
        return {**figures, "reliability": rounded(reliability(self.held_out[1], probability))}

    def figures(self, probability: np.ndarray, threshold: float) -> dict:
        """Ranking figures, and those of the decision at `threshold`."""
        y, alarm = self.held_out[1], probability >= threshold
        precision, recall, f1, _ = precision_recall_fscore_support(y, alarm, average="binary", zero_division=0)
        decision = {"threshold": threshold, "precision": precision, "recall": recall, "f1": f1,
                    "caught": int((alarm & (y == 1)).sum()), "missed": int((~alarm & (y == 1)).sum()),
                    "false_alarms": int((alarm & (y == 0)).sum())}
        return {**self.ranking(probability), **rounded(decision)}

    def ranking(self, probability: np.ndarray) -> dict:
        """Figures that need no threshold, of probabilities [held-out rows]."""
        y, p = self.held_out[1], probability.astype(np.float64)
        return rounded({
            "roc_auc": roc_auc_score(y, p),
            "roc_auc_interval_95": bootstrap(y, p, roc_auc_score, SEED),
            "average_precision": average_precision_score(y, p),
            "brier": brier_score_loss(y, p),
            "calibration_error": calibration_error(p, y),
        })

    @staticmethod
    def demand(f: dict) -> None:
        """The least that the model must reach to be published."""
        ours, theirs = f["held_out"]["roc_auc"], f["baselines"]["logistic regression"]["roc_auc"]
        require(ours >= theirs, f"ROC-AUC {ours} is below logistic regression's {theirs}")


def train(task, folder: Path) -> None:
    """Trains, evaluates what was written (not what is in memory), and writes figures, card and test rows."""
    selection, baselines = task.fit(folder)
    model = model_folder.read(folder)
    figures = {"model": task.name, "seed": SEED, "data_sha256": task.digest, "weights_sha256": model.weights_sha256,
               "widths": model.widths, "multiply_adds": model.multiply_adds, **task.counts, "selection": selection,
               "held_out": task.evaluate(model), "baselines": baselines}
    task.demand(figures)
    inputs, truth, outputs = task.columns
    x, y = task.sample
    probabilities, labels = model.forward(x)
    write_csv(folder / "held_out.csv", [*inputs, truth], [[*map(shortest, row), int(t)] for row, t in zip(x, y)])
    write_csv(folder / "held_out_probabilities.csv", [*outputs, "label"],
              [[*(f"{v:.9g}" for v in row), label] for row, label in zip(probabilities, labels)])  # 9 digits: exact float32
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(task.card(figures), encoding="utf-8")


def check(kind, folder: Path, data: Path | None) -> None:
    """Fails unless the committed files agree with each other and, where the data is at hand, with the data."""
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    model = model_folder.read(folder)
    require(model.weights_sha256 == figures["weights_sha256"], "the weights are not those of figures.json")
    require((folder / "MODEL_CARD.md").read_text(encoding="utf-8") == kind.card(figures), "the card does not say figures.json")
    kind.demand(figures)
    header, rows = read_csv(folder / "held_out.csv")
    require(header == [*kind.columns[0], kind.columns[1]], f"held_out.csv has columns {header}")
    x = np.array([row[:-1] for row in rows], dtype=np.float64)
    probabilities, labels = model.forward(x)
    _, recorded = read_csv(folder / "held_out_probabilities.csv")
    require(len(recorded) == len(rows), f"{len(rows)} rows, but {len(recorded)} recorded answers")
    off = np.abs(probabilities - np.array([row[:-1] for row in recorded], dtype=np.float64)).max()
    require(off <= ANSWER_TOLERANCE, f"recorded probabilities are off by {off}")
    require([row[-1] for row in recorded] == labels, "recorded labels differ")
    print(f"{kind.name}: {len(rows)} recorded answers hold (largest difference {off:.1e}); the card says figures.json")
    if kind is MachineFailure and data is None:
        print(f"{kind.name}: held-out figures NOT re-evaluated, for want of --data")
        return
    task = kind(data)
    require(task.digest == figures["data_sha256"], "the data is not what the figures were taken on")
    require(np.array_equal(task.sample[0], x), "held_out.csv is not part of the held-out split")
    require([int(row[-1]) for row in rows] == task.sample[1].tolist(), "held_out.csv has other true labels")
    compare("held_out", figures["held_out"], task.evaluate(model))
    print(f"{kind.name}: held-out figures re-evaluated and equal")


def compare(at: str, recorded, now) -> None:
    """Fails at the first figure that differs by more than the tolerance; `at` is its path in figures.json."""
    if isinstance(recorded, dict):
        require(recorded.keys() == now.keys(), f"{at}: {sorted(recorded)} recorded, {sorted(now)} evaluated")
        for key in recorded:
            compare(f"{at}.{key}", recorded[key], now[key])
    elif isinstance(recorded, list):
        require(len(recorded) == len(now), f"{at}: {len(recorded)} recorded, {len(now)} evaluated")
        for i, (a, b) in enumerate(zip(recorded, now)):
            compare(f"{at}[{i}]", a, b)
    elif recorded is None or isinstance(recorded, int):
        require(recorded == now, f"{at}: {recorded} recorded, {now} evaluated")
    else:
        require(abs(recorded - now) <= FIGURE_TOLERANCE, f"{at}: {recorded} recorded, {now} evaluated")


def with_best_decay(mlp: MLPClassifier, x: np.ndarray, y: np.ndarray) -> tuple[MLPClassifier, dict]:
    """The mlp fitted with the weight decay of least cross-validated log loss, and the losses of all that were tried.

    Log loss, not accuracy: it is the one that suffers when probabilities are too sure of themselves.
    """
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    search = GridSearchCV(mlp, {"alpha": DECAYS}, scoring="neg_log_loss", cv=folds).fit(x, y)
    losses = rounded([-loss for loss in search.cv_results_["mean_test_score"]])
    decay = search.best_params_["alpha"]
    return search.best_estimator_, {"weight_decay": decay, "folds": FOLDS, "log_loss": dict(zip(map(str, DECAYS), losses))}


def read_ai4i(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features [rows, 8] in the order of FEATURES, and failures [rows] as 0 or 1."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    wanted = ["Type", *SENSORS, "Machine failure"]
    missing = [c for c in wanted if not rows or c not in rows[0]]
    require(not missing, f"{path} lacks the columns {missing}; is it ai4i2020.csv of UCI dataset 601?")
    odd = {r["Type"] for r in rows} - set("LMH")
    require(not odd, f"{path} has types {sorted(odd)}; L, M and H are known")
    x = [[float(r["Type"] == t) for t in "LMH"] + [float(r[s]) for s in SENSORS] for r in rows]
    return np.array(x), np.array([int(r["Machine failure"]) for r in rows])


def split(x: np.ndarray, y: np.ndarray, part: float) -> tuple[tuple, tuple]:
    """(x, y) without a stratified `part`, and that part."""
    a, b, y_a, y_b = train_test_split(x, y, test_size=part, stratify=y, random_state=SEED)
    return (a, y_a), (b, y_b)


def sample_of(part: tuple) -> tuple:
    """Some failures and some rows that went well, in the order of the split."""
    x, y = part
    kept = np.sort(np.concatenate([np.flatnonzero(y == 1)[:SAMPLE_FAILURES], np.flatnonzero(y == 0)[:SAMPLE_OK]]))
    return x[kept], y[kept]


def digest(x: np.ndarray, y: np.ndarray) -> str:
    """sha256 of the values that are used: of the data, whatever file it came in."""
    return hashlib.sha256(x.astype("<f4").tobytes() + y.astype("<i4").tobytes()).hexdigest()


def shortest(value: float) -> str:
    """A number as a csv shows it: `16`, `298.1`."""
    return f"{value:.10g}"


def write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    """A csv with a header line and \\n line ends, on every system."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header line and the other lines."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


def require(holds: bool, otherwise: str) -> None:
    """Ends the program with status 1 and a reason, unless `holds`."""
    if not holds:
        sys.exit(f"train.py: {otherwise}")


def main() -> None:
    """Arguments; then train, or check."""
    kinds = {kind.name: kind for kind in (Digits, MachineFailure)}
    parser = argparse.ArgumentParser(description="Train an example model, or check the committed one.")
    parser.add_argument("model", choices=kinds)
    parser.add_argument("--data", type=Path, help="ai4i2020.csv, for machine-failure (digits come with scikit-learn)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR",
                        help="holds the model folders (default: beside this script)")
    parser.add_argument("--check", action="store_true", help="train nothing: do the files in DIR give the figures on the card?")
    args = parser.parse_args()
    kind, folder = kinds[args.model], args.out / args.model
    if args.data and not args.data.is_file():
        parser.error(f"--data {args.data}: no such file")
    if kind is MachineFailure and args.data is None and not args.check:
        parser.error("machine-failure is trained from --data ai4i2020.csv")
    with threadpool_limits(1):  # sums over several threads come out in another order
        if args.check:
            check(kind, folder, args.data)
            return
        train(kind(args.data), folder)
    print((folder / "MODEL_CARD.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
