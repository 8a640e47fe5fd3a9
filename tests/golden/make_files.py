"""Write `files/`: what users have of the version that wrote it.

Run once, by the version whose files are to be kept readable; a file that is there is left alone, so that what is added
later is of a later version and all else stays of the earlier one.

    python tests/golden/make_files.py
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from tests.golden import cases, inputs, product  # noqa: E402

SMALL = {"width": 1 / 64, "fc_width": 8}


def pictures(folder: Path) -> None:
    """Pictures of several formats: large enough to be decoded at less than full size, turned, gray, with holes."""
    grid = inputs.stream("photo").randint(0, 256, (6, 8, 3)).astype(np.uint8)
    photo = Image.fromarray(grid).resize((640, 480), Image.Resampling.BICUBIC)
    photo.save(folder / "photo.jpg", quality=80)
    turned = Image.Exif()
    turned[274] = 6  # a quarter to the right
    photo.resize((200, 150)).save(folder / "turned.jpg", quality=80, exif=turned)
    photo.resize((90, 120)).convert("L").save(folder / "gray.jpg", quality=80)
    small = Image.fromarray(inputs.picture("png", 60, 90, cell=6))
    small.convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(folder / "palette.png")
    small.putalpha(Image.fromarray(inputs.picture("alpha", 60, 90, cell=10)[..., 0]))
    small.save(folder / "alpha.png")


def foreign(folder: Path) -> None:
    """Files of other projects, by the writers of the tests that judge their readers."""
    import keras
    import onnx
    from safetensors.torch import save_file
    from scipy.io import savemat

    from tests.checkpoints import conftest, test_caffe, test_keras_files, test_matconvnet, test_onnx_file

    class Plain(conftest.Plain):
        """Its first fully connected layer as a convolution, as some of the writers want it."""

        four = False

        def layers(self) -> Iterator[tuple[str, Any, Any]]:
            for name, weight, bias in super().layers():
                yield name, weight.reshape(len(weight), -1, 2, 2) if name == "fc6" and self.four else weight, bias

    def plain(letter: str, four: bool = False, width: float = 1 / 64, **options: Any) -> Plain:
        made = conftest.make_plain(letter, width=width, fc=8, **options)
        state = made.net.state_dict()
        layers = [name.rpartition(".")[0] for name in state if name.endswith("running_var")]
        ours = {f"bn{name}" if name.rpartition(".")[0] in layers else name: name for name in state}
        drawn = inputs.weights({key: state[name].shape for key, name in ours.items()}, seed=ord(letter))
        made.net.load_state_dict({name: torch.from_numpy(drawn[key]) for key, name in ours.items()})
        found = Plain(made.net, letter)
        found.four = four
        return found

    class Graph(test_onnx_file.Graph):
        """As Keras's exporter writes it, of fewer channels than the tests' own."""

        def flatten(self) -> None:
            if self.style != "keras":
                return super().flatten()
            self.add("Transpose", perm=[0, 2, 3, 1])
            return self.add("Reshape", [self.constant("flat", np.array([-1, 32]))])

        def connected(self, name: str, weight: Any, bias: Any) -> None:
            if self.style != "keras":
                return super().connected(name, weight, bias)
            if name == "fc6":
                weight = weight.reshape(-1, 8, 2, 2).transpose(0, 2, 3, 1).reshape(len(weight), -1)
            self.add("MatMul", [self.constant(name, weight.T)])
            return self.add("Add", [self.constant(f"{name}b", bias)])

    (folder / "D.caffemodel").write_bytes(test_caffe.caffe_net(plain("D")).SerializeToString())
    # Two channels at least: of one alone, the format of old does not say whether it is a filter or a channel.
    old = test_caffe.caffe_net(plain("C", width=1 / 32), old=True)
    (folder / "C-old.caffemodel").write_bytes(old.SerializeToString())
    savemat(folder / "D-simplenn.mat", test_matconvnet.simplenn(plain("D", four=True)), oned_as="row")
    older = test_matconvnet.simplenn(plain("E", four=True), padded=False, fields="filters", meta=False)
    savemat(folder / "E-simplenn-old.mat", older, oned_as="row", do_compression=True)
    dagnn = test_matconvnet.dagnn(plain("C", four=True))
    savemat(folder / "C-dagnn.mat", dagnn, oned_as="row", do_compression=True)
    test_keras_files.write_keras_1(folder / "D-keras-1.h5", list(test_keras_files.keras_layers(plain("D"))))
    for letter, name in (("D", "D.keras"), ("E", "E.weights.h5")):
        model = test_keras_files.build(keras, letter, width=1 / 64)
        shapes = {f"{i}.{weight.name}": weight.shape for i, weight in enumerate(model.weights)}
        model.set_weights(list(inputs.weights(shapes, seed=5).values()))
        (model.save_weights if name.endswith(".weights.h5") else model.save)(folder / name)
    torch.save(plain("D").state, folder / "D-torchvision.pth")
    save_file(plain("B", batch_norm=True).state, folder / "B-torchvision-bn.safetensors")
    heads = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    timm = {}
    for key, value in plain("E").state.items():
        layer, _, part = key.rpartition(".")
        head = heads.get(layer)
        if head and head.startswith("pre") and part == "weight":
            value = value.reshape(len(value), -1, *((2, 2) if head.endswith("1") else (1, 1))).contiguous()
        timm[f"{head or layer}.{part}"] = value
    save_file(timm, folder / "E-timm.safetensors")
    for letter, style, options in (
        ("D", "torch", {}),
        ("C", "keras", {}),
        ("A", "caffe2", {"ceil": True}),
        ("B", "torch", {"batch_norm": True}),
    ):
        name = f"{letter}-{style}{'-bn' if 'batch_norm' in options else ''}.onnx"
        onnx.save(Graph(plain(letter, **options), style).model(), folder / name)


def weights(folder: Path) -> None:
    """Weights of every kind."""
    cases.saved(str(folder / "plain.safetensors"), **SMALL)
    cases.saved(str(folder / "batch-norm.safetensors"), "C", batch_norm=True, preprocessing=cases.OTHER, **SMALL)
    cases.saved(str(folder / "lrn.safetensors"), "A-LRN", **SMALL)
    for regression in ("scr", "pcr"):
        cases.saved(str(folder / f"{regression}.safetensors"), gain=0.1, seed=3, regression=regression, **SMALL)
    with cases.fresh_folder():
        source = cases.saved("w.safetensors", **SMALL)
        inputs.save_data(Path("data"), {"": 8}, cases.CLASSES[:4])
        product.transfer("out", "--data", "data", "--weights", source, "--scales", "40", "--cache", "cache")
        shutil.copy("out/classifier.safetensors", folder / "transfer.safetensors")


def in_fresh_folder(name: str, work: Callable[[], None], folder: Path) -> None:
    """Do some work with data and weights at hand, and keep the folder that it makes, without what is drawn."""
    with cases.fresh_folder():
        cases.data()
        shutil.copytree(cases.FILES / "weights", "weights")
        work()
        for drawn in [*Path(name).rglob("curves.png"), *Path(name).rglob("report.html")]:
            drawn.unlink()
        for board in list(Path(name).rglob("tensorboard")):
            shutil.rmtree(board)
        shutil.copytree(name, folder, dirs_exist_ok=True)


def results(folder: Path) -> None:
    """Posteriors, boxes, features."""

    def work() -> None:
        plain = "weights/plain.safetensors"
        product.posteriors(plain, "data", ["dense@32,40"], "results")
        product.box_file(plain, "weights/pcr.safetensors", "data", ["dense@64"], "results/boxes")
        product.features(["data"], [plain], "results/features.parquet", "--scales", "32,40", "--layer", "fc7")

    in_fresh_folder("results", work, folder)


def runs(folder: Path) -> None:
    """Two runs that were stopped within their second epochs, and a finished one."""

    def work() -> None:
        for name in cases.STOPPED:
            product.train_until(5, *cases.stopped_words(name))
        product.train(*cases.stopped_words("plain", "finished"))

    in_fresh_folder("runs", work, folder)


PRESET = """title = "A study of seconds"
data = { name = "data", classes = 6, training_images = 24, test_images = 18, height = 44, width = 44 }

