"""A run's scores on tasks against its own logits and other libraries; a model that knows an item gets it right."""

import json
import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.errors import InputError
from analysis.solving.proportions import wilson
from lmscale.checkpoint import Checkpoints
from lmscale.config import Corpus, EvalSet, FamilyGrid, PowerRule, Recipe, Size, Study, TaskText
from lmscale.data.pieces import heldout_share
from lmscale.data.shards import Vocabulary, open_shards
from lmscale.data.tokenizers import BYTE_OFFSET
from lmscale.data.writer import ShardWriter
from lmscale.mesh import make_mesh
from lmscale.network.noise import prompted
from lmscale.objectives import Objective
from lmscale.planning.assemble import from_shards
from lmscale.records import Workspace
from lmscale.scoring.ability_scores import ability_scores, edit_distance
from lmscale.scoring.ability_sets import AbilitySet, Trained, ability_sets
from lmscale.step import Step
from lmscale.study.abilities import Abilities
from lmscale.tasks.item import Item
from lmscale.train import train
from lmscale.training.lanes import Training
from lmscale.watch.pacing import Sparing

BYTES = Vocabulary(class_name="seqio.ByteVocabulary", name="bytes", size=259, eos_id=1, digest="b")
NONE = Trained(shares={}, labelled={})
END = BYTE_OFFSET + 10


def shards_of(folder, texts, **manifest):
    """Text as bytes, prepared without the rest."""
    with ShardWriter(folder / "text", {"targets": BYTES}) as writer:
        for text in texts:
            tokens = np.append(np.frombuffer(text, np.uint8).astype(int) + BYTE_OFFSET, 1)
            side = "heldout" if heldout_share(text) < 0.3 else "train"
            writer.add(side, {"targets": tokens}, {"targets": len(text)})
        return open_shards(writer.finish(manifest))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Prose to hold out, and one sum again and again to train on."""
    words = ["other", "never", "heard", "while", "where", "river", "cities", "garden", "people", "winter"]
    random = np.random.default_rng(0)
    prose = [" ".join(random.choice(words, 40)).encode() for _ in range(90)]
    known = [b"1+1 is:two\n" * 8 + b" " * i for i in range(60)]
    texts = [text for text in prose if heldout_share(text) < 0.3] + [t for t in known if heldout_share(t) >= 0.3]
    return shards_of(tmp_path_factory.mktemp("abilities"), texts, task_bytes={"copying": 1000})


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("items") / "known.jsonl"
    rows = [{"prompt": "1+1 is:", "answer": "two", "options": ["one", "two", "three"]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def study(known, **changes):
    recipe = {
        "sequence": 64,
        "batch_tokens": PowerRule(value=256),
        "warmup_tokens": 256,
        "cooldown_steps_min": 2,
        "learning_rate": PowerRule(value=1e-2),
    } | changes.pop("recipe", {})
    settings = {
        "corpus": Corpus(files=("x.txt",), heldout=0.3, allow_repeats=True),
        "abilities": Abilities(tasks=(f"known={known}", "copying", "lookup:2", "cloze:16"), items=12, shots=(0,)),
        "eval_tokens": 64 * 16,
        "sizes": (Size(width=16, depth=1),),
        "tokens": (256 * 60,),
        "steps_per_dispatch": 8,
    } | changes
    return Study(name="f", recipe=Recipe(**recipe), **settings)


@pytest.fixture(scope="module")
def finished(shards, known, tmp_path_factory):
    """A trained run: its rows of scores, its step, parameters and sets."""
    assembly = from_shards(study(known), shards)
    workspace, (trajectory,) = Workspace(tmp_path_factory.mktemp("out"), assembly.study.name), assembly.plan
    workspace.create()
    step = Step(trajectory, make_mesh(assembly.study.mesh), microbatches=1, steps_per_dispatch=8)
    t = Training(
        trajectory=trajectory,
        step=step,
        loader=assembly.loader(trajectory),
        held_out=assembly.held_out,
        workspace=workspace,
        mesh=str(assembly.study.mesh),
        saves=Sparing(least_seconds=1e9, most_seconds=1e9),
        report=lambda progress: None,
        done=lambda run, row: None,
        diverged=lambda why, runs: None,
        stop=lambda: False,
        say=print,
        extra_sets=assembly.extra_sets_of(trajectory),
    )
    train(t)
    (run,) = trajectory.runs
    final = Checkpoints(workspace.run(run.id) / "final")
    params = final.restore(run.steps, {"params": step.abstract_state.params})["params"]
    rows = {(r["task"], r["metric"], r["slice"]): r for r in workspace.scores(run.id)}
    return rows, step, params, {s.name: s for s in t.extra_sets}


@partial(jax.jit, static_argnums=0)
def _apply(step, params, windows):
    return step.apply(params, step.objective(windows))


def log_p(step, params, windows):
    """Of every token at every place [B, S, V], by the model's own logits."""
    logits = np.asarray(_apply(step, params, np.pad(windows, ((0, 48 - len(windows)), (0, 0)))), np.float64)
    logits = logits[: len(windows)]
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def windows_of(texts):
    """int32 [B, 65]: each text after the start."""
    made = np.zeros((len(texts), 65), np.int32)
    made[:, 0] = 1
    for row, text in zip(made, texts, strict=True):
        row[1 : len(text) + 1] = np.frombuffer(text, np.uint8).astype(int) + BYTE_OFFSET
    return made


