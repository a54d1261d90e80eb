"""What each family sees, by gradient; what each objective asks for; and that all of them memorise."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.config import MeshConfig, PowerRule, Size
from lmscale.data.shards import Shards, Vocabulary, open_shards
from lmscale.data.writer import ShardWriter
from lmscale.mesh import make_mesh
from lmscale.network.borders import closed
from lmscale.network.noise import numbered
from lmscale.network.spans import OBJECTIVES_OF, spans_of
from lmscale.objectives import Example, Objective
from lmscale.step import Step
from lmscale.train import train

EOS, VOCAB = 1, 32
# Of networks; n-grams have tests of their own
PAIRS = [(family, objective) for family, known in OBJECTIVES_OF.items() for objective in known if family != "ngram"]
MADE: dict[tuple, Step] = {}
JACOBIANS: dict[int, Callable] = {}  # compiled, by step


@pytest.fixture
def make_step(make_assembly):
    """step(family, objective, documents=...): untied embeddings, so that a row of the table is an input alone."""

    def make(family: str, objective: str, documents: str = "apart") -> Step:
        key = (family, objective, documents)
        if key not in MADE:
            recipe = {"documents": documents}
            kind = "causal" if objective == "pairs" else objective  # whose text has no pairs; the model is the same
            if family == "encoder_decoder" and objective == "pairs":
                kind = "prefix"
            assembly = make_assembly(family=family, objective=kind, tied_embeddings=False, recipe=recipe)
            trajectory = dataclasses.replace(assembly.plan[0], objective=objective)
            trajectory = dataclasses.replace(trajectory, text=dataclasses.replace(trajectory.text, separator_id=2))
            MADE[key] = Step(trajectory, make_mesh(MeshConfig()), microbatches=1, steps_per_dispatch=1)
        return MADE[key]

    return make


def window(step: Step, tokens: list[int], number: int = 3) -> np.ndarray:
    """[1, C]: 17 tokens, and a number where there is noise."""
    return np.array([[*tokens, *([number] if step.objective.noisy else [])]], np.int32)


def influence(step: Step, example: Example) -> np.ndarray:
    """bool [S, V]: whether the output at each place depends on each token of the vocabulary as an input."""
    if id(step) not in JACOBIANS:

        def outputs(table, params, example):
            return step.apply(params | {"embedding": table}, example)[0].sum(axis=-1)

        params = step.init(0).params
        JACOBIANS[id(step)] = partial(jax.jit(jax.jacobian(outputs)), params["embedding"], params)
    return np.abs(np.asarray(JACOBIANS[id(step)](example))).max(axis=-1) > 1e-9


ONE = [EOS, *range(3, 19)]  # every token once: a row of the table is a place
TWO = [EOS, 3, 4, 5, 6, 7, EOS, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]  # two documents, 3-7 and 8-17


def expected(sees) -> np.ndarray:
    """bool [16, 16] over targets by tokens 3 .. 18, as `sees(place of the target, token)` says."""
    return np.array([[sees(place, token) for token in range(3, 19)] for place in range(16)])


@pytest.mark.parametrize("family", ["decoder", "lstm"])
@pytest.mark.parametrize("documents", ["apart", "joined"])
def test_causal_sees_what_stands_before_in_its_document(make_step, family, documents):
    step = make_step(family, "causal", documents)
    found = influence(step, step.objective(window(step, ONE)))[:, 3:19]
    np.testing.assert_array_equal(found, expected(lambda place, token: token - 2 <= place))
    found = influence(step, step.objective(window(step, TWO)))[:, 3:17]
    inputs = TWO[:-1]
    for place in range(16):
        for token in range(3, 17):
            before = inputs.index(token) <= place
            own = (token <= 7) == (place < 6)
            assert found[place, token - 3] == (before and (own or documents == "joined")), (place, token)


def test_an_encoder_sees_all_of_its_document(make_step):
    """Its row ends each document with end-of-sequence."""
    step = make_step("encoder", "masked")
    targets = [3, 4, 5, 6, 7, EOS, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
    rows = step.objective(window(step, [EOS, *targets])).inputs
    np.testing.assert_array_equal(rows.documents[0], [0] * 6 + [1] * 10)
    example = Example(rows._replace(tokens=jnp.asarray([targets])), jnp.asarray([targets]), jnp.ones((1, 16)))
    found = influence(step, example)
    for place in range(16):
        assert (found[place, 3:8] == (place < 6)).all()
        assert (found[place, 8:18] == (place >= 6)).all()
    everything = make_step("encoder", "masked", "joined")
    rows = everything.objective(window(everything, [EOS, *targets])).inputs
    example = Example(rows._replace(tokens=jnp.asarray([targets])), jnp.asarray([targets]), jnp.ones((1, 16)))
    assert influence(everything, example)[:, 3:18].all()


@pytest.mark.parametrize("number", [0, 3, 11])
def test_a_prefix_is_seen_whole_and_no_more(make_step, number):
    decoder, both = make_step("decoder", "prefix"), make_step("encoder_decoder", "prefix")
    example = decoder.objective(window(decoder, ONE, number))
    cut = int(example.prefix.sum())  # inputs of the prefix, the first of which is end-of-sequence
    assert 1 <= cut <= 16
    found = influence(decoder, example)[:, 3:19]
    np.testing.assert_array_equal(found, expected(lambda place, token: token - 2 <= place or token - 2 < cut))
    np.testing.assert_array_equal(example.weights[0], np.arange(16) >= cut - 1)
    # an encoder reads the prefix; the decoder, from its last token on, sees all of it
    example = both.objective(window(both, ONE, number))
    np.testing.assert_array_equal(example.weights[0], np.arange(16) >= cut - 1)
    found = influence(both, example)[:, 3:19]
    for place in range(cut - 1, 16):
        np.testing.assert_array_equal(found[place], [token - 2 < cut or token - 2 <= place for token in range(3, 19)])


@pytest.mark.parametrize(("family", "objective"), [("decoder", "prefix"), ("encoder_decoder", "prefix")])
def test_a_prefix_stays_in_its_document(make_step, family, objective):
    step = make_step(family, objective)
    found = influence(step, step.objective(window(step, TWO)))
    assert not found[:6, 8:18].any()
    assert not found[6:, 3:8].any()


@pytest.mark.parametrize("family", ["decoder", "encoder_decoder"])
def test_a_target_sees_its_source_and_what_was_written(make_step, family):
    """Pairs 3 4 | 5 6 and 7 8 9 | 10 11, separated by 2; what is after them is padding."""
    step = make_step(family, "pairs")
    tokens = [EOS, 3, 4, 2, 5, 6, EOS, 7, 8, 9, 2, 10, 11, EOS, 0, 0, 0]
    example = step.objective(window(step, tokens))
    scored = np.flatnonzero(np.asarray(example.weights[0]))
    assert [tokens[place + 1] for place in scored] == [5, 6, EOS, 10, 11, EOS]
    found = influence(step, example)
    sources, written = {3: [3, 4], 4: [3, 4], 5: [3, 4]}, {3: [], 4: [5], 5: [5, 6]}
    sources |= {10: [7, 8, 9], 11: [7, 8, 9], 12: [7, 8, 9]}
    written |= {10: [], 11: [10], 12: [10, 11]}
    for place in scored.tolist():
        seen = [token for token in range(3, 12) if found[place, token]]
        assert seen == sorted(sources[place] + written[place]), place


def test_spans_are_written_after_what_is_left_was_read(make_step):
    step = make_step("encoder_decoder", "spans")
    tokens = [EOS, *range(3, 19)]
    example = step.objective(window(step, tokens, 5))
    found = influence(step, example)
    source = [t for t in np.asarray(example.source.tokens[0]).tolist() if 3 <= t < 19]
    inputs = np.asarray(example.inputs.tokens[0]).tolist()
    assert source
    for place in np.flatnonzero(np.asarray(example.weights[0])).tolist():
        before = [token for token in inputs[: place + 1] if 3 <= token < 19]
        assert [t for t in range(3, 19) if found[place, t]] == sorted({*source, *before}), place


@pytest.mark.parametrize(("family", "objective"), PAIRS)
def test_documents_in_one_window_are_as_if_alone(make_step, family, objective):
    """The logits of packed documents are those of each by itself."""
    if objective in ("prefix", "spans"):
        pytest.skip("another window draws other noise; their borders are tested by gradient")
    step = make_step(family, objective)
    params = step.init(0).params
    first, second = [3, 4, 2, 5, 6, EOS], [7, 8, 9, 2, 10, 11, 12, 13, EOS]

    def logits(targets: list[int]) -> np.ndarray:
        example = step.objective(window(step, [EOS, *targets], 3))
        if objective == "masked":  # the text itself, as noise would differ
            example = example._replace(inputs=example.inputs._replace(tokens=example.targets))
        return np.asarray(jax.jit(step.apply)(params, example)[0])

    packed = logits([*first, *second, 20])
    alone = logits([*first, EOS, *range(20, 29)])[:6], logits([*second, EOS, *range(20, 26)])[:9]
    scored = slice(None)
    np.testing.assert_allclose(packed[:6][scored], alone[0][scored], atol=2e-5)
    np.testing.assert_allclose(packed[6:15][scored], alone[1][scored], atol=2e-5)


def objective(name: str, **changes) -> Objective:
    settings = {
        "name": name, "encodes": name == "spans", "vocab": 259, "eos_id": None, "start_id": 1, "separator_id": None,
    } | changes  # fmt: skip
    return Objective(**settings)


def noisy_windows(count: int, length: int) -> np.ndarray:
    text = np.random.default_rng(0).integers(3, 259, (count, length + 1)).astype(np.int32)
    return numbered(text, 0, np.arange(count))


def test_masking_rates_are_those_of_bert():
    windows = noisy_windows(2000, 128)
    example = jax.jit(objective("masked"))(windows)
    told = np.asarray(example.weights) > 0
    inputs, targets = np.asarray(example.inputs.tokens), windows[:, 1:-1]
    count = told.size

    def near(share, asked, of):  # within 4 standard errors
        assert abs(share - asked) < 4 * np.sqrt(asked * (1 - asked) / of)

    near(told.mean(), 0.15, count)
    near((inputs[told] == 259).mean(), 0.8, told.sum())
    near((inputs[told] == targets[told]).mean(), 0.1 + 0.1 / 259, told.sum())
    np.testing.assert_array_equal(inputs[~told], targets[~told])
    others = inputs[told & (inputs != 259) & (inputs != targets)]
    assert others.min() >= 0
    assert others.max() < 259


@pytest.mark.parametrize("eos_id", [None, 40])
def test_sentinels_put_the_text_together_again(eos_id):
    """T5's own inverse: each sentinel of the source stands for what follows it among the targets."""
    windows = noisy_windows(200, 128)
    example = jax.jit(objective("spans", eos_id=eos_id))(windows)
    spans = spans_of(128)
    assert (spans.noise, spans.count) == (19, 6)
    lengths = []
    for row in range(len(windows)):
        source, written = np.asarray(example.source.tokens[row]), np.asarray(example.targets[row])
        left = source[np.asarray(example.source.documents[row]) >= 0]
        weights = np.asarray(example.weights[row])
        written = written[weights > 0]
        pieces = np.split(written, np.flatnonzero(written >= 259))
        assert len(pieces[0]) == 0
        known = {int(piece[0]): piece[1:].tolist() for piece in pieces[1:]}
        every = list(range(259, 259 + 6))  # a span that would begin with the end of a document is none
        assert sorted(known) == (every if eos_id is None else [each for each in every if each in left])
        text = [part for token in left.tolist() for part in (known[token] if token >= 259 else [token])]
        assert text == windows[row, 1:-1].tolist()
        lengths += [len(part) for part in known.values()]
        if eos_id is not None:
            assert all(eos_id not in part for part in known.values())
    if eos_id is None:
        assert np.mean(lengths) == pytest.approx(19 / 6)


