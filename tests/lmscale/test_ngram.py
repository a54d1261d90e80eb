"""Modified Kneser-Ney against its equations in exact fractions, NLTK, and chains whose entropies are known."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from grams import EOS, LARGE, counted, random_windows, spread
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from lmscale.ngram import FALLBACK, Discounts, discounts, estimate
from lmscale.ngram_counts import NgramCounts


def shown_context(window: list[int], column: int, eos: int | None) -> tuple[int, ...]:
    """The tokens before a column, back to the last end-of-sequence (that one too) or the window's edge."""
    context: list[int] = []
    for token in reversed(window[:column]):
        context.insert(0, token)
        if token == eos:
            break
    return tuple(context)


class Literal:
    """The model of one order, from the definitions. Contexts whole or cut are told apart as the module says."""

    def __init__(self, windows: list[list[int]], order: int, vocab: int, eos: int | None) -> None:
        self.order, self.vocab, self.eos = order, vocab, eos
        self.c: dict[int, Counter] = {m: Counter() for m in range(1, order + 1)}
        before: dict[tuple, set[int]] = defaultdict(set)
        for window in windows:
            for column in range(1, len(window)):
                gram = (*shown_context(window, column, eos), window[column])
                for m in range(1, min(order, len(gram)) + 1):
                    self.c[m][gram[-m:]] += 1
                    if m < len(gram) and m < order:
                        before[gram[-m:]].add(gram[-m - 1])
        self.a = {
            m: {g: n if len(g) > 1 and g[0] == eos else len(before[g]) or 1 for g, n in self.c[m].items()}
            for m in range(1, order)
        }

    @staticmethod
    def taken(table: dict[tuple, int]) -> list[Fraction]:
        n = Counter(table.values())
        if n[1] and n[2] and n[3]:
            y = Fraction(n[1], n[1] + 2 * n[2])
            d = [j - (j + 1) * y * Fraction(n[j + 1], n[j]) for j in (1, 2, 3)]
            if all(0 <= d[j - 1] <= j for j in (1, 2, 3)):
                return [Fraction(0), *d]
        return [Fraction(0), *map(Fraction, FALLBACK)]

    def p(self, context: tuple[int, ...], word: int, by_counts: bool) -> Fraction:
        """p(word | context), at the order of len(context) + 1: by counts, else by adjusted counts."""
        m = len(context) + 1
        table = self.c[m] if by_counts else self.a[m]
        d = self.taken(table)
        following = {g: n for g, n in table.items() if g[:-1] == context}
        lower = self.p(context[1:], word, False) if context else Fraction(1, self.vocab)
        if not following:
            return lower
        total = sum(following.values())
        n1, n2 = (sum(n == j for n in following.values()) for j in (1, 2))
        gamma = (d[1] * n1 + d[2] * n2 + d[3] * (len(following) - n1 - n2)) / total
        count = following.get((*context, word), 0)
        return (count - d[min(count, 3)]) / total + gamma * lower

    def probability(self, window: list[int], column: int) -> Fraction:
        context = shown_context(window, column, self.eos)
        context = context[max(0, len(context) - self.order + 1) :]
        cut = len(context) < self.order - 1 and context[0] != self.eos
        return self.p(context, window[column], cut or len(context) == self.order - 1)


@pytest.mark.parametrize("vocab", [6, 60])
@pytest.mark.parametrize("eos", [EOS, None])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
def test_probabilities_are_those_of_the_equations_in_exact_fractions(order, eos, vocab):
    skew = 2 / vocab
    train, held = random_windows(order, vocab, (40, 9), skew), random_windows(99, vocab, (12, 9), skew)
    literal = Literal(train.tolist(), order, vocab, eos)
    model = estimate(counted(train, order=order, vocab=vocab, eos_id=eos))
    assert vocab == 6 or not all(each.fallback for each in model.discounts)  # both kinds occur
    nats = model.token_nats(held)
    for row, window in enumerate(held.tolist()):
        for column in range(1, 9):
            exact = literal.probability(window, column)
            assert abs(math.exp(-nats[row, column - 1]) - exact) < 1e-12


