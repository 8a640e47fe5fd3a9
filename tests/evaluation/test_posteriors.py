"""Posteriors files: what goes in comes out, for this package, pandas and DuckDB alike."""

from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verydeep.basics.errors import UserError
from verydeep.evaluation.posteriors import Posteriors


def test_a_file_gives_back_exactly_what_was_written(tmp_path, make_posteriors):
    metadata = {"protocol": "dense@256,384", "options": {"softmax": "image"}, "train_scales": [256, 512]}
    before = make_posteriors(33, 11, **metadata)
    path = tmp_path / "new folder" / "a=b" / "dense+crops@256,384.parquet"
    before.write(path)
    after = Posteriors.read(path)
    assert after.ids == before.ids
    assert after.classes == before.classes
    assert after.metadata == metadata
    assert after.labels.dtype == np.int64
    assert after.probabilities.dtype == np.float32
    np.testing.assert_array_equal(after.labels, before.labels)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_pandas_reads_the_right_values(tmp_path, make_posteriors):
    posteriors = make_posteriors(9, 4)
    posteriors.write(tmp_path / "p.parquet")
    frame = pd.read_parquet(tmp_path / "p.parquet")
    assert list(frame.columns) == ["id", "label", "posterior"]
    assert frame["id"].tolist() == list(posteriors.ids)
    assert frame["label"].tolist() == posteriors.labels.tolist()
    np.testing.assert_array_equal(np.stack(frame["posterior"].tolist()), posteriors.probabilities)


def test_duckdb_reads_the_right_values(tmp_path, make_posteriors):
    posteriors = make_posteriors(9, 4)
    posteriors.write(tmp_path / "p.parquet")
    query = f"select id, label, posterior, posterior[label + 1] from '{tmp_path}/p.parquet' order by id"
    for name, label, row, own in duckdb.sql(query).fetchall():
        place = posteriors.ids.index(name)
        assert label == posteriors.labels[place]
        np.testing.assert_array_equal(np.array(row, np.float32), posteriors.probabilities[place])
        assert np.float32(own) == posteriors.probabilities[place, label]


def test_rows_are_chosen_by_id(make_posteriors, rng):
    posteriors = make_posteriors(12)
    order = rng.permutation(12)[:5]
    chosen = posteriors.rows(tuple(posteriors.ids[i] for i in order))
    np.testing.assert_array_equal(chosen.probabilities, posteriors.probabilities[order])
    np.testing.assert_array_equal(chosen.labels, posteriors.labels[order])


def _replaced(posteriors, row):
    probabilities = posteriors.probabilities.copy()
    probabilities[3] = row
    return {"probabilities": probabilities}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda p: {"ids": (*p.ids[:-1], p.ids[2])}, "'image-2' is there twice"),
        (lambda p: {"labels": np.full(len(p), 8)}, "label lies outside"),
        (lambda p: {"labels": np.full(len(p), -2)}, "label lies outside"),
        (lambda p: {"labels": p.labels[:-1]}, "shape"),
        (lambda p: {"classes": p.classes[:-1]}, "shape"),
        (lambda p: _replaced(p, np.nan), "no distribution"),
        (lambda p: _replaced(p, 0.5), "no distribution"),
        (lambda p: _replaced(p, [-0.5, 1.5, 0, 0, 0, 0, 0, 0]), "no distribution"),
    ],
)
def test_what_cannot_be_posteriors_is_refused(make_posteriors, what, message):
    posteriors = make_posteriors(k=8)
    with pytest.raises(UserError, match=message):
        replace(posteriors, **what(posteriors))


def test_files_that_hold_no_posteriors_are_refused_in_one_line(tmp_path, make_posteriors):
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    make_posteriors(50).write(tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-100])
    for name in ("text", "empty", "other", "cut", "missing"):
        path = tmp_path / f"{name}.parquet"
        with pytest.raises(UserError) as caught:
            Posteriors.read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        Posteriors.read(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, make_posteriors, monkeypatch):
    path = tmp_path / "p.parquet"
    make_posteriors(5).write(path)
    before = path.read_bytes()

    def cut(table, where, **options):
        where.write_bytes(b"PAR1 half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", cut)
    with pytest.raises(OSError, match="disk full"):
        make_posteriors(5).write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
