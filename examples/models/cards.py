"""The model cards: prose here, every number from figures.json."""

import textwrap

CITE_DIGITS = """Alpaydin, E. and Kaynak, C. (1998). *Optical Recognition of Handwritten Digits*. UCI Machine Learning
Repository, <https://doi.org/10.24432/C50P49>, CC BY 4.0; the copy inside scikit-learn (`load_digits`, BSD-3-Clause),
which is the repository's test set"""

CITE_AI4I = """*AI4I 2020 Predictive Maintenance Dataset* (2020). UCI Machine Learning Repository, dataset 601,
<https://doi.org/10.24432/C5HS5C>, CC BY 4.0"""


def digits(f: dict) -> str:
    """The card of `digits`, from the content of its figures.json."""
    rows, ours = f["rows"], f["held_out"]
    columns = {"accuracy": "accuracy", "errors": "errors", "log_loss": "log loss", "calibration_error": "calibration error"}
    recall = "| digit | " + " | ".join(str(d) for d in range(10)) + " |\n" + "|---" * 11 + "|\n| recall | "
    recall += " | ".join(f"{r:.3f}" for r in ours["recall_per_digit"]) + " |"
    low, high = ours["accuracy_interval_95"]
    return f"""# digits

Reads a handwritten digit from 8x8 grey pixels. A small example that is really trained, so that the first request to a
cluster has a true answer.

| | |
|---|---|
| input | `pixels` FP32 `[-1, 64]`: ink per cell, raw 0 to 16, row by row |
| outputs | `probabilities` FP32 `[-1, 10]`; `label` BYTES `[-1, 1]`, the most probable digit |
| model | multi-layer perceptron {shape(f)}, relu, softmax; {f["multiply_adds"]:,} multiply-adds a row |
| data | {one_line(CITE_DIGITS)} |
| licence | weights CC BY 4.0, as the data; see [LICENSE-DATA.md](LICENSE-DATA.md) |
| split | {rows["train"]:,} rows to train, {rows["held_out"]:,} held out (25 %, stratified by digit, seed {f["seed"]}) |

## Figures on the held-out rows

{table({"mlp (this model)": ours, **f["baselines"]}, columns)}

95 % interval of the accuracy (Wilson): {low:.4f} to {high:.4f}; differences inside it mean nothing.
Calibration error: mean distance between confidence and accuracy over ten bins of equal size.

{recall}

{selection(f)}
Layers and learning rate were picked by hand, also by cross-validation on the training rows. The held-out rows were used
for these tables only.

## Limits

- Writers are not named in the data, so each writer's digits lie on both sides of the split. Expect less on a new hand.
- It has seen centred, size-normalised 8x8 bitmaps of single digits, and nothing else. It answers any other picture
  with some digit, often with confidence.
- An example, not a product: no robustness to noise, shift or rotation was sought or measured.

## Files and re-run

`held_out.csv` holds the held-out rows (64 pixels, then the true label); `held_out_probabilities.csv` holds, row for
row, what the float32 forward pass in `../model_folder.py` answers (ten probabilities, then the label).

```
python train.py digits            # trains, and writes this folder
python train.py digits --check    # trains nothing; fails unless the files here give the figures above
```

Weights sha256 `{f["weights_sha256"]}`.
"""


