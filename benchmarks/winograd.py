"""How much accuracy Winograd's filtering costs: a network's convolutions by tiles of 2, 4 and 6, against float64."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verydeep.basics.errors import UserError
from verydeep.basics.machine import describe_machine
from verydeep.nets.configurations import Configuration
from verydeep.nets.families import create
from verydeep.nets.network import Network

POINTS = {
    2: (0, 1, -1),
    4: (0, Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
    6: (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2)),
}
"""Where the polynomials are taken, beside infinity, for tiles of 2, 4 and 6 outputs: those of Lavin & Gray (2016), but
for 4, of which they take 0, 1, -1, 2 and -2; the engine's have half the error."""

_TAPS = 3

Convolve = Callable[[Tensor, Tensor], Tensor]


def matrices(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return A^T, G and B^T of F(side, 3) in float64, from its points (Toom-Cook, transposed).

    The filtering of d by g is A^T ((G g) * (B^T d)), the product taken number by number.

    Examples
    --------
    >>> transform, kernel, data = matrices(2)
    >>> g, d = torch.tensor([1.0, 2, 3]).double(), torch.tensor([4.0, 5, 6, 7]).double()
    >>> (transform @ ((kernel @ g) * (data @ d))).tolist()
    [32.0, 38.0]
    """
    points = [Fraction(point) for point in POINTS[side]]
    count = len(points) + 1
    output = [[point**i for point in points] + [Fraction(i == side - 1)] for i in range(side)]
    kernel, data = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        kernel.append([point**k / scale for k in range(_TAPS)])
        data.append([*_product(others), Fraction(0)])
    kernel.append([Fraction(k == _TAPS - 1) for k in range(_TAPS)])
    data.append(_product(points))
    assert all(len(row) == count for row in data)
    as_tensor = partial(torch.tensor, dtype=torch.float64)
    return tuple(as_tensor([[float(v) for v in row] for row in m]) for m in (output, kernel, data))  # type: ignore[return-value]


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Return the coefficients of the product of (x - root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def convolve(x: Tensor, weight: Tensor, side: int, low: bool = False) -> Tensor:
    """Convolve N x C x H x W by 3x3 kernels, padded by one, as Winograd's filtering with tiles of `side` outputs.

    Kernels are transformed in float64, all else is float32.

    Parameters
    ----------
    x, weight : Tensor
        float32; weight is C' x C x 3 x 3.
    side : int
        2, 4 or 6.
    low : bool
        Whether transformed pixels and kernels are rounded to bfloat16 before they are multiplied.
    """
    output, kernel, data = matrices(side)
    height, width = x.shape[2:]
    rows, columns = -(-height // side), -(-width // side)
    padded = F.pad(x, (1, 1 + columns * side - width, 1, 1 + rows * side - height))
    tiles = padded.unfold(2, side + 2, side).unfold(3, side + 2, side)  # N x C x rows x columns x a x a
    pixels = torch.einsum("ia,nchwab,jb->ijnhwc", data.float(), tiles, data.float())
    kernels = torch.einsum("ia,ocab,jb->ijco", kernel, weight.double(), kernel).float()
    if low:
        pixels, kernels = pixels.bfloat16().float(), kernels.bfloat16().float()
    products = pixels.flatten(2, 4).flatten(0, 1) @ kernels.flatten(0, 1)  # one product for each of the a x a numbers
    products = products.reshape(side + 2, side + 2, len(x), rows, columns, -1)
    sums = torch.einsum("ia,abnhwo,jb->nohiwj", output.float(), products, output.float())
    return sums.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def _direct(x: Tensor, weight: Tensor, low: bool = False) -> Tensor:
    if low:
        x, weight = x.bfloat16().float(), weight.bfloat16().float()
    return F.conv2d(x, weight, padding=1)


def run(name: str = "D", side: int = 224, width: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """Run the convolutions of a network in several ways; the error of one layer goes into the next.

    Parameters
    ----------
    name : str
        Configuration, of 3x3 convolutions only; random weights, scaled as He et al. do.
    side : int
        Of the square random image.
    width : float
        Factor on the network's channels.
    seed : int
        Of weights and image.

    Returns
    -------
    dict
        ``rows``: for each way and block the relative difference from float64, as a norm, behind the block's last
        convolution, and multiplications relative to direct convolution; ``machine``.

    Raises
    ------
    UserError
        A configuration with other convolutions.
    """
    net = create(name, width=width, initialization="he", seed=seed).eval()
    known = net.configuration
    if not isinstance(known, Configuration) or any(conv.kernel != 3 for block in known.blocks for conv in block):
        raise UserError(f"configuration {name} has other convolutions than 3x3; take A, B, D or E")
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 60
    ways: dict[str, Convolve] = {"direct float32": _direct}
    ways |= {f"F({tile}x{tile}) float32": partial(convolve, side=tile) for tile in POINTS}
    ways["direct bf16"] = partial(_direct, low=True)
    ways |= {f"F({tile}x{tile}) bf16": partial(convolve, side=tile, low=True) for tile in POINTS}
    with torch.inference_mode():
        expected = _behind_blocks(net.double(), x.double(), _direct)
        net.float()
        errors = {way: _errors(_behind_blocks(net, x, convolve), expected) for way, convolve in ways.items()}
    rows = [
        {"way": way, "multiplications": _multiplications(way), **{f"block{i}": e for i, e in enumerate(values, 1)}}
        for way, values in errors.items()
    ]
    return {"net": name, "side": side, "width": width, "rows": rows, "machine": describe_machine()}


def text(result: dict[str, Any]) -> str:
    """Return the errors that `run` measured, for people."""
    blocks = [key for key in result["rows"][0] if key.startswith("block")]
    lines = [
        f"{result['net']}, width {result['width']}, {result['side']} x {result['side']} pixels: relative errors behind "
        "each block, against float64",
        f"{'':18}{'products':>9}" + "".join(f"{block:>10}" for block in blocks),
    ]
    for row in result["rows"]:
        errors = "".join(f"{row[block]:10.1e}" for block in blocks)
        lines.append(f"{row['way']:18}{row['multiplications']:9.2f}{errors}")
    return "\n".join(lines)


def _behind_blocks(net: Network, x: Tensor, convolution: Convolve) -> list[Tensor]:
    """Return the activations in front of every pool."""
    found = []
    for layer in net.children():
        if isinstance(layer, nn.Conv2d) and layer.padding == (1, 1) and layer.bias is not None:
            x = convolution(x, layer.weight) + layer.bias[:, None, None]
        elif isinstance(layer, nn.ReLU):
            x = F.relu(x)
        elif isinstance(layer, nn.MaxPool2d):
            found.append(x)
            x = F.max_pool2d(x, 2)
        else:
            break
    return found


def _errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


def _multiplications(way: str) -> float:
    """Return the multiplications of a way relative to direct convolution's nine an output."""
    if way.startswith("direct"):
        return 1.0
    side = int(way[2])
    return (side + 2) ** 2 / (9 * side**2)
