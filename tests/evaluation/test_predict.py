"""Single pictures: the same posteriors as in an evaluation, from files, arrays and folders."""

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import BadImageError, UserError
from verydeep.evaluation.evaluate import evaluate
from verydeep.evaluation.predict import predict
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.nets.run_info import RunInfo


@pytest.mark.parametrize("protocol", ["center@64", "dense@64,80", "dense+crops@72"])
def test_a_picture_has_the_posterior_it_has_in_an_evaluation(make_net, dataset, protocol):
    net = make_net()
    expected = evaluate(net, dataset, protocol).probabilities
    for i in range(3):
        np.testing.assert_allclose(predict(net, dataset.image(i), protocol).posterior, expected[i], atol=1e-5)


def test_files_and_arrays_are_the_same(make_net, pictures, tmp_path):
    net = make_net()
    Image.fromarray(pictures[0]).save(tmp_path / "a.png")
    vd.save(net, tmp_path / "net.safetensors")
    from_file = vd.predict(str(tmp_path / "net.safetensors"), tmp_path / "a.png", "dense@64")
    from_array = vd.predict(net, pictures[0], "dense@64")
    np.testing.assert_array_equal(from_file.posterior, from_array.posterior)
    assert from_file.name == str(tmp_path / "a.png")
    assert from_array.name == ""


def test_the_top_classes_come_in_order(make_net, pictures):
    net = make_net()
    prediction = predict(net, pictures[0], top=3)
    assert len(prediction.top) == 3
    order = np.argsort(-prediction.posterior)[:3]
    assert [name for name, _ in prediction.top] == [net.classes[k] for k in order]
    assert [value for _, value in prediction.top] == pytest.approx(prediction.posterior[order].tolist())
    assert len(predict(net, pictures[0], top=99).top) == 8
    with pytest.raises(UserError, match="at least one class"):
        predict(net, pictures[0], top=0)


@pytest.mark.parametrize(
    ("scales", "expected"), [((64, 64), 64), ((64, 128), 96), (None, 73), ((40, 40), 64), ((96, 97), 96)]
)
def test_by_default_the_scale_is_that_of_training(make_net, scales, expected):
    net = make_net()
    net.provenance = RunInfo(train_scales=scales)
    assert default_protocol(net) == Protocol("dense", (expected,))


def test_files_that_are_no_pictures_are_named(make_net, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "missing.png", "folder.png"):
        with pytest.raises(BadImageError, match=name) as caught:
            predict(make_net(), tmp_path / name)
        assert "\n" not in str(caught.value)


def test_every_kind_of_picture_is_the_same_picture(make_net, rng, tmp_path):
    net = make_net()
    pixels = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(pixels)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    kinds = [pixels, tmp_path / "p.png", str(tmp_path / "p.png"), (tmp_path / "p.png").read_bytes(),
             Image.open(tmp_path / "p.png"), Image.open(tmp_path / "turned.png")]  # fmt: skip
    expected = predict(net, pixels, "dense@64").posterior
    for kind in kinds:
        np.testing.assert_array_equal(predict(net, kind, "dense@64").posterior, expected)
    for several in (kinds, tuple(kinds), np.stack([pixels, pixels])):
        found = predict(net, several, "dense@64")
        assert len(found) == len(several)
        assert all((one.posterior == expected).all() for one in found)
    for wrong in (pixels.astype(float), pixels[..., 0], 3, None):
        with pytest.raises(UserError, match="expected a path, bytes, a PIL image or uint8 of shape"):
            predict(net, wrong, "dense@64")
