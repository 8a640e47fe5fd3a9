"""The same network in LitServe and BentoML, as their users would write it: decoded in the handler, run by torch."""

import base64
import os
import sys
from importlib import util
from pathlib import Path
from typing import Any

import torch

from verydeep.evaluation.predict import Predictor
from verydeep.inference.runtime import Runtime
from verydeep.nets.families import load

WEIGHTS, SERVER = "VERYDEEP_BENCH_WEIGHTS", "VERYDEEP_BENCH_SERVER"
BATCH, WAIT = 16, 0.005


def central(weights: Path, engine: str = "auto") -> Predictor:
    """Return the predictor that all servers run, within the memory that the service gives its network."""
    net = load(weights)
    runtime = Runtime(engine=engine, memory=3 * 2**28)
    return Predictor(net, f"center@{net.image_size * 8 // 7}", 1, runtime=runtime)


def is_installed(package: str) -> bool:
    """Say whether a peer can be imported."""
    return util.find_spec(package) is not None


class Peer:
    """A network that answers for a batch of files."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or torch.get_num_threads())
        self.predictor = central(Path(os.environ[WEIGHTS]), "torch")

    def batch(self, files: list[bytes]) -> list[dict[str, Any]]:
        """Return the most probable class of each file."""
        prepared = [self.predictor.prepare(file) for file in files]
        found = self.predictor.predictions(prepared, [""] * len(files))
        return [{"class": one.top[0][0], "posterior": one.top[0][1]} for one in found]


# The servers' own processes import this module anew, and look for the class in it.
if os.environ.get(SERVER) == "bentoml":
    import bentoml

    @bentoml.service(workers=1, traffic={"timeout": 300})
    class Bento:
        """The network behind BentoML."""

        def __init__(self) -> None:
            self.peer = Peer()

        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=120_000, route="/classify")
        def classify(self, files: list[str]) -> list[dict[str, Any]]:
            """Return the most probable class of each file in base64."""
            return self.peer.batch([base64.b64decode(file) for file in files])


if os.environ.get(SERVER) == "litserve":
    import litserve

    class Api(litserve.LitAPI):
        """The network behind LitServe."""

        def setup(self, device: str) -> None:
            self.peer = Peer()

        def decode_request(self, request: dict[str, str]) -> bytes:
            return base64.b64decode(request["file"])

        def batch(self, inputs: list[bytes]) -> list[bytes]:
            return list(inputs)

        def predict(self, files: list[bytes]) -> list[dict[str, Any]]:
            return self.peer.batch(files)

        def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return output

        def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
            return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", timeout=300)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
