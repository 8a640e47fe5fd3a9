"""The metrics and losses written from their papers' formulas, in float64, one picture and one layer after another."""

import torch
from torch.nn import functional as F

MEAN, STD = (torch.tensor(v, dtype=torch.float64) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
BLOCKS = (2, 2, 3, 3, 3)
LAST = ("conv1_2.relu", "conv2_2.relu", "conv3_3.relu", "conv4_3.relu", "conv5_3.relu")


def max_pool(x):
    return F.max_pool2d(x, 2)


def maps(net, pictures, pool=max_pool):
    """Every layer of D for RGB from 0 to 1, as torchvision's weights take it, by our names."""
    x = (pictures.double() - MEAN[:, None, None]) / STD[:, None, None]
    found, state = {}, net.state_dict()
    for block, count in enumerate(BLOCKS, 1):
        for number in range(1, count + 1):
            name = f"conv{block}_{number}"
            weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
            found[name] = F.conv2d(x, weight, bias, padding=1)
            found[f"{name}.relu"] = x = found[name].clamp(min=0)
        found[f"pool{block}"] = x = pool(x)
    return found


def lpips_maps(net, a, b, weights):
    """Zhang et al. (2018), equation 1, before the mean over places: N x h x w for each layer."""
    first, second = maps(net, a), maps(net, b)
    found = []
    for layer, weight in zip(LAST, weights, strict=True):
        unit = [x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in (first[layer], second[layer])]
        found.append(((unit[0] - unit[1]).pow(2) * weight.double().reshape(1, -1, 1, 1)).sum(1))
    return found


def lpips(net, a, b, weights):
    return sum(places.mean((1, 2)) for places in lpips_maps(net, a, b, weights))


def l2_pool(x):
    """Ding et al. (2020), equation 1: a Hann window of five, whose ends are 0."""
    window = torch.hann_window(5, periodic=False, dtype=torch.float64)[1:-1]
    kernel = (window[:, None] * window[None] / (window.sum() ** 2)).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def dists(net, a, b, alpha, beta):
    """Ding et al. (2020), equations 3 to 6."""
    first, second = ({"pixels": x.double(), **maps(net, x, l2_pool)} for x in (a, b))
    alpha, beta = alpha.double(), beta.double()
    total = alpha.sum() + beta.sum()
    alike, start = 0, 0
    for layer in ("pixels", *LAST):
        for channel in range(first[layer].shape[1]):
            x, y = first[layer][:, channel].flatten(1), second[layer][:, channel].flatten(1)
            mx, my = x.mean(1), y.mean(1)
            covariance = ((x - mx[:, None]) * (y - my[:, None])).mean(1)
            texture = (2 * mx * my + 1e-6) / (mx**2 + my**2 + 1e-6)
            structure = (2 * covariance + 1e-6) / (x.var(1, correction=0) + y.var(1, correction=0) + 1e-6)
            alike = alike + alpha[start] * texture / total + beta[start] * structure / total
            start += 1
    return 1 - alike


def gram_loss(a, b):
    """Gatys et al. (2016), equations 3 and 4."""
    n, m = a.shape[1], a.shape[2] * a.shape[3]
    grams = [torch.einsum("ncm,ndm->ncd", x.flatten(2), x.flatten(2)) for x in (a, b)]
    return (grams[0] - grams[1]).pow(2).sum((1, 2)) / (4 * n**2 * m**2)


def statistics_loss(a, b):
    """Li et al. (2017): means and standard deviations of channels."""
    means = a.mean((2, 3)) - b.mean((2, 3))
    spreads = a.std((2, 3), correction=0) - b.std((2, 3), correction=0)
    return (means**2 + spreads**2).mean(1)
