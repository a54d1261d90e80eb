"""Mixtures and limited text: rates, epochs, unique tokens and identity, against counting and against the documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.config import Corpus, EvalSet, Study
from lmscale.data.loader import Loader, evaluation_set
from lmscale.data.permutation import permute
from lmscale.data.shards import Split, Vocabulary, open_shards
from lmscale.data.subset import SUBSET_KEY, Subset
from lmscale.data.writer import ShardWriter
from lmscale.planning.assemble import Assembly, OpenPart, from_shards
from lmscale.planning.plan_table import as_json, as_text
from lmscale.train import train

EOS = 1
BYTES = Vocabulary(class_name="Byte", name="bytes", size=259, eos_id=EOS, digest="0")
SEQUENCE = 16
RATES = (0.6, 0.3, 0.1)
SIZES = (60, 20, 7)  # documents of each part


def documents(count: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [np.append(random.integers(3, 259, random.integers(1, 120)), EOS) for _ in range(count)]


@pytest.fixture(scope="module")
def write(tmp_path_factory) -> Callable[..., Split]:
    """write(documents): a split of them, in shards of 500 tokens."""

    def made(train: list[np.ndarray]) -> Split:
        folder = tmp_path_factory.mktemp("part") / "x"
        with ShardWriter(folder, {"targets": BYTES}, shard_tokens=500) as writer:
            for tokens in train:
                writer.add("train", {"targets": tokens}, {"targets": len(tokens) - 1})
            return open_shards(writer.finish({})).train

    return made


@pytest.fixture(scope="module")
def splits(write) -> list[Split]:
    return [write(documents(count, seed)) for seed, count in enumerate(SIZES)]


def loader(splits: list[Split], batch_sequences: int = 8, seed: int = 3) -> Loader:
    parts = tuple(zip(splits, RATES, strict=True))
    return Loader(parts=parts, sequence=SEQUENCE, batch_sequences=batch_sequences, seed=seed)


def test_every_part_goes_through_its_own_epochs(splits):
    data, steps = loader(splits), 1500
    part_of, windows = data.samples(0, steps)
    for part, size in enumerate(data.windows_per_epoch):
        mine = windows[part_of == part]
        epochs = [mine[i : i + size].tolist() for i in range(0, len(mine), size)]
        assert len(epochs) > 10
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs[:-1])
        assert len(set(epochs[-1])) == len(epochs[-1])
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_rows_are_the_windows_of_their_parts(splits):
    data = loader(splits)
    streams = [np.concatenate([[EOS], *documents(count, seed)]) for seed, count in enumerate(SIZES)]
    part_of, windows = data.samples(5, 9)
    batches = data.batches(5, 9).reshape(-1, SEQUENCE + 1)
    for part, window, row in zip(part_of, windows, batches, strict=True):
        assert row.tolist() == streams[part][window * SEQUENCE : (window + 1) * SEQUENCE + 1].tolist()


@pytest.mark.parametrize("batch_sequences", [1, 8, 100])
def test_rates_hold_within_a_sample_at_every_step(splits, batch_sequences):
    part_of, _ = loader(splits, batch_sequences).samples(0, 2000 // batch_sequences)
    for part, rate in enumerate(RATES):
        seen = np.cumsum(part_of == part)
        assert np.abs(seen - rate * np.arange(1, len(seen) + 1)).max() <= 1


def test_unique_tokens_and_epochs_are_what_counting_finds(splits):
    data = loader(splits, batch_sequences=6)
    for steps in (1, 7, 40, 333):
        part_of, windows = data.samples(0, steps)
        different = len({*zip(part_of.tolist(), windows.tolist(), strict=True)})
        assert data.unique_tokens(steps) == different * SEQUENCE
        counted = [np.sum(part_of == p) / size for p, size in enumerate(data.windows_per_epoch)]
        assert data.epochs(steps) == pytest.approx(counted, rel=1e-15)


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_rows_of_the_processes_make_the_batch_of_a_mixture(splits, processes):
    size = 8 // processes
    whole = loader(splits).batches(510, 515)  # over the border of a block
    parts = [loader(splits).batches(510, 515, slice(r * size, (r + 1) * size)) for r in range(processes)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_steps_are_a_function_of_seed_and_number(splits):
    again = loader(splits)
    in_order = [loader(splits).windows(step) for step in range(20)]
    for step in (19, 3, 11, 0):
        assert np.array_equal(again.windows(step), in_order[step])
    part_of, windows = loader(splits, seed=4).samples(0, 20)
    assert np.array_equal(part_of, again.samples(0, 20)[0])  # where a sample comes from is the same for every seed
    assert not np.array_equal(windows, again.samples(0, 20)[1])


def test_parts_of_one_size_are_shuffled_apart(splits):
    data = Loader(parts=((splits[0], 1), (splits[0], 1)), sequence=SEQUENCE, batch_sequences=8, seed=0)
    part_of, windows = data.samples(0, 20)
    assert np.count_nonzero(windows[part_of == 0] == windows[part_of == 1]) < 10


def order(split: Split) -> list[int]:
    return permute(np.arange(split.documents), split.documents, seed=SUBSET_KEY, epoch=0).tolist()


@pytest.mark.parametrize("tokens", [1, 16, 100, 777, 2000])
def test_a_subset_is_the_first_documents_in_the_keyed_order(splits, tokens):
    texts = documents(SIZES[0], 0)
    stream = np.concatenate([texts[d] for d in order(splits[0])])[:tokens]
    subset = Subset(splits[0], tokens, "x")
    assert np.array_equal(subset.read(0, tokens), stream)
    for start in range(0, tokens, 37):
        for stop in (start, start + 1, min(start + 90, tokens)):
            if stop <= tokens:
                assert np.array_equal(subset.read(start, stop), stream[start:stop])
    whole = [len(texts[d]) - 1 for d in subset.documents[:-1]]
    last = texts[subset.documents[-1]]
    taken = tokens - sum(whole) - len(whole)
    assert subset.total_bytes == sum(whole) + round((len(last) - 1) * taken / len(last))
    with pytest.raises(IndexError):
        subset.read(0, tokens + 1)


def test_a_smaller_subset_is_part_of_a_larger_one(splits):
    texts, seen = [], None
    for tokens in (320, 800, splits[0].tokens):
        data = Loader(
            parts=((Subset(splits[0], tokens, "x"), 1.0),),
            sequence=SEQUENCE,
            batch_sequences=tokens // SEQUENCE,
            seed=0,
        )
        seen = {tuple(row) for row in data.windows(0).tolist()}
        assert len(seen) == tokens // SEQUENCE
        texts.append(seen)
    assert texts[0] < texts[1] < texts[2]


def test_what_a_limit_leaves_out_is_never_read(write, splits, monkeypatch):
    """Other documents there, of other text, change nothing; nor is a token outside the chosen documents asked for."""
    subset = Subset(splits[0], 600, "x")
    chosen = set(subset.documents.tolist())
    texts = documents(SIZES[0], 0)
    other = [text if d in chosen else np.append(np.full(len(text) - 1, 7), EOS) for d, text in enumerate(texts)]
    changed = Subset(write(other), 600, "x")
    inside = np.zeros(splits[0].tokens, bool)
    for document in chosen:
        inside[splits[0].offsets[document] : splits[0].offsets[document + 1]] = True

    def read(start: int, stop: int) -> np.ndarray:
        assert inside[start:stop].all()
        return Split.read(splits[0], start, stop)

    monkeypatch.setattr(splits[0], "read", read)
    one, two = (
        Loader(parts=((text, 1.0),), sequence=SEQUENCE, batch_sequences=8, seed=0).batches(0, 30)
        for text in (subset, changed)
    )
    assert np.array_equal(one, two)


@pytest.fixture
def mix(make_assembly, make_shards) -> Callable[..., Assembly]:
    """mix(rates, **changes of the corpus): the study of make_assembly over parts `a`, `b` and so on."""
    opened = [make_shards(7), make_shards(8)]

    def made(rates: tuple[float, ...] = (3, 1), study: Study | None = None, **changes) -> Assembly:
        study = study or make_assembly().study
        parts = tuple(
            OpenPart(name=name, rate=rate, shards=shards)
            for name, rate, shards in zip("ab", rates, opened, strict=False)
        )
        return from_shards(replace(study, corpus=Corpus(**changes)), parts)

    return made


def test_a_mixture_is_what_its_parts_and_rates_are(mix, make_assembly):
    mixture, text = mix(), mix().plan[0].text
    assert [(p.name, p.rate, p.train_tokens) for p in text.parts] == [("a", 0.75, 40_096), ("b", 0.25, 40_096)]
    assert text.train_tokens == 80_192
    assert text.bytes_per_token == pytest.approx(400 / 401)
    ids = {assembly.plan[0].id for assembly in (mixture, mix((1, 1)), mix((1,)), mix(unique_tokens=8192))}
    assert len(ids) == 4
    assert mix((0.75, 0.25)).plan[0].id == mixture.plan[0].id  # rates are relative
    alone, before = mix((1,)).plan[0], make_assembly().plan[0]
    assert (alone.id, alone.text.parts, before.text.parts) == (before.id, (), ())


def test_a_mixture_is_evaluated_on_what_each_part_holds_out(mix):
    own = mix().held_out
    splits = [part.shards.heldout for part in mix().text]
    whole = evaluation_set(*splits, sequence=SEQUENCE, tokens=10**9)
    assert whole.tokens_scored == sum(split.tokens for split in splits)
    assert set(whole.documents.tolist()) == set(range(20))
    for number, split in ((3, splits[0]), (17, splits[1])):  # numbered through
        rows = whole.documents == number
        assert np.array_equal(whole.tokens[rows, 1:][whole.weights[rows] > 0], split.document(number % 10))
    assert {tuple(row) for row in own.tokens.tolist()} < {tuple(row) for row in whole.tokens.tolist()}
    assert 0.3 < np.mean(own.documents < 10) < 0.7


def test_a_part_that_would_repeat_is_named(mix, make_assembly):
    study = replace(make_assembly().study, tokens=(128 * 500,))
    with pytest.raises(InputError) as refused:
        mix(study=study)
    assert str(refused.value) == (
        "tokens: 64000 takes 48,000 of the 40,096 unique tokens of part 'a' of "
        f"{mix().plan[0].text.corpus!r}; pass --corpus.allow-repeats true or choose a larger corpus"
    )
    repeated = mix(study=study, allow_repeats=True)
    text = as_text(repeated, None, None, 1)
    assert "part 'a': rate 0.75, 40,096 unique tokens, up to 1.2 epochs" in text
    assert "part 'b': rate 0.25, 40,096 unique tokens, up to 0.4 epochs" in text
    assert "warning: the longest run repeats part 'a' 1.2 times (40,096 unique tokens)" in text
    assert "repeats part 'b'" not in text


def test_a_limit_asks_for_repeats_and_is_shown(mix, make_assembly):
    with pytest.raises(
        InputError, match=r"tokens: 5120 exceeds the 2,048 unique .* true or raise corpus.unique_tokens"
    ):
        mix((1,), unique_tokens=2048)
    limited = mix((1,), unique_tokens=2060, allow_repeats=True)
    assert "text: 2,048 unique tokens in whole sequences, of corpus.unique_tokens = 2,060" in as_text(
        limited, None, None, 1
    )
    told = as_json(limited, None, None, 1)
    assert [(run["unique_tokens"], run["epochs"]) for run in told["runs"]] == [(2048, 1.25), (2048, 2.5)]
    assert told["text"] == {"unique_tokens": 2048, "parts": []}
    # runs over more and less of one text are fitted together
    assert limited.plan[0].text.corpus == mix((1,)).plan[0].text.corpus
    assert limited.held_out.digest == mix((1,)).held_out.digest


def test_records_tell_repeats_of_every_part(mix, make_training, tmp_path):
    t = make_training(mix((3, 1), unique_tokens=4096, allow_repeats=True))
    train(t)
    short, long = (t.workspace.record(run.id) for run in t.trajectory.runs)
    assert (short["row"]["unique_tokens"], short["row"]["epochs"]) == (2560, 1.0)
    assert (long["row"]["unique_tokens"], long["row"]["epochs"]) == (4096, 1.25)
    assert long["parts"] == [{"name": "a", "epochs": 1.25}, {"name": "b", "epochs": 1.25}]
    assert t.workspace.export() == 2
    assert {row["unique_tokens"] for row in (short["row"], long["row"])} == {2560, 4096}
    seen = t.loader.batches(0, long["steps"]).reshape(-1, SEQUENCE + 1)[:, 1:]
    assert len({tuple(row) for row in seen.tolist()}) * SEQUENCE == 4096


def test_text_that_cannot_be_drawn_from_is_refused(mix, make_assembly, make_shards, write, splits):
    empty, short = write([]), write([np.array([5, 6, EOS])])
    for part, tokens in ((empty, 0), (short, 3)):
        with pytest.raises(InputError, match=rf"recipe.sequence: 16 exceeds the {tokens} tokens .* of part 'b'; bring"):
            Loader(parts=((splits[0], 1), (part, 1)), names=("a", "b"), sequence=SEQUENCE, batch_sequences=1, seed=0)
    for rates in ((1, 0), (1, -1), (0, 0)):
        with pytest.raises(InputError, match=r"corpus.task: -?\d is no rate for part '[ab]' of the mixture; make it"):
            mix(rates)
    with pytest.raises(InputError, match=r"corpus.unique_tokens: 40101 exceeds the 40,100 tokens of the text; lower"):
        mix((1,), unique_tokens=40_101)
    with pytest.raises(
        InputError, match=r"corpus.unique_tokens: 45000 exceeds the 40,100 .* part 'a' \(a share of 0.75"
    ):
        mix(unique_tokens=60_000)
    with pytest.raises(InputError, match=r"corpus.unique_tokens: 63 takes 15 tokens of part 'b' .* one window of 16"):
        mix(unique_tokens=63)
    with pytest.raises(InputError, match=r"corpus.unique_tokens: 0 must be at least 1"):
        Corpus(unique_tokens=0)
    other = OpenPart(name="b", rate=1, shards=make_shards(8, "another"))
    with pytest.raises(InputError, match=r"corpus.task: 'python_source' has part 'b' in vocabulary"):
        from_shards(make_assembly().study, (*mix((1,)).text, other))


def test_a_limit_on_an_evaluation_set_is_refused(make_assembly, tmp_path, monkeypatch):
    from lmscale.planning import assemble

    monkeypatch.setattr(assemble, "_open", lambda corpus, root, say, processes: ())
    each = EvalSet(name="books", corpus=Corpus(files=("x",), unique_tokens=100))
    study = replace(make_assembly().study, eval_sets=(each,))
    with pytest.raises(InputError, match=r"eval_sets.books.corpus.unique_tokens: 100 limits training, and nothing"):
        assemble.open_texts(study, tmp_path, print)


def test_a_shard_cut_after_opening_is_one_line(write):
    split = write(documents(60, 0))
    victim = split._folder / "train-targets-00001.npy"
    victim.write_bytes(victim.read_bytes()[:-40])
    data = Loader(parts=((split, 1.0),), sequence=SEQUENCE, batch_sequences=200, seed=0)
    with pytest.raises(InputError, match=r"^corpus: '.*': train-targets-00001.npy cannot be read \(.*\); remove that"):
        data.windows(0)
    with pytest.raises(InputError, match=r"^corpus: .*train-targets-00001.npy has \d+ bytes instead of \d+; remove"):
        open_shards(split._folder)
