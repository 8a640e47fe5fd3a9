"""Files of boxes: what is written is read again; what is no such file is said so."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verydeep.basics.errors import UserError
from verydeep.evaluation.parquet import read_metadata
from verydeep.evaluation.posteriors import Posteriors
from verydeep.localization.detections import Detections, held_out, holds_boxes


def test_what_is_written_is_read_again(make_detections, tmp_path):
    detections = make_detections(12, merging={"threshold": 0.5, "match": "recommended", "held_out": 0.0})
    truths = [np.zeros((0, 4)) if i == 3 else truth for i, truth in enumerate(detections.truths)]
    windows = [rows[: 1 + i % 4] for i, rows in enumerate(detections.windows)]  # images differ in windows
    scores = [rows[: 1 + i % 4] for i, rows in enumerate(detections.scores)]
    detections = Detections(**{**vars(detections), "truths": truths, "windows": windows, "scores": scores})
    detections.write(tmp_path / "new" / "boxes.parquet")
    again = Detections.read(tmp_path / "new" / "boxes.parquet")
    for name in ("ids", "names", "metadata"):
        assert getattr(again, name) == getattr(detections, name)
    for name in ("labels", "sizes", "classes", "posteriors", "boxes", "ratings"):
        np.testing.assert_array_equal(getattr(again, name), getattr(detections, name))
        assert getattr(again, name).dtype == getattr(detections, name).dtype
    for name in ("truths", "windows", "scores"):
        for one, two in zip(getattr(again, name), getattr(detections, name), strict=True):
            np.testing.assert_array_equal(one, two)
            assert one.shape == two.shape
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["boxes.parquet"]


def test_a_part_of_the_rows(make_detections):
    detections = make_detections(6)
    part = detections.rows([4, 1])
    assert part.ids == ("04.png", "01.png")
    np.testing.assert_array_equal(part.boxes, detections.boxes[[4, 1]])
    np.testing.assert_array_equal(part.windows[0], detections.windows[4])


def test_the_same_images_are_held_out_in_whatever_order(rng):
    ids = [f"{n}.png" for n in rng.permutation(1000)]
    first = {ids[i] for i in held_out(ids, 0.2)}
    shuffled = [ids[i] for i in rng.permutation(1000)]
    assert len(first) == 200
    assert first == {shuffled[i] for i in held_out(shuffled, 0.2)}
    assert len(held_out(ids[:2], 0.01)) == 1


def test_other_files_are_refused(tmp_path, make_detections):
    posteriors = tmp_path / "posteriors.parquet"
    Posteriors(("a",), np.array([0]), np.ones((1, 2), np.float32) / 2, ("x", "y")).write(posteriors)
    assert not holds_boxes(posteriors)
    with pytest.raises(UserError, match="not a file of boxes"):
        Detections.read(posteriors)
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"x": [1]}), table)
    with pytest.raises(UserError, match="not a file as verydeep evaluate writes them"):
        read_metadata(table)
    (tmp_path / "text.parquet").write_text("no parquet")
    for name, said in (("text.parquet", "not a file of boxes"), ("absent.parquet", "no such file")):
        with pytest.raises(UserError, match=said) as raised:
            Detections.read(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert not holds_boxes(tmp_path / name)
    make_detections(2).write(tmp_path / "boxes.parquet")
    assert holds_boxes(tmp_path / "boxes.parquet")