def test_noise_is_a_function_of_the_seed_and_the_sample(make_assembly):
    assembly = make_assembly(family="encoder", objective="masked", seeds=(0, 1))
    first, second = (assembly.loader(trajectory) for trajectory in assembly.plan)
    together = first.batches(0, 6)
    assert together.shape == (6, 8, 16 + 2)
    for step in range(6):
        np.testing.assert_array_equal(first.windows(step), together[step])
        np.testing.assert_array_equal(first.windows(step, slice(2, 5)), together[step, 2:5])
    drawn = together[..., -1].ravel()
    assert len(np.unique(drawn)) == len(drawn)
    assert not set(drawn) & set(second.batches(0, 6)[..., -1].ravel())


@pytest.fixture(scope="module")
def sentence(tmp_path_factory) -> Shards:
    """A corpus of one sentence, over and over, which is held out as well."""
    text = "a quick fox jumps"
    tokens = np.array([*(3 + " abcdefghijklmnopqrstuvwxyz".index(letter) for letter in text), EOS])
    vocabulary = Vocabulary(class_name="Test", name="letters", size=VOCAB, eos_id=EOS, digest="letters")
    with ShardWriter(tmp_path_factory.mktemp("sentence") / "text", {"targets": vocabulary}) as writer:
        for split, count in (("train", 12_000), ("heldout", 40)):
            for _ in range(count):
                writer.add(split, {"targets": tokens}, {"targets": len(text)})
        return open_shards(writer.finish({}))


