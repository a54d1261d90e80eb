"""Options in a blank, and whole texts: shares in closed form from the model's own probabilities of whole texts."""

from dataclasses import replace

import numpy as np
import pytest
from networks import make_network
from trained import make_model

from analysis.errors import InputError
from lmscale.asking.choices import score_options, score_texts
from lmscale.asking.prompts import Asked
from lmscale.asking.reader import PieceReader
from lmscale.data.tokenizer_training import train_model
from lmscale.data.vocabulary_kind import VocabularyKind
from lmscale.inference import shared

TEXT, OPTIONS = "a ___ sat", ["cat", "horse", "ox"]


def test_shares_compare_whole_texts():
    """Of a model that reads from left to right they are Bayes' rule with equal weights on the whole texts."""
    model = make_model("causal")
    whole = np.array([each.nats for each in score_texts(model, [TEXT.replace("___", o) for o in OPTIONS])])
    rows = score_options(model, TEXT, OPTIONS)
    expected = np.exp(-whole) / np.exp(-whole).sum()
    np.testing.assert_allclose([row.share or 0 for row in rows], expected, atol=1e-6)
    assert [row.bytes for row in rows] == [len(option) + len(" sat") for option in OPTIONS]
    before = score_texts(model, ["a "])[0].nats
    np.testing.assert_allclose([row.nats for row in rows], whole - before, atol=1e-4)


@pytest.mark.parametrize("kind", ["causal", "lstm"])
def test_a_token_over_the_edge_is_paid_for_by_all(kind, tmp_path):
    """A vocabulary where 'impo' is one token, 'import' and 'impost' too, and 'impose' several: shares are those of the
    whole texts all the same. Texts each by itself, given their own tokens, are other nats apart.
    """
    path = tmp_path / "bpe.model"
    path.write_bytes(train_model(VocabularyKind(kind="bpe", pieces=280), ["import x", "impost", "important"] * 9))
    reader = PieceReader(path)
    network, layout = make_network(kind, vocab=reader.vocabulary.size)
    model = replace(make_model(kind), engine=network, layout=layout, reader=reader)
    before, options, after = "an impo", ["rt", "st", "se"], " é"
    tokens = {option: reader.encode(before + option + after) for option in options}
    common = [shared(reader.encode(before), each) for each in tokens.values()]
    assert len(set(common)) > 1  # the edge merges for some, and not for others
    rows = score_options(model, f"{before}___{after}", options)
    whole = np.array([each.nats for each in score_texts(model, [before + o + after for o in options])])
    expected = np.exp(-whole) / np.exp(-whole).sum()
    np.testing.assert_allclose([row.share or 0 for row in rows], expected, atol=1e-6)
    assert [row.tokens for row in rows] == [len(each) - min(common) for each in tokens.values()]
    given = reader.decode(tokens["rt"][: min(common)])
    assert given == "an "
    assert [row.bytes for row in rows] == [len((before + o + after).encode()) - len(given) for o in options]
    alone = np.array([each.nats for each in model.fill([(before, option, after) for option in options])])
    assert abs((alone - alone[0]) - (whole - whole[0])).max() > 1


@pytest.mark.parametrize("by", ["bytes", "tokens"])
def test_lengths_divide(by):
    rows = score_options(make_model("causal"), TEXT, OPTIONS, by)
    scores = np.exp([-row.nats / getattr(row, by) for row in rows])
    np.testing.assert_allclose([row.share or 0 for row in rows], scores / scores.sum(), atol=1e-9)
    assert sum(row.share or 0 for row in rows) == pytest.approx(1)


def test_a_masked_model_is_asked_for_one_token_at_a_time():
    """Salazar et al. 2020, eq. 1, over the filling: each byte masked alone, the rest of it in sight."""
    model = make_model("masked")
    (row, _) = score_options(model, "a ___!", ["bc", "x"])
    whole, mask = model.encode("a bc!"), model.layout.vocab
    nats = 0.0
    for place in (2, 3):
        inputs = (*whole[:place], mask, *whole[place + 1 :])
        (told,) = model.engine.scores([Asked(inputs=inputs, targets=tuple(whole))])
        nats -= told.log_probs[place]
    assert row.nats == pytest.approx(nats, abs=1e-5)
    assert (row.tokens, row.bytes) == (2, 2)


