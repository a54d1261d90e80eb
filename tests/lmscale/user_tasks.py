"""What a user brings to preparation, as text that a child runs: Tasks, a TFDS builder, and what is asked of them."""

USER_TASKS = """
import os
import numpy as np, seqio, tensorflow as tf
SENTENCES = ["this is " + "e" * (i % 20) + " a test " + "t" * (i // 20) + " caf\\u00e9" for i in range(300)]
MODEL = os.path.join(os.path.dirname(seqio.__file__), "test_data", "sentencepiece", "sentencepiece.model")

def source(examples, split="train"):
    def dataset(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_tensor_slices(examples)
    return seqio.FunctionDataSource(dataset, splits=[split])

pieces = seqio.Feature(seqio.SentencePieceVocabulary(MODEL), add_eos=True)
tokenize = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
pairs = {"inputs": [s[:12] for s in SENTENCES], "targets": SENTENCES}
seqio.TaskRegistry.add("pairs", source(pairs), {"inputs": pieces, "targets": pieces}, preprocessors=tokenize)
integers = seqio.Feature(seqio.PassThroughVocabulary(100_000), add_eos=False)
numbers = {"targets": np.arange(4000, dtype=np.int32).reshape(200, 20) * 25}
seqio.TaskRegistry.add("integers", source(numbers), {"targets": integers}, preprocessors=[])
for part in range(2):
    seqio.TaskRegistry.add(f"part{part}", source({"targets": SENTENCES[part::2]}), {"targets": pieces},
                           preprocessors=tokenize)
seqio.MixtureRegistry.add("mixed", [("part0", 1), ("part1", lambda task: 3.0)])
plain = seqio.Feature(seqio.ByteVocabulary(extra_ids=0), add_eos=True)
seqio.TaskRegistry.add("notes", source({"targets": SENTENCES, "language": ["en", "fr", "en"] * 100}),
                       {"targets": plain}, preprocessors=tokenize)
seqio.MixtureRegistry.add("with_own", [("python_source", 1), ("notes", 1)])
seqio.MixtureRegistry.add("two_vocabularies", [("part0", 1), ("notes", 1)])
seqio.MixtureRegistry.add("no_rate", [("part0", 0), ("part1", 1)])
FILES = os.path.join(os.path.dirname(__file__), "lines", "part-*.txt")
def line(dataset):
    return dataset.map(lambda text: {"targets": text})
seqio.TaskRegistry.add("lines", seqio.TextLineDataSource({"train": FILES}), {"targets": plain},
                       preprocessors=[line, *tokenize])
seqio.TaskRegistry.add("no_train", source(numbers, "test"), {"targets": integers}, preprocessors=[])
seqio.TaskRegistry.add("floats", source({"targets": np.ones((3, 4), np.float32)}),
                       {"targets": seqio.Feature(integers.vocabulary, dtype=tf.float32)}, preprocessors=[])
seqio.TaskRegistry.add("outside", source({"targets": np.full((3, 4), 100_000, np.int32)}), {"targets": integers},
                       preprocessors=[])
def fails(dataset):
    return dataset.map(lambda x: {"targets": tf.ensure_shape(tf.reshape(x["targets"], [7]), [7])})
seqio.TaskRegistry.add("failing", source(numbers), {"targets": integers}, preprocessors=[fails])
"""

TFDS = """
import numpy as np, tensorflow_datasets as tfds

class Letters(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"body": text, "language": text, "year": np.int32}))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for i in range(200):
            yield i, {"body": f"letter {i}", "language": "en" if i % 4 else "fr", "year": 1900 + i % 2}
"""

# Texts on which tokenizers differ if any do: marks of SentencePiece itself, controls, spaces, composed characters
HARD = [
    "", " ", "\n", "\t\ttabs\tand  spaces   ", "\u2581", "a\u2581b", "<unk>", "</s>", "<pad> <s>", "a\r\nb\r\n\r\nc",
    "nul\x00inside", "\x00", "\x01\x1f\x7f", "cafe\u0301 \u00e9", "\uff21\uff22\uff23 \u00bd \u2167",
    "\u4e2d\u6587\u5b57", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\ufeffmark", "\u0645\u0631\u062d\u0628\u0627",
    "\u00a0no\u00a0break\u3000", "x" * 5000, "this is a test " * 400, "e" * 17 + "\u00df\ufb01",
    "def f(x):\n    return {1: x}\n", "\ud7ff\ue000\ufffd\U0010ffff",
]  # fmt: skip

CHILD = """
import json, sys
from pathlib import Path
from lmscale.config import Corpus
import numpy as np
from lmscale.data import examples, sources, tasks
from lmscale.data.prepare import prepare
from lmscale.data.prepared import own_place, task_place
from lmscale.data.tokenizers import choose_tokenizer
from lmscale.data.sources import is_own
from analysis.errors import InputError
import my_letters
my_letters.Letters(data_dir="tfds").download_and_prepare()
results = {}
for name, fields in json.loads(sys.argv[1]).items():
    processes = fields.pop("processes", 1)
    corpus, root = Corpus(**fields), Path(f"prepared{processes}")
    if name in ("files", "pairs", "failing"):
        folder = (own_place if is_own(corpus) else task_place)(corpus, root).folder
        (root / f".{folder.name}.tmp-stale").mkdir(parents=True)
    lines = []
    try:
        parts = prepare(corpus, root, echo=lines.append, processes=processes)
        results[name] = {
            "folder": str(parts[0].folder.resolve()), "lines": lines,
            "parts": [(part.name, part.rate, str(part.folder.resolve())) for part in parts],
        }
    except InputError as error:
        results[name] = {"error": str(error)}
for name, fields in json.loads(sys.argv[2]).items():
    corpus = Corpus(**fields)
    task = tasks.find_task(corpus)
    asked = {"split": "train", "shuffle": False, "try_in_mem_cache": False}
    theirs = [e["targets"].tolist() for e in task.get_dataset(None, **asked).as_numpy_iterator()]
    tokenizer = choose_tokenizer(corpus, integers=sources.holds_integers(corpus)).make()
    tokens, lengths = tokenizer.encode([document.text for document in sources.documents(corpus)])
    results[name] = {
        "theirs": theirs,
        "ours": [each.tolist() for each in np.split(tokens, np.cumsum(lengths)[:-1])],
        "of_tasks": [example.tokens["targets"].tolist() for example in examples.examples(task)],
        "same_vocabulary": tasks.describe(task.output_features["targets"].vocabulary) == tokenizer.vocabulary,
        "without_tensorflow": examples.before_tokens(task) is not None,
    }
print(json.dumps(results))
"""