def test_keys_that_do_not_fit_in_64_bits_give_the_same_model():
    vocab = 9
    train, held = random_windows(5, vocab, (60, 33)), random_windows(6, vocab, (20, 33))
    large = counted(spread(train, vocab, LARGE), order=6, vocab=LARGE)
    small = counted(train, order=6, vocab=vocab)
    assert (small.packed_order, large.packed_order) == (6, 3)
    for m in range(1, 7):
        np.testing.assert_array_equal(small.counts(m), large.counts(m))
        if m < 6:
            np.testing.assert_array_equal(small.adjusted(m), large.adjusted(m))
    # Probabilities differ by the uniform share alone: hold the lowest order's discounts at 0
    none = [(0.0, 0.0, 0.0)] + [(0.5, 0.9, 1.2)] * 5
    got = estimate(large, held=none).token_nats(spread(held, vocab, LARGE))
    np.testing.assert_allclose(got, estimate(small, held=none).token_nats(held), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@example(order=5, seed=7499, shape=(14, 14), vocab=5, eos=EOS)  # D3 of the unigrams comes to 0
@given(
    order=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 30), st.integers(2, 14)),
    vocab=st.integers(4, 30),
    eos=st.sampled_from([EOS, None]),
)
def test_probabilities_sum_to_one_in_every_context(order, seed, shape, vocab, eos):
    model = estimate(counted(random_windows(seed, vocab, shape), order=order, vocab=vocab, eos_id=eos))
    contexts = random_windows(seed + 1, vocab, (8, 9))
    windows = np.repeat(contexts, vocab, axis=0)
    for column in (1, 2, 4, 8):
        windows[:, column] = np.tile(np.arange(vocab), len(contexts))
        p = np.exp(-model.token_nats(windows)[:, column - 1]).reshape(len(contexts), vocab)
        windows[:, column] = np.repeat(contexts[:, column], vocab)
        assert (p > 0).all()
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)


def test_with_one_discount_it_is_interpolated_kneser_ney_of_nltk():
    lm = pytest.importorskip("nltk.lm", reason="nltk comes with the extra 'dev'")
    order, vocab, discount = 3, 6, 0.4
    text = random_windows(3, vocab, (1, 200))
    text[0, -4:] = text[0, :4]  # so that every gram has been seen after some token: NLTK knows no edges
    held = random_windows(4, vocab, (1, 32))
    tokens = [str(t) for t in text[0]]
    grams = [tuple(tokens[max(0, c - m + 1) : c + 1]) for c in range(1, len(tokens)) for m in range(1, order + 1)]
    theirs = lm.KneserNeyInterpolated(order, discount=discount)
    theirs.fit([grams], vocabulary_text=tokens)
    held_discounts = [(0.0, 0.0, 0.0)] + [(discount, discount, discount)] * 2  # NLTK leaves the lowest order whole
    ours = estimate(counted(text, order=order, vocab=vocab, eos_id=None), held=held_discounts)
    nats = ours.token_nats(held)[0]
    words = [str(t) for t in held[0]]
    compared = 0
    for column in range(order - 1, len(words)):
        p = theirs.score(words[column], words[column - order + 1 : column])
        assert math.exp(-nats[column - 1]) == pytest.approx(p, abs=1e-9)
        compared += 1
    assert compared == 30


