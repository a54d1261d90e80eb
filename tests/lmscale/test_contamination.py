"""Overlap of training and evaluation documents: against plain sets of grams, planted, and read from shards."""

import gzip
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.clean import grams
from lmscale.data.clean.contamination import find_overlap, words
from lmscale.data.clean.grams import GramIndex
from lmscale.data.clean.prepared import shard_documents, write_without
from lmscale.data.clean.settings import Contamination
from lmscale.data.shards import Vocabulary, open_shards
from lmscale.data.sources import Document
from lmscale.data.writer import ShardWriter

VOCABULARY = [f"{a}{b}{c}{d}" for a in "bdfg" for b in "aeiou" for c in "lmnr" for d in "aeiou"]


def documents(name: str, texts: list[str]) -> list[Document]:
    return [Document(name=f"{name}{i}", text=text.encode()) for i, text in enumerate(texts)]


def text(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=count))


@pytest.mark.parametrize("unit", ["words", "bytes"])
def test_planted_contamination_is_found_whole_and_nothing_else(unit):
    rng = random.Random(1)
    evaluation = [text(rng, 60) for _ in range(80)]
    training = [text(rng, 300) for _ in range(200)]
    hosts = rng.sample(range(200), 30)
    for item, host in enumerate(hosts):  # a span of exactly 13 words, or 50 bytes, in the midst
        start = rng.randrange(40)
        loud = ",\n".join(evaluation[item].split()[start : start + 13]).upper() + "!"
        span = evaluation[item][start : start + 50] if unit == "bytes" else loud
        training[host] = f"{training[host][:400]} {span} {training[host][400:]}"
    sets = {"first": documents("e", evaluation[:50]), "second": documents("e", evaluation[50:])}
    found = find_overlap(documents("t", training), sets, Contamination(unit=unit))
    assert found.sets["first"].contaminated == tuple(f"e{i}" for i in range(30))
    assert found.sets["first"].share == 0.6
    assert found.sets["first"].training_documents == 30
    assert (found.sets["second"].contaminated, found.sets["second"].training_documents) == ((), 0)
    assert found.training.tolist() == sorted(hosts)
    assert (found.training_documents, found.common_grams) == (200, 0)
    example = found.sets["first"].examples[0]
    assert (example.evaluation, example.training) == ("e0", f"t{hosts[0]}")
    assert example.text in evaluation[0]


def plain(training: list[str], evaluation: list[str], size: int, common: int) -> tuple[set[int], set[int], int]:
    """Evaluation and training documents that share a gram of at most `common` training documents, by sets."""

    def all_grams(each: str) -> set[str]:
        return {each[i : i + size] for i in range(len(each) - size + 1)}

    held = [all_grams(each) for each in training]
    asked = [all_grams(each) for each in evaluation]
    every = set().union(*asked) & set().union(*held)
    rare = {gram for gram in every if sum(gram in each for each in held) <= common}
    return {i for i, g in enumerate(asked) if g & rare}, {i for i, g in enumerate(held) if g & rare}, len(every - rare)


