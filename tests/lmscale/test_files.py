"""Files that are whole or absent; changed bytes are seen."""

import json
import os

import file_faults

from lmscale.store.files import Lines, create, sealed, unsealed, write_json


def test_a_file_is_made_once(tmp_path):
    assert create(tmp_path / "a", "one")
    assert not create(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
    assert os.listdir(tmp_path) == ["a"]


def test_every_changed_byte_of_a_record_is_seen(tmp_path):
    value = {"row": {"loss_nats": 2.25, "run_id": "a-t1"}, "steps": 40, "versions": {"jax": "0.12"}}
    write_json(tmp_path / "a", sealed(value))
    content = (tmp_path / "a").read_bytes()
    assert unsealed(json.loads(content)) == value
    seen = harmless = 0
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            try:
                found = unsealed(json.loads(changed.decode()))
            except (ValueError, AttributeError):
                seen += 1
            else:
                assert found == value  # white space, or a letter of the hash that means the same
                harmless += 1
    assert seen + harmless == 8 * len(content)
    assert harmless < 0.1 * seen


def test_every_changed_byte_of_a_line_is_seen_and_the_others_stay(tmp_path):
    lines = Lines(tmp_path / "a")
    rows = [{"step": step, "loss": step / 3} for step in range(3)]
    for row in rows:
        lines.append(row)
    content = lines.path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 4
        lines.path.write_bytes(changed)
        found = lines.read()
        assert all(row in rows for row in found)
        assert len(found) >= 1  # a line end that is gone joins two
        assert found == rows or len(lines.damaged()) >= 1


def test_damaged_lines_are_set_aside(tmp_path):
    lines = Lines(tmp_path / "a.jsonl")
    lines.append({"step": 1})
    with open(lines.path, "a") as file:
        file.write('{"step": 2')
    lines.append({"step": 3})
    assert lines.read() == [{"step": 1}, {"step": 3}]
    assert lines.damaged() == ['{"step": 2']
    lines.write(lines.read())
    assert lines.damaged() == []
    assert (tmp_path / "a.jsonl.corrupt").read_text() == '{"step": 2\n'


def test_a_kill_while_lines_are_appended_costs_none_that_was_said(tmp_path):
    print(file_faults.torn_appends(8, 5, tmp_path))
