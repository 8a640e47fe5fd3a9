"""The bytes of a forward pass, against tensors that were really made; the budget of the decoding threads."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.basics.memory import Budget
from verydeep.inference.memory import bytes_per_view, parse_memory


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GiB", 2**31), ("512MiB", 2**29), ("1.5k", 1536), (" 3 gb ", 3 * 2**30), ("800", 800), ("1T", 2**40)],
)
def test_sizes_are_read(text, expected):
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "0GiB", "2 GiB B", "1e9", "GiB"])
def test_other_sizes_are_refused(text):
    with pytest.raises(UserError, match="for example 2GiB"):
        parse_memory(text)


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"image_size": 64}, {"width": 0.5}])
@pytest.mark.parametrize("name", ["A", "A-LRN", "C", "D", "B-5x5"])
def test_the_estimate_holds_the_largest_pair_of_tensors_and_little_more(name, options):
    options = {"classes": 10, "width": 0.25, "fc_width": 64, **options}
    net = vd.create(name, **options, seed=0).eval()
    pairs = []
    # ReLUs work in place, or as a part of the pool, where nobody watches them.
    for layer in (child for child in net.children() if not isinstance(child, torch.nn.ReLU)):
        layer.register_forward_hook(lambda _, inputs, output: pairs.append(inputs[0].nbytes + output.nbytes))
    for height, width in ((224, 224), (231, 290)):
        pairs.clear()
        with torch.inference_mode():
            net.score_map(torch.zeros(1, 3, height, width))
        # The most that is left over: normalization's own temporaries, and the picture itself.
        most = 3 if name == "A-LRN" else 1.3
        assert max(pairs) <= bytes_per_view(net, height, width) <= most * max(pairs)


def test_the_papers_network_at_384():
    net = vd.create("D", classes=10, fc_width=16, seed=0)
    # conv1_2: 64 channels in, 64 out, float32; pixels as float, as bytes and as the next batch's bytes.
    assert bytes_per_view(net, 384, 384) == 384 * 384 * (2 * 64 * 4 + 3 * 6)


def test_threads_share_a_budget_and_one_that_is_too_large_goes_alone():
    budget, held, most, lock = Budget(100), [], [], Lock()

    def work(size):
        with budget.hold(size):
            with lock:
                held.append(size)
                most.append(tuple(held))
            time.sleep(0.002)
            with lock:
                held.remove(size)

    sizes = [30, 40, 50, 200, 10, 90, 20, 60, 300, 30] * 4
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, sizes))
    assert len(most) == len(sizes)
    assert all(sum(together) <= 100 or len(together) == 1 for together in most)
    assert any(len(together) > 1 for together in most)


def test_a_budget_is_given_back_after_an_error():
    budget = Budget(10)
    with pytest.raises(RuntimeError), budget.hold(10):
        raise RuntimeError
    with budget.hold(10):
        pass