@pytest.mark.parametrize(
    ("family", "objective"),
    # a decoder learns it in fewer steps than the rest
    [pytest.param(*p, marks=[pytest.mark.long] * (p[0] != "decoder")) for p in PAIRS if p[1] != "pairs"],
)
def test_every_family_memorises_a_sentence(make_assembly, make_training, sentence, family, objective):
    """Below 0.05 nats a scored token, from ln 28 = 3.33 of a guess."""
    recipe = {"sequence": 32, "batch_tokens": PowerRule(value=256)}
    steps = 800 if objective in ("masked", "spans") else 200  # these score one token in six
    changes = {"tokens": (256 * steps,), "allow_collinear": True, "steps_per_dispatch": 100}
    changes |= {"recipe": recipe, "text": sentence}
    t = make_training(make_assembly(family=family, objective=objective, sizes=(Size(width=32, depth=2),), **changes))
    train(t)
    record = json.loads((t.workspace.run(t.trajectory.runs[0].id) / "record.json").read_text())
    row = record["row"]
    assert (row["family"], row["objective"], row["status"]) == (family, objective, "done")
    print(f"{family}, {objective}: {row['loss_nats']:.4f} nats a scored token")
    assert row["loss_nats"] < 0.05
    assert (row["bits_per_byte"] is None) == (objective != "causal")
    contexts = [score["slice"] for score in record["scores"] if score["metric"] == "loss_nats" and score["slice"]]
    expected = ["context=1", "context=2", "context=3-4", "context=5-8", "context=9-16", "context=17-32"]
    assert contexts == (expected if objective == "causal" else [])


