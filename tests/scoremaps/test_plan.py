"""Plans: within their limit, by the layers' shapes, and by what a process really holds."""

import multiprocessing

import pytest

import verydeep as vd
from verydeep.nets.config import NetworkConfig
from verydeep.nets.configurations import configuration
from verydeep.nets.geometry import macs
from verydeep.scoremaps.bands import Rectangle, map_size
from verydeep.scoremaps.plan import MemoryTooSmallError, make_plan, seconds


def whole(dense, height, width):
    return [Rectangle(0, 0, *map_size(dense.layers, height, width))]


def test_multiply_adds_are_those_of_the_whole_image(tools):
    net = tools.make("D")
    plan = make_plan(vd.densify(net), 960, 1024, whole(vd.densify(net), 960, 1024), None)
    assert plan.macs == macs(net, 960, 1024)
    assert (plan.rows, plan.columns, plan.strips, plan.recomputed) == (29, 31, 1, 0)


def test_paper_sized_networks_on_a_slide():
    """A full-size D, 60,000 pixels wide, in 2 GiB beside its weights: full width, nothing computed twice."""
    import torch

    with torch.device("meta"):
        net = vd.VGG(NetworkConfig(configuration("D"), tuple(map(str, range(1000)))))
    dense = vd.densify(net)
    plan = make_plan(dense, 60_000, 60_000, whole(dense, 60_000, 60_000), 2 * 2**30)
    assert plan.strips == 1
    assert plan.recomputed == 0
    assert plan.working_bytes <= 2 * 2**30


def test_strips_cost_what_their_halos_do(tools):
    dense = vd.densify(tools.make("B", image_size=32))
    part = whole(dense, 3200, 6400)
    free = make_plan(dense, 3200, 6400, part, None)
    with pytest.raises(MemoryTooSmallError) as caught:
        make_plan(dense, 3200, 6400, part, 2**10)
    strips = make_plan(dense, 3200, 6400, part, caught.value.least + 3 * 2**20)
    assert strips.strips > 1
    assert sum(part.area for part in strips.parts) == free.rows * free.columns
    assert strips.macs == pytest.approx(free.macs * (1 + strips.recomputed))
    assert strips.recomputed > 0


def test_finer_maps_cost_more_only_behind_the_pools(tools):
    dense = vd.densify(tools.make("B", image_size=32))
    coarse = make_plan(dense, 1024, 1024, whole(dense, 1024, 1024), None).macs
    fine = make_plan(dense.at_stride(8), 1024, 1024, whole(dense.at_stride(8), 1024, 1024), None).macs
    # Two pools skipped: 16 times as many cells, and by the layers' shapes far less than 16 times the work.
    behind = {"conv5_1": 4, "conv5_2": 4, "fc6": 16, "fc7": 16, "fc8": 16}
    expected = 0
    side = 1024
    for layer in dense.layers:
        side = layer.rows.size(side)
        expected += layer.macs * side * side * behind.get(layer.name, 1)
    assert fine == pytest.approx(expected, rel=0.03)  # cells at the far border
    assert fine < 4 * coarse


def test_seconds_are_estimated(tools):
    dense = vd.densify(tools.make("A"))
    import torch

    plans = [make_plan(dense, 640, 640, whole(dense, 640, 640), None)]
    assert 0 < seconds(dense, plans, torch.device("cpu")) < 60


def _serve(connection):
    """Run a large image within a limit, then without, and send what the process held at most after each."""
    import numpy as np

    from benchmarks.scoremap import _network
    from verydeep.basics.memory import resident
    from verydeep.scoremaps.plan import within

    dense = vd.densify(_network(0.25))
    image = np.random.default_rng(0).integers(0, 256, (300, 6000, 3), dtype=np.uint8)
    free = make_plan(dense, 300, 6000, whole(dense, 300, 6000), None).working_bytes
    room = within(0, __import__("torch").device("cpu"))
    results = []
    for limit in (free // 2 - room, None):
        plan = vd.score_map(image, dense, memory=limit, device="cpu").plans[0]
        results.append((limit, plan.working_bytes, resident(peak=True)))
    connection.send(results)


def test_a_process_holds_no_more_than_its_limit():
    """Resident memory as the system counts it, with a limit that leaves half of what the fastest way takes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,))
    process.start()
    there.close()
    (limit, working, held), (_, most, held_after) = here.recv()
    process.join()

    assert working <= most / 2
    assert held <= limit
    assert held < held_after


def test_a_limit_costs_no_time_until_it_is_small():
    """An image of 6,000 pixels is computed in the very same way in 1 GiB and without a limit; no more is of use."""
    from benchmarks.scoremap import _network

    dense = vd.densify(_network(0.25))
    part = whole(dense, 6000, 6000)
    assert make_plan(dense, 6000, 6000, part, 2**30) == make_plan(dense, 6000, 6000, part, None)
    huge = whole(dense, 30_000, 30_000)
    plan = make_plan(dense, 30_000, 30_000, huge, 2 * 2**30 - 600 * 2**20)
    assert plan.strips == 1
    assert plan.recomputed == 0