def machine_failure(f: dict) -> str:
    """The card of `machine-failure`, from the content of its figures.json."""
    rows, ours = f["rows"], f["held_out"]
    ranking = {"roc_auc": "ROC-AUC", "roc_auc_interval_95": "95 % interval", "average_precision": "average precision",
               "brier": "Brier score", "calibration_error": "calibration error"}
    decision = {"threshold": "threshold", "precision": "precision", "recall": "recall", "f1": "F1",
                "caught": "failures caught", "missed": "missed", "false_alarms": "false alarms"}
    models = {"mlp (this model)": ours, **f["baselines"]}
    fitted = {name: m for name, m in models.items() if "threshold" in m}
    bins = "\n".join(f"| {b['from']:g} to {b['to']:g} | {b['rows']} | {cell(b['mean_probability'])} | {cell(b['observed'])} |"
                     for b in ours["reliability"])
    return f"""# machine-failure

The probability that a milling machine fails in this process step, from its product type and five sensors.

| | |
|---|---|
| input | `features` FP32 `[-1, 8]`: type L, M, H (one-hot, in this order), air temperature [K], process temperature [K], rotational speed [rpm], torque [Nm], tool wear [min] |
| outputs | `probability` FP32 `[-1, 1]`, of failure; `label` BYTES `[-1, 1]`: `failure` from {ours["threshold"]:.4f} on, else `ok` |
| model | multi-layer perceptron {shape(f)}, relu, sigmoid; {f["multiply_adds"]:,} multiply-adds a row |
| data | {one_line(CITE_AI4I)}; {sum(rows.values()):,} rows, {sum(f["failures"].values())} failures |
| licence | weights CC BY 4.0, as the data; see [LICENSE-DATA.md](LICENSE-DATA.md) |
| split | stratified by failure, seed {f["seed"]}: {rows["train"]:,} rows to train ({f["failures"]["train"]} failures), {rows["validation"]:,} to choose the threshold ({f["failures"]["validation"]}), {rows["held_out"]:,} held out ({f["failures"]["held_out"]}) |

The five columns that name the kind of failure (TWF, HDF, PWF, OSF, RNF) say the answer and are never inputs; neither
are the two identifiers.

## Figures on the held-out rows

{table(models, ranking)}

Intervals: 1,000 bootstrap resamples within each class. Calibration error: mean distance between probability and
observed rate over ten bins of equal size. `base rate` gives every row the share of failures among the training rows.

At the threshold with the best F1 on the validation rows, each model with its own:

{table(fitted, decision)}

How far the probabilities of this model can be taken at their word:

| probability | rows | mean probability | observed rate |
|---|---|---|---|
{bins}

{selection(f)}
Layers and learning rate were picked by hand, by cross-validation on the rows that are not held out. Log loss became
the measure after a first model, chosen by average precision, had been seen to be too sure of itself on the held-out
rows; nothing else was decided with them. The classes are not re-weighted, so that probabilities stay probabilities.

## Limits

- The data is synthetic: rules with noise, published as a stand-in for a real line. The figures say nothing about a
  real machine; this is an example, not a product.
- Gradient boosting beside it is the measure of what a table like this offers; where it is ahead, it is ahead.
- {f["failures"]["held_out"]} held-out failures are few: read the interval, not the last digit.
- Rows follow each other in time (temperatures are random walks) and the split is random, so neighbours lie on both
  sides of it. A split in time would be harder.
- A few failures in the table have no cause that the sensors show (random failures, and tool failures at a random
  moment of wear): no model can catch them all.
- A best-F1 threshold treats a missed failure and a false alarm alike. With known costs, choose another in
  `model.toml`.

## Files and re-run

The table is not kept here: get `ai4i2020.csv` from the address above. `held_out.csv` holds {f["sample"]["rows"]} of the held-out
rows ({f["sample"]["failures"]} failures: more than their share, so that both labels are tested, and therefore no basis for figures), the
eight features and then `failure`; `held_out_probabilities.csv` holds, row for row, what the float32 forward pass in
`../model_folder.py` answers.

```
python train.py machine-failure --data ai4i2020.csv            # trains, and writes this folder
python train.py machine-failure --data ai4i2020.csv --check    # trains nothing; fails unless the files give the figures above
```

Weights sha256 `{f["weights_sha256"]}`.
"""


def table(models: dict[str, dict], columns: dict[str, str]) -> str:
    """A table with a line per model and a column per figure; `columns` maps a figure's key to its heading."""
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, figures in models.items():
        lines.append(f"| {name} | " + " | ".join(cell(figures[key]) for key in columns) + " |")
    return "\n".join(lines)


def cell(value) -> str:
    """One figure as text: counts whole, ratios with four decimals, intervals as `low to high`."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return " to ".join(cell(v) for v in value)
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def selection(f: dict) -> str:
    """How the weight decay was chosen, with the losses of what was tried."""
    s = f["selection"]
    tried = ", ".join(f"{decay}: {cell(loss)}" for decay, loss in s["log_loss"].items())
    return textwrap.fill(f"The weight decay, {s['weight_decay']}, has the least log loss in {s['folds']}-fold "
                         f"cross-validation on the training rows ({tried}).", 118)


def shape(f: dict) -> str:
    """Layer widths, as in `64-96-10`."""
    return "-".join(str(width) for width in f["widths"])


def one_line(text: str) -> str:
    """A citation without line breaks, for a table."""
    return " ".join(text.split())