@pytest.mark.parametrize(
    ("family", "objective"),
    [("decoder", "masked"), ("encoder", "causal"), ("lstm", "prefix"), ("encoder_decoder", "causal")],
)
def test_what_makes_no_sense_is_refused(make_assembly, family, objective):
    with pytest.raises(InputError, match=rf"^objective: '{objective}' needs .*, and family '{family}' is trained on "):
        make_assembly(family=family, objective=objective)


def test_a_pseudo_likelihood_asks_for_one_token_at_a_time(make_assembly, make_training):
    """Against the model's own softmax, token by token, each masked by hand."""
    assembly = make_assembly(family="encoder", objective="masked")
    t = make_training(assembly)
    params = t.step.init(0).params
    (asked,) = assembly.extra_sets
    ends = int((assembly.held_out.tokens[:, 1:] == EOS).sum())
    assert (asked.name, len(asked.rows)) == ("pseudo_likelihood", assembly.held_out.tokens_scored - ends)
    few = dataclasses.replace(asked, rows=asked.rows[:40], places=asked.places[:40])
    nats = []
    for row, place in zip(few.rows, few.places, strict=True):
        targets, length = few.windows.tokens[row, 1:], int(few.windows.weights[row].sum())
        masked = targets[:length].copy()
        masked[place] = 32  # after the text's tokens
        rows = closed(jnp.asarray(masked[None]), EOS)
        logits = t.step.apply(params, Example(rows, rows.tokens, jnp.ones((1, length))))[0, place]
        nats.append(-float(jax.nn.log_softmax(logits)[targets[place]]))
    found = {score.metric: score for score in few.measure(t.step, params)}
    assert found["pseudo_nats"].value == pytest.approx(np.mean(nats), abs=1e-5)
    assert found["pseudo_nats"].stderr > 0
    bits = np.mean(nats) / np.log(2) * few.windows.tokens_scored / few.windows.bytes_scored
    assert found["pseudo_bits_per_byte"].value == pytest.approx(bits, rel=1e-5)


def test_pairs_are_not_joined(make_assembly):
    """Only the first pair of a window would have a source."""
    with pytest.raises(InputError, match=r"^recipe.documents: 'joined' makes one text of several pairs"):
        make_assembly(objective="pairs", recipe={"documents": "joined"})


def test_a_batch_without_a_chosen_token_is_no_loss(make_step):
    step = make_step("encoder", "masked")
    params = step.init(0).params
    silent = next(
        windows
        for number in range(200)
        if not np.asarray(step.objective(windows := window(step, ONE, number)).weights).any()
    )
    loss, gradients = jax.jit(step.gradients)(params, silent)
    assert float(loss) == 0
    assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(gradients))


def test_the_end_of_a_document_is_not_asked_for():
    """Borders of documents tell where it stands."""
    windows = noisy_windows(300, 64)
    for name in ("masked", "spans"):
        example = jax.jit(objective(name, eos_id=40))(windows)
        assert not ((np.asarray(example.targets) == 40) & (np.asarray(example.weights) > 0)).any()
        joined = jax.jit(objective(name))(windows)
        assert ((np.asarray(joined.targets) == 40) & (np.asarray(joined.weights) > 0)).any()
