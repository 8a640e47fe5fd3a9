"""Files of boxes: what is written is read again; what is no such file is said so."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verydeep.basics.errors import UserError
from verydeep.evaluation.posteriors import Posteriors
from verydeep.localization.guesses import Guesses, held_out, holds_boxes, read_metadata


def test_what_is_written_is_read_again(make_guesses, tmp_path):
    guesses = make_guesses(12, merging={"threshold": 0.5, "match": "recommended", "held_out": 0.0})
    truths = [np.zeros((0, 4)) if i == 3 else truth for i, truth in enumerate(guesses.truths)]
    windows = [rows[: 1 + i % 4] for i, rows in enumerate(guesses.windows)]  # images differ in windows
    scores = [rows[: 1 + i % 4] for i, rows in enumerate(guesses.scores)]
    guesses = Guesses(**{**vars(guesses), "truths": truths, "windows": windows, "scores": scores})
    guesses.write(tmp_path / "new" / "boxes.parquet")
    again = Guesses.read(tmp_path / "new" / "boxes.parquet")
    for name in ("ids", "names", "metadata"):
        assert getattr(again, name) == getattr(guesses, name)
    for name in ("labels", "sizes", "classes", "posteriors", "boxes", "ratings"):
        np.testing.assert_array_equal(getattr(again, name), getattr(guesses, name))
        assert getattr(again, name).dtype == getattr(guesses, name).dtype
    for name in ("truths", "windows", "scores"):
        for one, two in zip(getattr(again, name), getattr(guesses, name), strict=True):
            np.testing.assert_array_equal(one, two)
            assert one.shape == two.shape
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["boxes.parquet"]


def test_a_part_of_the_rows(make_guesses):
    guesses = make_guesses(6)
    part = guesses.rows([4, 1])
    assert part.ids == ("04.png", "01.png")
    np.testing.assert_array_equal(part.boxes, guesses.boxes[[4, 1]])
    np.testing.assert_array_equal(part.windows[0], guesses.windows[4])


def test_the_same_images_are_held_out_in_whatever_order(rng):
    ids = [f"{n}.png" for n in rng.permutation(1000)]
    first = {ids[i] for i in held_out(ids, 0.2)}
    shuffled = [ids[i] for i in rng.permutation(1000)]
    assert len(first) == 200
    assert first == {shuffled[i] for i in held_out(shuffled, 0.2)}
    assert len(held_out(ids[:2], 0.01)) == 1


def test_other_files_are_refused(tmp_path, make_guesses):
    posteriors = tmp_path / "posteriors.parquet"
    Posteriors(("a",), np.array([0]), np.ones((1, 2), np.float32) / 2, ("x", "y")).write(posteriors)
    assert not holds_boxes(posteriors)
    with pytest.raises(UserError, match="not a file of boxes"):
        Guesses.read(posteriors)
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"x": [1]}), table)
    with pytest.raises(UserError, match="not as verydeep evaluate writes them"):
        read_metadata(table)
    (tmp_path / "text.parquet").write_text("no parquet")
    for name, said in (("text.parquet", "not a readable Parquet file"), ("absent.parquet", "no such file")):
        with pytest.raises(UserError, match=said) as raised:
            Guesses.read(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert not holds_boxes(tmp_path / name)
    make_guesses(2).write(tmp_path / "boxes.parquet")
    assert holds_boxes(tmp_path / "boxes.parquet")
