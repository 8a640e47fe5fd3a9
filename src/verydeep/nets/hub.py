"""A network as a repository of the Hugging Face hub: config.json, model.safetensors and a card in one folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.basics.files import write_text
from verydeep.nets.network import Network
from verydeep.nets.weights import describe, read, save

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

WEIGHTS, CONFIG = "model.safetensors", "config.json"

CARD = """---
{{ card_data }}
---

# VGG {{ configuration }}, {{ classes | length }} classes

A very deep ConvNet of Simonyan & Zisserman, [*Very Deep Convolutional Networks for Large-Scale Image
Recognition*]({{ paper_url }}): configuration {{ configuration }}
{%- if width != 1 %}, {{ width }} times as wide{% endif %}
{%- if batch_norm %}, with batch norm{% endif %}; its window is {{ image_size }} x {{ image_size }} pixels.

```python
import verydeep as vd

net = vd.VGG.from_pretrained("this repository, or its folder")
vd.predict(net, "photo.jpg").top
```

`model.safetensors` is one of verydeep's weights files: class names in order, preprocessing and origin are written in
it, and `vd.load` reads it as it is. `config.json` says the same to those who read it without verydeep.

## Input

{{ preprocessing.channel_order }} from 0 to {{ preprocessing.value_range }}. Of red, green and blue the mean
{{ preprocessing.mean | join(", ") }} is subtracted, and they are divided by {{ preprocessing.std | join(", ") }}.
Pictures are taken whole, from {{ least_size }} pixels on.

## Origin
{% for key, value in provenance.items() if key != "version" %}
- {{ key }}: {{ value }}
{%- else %}
Nothing is known of it.
{%- endfor %}
"""

try:
    from huggingface_hub import PyTorchModelHubMixin
except ImportError:

    class HubMixin:
        """What a network says about the hub where `huggingface_hub` is not installed: what to install."""

        def save_pretrained(self, *_: Any, **__: Any) -> None:
            """Raise UserError."""
            need("huggingface_hub", "hub")

        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> Any:
            """Raise UserError."""
            need("huggingface_hub", "hub")

        push_to_hub = save_pretrained

else:

    class HubMixin(  # type: ignore[no-redef]
        PyTorchModelHubMixin,
        library_name="verydeep",
        paper_url="https://arxiv.org/abs/1409.1556",
        pipeline_tag="image-classification",
        tags=["vgg"],
        model_card_template=CARD,
    ):
        """`save_pretrained`, `from_pretrained` and `push_to_hub`, as `huggingface_hub` documents them.

        Weights are written and read by `verydeep.nets.weights`, so that preprocessing and classes travel with them.
        """

        def _save_pretrained(self, save_directory: Path) -> None:
            net = cast(Network, self)
            save(net, save_directory / WEIGHTS)
            # Not at the top: there the mix-in would take the values for arguments of VGG.
            write_text(save_directory / CONFIG, json.dumps({"network": describe(net)}, indent=2))

        @classmethod
        def _from_pretrained(cls, *, model_id: str, map_location: str = "cpu", **about: Any) -> Any:
            from huggingface_hub import hf_hub_download

            wanted = ("revision", "cache_dir", "force_download", "local_files_only", "token")
            if Path(model_id).is_dir():
                file = Path(model_id) / WEIGHTS
                if not file.is_file():
                    raise UserError(f"{model_id}: holds no {WEIGHTS}; save_pretrained writes such a folder")
            else:
                file = Path(hf_hub_download(model_id, WEIGHTS, **{key: about[key] for key in wanted}))
            return read(file, cast(type[Network], cls)).to(map_location)

        def generate_model_card(self, *args: Any, **kwargs: Any) -> "ModelCard":
            """Return the card, filled with what the network is."""
            net = cast(Network, self)
            return super().generate_model_card(*args, **{**describe(net), "least_size": net.least_size, **kwargs})


__all__ = ["HubMixin"]