[stages.small]
recipe = "study/small.toml"
single = 36
multi = [32, 36]

[[networks]]
name = "A"
stages = ["small"]

[[networks]]
name = "B"
stages = ["small"]

[[localizers]]
network = "A"
stage = "small"
recipe = "study/small.toml"
regression = "scr"
tune = "fc"
protocols = ["center@40"]
"""
RECIPE = """[network]
width = 0.015625
image_size = 32
fc_width = 8
dropout = 0.0

[images]
scales = [36, 36]
divide_by_std = true

[initialization]
scheme = "he"

[optimizer]
batch_size = 8
learning_rate = 0.03

[schedule]
kind = "cosine"
epochs = 1
"""


def study(folder: Path) -> None:
    """A study, with the preset and the recipe that it is of."""

    def work() -> None:
        Path("study").mkdir()
        Path("study/preset.toml").write_text(PRESET, encoding="utf-8")
        Path("study/small.toml").write_text(RECIPE, encoding="utf-8")
        product.reproduce("study/preset.toml", "data", "study/out")

    in_fresh_folder("study", work, folder)


def main() -> None:
    for make in (pictures, foreign, weights, results, runs, study):
        folder = cases.FILES / make.__name__
        if folder.exists():
            print(f"{folder.name}: there already")
            continue
        folder.mkdir(parents=True)
        make(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder.name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