SHORT = st.lists(st.text(alphabet="ab", max_size=14), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(SHORT, SHORT, st.integers(2, 9), st.integers(1, 3), st.integers(1, 20))
def test_overlap_is_that_of_plain_sets(training, evaluation, size, common, block):
    asked = Contamination(unit="bytes", size=size, common_documents=common)
    with pytest.MonkeyPatch.context() as patch:  # blocks of one document, of some, of all
        patch.setattr("lmscale.data.clean.contamination.BLOCK_BYTES", block)
        patch.setattr(grams, "VERIFIED", 3)
        found = find_overlap(documents("t", training), {"set": documents("e", evaluation)}, asked)
    contaminated, overlapping, ignored = plain(training, evaluation, size, common)
    assert found.sets["set"].contaminated == tuple(f"e{i}" for i in sorted(contaminated))
    assert found.training.tolist() == sorted(overlapping)
    assert found.sets["set"].training_documents == len(overlapping)
    assert found.common_grams == ignored
    assert found.sets["set"].too_short == sum(len(each) < size for each in evaluation)


def test_words_are_those_of_brown_et_al():
    ascii = words(b'The "Quick"  (brown)\nfox-trot, isn\'t snake_case.')
    assert ascii == [b"the", b"quick", b"brown", b"foxtrot", b"isnt", b"snake_case"]
    assert words("\u201cThe Caf\u00c9\u201d \u2014 isn\u2019t".encode()) == [b"the", "caf\u00e9".encode(), b"isnt"]


@given(st.text(alphabet=[chr(i) for i in range(128)], max_size=60))
@settings(deadline=None)
def test_words_of_ascii_are_those_of_any_text(each):
    assert words(each.encode()) == words((each + " \u00e9").encode())[:-1]


def test_common_phrases_do_not_count():
    rng = random.Random(2)
    phrase = text(rng, 13)
    evaluation = documents("e", [f"{text(rng, 20)} {phrase}"])
    for count, contaminated in ((10, ("e0",)), (11, ())):
        training = documents("t", [f"{text(rng, 20)} {phrase}, {phrase}"] * count + [text(rng, 20)])
        found = find_overlap(training, {"set": evaluation}, Contamination())
        assert found.sets["set"].contaminated == contaminated
        assert len(found.training) == (count if contaminated else 0)
        assert found.common_grams == (0 if contaminated else 1)


def test_equal_hashes_accuse_nobody(monkeypatch):
    monkeypatch.setattr(grams, "mix", lambda values: values & np.uint64(0))  # every gram has hash 0
    index = GramIndex([np.frombuffer(b"abcdef", np.uint8)], 6)
    found = index.find(
        [np.frombuffer(each, np.uint8) for each in (b"xabcdefx", b"abcdex", b"bcdefa", b"abc", b"defabcdef")]
    )
    assert (found.documents.tolist(), found.places.tolist()) == ([0, 4], [1, 3])
    with pytest.raises(ValueError, match="equal hashes"):
        GramIndex([np.frombuffer(b"abcdefg", np.uint8)], 6)


def test_rolling_hashes_are_polynomials():
    symbols = np.frombuffer(b"hello, wide world", np.uint8)
    for size in (1, 2, 3, 7, 8, 13, 17):
        expected = []
        for start in range(len(symbols) - size + 1):
            value = 0
            for symbol in symbols[start : start + size].tolist():
                value = (value * grams.BASES[0] + symbol + 1) % 2**64
            expected.append(value)
        assert (
            grams.rolling(symbols, size, grams.BASES[0]).tolist() == grams.mix(np.array(expected, np.uint64)).tolist()
        )
    assert len(grams.rolling(symbols, 18, grams.BASES[0])) == 0


def test_nothing_to_compare():
    empty = find_overlap([], {"set": documents("e", ["short"])}, Contamination())
    assert (empty.sets["set"].too_short, empty.sets["set"].share, empty.training_documents) == (1, 0, 0)
    assert find_overlap(documents("t", ["a b " * 20, ""]), {}, Contamination()).training.tolist() == []
    none = find_overlap(documents("t", ["a b " * 20, ""]), {"set": []}, Contamination(unit="bytes"))
    assert none.as_json()["sets"]["set"]["documents"] == 0
    assert "0 of 0 documents" in none.as_text()


def shards(folder, texts: list[str], name: str):
    vocabulary = Vocabulary(class_name="ByteVocabulary", name=name, size=259, eos_id=1, digest="0")
    with ShardWriter(folder, {"targets": vocabulary}, shard_tokens=64) as writer:
        for i, each in enumerate(texts):
            raw = each.encode(errors="surrogateescape")
            tokens = np.array([*(byte + 3 for byte in raw), 1])
            writer.add("heldout" if i % 3 == 0 else "train", {"targets": tokens}, {"targets": len(raw)})
        writer.finish({})
    return open_shards(folder)


def test_documents_are_read_back_from_shards(tmp_path):
    texts = ["caf\u00e9 \u4e2d\u6587\n" * 9, "plain", "two", "four", "\x00\x01"]
    prepared = shards(tmp_path / "bytes", texts, "bytes")
    read = list(shard_documents(prepared.train, "train"))
    assert [each.text.decode() for each in read] == [texts[1], texts[2], texts[4]]
    assert [each.name for each in read] == ["train#0", "train#1", "train#2"]
    assert [each.text.decode() for each in shard_documents(prepared.heldout, "h")] == [texts[0], texts[3]]
    with pytest.raises(
        InputError, match=r"^corpus.task: 'sentencepiece-1' is its vocabulary, and text is only read back"
    ):
        list(shard_documents(shards(tmp_path / "pieces", texts, "sentencepiece-1").train, "train"))


def test_text_is_written_without_what_overlaps(tmp_path):
    rng = random.Random(3)
    texts = [text(rng, 40) for _ in range(30)]
    texts[4] += " " + texts[3][:90]  # training, of held-out
    texts[8] += " " + " ".join(texts[6].split()[:13]).upper()  # the same 13 words, other bytes
    prepared = shards(tmp_path / "before", texts, "bytes")
    overlaps = [
        find_overlap(
            shard_documents(prepared.train, "t"),
            {"heldout": shard_documents(prepared.heldout, "h")},
            Contamination(unit=unit),
        )
        for unit in ("bytes", "words")
    ]
    for name in ("clean.jsonl", "clean.jsonl.gz"):
        written = write_without(prepared, overlaps, Corpus(), tmp_path / name)
        assert (written.kept, written.dropped) == (18, 2)
        assert written.dropped_bytes == len(texts[4]) + len(texts[8])
        read = (gzip.open if name.endswith("gz") else open)(tmp_path / name, "rt")
        with read as lines:
            left = [json.loads(line)["text"] for line in lines]
        assert sorted(left) == sorted(each for i, each in enumerate(texts) if i not in (4, 8))
    (tmp_path / "raw").mkdir()
    broken = shards(tmp_path / "raw" / "shards", ["\udcff" * 3], "bytes")
    with pytest.raises(InputError, match=r"^write: heldout#0 is not UTF-8"):
        write_without(broken, [], Corpus(), tmp_path / "raw" / "clean.jsonl")