def test_spans_see_both_sides():
    model = make_model("spans")
    near, far = (score_options(model, text, ["cat", "ox"])[0].nats for text in ("a ___ sat", "a ___ ran off"))
    assert near != pytest.approx(far, abs=1e-3)  # what stands after the blank is read, and not scored
    assert score_options(model, "a ___ sat", ["cat", "ox"])[0].bytes == 3


@pytest.mark.parametrize("kind", ["pairs", "encoder_pairs"])
def test_of_a_pair_the_target_is_scored(kind):
    """The rows of training, by hand: a decoder reads source, tab and target, or an encoder the source and its tab, of
    which the decoder begins with the last; what counts are the target's tokens.
    """
    model, source, target = make_model(kind), "le chat", "the cat"
    read = (model.layout.start_id, *model.encode(source + "\t"))
    asked, encoded = tuple(model.encode(target)), kind == "encoder_pairs"
    inputs = read[-1:] if encoded else read
    (told,) = model.engine.scores(
        [
            Asked(
                inputs=(*inputs, *asked[:-1]),
                targets=(*inputs[1:], *asked),
                first_scored=len(inputs) - 1,
                source=read if encoded else (),
                prefix=0 if encoded else len(read),
                first_position=len(read) - 1 if encoded else 0,
            )
        ]
    )
    (row,) = score_texts(model, [f"{source}\t{target}"])
    assert row.nats == pytest.approx(-told.log_probs.sum(), abs=1e-4)
    assert (row.tokens, row.bytes) == (len(target), len(target))
    for context in (source, source + "\t"):
        assert row.nats == pytest.approx(-model.log_probs(context, target).sum(), abs=1e-5)
    rows = score_options(model, f"{source}\tthe ___!", ["cat", "horse"])
    expected = [-model.log_probs(f"{source}\tthe ", option + "!").sum() for option in ("cat", "horse")]
    np.testing.assert_allclose([each.nats for each in rows], expected, atol=1e-5)
    assert [each.bytes for each in rows] == [len("cat!"), len("horse!")]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("le chat", None, "text: 'le chat' has no tab; write a source, a tab and a target"),
        ("le chat\t", None, r"text: 'le chat\\t' has nothing after its tab"),
        ("le ___", ["chat", "roi"], "text: 'le ___' has no tab; write a source"),
        ("le ___", ["chat\tthe", "roi"], "text: 'le ___' has no tab; write a source"),
        ("le ___\tthe cat", ["chat", "roi"], r"text: 'le ___\\tthe cat' has its blank in the source"),
        ("___\tthe cat", ["chat", "roi"], "has its blank in the source"),
    ],
)
def test_what_is_no_pair_is_refused(text, options, words):
    model = make_model("encoder_pairs")
    with pytest.raises(InputError, match=words) as raised:
        score_options(model, text, options) if options else score_texts(model, [text])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("before", "after"), [("le ", "\tthe cat"), ("", "\tthe cat")])
def test_no_filling_of_a_source_is_scored(before, after):
    with pytest.raises(InputError, match=r"text: .* has 'chat' in its source, which is given"):
        make_model("encoder_pairs").fill([(before, "chat", after)])


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a cat", ["b", "c"], "text: 'a cat' has 0 blanks"),
        ("a ___ ___", ["b", "c"], "has 2 blanks"),
        ("___", ["b", "c"], "text: '___' is empty but for the blank"),
        ("a ___", ["b"], "options: .* are fewer than two"),
        ("a ___", ["b", "b", "c"], "options: 'b' is given twice"),
        ("a ___", ["b", ""], "hold an empty one"),
        ("a ___", ["b", "\udcff"], "text: .* is not UTF-8"),
    ],
)
def test_what_cannot_be_scored_is_refused(text, options, words):
    with pytest.raises(InputError, match=words):
        score_options(make_model("causal"), text, options)


def test_unknown_settings_are_refused():
    model = make_model("causal")
    with pytest.raises(InputError, match="normalise: 'chars' is unknown"):
        score_options(model, TEXT, OPTIONS, "chars")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="text: '' is empty"):
        score_texts(model, [""])
