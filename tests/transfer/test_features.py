"""Files of features: read by others, continued, refused where they are of something else, and written as they come."""

import json
import resource
import subprocess
import sys

import duckdb
import numpy as np
import pandas as pd
import pytest

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.datasets.opening import Reading
from verydeep.transfer import features as module
from verydeep.transfer.data import read_all
from verydeep.transfer.elementary import LayerDescriptor
from verydeep.transfer.features import write_features
from verydeep.transfer.store import Store


@pytest.fixture
def labeled(colors):
    dataset, own = read_all(str(colors), Reading())
    return dataset, [name for name, indices in own.items() for _ in indices]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pandas_and_duckdb_read_it(labeled, weights, tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(module, "GROUP_BYTES", 1000)  # several row groups
    describe = vd.Descriptor(str(weights), scales=(64, 96), aggregate="stack")
    out = tmp_path / "f.parquet"
    written = write_features(describe, *labeled, out, Store(None), dtype)
    assert (written.rows, written.width, written.computed) == (48, 48, 96)
    wanted = describe.transform(labeled[0])
    tolerance = 1e-7 if dtype == "float32" else 1e-3
    frame = pd.read_parquet(out)
    np.testing.assert_allclose(np.stack(frame["descriptor"]).astype(float), wanted, atol=tolerance)
    assert frame["descriptor"][0].dtype == dtype
    assert frame["id"].tolist() == [sample.id for sample in labeled[0].samples]
    assert frame["split"].tolist() == labeled[1]
    rows = duckdb.sql(f"select id, label, split, descriptor from '{out}'").fetchall()
    np.testing.assert_allclose([row[3] for row in rows], wanted, atol=tolerance)
    assert [row[1] for row in rows] == [sample.label for sample in labeled[0].samples]


def test_it_says_where_it_comes_from(labeled, weights, tmp_path):
    import pyarrow.parquet as pq

    out = tmp_path / "f.parquet"
    write_features(vd.Descriptor(str(weights), "pool5", (64,)), *labeled, out, Store(None))
    about = json.loads(pq.read_schema(out).metadata[b"verydeep"])
    assert (about["layer"], about["scales"], about["normalize"]) == ("pool5", [64], "l2")
    assert about["classes"] == ["blue", "green", "red"]
    assert about["weights_hash"] == [vd.Descriptor(str(weights)).sources()[0].hash]
    assert about["preprocessing"][0]["mean"] == list(vd.load(weights).preprocessing.mean)


def test_npy_with_its_json(labeled, weights, tmp_path):
    describe = vd.Descriptor(str(weights), scales=(64,))
    write_features(describe, *labeled, tmp_path / "f.npy", Store(None), "float16")
    found, about = np.load(tmp_path / "f.npy"), json.loads((tmp_path / "f.json").read_text())
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, describe.transform(labeled[0]), atol=1e-3)
    assert about["ids"] == [sample.id for sample in labeled[0].samples]
    assert about["labels"] == [sample.label for sample in labeled[0].samples]


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_a_stopped_command_continues_and_a_finished_one_does_nothing(labeled, weights, tmp_path, suffix, monkeypatch):
    out, cache = tmp_path / f"f{suffix}", tmp_path / "kept"
    describe = vd.Descriptor(str(weights), scales=(64,))
    original = LayerDescriptor.rows

    def stopping(self, dataset):
        for count, batch in enumerate(original(self, dataset)):
            if count == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(LayerDescriptor, "rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_features(describe, *labeled, out, Store(cache))
    assert not out.exists()
    monkeypatch.setattr(LayerDescriptor, "rows", original)
    assert 0 < write_features(describe, *labeled, out, Store(cache)).computed < 48
    before = out.stat().st_mtime_ns
    assert write_features(describe, *labeled, out, Store(cache)).computed == 0
    assert out.stat().st_mtime_ns == before
    other = tmp_path / f"again{suffix}"
    assert write_features(describe, *labeled, other, Store(cache)).computed == 0
    assert other.read_bytes() == out.read_bytes()


def test_features_of_something_else_are_refused(labeled, weights, make_net, tmp_path):
    out = tmp_path / "f.parquet"
    write_features(vd.Descriptor(str(weights), scales=(64,)), *labeled, out, Store(None))
    before = out.read_bytes()
    for describe, said in (
        (vd.Descriptor(make_net(), scales=(64,)), "another network.*weights_hash differs"),
        (vd.Descriptor(str(weights), scales=(96,)), r"scales is \[64\] there, \[96\] here"),
        (vd.Descriptor(str(weights), "pool5", (64,)), "layer is fc7.relu there, pool5 here"),
    ):
        with pytest.raises(UserError, match=said):
            write_features(describe, *labeled, out, Store(None))
    fewer = labeled[0].subset(range(5)), labeled[1][:5]
    with pytest.raises(UserError, match="other pictures"):
        write_features(vd.Descriptor(str(weights), scales=(64,)), *fewer, out, Store(None))
    assert out.read_bytes() == before
    (tmp_path / "words.parquet").write_text("words")
    for name, said in (("words.parquet", "no file of features"), ("f.csv", "ends in .parquet or .npy")):
        with pytest.raises(UserError, match=said):
            write_features(vd.Descriptor(str(weights), scales=(64,)), *labeled, tmp_path / name, Store(None))


# 100,000 descriptors of 1,024 numbers are 390 MiB: they cannot all have been in memory.
MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
import verydeep as vd
from verydeep.datasets.dataset import Dataset, Sample
from verydeep.datasets.storage import Storage
from verydeep.transfer.elementary import LayerDescriptor
from verydeep.transfer.features import write_features
from verydeep.transfer.store import Store

N = 100_000
net = vd.create("A", classes=2, width=1 / 64, image_size=32, fc_width=1024, seed=0).eval()

class Many(Dataset):
    def content_hash(self, index):
        return index.to_bytes(16, "little")

    def subset(self, indices):
        return self

def rows(self, dataset):
    for start in range(0, N, 250):
        yield list(range(start, start + 250)), np.ones((250, 1024), np.float32)

LayerDescriptor.rows = rows
dataset = Many("many", "all", ("a", "b"), [Sample(f"images/{i:06d}.jpg", i % 2) for i in range(N)], Storage(Path(), {}))
describe = vd.Descriptor(net, scales=(32,)).fit()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folder = Path(sys.argv[1])
written = write_features(describe, dataset, ["train"] * N, folder / "f.npy", Store(folder))
assert written.rows == N
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)
"""


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="no getrusage here")
def test_a_hundred_thousand_descriptors_stay_out_of_memory(tmp_path):
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown = float(done.stdout)
    print(f"grown by {grown:.0f} MiB")
    assert grown < 300
    for file in tmp_path.rglob("*.npy"):
        file.unlink()