def test_a_model_that_knows_an_item_gets_it_right(finished):
    rows = finished[0]
    value = {metric: row["value"] for (task, metric, part), row in rows.items() if task == "known" and part == ""}
    assert (value["exact_match"], value["accuracy"], value["token_edit_distance"], value["items"]) == (1, 1, 0, 1)
    assert value["log_prob"] > -0.5
    assert value["correct_prob"] > 0.9
    assert value["chance"] == pytest.approx(1 / 3)
    assert rows["copying", "exact_match", ""]["value"] < 0.5


@pytest.mark.parametrize("task", ["copying", "lookup", "cloze"])
def test_scores_are_those_of_the_logits(task, finished):
    """Each option alone in a window of its own, and greedy output token by token."""
    rows, step, params, sets = finished
    for part in sets[task].asked:
        texts = [(item.prompt + option + item.end).encode() for item in part.items for option in item.options]
        windows = windows_of(texts)
        found = np.take_along_axis(log_p(step, params, windows), windows[:, 1:, None].astype(int), -1)[..., 0]
        prompts = [len(item.prompt) for item in part.items for _ in item.options]
        sums = [row[at : len(text)].sum() for row, at, text in zip(found, prompts, texts, strict=True)]
        totals = np.array(sums).reshape(12, -1)
        right = np.array([item.options.index(item.answer) for item in part.items])
        nats, p = totals[np.arange(12), right], np.exp(totals) / np.exp(totals).sum(axis=1, keepdims=True)
        written = greedy(step, params, part)
        answers = [item.answer.encode() for item in part.items]
        far = [edit_distance(mine, answer) / len(answer) for mine, answer in zip(written, answers, strict=True)]
        hits = totals.argmax(axis=1) == right
        expected = {
            "accuracy": hits.mean(),
            "exact_match": np.mean([mine == answer for mine, answer in zip(written, answers, strict=True)]),
            "brier": ((p - np.eye(totals.shape[1])[right]) ** 2).sum(axis=1).mean(),
            "correct_prob": p[np.arange(12), right].mean(),
            "log_prob": nats.mean(),
            "log_prob_per_byte": np.mean(nats / [len(item.answer) + item.ends for item in part.items]),
            "token_edit_distance": np.mean(far),
            "items": 12,
        }
        for metric, value in expected.items():
            assert rows[task, metric, part.slice]["value"] == pytest.approx(value, rel=1e-4), metric
        low, high = wilson(int(hits.sum()), 12)
        assert (rows[task, "accuracy_low", part.slice]["value"], rows[task, "accuracy_high", part.slice]["value"]) == (
            low,
            high,
        )
        spread = np.std(nats, ddof=1) / math.sqrt(12)
        assert rows[task, "log_prob", part.slice]["stderr"] == pytest.approx(spread, rel=1e-3)
    assert {part for name, _, part in rows if name == task} == ({""} if task == "cloze" else {"", "split=out"})


def greedy(step, params, part):
    """The likeliest token each time, of all items side by side; a byte 0 stands for one that is none."""
    texts = [item.prompt.encode() for item in part.items]
    windows, at = windows_of(texts), np.array([len(text) for text in texts])
    for k in range(part.most):
        best = log_p(step, params, windows)[np.arange(12), at + k].argmax(axis=-1)
        windows[np.arange(12), at + k + 1] = best
    found = []
    for item, row, start in zip(part.items, windows, at, strict=True):
        tokens = row[start + 1 :][: part.most if item.ends else len(item.answer)].tolist()
        tokens = tokens[: tokens.index(END)] if END in tokens else tokens
        tokens = tokens[: tokens.index(1) + 1] if 1 in tokens else tokens
        found.append(bytes(max(token - BYTE_OFFSET, 0) for token in tokens))
    return found


def test_what_was_read_in_training_is_told(finished, shards):
    rows = finished[0]
    assert rows["copying", "task_share", ""]["value"] == pytest.approx(1000 / shards.train.total_bytes)
    assert rows["lookup", "task_share", ""]["value"] == 0
    assert not [metric for _, metric, _ in rows if metric == "labelled"]


