"""Compiled networks behave as the networks that they were made of."""

import copy
import pickle
import resource
import threading

import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.engines.compiled import NativeLayers, compile_cpu
from verydeep.engines.library import PROCESSORS, best_processor

USABLE = PROCESSORS[: PROCESSORS.index(best_processor()) + 1]


def network(name="A", seed=0, **options):
    """A small network whose every layer matters to its scores."""
    options = {"classes": 11, "width": 1 / 8, "image_size": 64, "fc_width": 40} | options
    net = vd.create(name, initialization="he", seed=seed, **options).eval()
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.bias.data.normal_(std=0.1, generator=generator)
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.data.uniform_(0.5, 2, generator=generator)
            layer.bias.data.normal_(std=0.1, generator=generator)
    return net


def exactly(net, x, layer="fc8"):
    """What a layer gives in float64."""
    return copy.deepcopy(net).double().activations(x.double(), layer)


def error(found, expected):
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ["A", "A-LRN", "B", "C", "D", "E", "B-5x5"])
def test_every_configuration_at_any_size(name, batch_norm):
    net = network(name, batch_norm=batch_norm)
    fast = compile_cpu(net)
    for shape in ((1, 3, 64, 64), (3, 3, 64, 64), (1, 3, 97, 161), (2, 3, 130, 67)):
        x = torch.randn(shape) * 60
        with torch.no_grad():
            assert error(fast.score_map(x), exactly(net, x)) < 1e-5
            assert error(fast(x), exactly(net, x).mean(dim=(2, 3))) < 1e-5


@pytest.mark.parametrize("processor", USABLE)
def test_every_processor_and_odd_widths(processor):
    net = network("B", width=0.07, image_size=32)  # 4 channels: fewer than a block has
    x = torch.randn(2, 3, 45, 70) * 60
    with torch.no_grad():
        assert error(compile_cpu(net, processor=processor).score_map(x), exactly(net, x)) < 1e-5
        assert error(compile_cpu(net, "fast", processor).score_map(x), exactly(net, x)) < 1e-3
        assert error(compile_cpu(net, "fixed16", processor).score_map(x), exactly(net, x)) < 3e-3


def test_pools_that_round_up():
    from dataclasses import replace

    net = network("D")
    fast = compile_cpu(net)
    net.preprocessing = replace(net.preprocessing, pool_round_up=True)
    x = torch.randn(1, 3, 75, 33) * 60  # smaller than 64, which rounding up allows
    with torch.no_grad():
        assert error(fast.score_map(x), exactly(net, x)) < 1e-5


def test_fast_keeps_weights_of_windows_in_half_precision():
    net, x = network(width=0.5, fc_width=512), torch.randn(2, 3, 64, 64) * 60
    with torch.no_grad():
        truth = exactly(net, x)
        exact, fast = (error(compile_cpu(net, accuracy).score_map(x), truth) for accuracy in ("exact", "fast"))
    assert exact < 1e-5
    if best_processor() != "portable":
        assert exact < fast < 1e-3


@pytest.mark.parametrize("batch_norm", [False, True])
def test_sixteen_bits_are_a_tenth_of_eight_bits_error(batch_norm):
    net, x = network("E", width=0.25, batch_norm=batch_norm), torch.randn(2, 3, 96, 80) * 60
    with torch.no_grad():
        for layer in ("pool1", "pool3", "pool5"):
            found, truth = NativeLayers(net, layer, "fixed16")(x), exactly(net, x, layer)
            assert 1e-5 < error(found, truth) < 3e-3, layer


def test_any_layer_by_its_name():
    for net in (network("C"), network("A", batch_norm=True), network("A-LRN")):
        x = torch.randn(2, 3, 70, 66) * 60
        with torch.no_grad():
            for layer in net.layer_names:
                assert error(NativeLayers(net, layer)(x), net.activations(x, layer)) < 1e-5, layer
        with pytest.raises(UserError, match="has no layer 'fc9'"):
            NativeLayers(net, "fc9")