def test_probabilities_are_those_that_lmplz_of_kenlm_printed():
    """Text and ARPA file as published in github.com/kpu/kenlm/issues/405 (`lmplz -o 2`, revision 4cb443e6).

    lmplz took the last unigram of its order (`ski`) by its count, 2, where its adjusted count is 1, so n_1 = 4 and
    n_2 = 3 for unigrams: D = 0.4, 1.6, 1.4 by the equation. It counts `<unk>` among the outcomes.
    """
    text = "I went to|I go to|You went to|You go to|Joe went to|Joe go to|Anna went ski|Anna went ski"
    words = ("<unk>", "</s>", "I", "went", "to", "go", "You", "Joe", "Anna", "ski")
    ids = {word: number for number, word in enumerate(words)}
    ids["<s>"] = EOS
    lines = [[ids[word] for word in f"<s> {line} </s>".split()] for line in text.split("|")]
    counts = counted(lines, order=2, vocab=10)
    model = estimate(counts, held=[(0.4, 1.6, 1.4), discounts(counts.counts(2)).values])
    printed = {  # log10; a context that was never seen leaves a unigram alone
        ("<unk>", "<unk>"): -1.30103,
        ("<unk>", "</s>"): -1.1249387,
        ("<unk>", "I"): -1.0579919,
        ("<unk>", "went"): -0.6726411,
        ("<unk>", "to"): -1.1249387,
        ("<unk>", "go"): -0.82390875,
        ("<unk>", "You"): -1.0579919,
        ("<unk>", "Joe"): -1.0579919,
        ("<unk>", "Anna"): -1.0579919,
        ("<unk>", "ski"): -1.0579919,
        ("to", "</s>"): -0.26962152,
        ("ski", "</s>"): -0.7123581,
        ("<s>", "I"): -0.9649993,
        ("I", "went"): -0.383262,
        ("You", "went"): -0.383262,
        ("Joe", "went"): -0.383262,
        ("I", "ski"): -0.5228788 - 1.0579919,  # backoffs
        ("went", "went"): -0.022929981 - 0.6726411,
        ("to", "go"): -0.30103 - 0.82390875,
        ("<s>", "to"): -0.059768215 - 1.1249387,
    }
    windows = np.array([[ids[before], ids[word]] for before, word in printed], np.int32)
    np.testing.assert_allclose(-model.token_nats(windows)[:, 0] / math.log(10), [*printed.values()], atol=2e-7)


@pytest.mark.parametrize("vocab", [9, LARGE])
def test_a_model_stays_as_it_is_while_counting_goes_on(vocab):
    windows, held = random_windows(1, 9, (80, 17)), random_windows(2, 9, (10, 17))
    if vocab == LARGE:
        windows, held = spread(windows, 9, vocab), spread(held, 9, vocab)
    counts = counted(windows[:40], order=5, vocab=vocab)
    first = estimate(counts)
    before = first.token_nats(held)
    counts.add(windows[40:])
    second = estimate(counts)
    np.testing.assert_array_equal(first.token_nats(held), before)
    whole = estimate(counted(windows, order=5, vocab=vocab))
    np.testing.assert_array_equal(second.token_nats(held), whole.token_nats(held))
    assert first.params < second.params == whole.params == counts.stored(5)


def test_what_lies_before_a_border_changes_nothing():
    windows, held = random_windows(1, 9, (60, 17)), random_windows(2, 9, (30, 17))
    model = estimate(counted(windows, order=5, vocab=9))
    nats = model.token_nats(held)
    held[:, 8] = EOS
    border = model.token_nats(held)[:, 8:]
    held[:, :8] = np.random.default_rng(0).integers(0, 9, (30, 8))
    np.testing.assert_array_equal(model.token_nats(held)[:, 8:], border)
    assert not np.array_equal(nats[:, 8:], border)


def test_a_context_cut_by_the_edge_is_scored_by_the_order_that_it_shows():
    counts = counted(random_windows(1, 9, (200, 17)), order=5, vocab=9)
    held = np.maximum(random_windows(2, 9, (50, 17)), 2)  # no borders
    nats = estimate(counts).token_nats(held)
    for order in (2, 3, 4):
        np.testing.assert_allclose(nats[:, order - 2], estimate(counts, order).token_nats(held)[:, order - 2])


def test_a_model_of_a_lower_order_is_that_of_its_own_counts():
    windows, held = random_windows(1, 9, (200, 17)), random_windows(2, 9, (50, 17))
    six = counted(windows, order=6, vocab=9)
    for order in range(1, 7):
        alone = estimate(counted(windows, order=order, vocab=9))
        of_six = estimate(six, order)
        assert alone.params == of_six.params == six.stored(order)
        np.testing.assert_array_equal(alone.token_nats(held), of_six.token_nats(held))


def test_discounts_are_those_of_the_equation():
    counts = np.repeat(np.array([1, 2, 3, 4, 50], np.uint32), [100, 40, 20, 12, 7])
    y = 100 / 180
    expected = (1 - 2 * y * 40 / 100, 2 - 3 * y * 20 / 40, 3 - 4 * y * 12 / 20)
    found = discounts(counts)
    assert found.values == pytest.approx(expected)
    assert not found.fallback