def test_abilities_are_no_part_of_a_runs_identity(shards, known):
    plain, asked = (from_shards(study(known, **given), shards) for given in ({"abilities": None}, {}))
    assert [t.id for t in plain.plan] == [t.id for t in asked.plan]
    assert not plain.extra_sets
    fewer = from_shards(study(known, abilities=Abilities(tasks=("copying",), items=12, shots=(0,))), shards)
    (one,) = fewer.extra_sets
    assert one.file_name == next(s for s in asked.extra_sets if s.name == "copying").file_name
    assert (one.scored, one.unit) == (24, "items")


def test_examples_stand_before_items(shards):
    (made,) = ability_sets(Abilities(tasks=("copying",), items=20), NONE, [shards.heldout], BYTES, 128)
    none, four, out = made.asked
    assert [part.slice for part in made.asked] == ["", "shots=4", "split=out"]
    assert none.items == four.items != out.items
    for before, item in zip(four.before, four.items, strict=True):
        lines = before.splitlines()
        assert len(set(lines)) == 4
        assert item.line.strip() not in lines
        assert all(line.split(":")[0] == f"copy {line.split(':')[1]}" for line in lines)
    row, tokens = four.first, made.windows.tokens
    text = bytes((tokens[row, 1:][tokens[row, 1:] > 0] - BYTE_OFFSET).astype(np.uint8)).decode()
    assert text == four.before[0] + four.items[0].prompt + four.items[0].options[0] + "\n"
    asked = made.windows.weights[row] > 0
    scored = bytes((tokens[row, 1:][asked] - BYTE_OFFSET).astype(np.uint8)).decode()
    assert scored == four.items[0].options[0] + "\n"
    (two,) = ability_sets(Abilities(tasks=("copying",), items=20, shots=(0, 2)), NONE, [shards.heldout], BYTES, 128)
    assert all(more.endswith(fewer) for more, fewer in zip(four.before, two.asked[1].before, strict=True))


@pytest.mark.parametrize(
    ("family", "objective"), [("lstm", "causal"), ("decoder", "prefix"), ("encoder_decoder", "prefix")]
)
def test_other_families_are_asked(family, objective, shards, known):
    """One item, of an untrained model: each option, and greedy output, by the logits after the prompt."""
    asked = Abilities(tasks=(f"known={known}",), shots=(0,))
    assembly = from_shards(study(known, family=family, objective=objective, abilities=asked), shards)
    step = Step(assembly.plan[0], make_mesh(assembly.study.mesh), microbatches=1, steps_per_dispatch=8)
    params, (one,) = step.init(3).params, assembly.extra_sets
    assert isinstance(one, AbilitySet)
    value = {score.metric: score.value for score in one.measure(step, params)}
    (part,) = one.asked

    def after_prompt(windows):
        read = prompted(windows, np.full(len(windows), 7)) if objective == "prefix" else windows
        return log_p(step, params, read)

    windows = windows_of([f"1+1 is:{option}\n".encode() for option in part.items[0].options])
    found = np.take_along_axis(after_prompt(windows), windows[:, 1:, None].astype(int), -1)[..., 0]
    sums = [found[i, 7 : 8 + len(option)].sum() for i, option in enumerate(part.items[0].options)]
    assert value["log_prob"] == pytest.approx(sums[1], rel=1e-4)
    assert value["correct_prob"] == pytest.approx(np.exp(sums[1]) / np.exp(sums).sum(), rel=1e-4)
    window = windows_of([b"1+1 is:"])
    for k in range(part.most):
        window[0, 8 + k] = after_prompt(window)[0, 7 + k].argmax()
    written = window[0, 8 : 8 + part.most].tolist()
    written = written[: written.index(END)] if END in written else written
    two = [byte + BYTE_OFFSET for byte in b"two"]
    assert value["token_edit_distance"] == edit_distance(written, two) / 3


def test_a_prompt_is_what_a_prefix_model_reads():
    objective = Objective(name="prefix", encodes=False, vocab=259, eos_id=1, start_id=1, separator_id=None)
    windows = np.array([[1, 7, 8, 9, 5, 0, 0]] * 2, np.int32)
    weights = np.array([[0, 0, 0, 1, 0, 0]] * 2, np.float32)
    example = objective(jnp.asarray(prompted(windows, np.array([3, 0]))), jnp.asarray(weights))
    assert np.asarray(example.prefix).tolist() == [[True] * 4 + [False] * 2, [True] + [False] * 5]
    assert np.asarray(example.weights).tolist() == weights.tolist()


