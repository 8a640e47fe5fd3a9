"""Other programs' explanations of our networks, unchanged: which run, and give what their papers say, in float64."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import verydeep as vd

CLASS = 2
EITHER_SIDE_OF_A_RELU = [("conv5_2", "conv5_2"), ("relu5_1", "conv5_1.relu"), ("conv5_1", "conv5_1")]
BEFORE_A_POOL = ("relu5_2", "conv5_2.relu")


@pytest.fixture(params=[False, True], ids=["plain", "batch norm"])
def classifier(request):
    """A with 64 channels in its last blocks, where a ReLU and its pool are one step of the tape."""
    net = vd.create("A", 5, width=1 / 8, image_size=64, fc_width=16, batch_norm=request.param, initialization="he")
    return net.eval().double()


@pytest.fixture
def x():
    return torch.randn(2, 3, 64, 96, dtype=torch.float64)


@pytest.fixture
def attr():
    return pytest.importorskip("captum.attr", reason="captum is not installed (make test installs it)")


def _grad_cam(net, x, layer):
    """Selvaraju et al. (2017), equations 1 and 2, before any rescaling."""
    maps = net.activations(x, layer).detach().requires_grad_()
    score = net.activations(maps.clone(), "fc8", layer).mean((2, 3))[:, CLASS]
    (slopes,) = torch.autograd.grad(score.sum(), maps)
    return F.relu((slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True)).detach()


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream.clamp(min=0) * (x > 0)


def _gradient(net, x, relu):
    """The slopes of a class's score, through plain layers and some ReLU."""
    x = found = x.detach().clone().requires_grad_()
    for module in net.children():
        if isinstance(module, nn.ReLU):
            found = relu(found)
        else:
            found = F.max_pool2d(found, 2) if isinstance(module, nn.MaxPool2d) else module(found)
    return torch.autograd.grad(found.mean((2, 3))[:, CLASS].sum(), x)[0]


@pytest.mark.parametrize(("module", "layer"), [*EITHER_SIDE_OF_A_RELU, BEFORE_A_POOL, ("conv1_1", "conv1_1")])
def test_captums_grad_cam(classifier, x, attr, module, layer):
    module = module if not classifier.batch_norm else module.replace("conv", "bn")
    found = attr.LayerGradCam(classifier, getattr(classifier, module)).attribute(x, CLASS, relu_attributions=True)
    torch.testing.assert_close(found.detach(), _grad_cam(classifier, x, layer))


@pytest.mark.filterwarnings("ignore::UserWarning:captum")
def test_captums_guided_backpropagation_guides_every_relu(classifier, x, attr):
    """Those before pools, too, which run as a part of the pool where nobody has hooks on them."""
    found = attr.GuidedBackprop(classifier).attribute(x, CLASS)
    torch.testing.assert_close(found, _gradient(classifier, x, _Guided.apply))
    plain = attr.Saliency(classifier).attribute(x, CLASS, abs=False)  # the hooks are gone
    torch.testing.assert_close(plain, _gradient(classifier, x, F.relu))


def test_captums_integrated_gradients(classifier, x, attr):
    """Sundararajan et al. (2017): the mean slope from black on, times the picture; by the midpoint rule here."""
    steps = 9
    found = attr.IntegratedGradients(classifier).attribute(x, target=CLASS, n_steps=steps, method="riemann_middle")
    slopes = [_gradient(classifier, (step + 0.5) / steps * x, F.relu) for step in range(steps)]
    torch.testing.assert_close(found, x * sum(slopes) / steps, rtol=1e-5, atol=1e-8)


def test_captums_occlusion(classifier, x, attr):
    """Zeiler & Fergus (2014): what the score loses where a square is grey."""
    side = 32
    found = attr.Occlusion(classifier).attribute(x, (3, side, side), strides=(3, side, side), target=CLASS)
    with torch.no_grad():
        for row in range(0, 64, side):
            for column in range(0, 96, side):
                hidden = x.clone()
                hidden[:, :, row : row + side, column : column + side] = 0
                expected = (classifier(x) - classifier(hidden))[:, CLASS].float()  # as Captum gives it
                torch.testing.assert_close(found[:, 0, row + 3, column + 5], expected)


def test_captum_says_where_a_pool_is_asked_for(classifier, x, attr):
    """Pools run by a function of ours: another layer has to be named, and nothing wrong is given."""
    with pytest.raises(AssertionError, match="did not obtain any outputs"):
        attr.LayerGradCam(classifier, classifier.pool5).attribute(x, CLASS)


@pytest.mark.parametrize(("module", "layer"), [*EITHER_SIDE_OF_A_RELU, BEFORE_A_POOL])
def test_grad_cam_of_pytorch_grad_cam(peers, classifier, x, module, layer):
    cam = pytest.importorskip("pytorch_grad_cam", reason="not there: pip install --no-deps grad-cam ttach")
    module = module if not classifier.batch_norm else module.replace("conv", "bn")
    target = cam.utils.model_targets.ClassifierOutputTarget(CLASS)
    with cam.GradCAM(classifier, [getattr(classifier, module)]) as explain:
        found = explain(x, targets=[target] * 2)
    for picture, expected in zip(found, _grad_cam(classifier, x, layer)[:, 0].numpy(), strict=True):
        places = expected - expected.min()
        places = cv2.resize((places / (1e-7 + places.max())).astype(np.float32), (96, 64))
        np.testing.assert_allclose(picture, places / max(1e-7, places.max()), atol=1e-3)
