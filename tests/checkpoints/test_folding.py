import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.checkpoints.writing import fold_batch_norm
from verydeep.nets.run_info import RunInfo


@pytest.mark.parametrize("letter", ["A-LRN", "C", "E"])
def test_outputs_stay_the_same(letter):
    net = vd.create(letter, 10, width=1 / 8, batch_norm=True, image_size=64, fc_width=32, initialization="he")
    net.provenance = RunInfo(data="x")
    for name, tensor in net.state_dict().items():
        if name.startswith("bn") and tensor.is_floating_point():
            tensor.uniform_(0.3, 3)
    net.eval()
    folded = fold_batch_norm(net)
    assert not folded.batch_norm
    assert not any(name.startswith("bn") for name in folded.state_dict())
    assert folded.provenance == RunInfo(data="x", more={"batch_norm": "folded into the convolutions"})
    x = 50 * torch.randn(3, 3, 75, 90)
    with torch.no_grad():
        exact = net.double()(x.double())
        assert (folded(x) - exact).abs().max() < 1e-4 * exact.abs().max()
    with pytest.raises(UserError, match="no batch norm to fold"):
        fold_batch_norm(folded)