def test_layers_between_two():
    for net in (network("B"), network("A", batch_norm=True), network("D", width=0.1)):
        x = torch.randn(2, 3, 130, 98) * 60
        with torch.no_grad():
            for after, layer in (
                ("pool5", "fc8"),
                ("conv2_1.relu", "pool4"),
                ("conv3_1", "fc6.relu"),
                ("pool1", "pool1"),
            ):
                between = net.activations(x, after)
                found = NativeLayers(net, layer, after=after)(between)
                assert found.shape == net.activations(x, layer).shape
                assert error(found, net.activations(x, layer)) < 1e-5
        with pytest.raises(ValueError, match="expected N x"):
            NativeLayers(net, "fc8", after="pool5")(x)


@pytest.mark.parametrize("accuracy", ["exact", "fixed16"])
def test_what_is_not_a_number_goes_through_as_in_torch(accuracy):
    net = network("D")
    fast = compile_cpu(net, accuracy)
    for value in (float("nan"), float("inf"), -float("inf"), 1e38):
        x = torch.randn(2, 3, 96, 128)
        x[1, 2, 40, 17] = value
        with torch.no_grad():
            found, expected = fast.score_map(x), net.score_map(x)
        # Of sixteen bits the images without it are as far off as always, but the batch was run again by torch.
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-4, atol=1e-4)
        assert bool(torch.isfinite(found[0]).all())  # the other image of the batch is not touched


def test_training_gradients_and_autocast_are_the_networks_own():
    net, x = network(), torch.randn(2, 3, 64, 64)
    fast = compile_cpu(net)
    assert torch.equal(fast(x.requires_grad_()), net(x))  # gradients wanted
    fast(x).sum().backward()
    assert float(x.grad.abs().sum()) > 0
    x = x.detach()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(fast(x), net(x))
    fast.train()
    assert net.training
    torch.manual_seed(1)
    dropped = fast(x)
    torch.manual_seed(1)
    assert torch.equal(dropped, net(x))
    fast.eval()
    assert not net.training


def test_inputs_without_sense_are_value_errors():
    net = network()
    fast, least = compile_cpu(net), net.least_size
    for shape in ((0, 3, 64, 64), (1, 4, 64, 64), (1, 1, 64, 64), (3, 64, 64)):
        with pytest.raises(ValueError, match="expected N x 3 x H x W"):
            fast(torch.zeros(shape))
    for shape in ((1, 3, least - 1, 64), (1, 3, 64, least - 1), (1, 3, 0, 64)):
        with pytest.raises(ValueError, match="too small"):
            fast(torch.zeros(shape))
    with pytest.raises(ValueError, match="expected one of exact, fast, fixed16"):
        compile_cpu(network(), "wrong")


def test_it_can_be_copied_and_pickled_and_has_the_networks_attributes():
    net, x = network("B"), torch.randn(1, 3, 64, 64)
    fast = compile_cpu(net)
    assert (fast.classes, fast.image_size, fast.configuration.name) == (net.classes, 64, "B")
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert torch.equal(other(x), fast(x))
    with pytest.raises(AttributeError, match="no attribute 'wings'"):
        _ = fast.wings


def test_several_threads_at_once():
    nets = [network("A", seed=1), network("D", seed=2)]
    fasts = [compile_cpu(net) for net in nets]
    inputs = [torch.randn(1 + i % 3, 3, 64 + 7 * i, 90) for i in range(8)]
    expected = [fasts[i % 2].score_map(x) for i, x in enumerate(inputs)]
    found: dict[int, torch.Tensor] = {}

    def work(i):
        for _ in range(5):
            found[i] = fasts[i % 2].score_map(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert all(torch.equal(found[i], expected[i]) for i in range(8))


def test_memory_does_not_grow_with_calls():
    fast, x = compile_cpu(network("A", width=1 / 16, fc_width=16, image_size=32)), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        for _ in range(500):
            fast(x)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(10_000):
            fast(x)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024  # KiB


def test_torch_compile_takes_it_whole():
    fast, x = compile_cpu(network("A")), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        compiled = torch.compile(fast.score_map, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), fast.score_map(x))
