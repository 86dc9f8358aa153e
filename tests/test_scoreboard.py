import json

import pytest
import torch

from jepa_utils import runtime, scoreboard
from jepa_utils.data import Dataset

ROW = {"name": "VICReg", "probe": 80.1, "error": 0.9, "effective_rank": 74.0, "dimensions": 128, "seconds": 28.0,
       "state": "healthy"}
DAMAGED = {
    "empty": b"", "cut short": b'[{"name": "VICReg", "pro', "no text": b"\xff\xfe\x00", "no list": b'{"rows": []}',
    "other lists": b"[1, 2]", "rows of another version": b'[{"name": "VICReg", "probe": 80.1}]',
    "values of another kind": json.dumps([ROW | {"probe": "80 %"}]).encode(),
}


@pytest.fixture
def images(monkeypatch, tmp_path):
    """A data set, an empty cache folder, and a budget that is not measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JEPA_BUDGET", "smoke")
    x, y = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
    return Dataset("digits", ("a",), x, y, x, y)


def test_rows_are_kept_once_each_and_shown_in_order(images, capsys):
    other, untrained = ROW | {"name": "a trial"}, ROW | {"name": "untrained", "state": "", "seconds": 0}
    for line in (ROW, other, untrained, ROW | {"probe": 81.0}):
        board = scoreboard.keep(line, images)
    assert board == [untrained, ROW | {"probe": 81.0}]
    assert scoreboard.runs(images) == [other, untrained, ROW | {"probe": 81.0}]
    assert capsys.readouterr().out == ""


def test_the_table_says_nothing_of_trainings_where_there_was_none():
    untrained = ROW | {"name": "untrained", "state": "", "seconds": 0.0}
    head, first, second = scoreboard.table([untrained, ROW]).splitlines()
    assert head.endswith("training  embeddings")
    assert first.endswith("74.0 of 128")
    assert second.endswith("28 s  healthy")
    head, first = scoreboard.table([untrained]).splitlines()
    assert head.endswith("effective rank")
    assert first.endswith("74.0 of 128")


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_costs_its_rows_and_no_more(images, content, capsys):
    path = scoreboard._file(images)
    path.parent.mkdir()
    path.write_bytes(content)
    assert scoreboard.runs(images) == []
    said = capsys.readouterr().out
    assert str(path) in said
    assert said.count("\n") == 1
    assert scoreboard.keep(ROW, images) == [ROW]
    assert scoreboard.runs(images) == [ROW]  # whole again


def test_a_cache_that_cannot_be_written_stops_nothing(images, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert scoreboard.keep(ROW, images) == [ROW]
    assert "cannot be kept" in capsys.readouterr().out


def test_a_full_disk_leaves_the_rows_that_were_there(images, monkeypatch, capsys):
    scoreboard.keep(ROW, images)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scoreboard, "save_json", full)
    assert len(scoreboard.keep(ROW | {"name": "SIGReg"}, images)) == 2
    assert "No space left" in capsys.readouterr().out
    assert json.loads((runtime.cache_folder() / "runs-digits-smoke.json").read_text(encoding="utf-8")) == [ROW]
