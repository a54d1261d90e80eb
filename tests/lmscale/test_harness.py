"""lm-evaluation-harness over a local task, its accuracies those of lmscale's own scoring of the same items."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained import make_model

from lmscale.asking.prompts import Asked

if find_spec("lm_eval") is None:
    pytest.skip(
        "peers: lm_eval not here, so its adapter is not run; pip install '.[harness]' lets these tests run",
        allow_module_level=True,
    )

ITEMS = [
    {"question": f"the {i}th of {i + 3}", "choices": [" lines", " counts and then", " zebra", " of"], "gold": i % 4}
    for i in range(12)
]
TASK = """task: local_lines
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
{rest}
"""
CHOICES = """doc_to_choice: "{{choices}}"
target_delimiter: ""
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]"""
WRITTEN = """doc_to_target: " lines"
generation_kwargs: {until: ["\\n"], max_gen_toks: 12}
metric_list: [{metric: exact_match}]"""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """evaluated(kind, rest of the task) -> what the harness found, with its samples."""
    import lm_eval  # pyright: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    from lmscale.asking.harness import HarnessModel

    folder: Path = tmp_path_factory.mktemp("harness")
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    model = make_model("causal")
    adapter = HarnessModel(model)  # pyright: ignore[reportCallIssue]

    def evaluate(kind: str, rest: str):
        place = folder / kind
        place.mkdir()
        (place / "local.yaml").write_text(TASK.format(data=data, kind=kind, rest=rest))
        manager = TaskManager(include_path=str(place), include_defaults=False)
        asked: dict[str, Any] = {"model": adapter, "tasks": ["local_lines"], "task_manager": manager}
        found = lm_eval.simple_evaluate(**asked, bootstrap_iters=0, verbosity="ERROR")
        assert found is not None
        return model, found

    return evaluate


def test_accuracies_are_our_own(evaluated):
    model, found = evaluated("multiple_choice", CHOICES)
    ours = np.array([[-f.nats for f in model.fill([(i["question"], c, "") for c in i["choices"]])] for i in ITEMS])
    gold, letters = [i["gold"] for i in ITEMS], np.array([[len(c) for c in i["choices"]] for i in ITEMS])
    theirs = found["results"]["local_lines"]
    assert theirs["acc,none"] == np.mean(ours.argmax(axis=1) == gold)
    assert theirs["acc_norm,none"] == np.mean((ours / letters).argmax(axis=1) == gold)
    assert 0 < theirs["acc,none"] < 1  # items tell right from wrong


def test_what_is_written_is_our_own(evaluated):
    from lmscale.asking.harness import until
    from lmscale.asking.sampling import Sampling

    model, found = evaluated("generate_until", WRITTEN)
    theirs = [sample["resps"][0][0] for sample in found["samples"]["local_lines"]]
    made = model.generate([i["question"] for i in ITEMS], Sampling(temperature=0), max_tokens=12)
    assert theirs == [until(each.text, ["\n"]) for each in made]


def test_rolling_windows_ask_for_every_token_once():
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

    from lmscale.asking.harness import HarnessModel

    model = make_model("causal")
    adapter = HarnessModel(model)  # pyright: ignore[reportCallIssue]
    text = "counts and then " * 5  # longer than two windows and a half
    tokens = model.encode(text)

    def ask(text: str) -> float:
        return adapter.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])[0]

    short = text[: model.sequence]
    assert ask(short) == pytest.approx(float(model.log_probs("", short).sum()), abs=1e-4)
    # by hand: the first window from the start, later ones from the token before, the last one reaching back
    total, done = 0.0, 0
    while done < len(tokens):
        end = min(len(tokens), done + model.sequence)
        first = max(0, end - model.sequence)
        read = [model.layout.start_id, *tokens][first:end]
        total += sum(logs_of(model, read, tokens[first:end])[done - first :])
        done = end
    assert ask(text) == pytest.approx(total, abs=1e-4)


def logs_of(model, read, targets) -> list[float]:
    (told,) = model.engine.scores([Asked(inputs=tuple(read), targets=tuple(targets))])
    return told.log_probs.tolist()