@pytest.mark.parametrize("sizes", [[0, 5, 5, 5], [5, 0, 5, 5], [5, 5, 0, 5], [9, 3, 1, 40]])
def test_where_counts_tell_no_discounts_those_of_kenlm_stand_in(sizes):
    counts = np.repeat(np.array([1, 2, 3, 4], np.uint32), sizes)
    assert discounts(counts) == Discounts(values=(0.5, 1.0, 1.5), fallback=True)


def test_a_byte_never_seen_has_its_share():
    windows = np.full((4, 33), 65, np.int32)  # one token alone: no count of counts
    model = estimate(counted(windows, order=3, vocab=256, eos_id=None))
    assert all(each.fallback for each in model.discounts)
    p = np.exp(-model.token_nats(np.array([[65, 65, 65], [65, 65, 66]]))[:, 1])
    assert 0 < p[1] < p[0] < 1
    assert p[0] + 255 * p[1] == pytest.approx(1, abs=1e-12)


def planted_chain(order: int, symbols: int, chains: int, length: int) -> tuple[np.ndarray, list[float]]:
    """Draws of a Markov chain [chains, length], and its conditional entropies after 0 .. order tokens, in nats."""
    rng = np.random.default_rng(order)
    following = rng.dirichlet(np.full(symbols, 0.4), (symbols,) * order) * 0.95 + 0.05 / symbols
    stationary = np.full((symbols,) * order, symbols**-order)
    for _ in range(2000):
        stationary = (stationary[..., None] * following).sum(axis=0)
    joint = stationary[..., None] * following  # of order + 1 tokens
    entropies = []
    for context in range(order + 1):
        p = joint.sum(axis=tuple(range(order - context)))
        entropies.append(float(-(p * np.log(p / p.sum(axis=-1, keepdims=True))).sum()))
    start = rng.choice(symbols**order, chains, p=stationary.ravel())
    drawn = [np.asarray(each) for each in np.unravel_index(start, stationary.shape)]
    cumulative = following.cumsum(axis=-1)
    while len(drawn) < length:
        after = cumulative[tuple(drawn[-order:])]
        drawn.append(np.minimum((rng.random((chains, 1)) > after).sum(axis=1), symbols - 1))
    return np.stack(drawn, axis=1).astype(np.int32), entropies


def test_losses_are_the_entropies_of_a_planted_chain():
    order, symbols = 3, 4
    drawn, entropies = planted_chain(order, symbols, 2500, 201)
    assert entropies[0] - entropies[1] > 0.02
    assert entropies[1] - entropies[2] > 0.02
    assert entropies[2] - entropies[3] > 0.02
    counts = counted(drawn[:2000], order=5, vocab=symbols, eos_id=None)
    for model_order in range(1, 6):
        nats = estimate(counts, model_order).token_nats(drawn[2000:])[:, 5:]
        documents = nats.mean(axis=1)
        stderr = documents.std(ddof=1) / math.sqrt(len(documents))
        assert stderr < 0.003
        assert abs(nats.mean() - entropies[min(model_order - 1, order)]) < 3 * stderr
    # At the left edge the loss falls to the same entropies as the window shows more
    edge = estimate(counts).token_nats(drawn[2000:])[:, :3]
    for shown, column in enumerate(edge.T, 1):
        assert abs(column.mean() - entropies[shown]) < 3 * column.std(ddof=1) / math.sqrt(len(column))


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (np.array([[1, 9]]), "id 9 is not 0 to 8"),
        (np.array([[-1, 2]]), "id -1 is not 0 to 8"),
        (np.array([[1]]), "are not integers"),
        (np.array([[1.0, 2.0]]), "are not integers"),
    ],
)
def test_windows_of_another_kind_are_refused(windows, message):
    counts = counted(random_windows(1, 9, (9, 9)), order=3, vocab=9)
    for call in (counts.add, estimate(counts).token_nats):
        with pytest.raises(InputError, match=message):
            call(windows)


def test_models_of_nothing_or_of_orders_not_counted_are_refused():
    with pytest.raises(InputError, match="tokens: 0 were counted"):
        estimate(NgramCounts(order=2, vocab=9, eos_id=EOS))
    counts = counted(random_windows(1, 9, (9, 9)), order=2, vocab=9)
    with pytest.raises(InputError, match="order: 3 is not 1 to 2"):
        estimate(counts, 3)
    with pytest.raises(InputError, match="held: "):
        estimate(counts, held=[(0.5, 1, 1.5), (1.5, 1, 1)])