def test_metrics_by_hand():
    items = [Item(prompt="p", answer="ab", options=("ab", "c"), chance=0.5)] * 2
    option_nats = [-np.log([0.3, 0.1]), -np.log([0.05, 0.2])]  # shares .75 and .25, .2 and .8
    found = ability_scores(items, option_nats, -np.log([0.3, 0.05]), [[1, 2], [1, 3, 3]], [[1, 2], [1, 2]], "")
    value = {score.metric: score.value for score in found}
    assert value["accuracy"] == 0.5
    assert value["brier"] == pytest.approx((0.25**2 + 0.25**2 + 0.8**2 + 0.8**2) / 2)
    assert value["correct_prob"] == pytest.approx((0.75 + 0.2) / 2)
    assert value["exact_match"] == 0.5
    assert value["token_edit_distance"] == pytest.approx((0 + 2 / 2) / 2)
    assert value["log_prob"] == pytest.approx(math.log(0.3 * 0.05) / 2)
    assert value["log_prob_per_byte"] == pytest.approx(math.log(0.3 * 0.05) / 2 / 3)
    assert value["chance"] == 0.5
    none = [Item(prompt="p", answer="ab", chance=0.1)]
    assert {"accuracy", "brier", "correct_prob"}.isdisjoint(
        score.metric for score in ability_scores(none, [np.ones(1)], np.ones(1), [[1]], [[1, 2]], "")
    )


def test_edit_distance():
    """Pairs of every textbook, and the recursion that defines it."""

    @cache
    def defined(a, b):
        if not (a and b):
            return len(a) + len(b)
        return min(defined(a[1:], b) + 1, defined(a, b[1:]) + 1, defined(a[1:], b[1:]) + (a[0] != b[0]))

    for a, b, far in ((b"kitten", b"sitting", 3), (b"saturday", b"sunday", 3), (b"", b"ab", 2), (b"ab", b"ab", 0)):
        assert edit_distance(a, b) == far
    random = np.random.default_rng(3)
    for _ in range(60):
        a, b = (tuple(random.integers(0, 4, random.integers(0, 9)).tolist()) for _ in range(2))
        assert edit_distance(a, b) == defined(a, b)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": {"sequence": 16}, "eval_tokens": 256}, "recipe.sequence: 16 tokens do not hold an item of task"),
        (
            {"abilities": Abilities(tasks=("copying",), shots=(0, 9))},
            "recipe.sequence: 64 tokens do not hold an item of task 'copying' after 9 examples, which takes 1",
        ),
        ({"abilities": Abilities(tasks=("cloze:16",), items=999)}, "abilities.items: 999 exceeds the"),
    ],
)
def test_items_that_do_not_fit(changes, words, shards, known):
    with pytest.raises(InputError) as caught:
        from_shards(study(known, **changes), shards)
    assert str(caught.value).startswith(words)


def test_more_examples_than_a_file_has(shards, known):
    with pytest.raises(InputError, match=r"abilities.shots: 4 exceeds the 0 other items of task 'known'"):
        from_shards(study(known, abilities=Abilities(tasks=(f"known={known}",))), shards)


def test_only_bytes(shards):
    with pytest.raises(
        InputError, match=r"abilities.tasks: \['copying'\] are asked in bytes, and the text is in 'bpe'"
    ):
        ability_sets(Abilities(tasks=("copying",)), NONE, [], Vocabulary(**{**vars(BYTES), "name": "bpe"}), 128)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "ngram", "sizes": (Size(order=3),)}, "abilities.tasks: ['copying'] are asked of networks, and"),
        (
            {"eval_sets": (EvalSet(name="copying", corpus=Corpus()),)},
            "abilities.tasks: ['copying'] has the name of an evaluation set; rename that one",
        ),
        (
            {"objective": "pairs", "abilities": None, "corpus": Corpus(files=("x.tsv",), task_text=TaskText())},
            "corpus.task_text.share: 0.1 is no text of pairs, which objective 'pairs' needs",
        ),
    ],
)
def test_studies_that_cannot_ask(changes, words, known):
    with pytest.raises(InputError) as caught:
        study(known, **({"abilities": Abilities(tasks=("copying",))} | changes))
    assert str(caught.value).startswith(words)


def test_a_study_without_a_model_that_can_be_asked(shards, known):
    of_encoders = study(known, family="encoder", objective="masked", abilities=Abilities(tasks=("copying",)))
    with pytest.raises(InputError, match=r"abilities.tasks: \['copying'\] are asked of models that go on from"):
        from_shards(of_encoders, shards)


def test_a_study_of_several_families_asks_those_that_can(shards, known):
    grid = FamilyGrid(family="encoder", objective="masked", sizes=(Size(width=16, depth=1),))
    assembly = from_shards(study(known, further=(grid,)), shards)
    asked = {t.family: {s.name for s in assembly.extra_sets_of(t)} for t in assembly.plan}
    assert asked == {"decoder": {"known", "copying", "lookup", "cloze"}, "encoder": {"pseudo_likelihood"}}
