"""Pictures by a frozen Stable Diffusion with an IP-Adapter (Ye et al. 2023): own cross-attention for the embedding.

Files are in diffusers' format (``image_proj.…`` and ``ip_adapter.<n>.…``), so that ``load_ip_adapter`` of any Stable
Diffusion pipeline reads them too.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurobridge_tb.errors import InputError, first_line
from neurobridge_tb.files import read_json, write_json
from neurobridge_tb.generation.base import check_embeddings, check_source
from neurobridge_tb.generation.folders import write_decoder
from neurobridge_tb.generation.pipelines import quiet
from neurobridge_tb.generation.stable_diffusion import StableDiffusion

FILE = "ip_adapter.safetensors"
_FORMAT = "neurobridge ip_adapter 1"
TOKENS = 4  # the plain IP-Adapter's


class IpAdapter:
    """Generator over an IP-Adapter; the prompt is empty.

    Args:
        diffusion: A model into which the adapter has been loaded.
        scale: Weight of the adapter's attention.
        encoder_name: Name of the image encoder whose embeddings it was trained on; None where nothing says so.
        preprocessing_hash: That encoder's preprocessing.
    """

    def __init__(
        self,
        diffusion: StableDiffusion,
        *,
        scale: float = 1.0,
        encoder_name: str | None = None,
        preprocessing_hash: str | None = None,
    ):
        self.diffusion = diffusion
        diffusion.pipeline.set_ip_adapter_scale(scale)
        self.dim = projection(diffusion.unet).image_embeds.in_features
        self.encoder_name, self.preprocessing_hash = encoder_name, preprocessing_hash

    @torch.no_grad()
    def generate(
        self,
        embedding: Tensor,
        *,
        num_samples: int = 1,
        seed: int = 0,
        init_images: Tensor | None = None,
    ) -> Tensor:
        """Draw pictures.

        Args:
            embedding: ``(B, E)`` on the encoder's own scale.
            num_samples: Pictures S an embedding.
            seed: Same seed, same pictures.
            init_images: Where img2img starts, uint8 ``(B, 3, h, w)`` of any size; None: noise.

        Returns:
            uint8 ``(B, S, 3, size, size)``.

        Raises:
            InputError: Embeddings of another size than the adapter takes, or init images of another number or type.
        """
        embedding = check_embeddings(embedding, self.dim)
        pipeline = self.diffusion.pipeline

        def conditions(rows: Tensor) -> dict[str, Any]:
            known = embedding[rows].to(pipeline.device, pipeline.dtype)
            both = torch.cat([torch.zeros_like(known), known]) if self.diffusion.guidance > 1 else known
            return {"prompt": [""] * len(rows), "ip_adapter_image_embeds": [both[:, None]]}

        return self.diffusion.draw(
            len(embedding), conditions, num_samples=num_samples, seed=seed, init_images=init_images
        )

    @classmethod
    def load(
        cls,
        adapter: str | Path,
        weights: str | None = None,
        *,
        scale: float = 1.0,
        encoder_name: str | None = None,
        preprocessing_hash: str | None = None,
        **settings: Any,
    ) -> "IpAdapter":
        """Load an IP-Adapter and its Stable Diffusion.

        Args:
            adapter: Folder that ``neurobridge train-decoder backend=ip_adapter`` wrote, or any plain IP-Adapter's
                ``.safetensors`` file.
            weights: Hub id or local folder of Stable Diffusion; default: what the adapter was trained for.
            scale: Weight of the adapter's attention.
            encoder_name: The encoder whose embeddings will be given; another one is refused where the folder names one.
            preprocessing_hash: That encoder's ``preprocessing_hash``; another one is refused.
            **settings: Go to :class:`StableDiffusion`.

        Raises:
            InputError: No such adapter, one of another encoder, or weights that cannot be had or do not fit.
        """
        path = Path(adapter)
        file = path / FILE if path.is_dir() else path
        note = path / "config.json"
        config = read_json(note) if path.is_dir() and note.is_file() else {}
        stored = (config.get("encoder"), config.get("preprocessing_hash"))
        check_source(str(path), stored, (encoder_name, preprocessing_hash))
        state = _read(file)
        diffusion = StableDiffusion(weights or config.get("stable_diffusion"), **settings)
        attach(diffusion, state)
        return cls(diffusion, scale=scale, encoder_name=stored[0], preprocessing_hash=stored[1])


def attach(diffusion: StableDiffusion, state: dict[str, dict[str, Tensor]]) -> None:
    """Put an adapter into a model.

    Args:
        diffusion: The model.
        state: The adapter's tensors: ``image_proj`` and ``ip_adapter``.

    Raises:
        InputError: It was made for another model.
    """
    try:
        with quiet():
            diffusion.pipeline.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
            diffusion.pipeline.to(diffusion.device, diffusion.pipeline.dtype)
    except (RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            expected=f"an IP-Adapter for {diffusion.weights}",
            found=first_line(error)[:300],
            fix="Name the weights that the adapter was trained for, or train it for these.",
        ) from error


def fresh_state(diffusion: StableDiffusion, embedding_dim: int) -> dict[str, dict[str, Tensor]]:
    """An adapter before training: attention as for the prompt, as the paper starts it."""
    token_dim = diffusion.unet.config.cross_attention_dim
    linear, norm = nn.Linear(embedding_dim, TOKENS * token_dim), nn.LayerNorm(token_dim)
    image = {f"proj.{name}": value for name, value in linear.state_dict().items()}
    image |= {f"norm.{name}": value for name, value in norm.state_dict().items()}
    attention = {}
    for key, name in _cross_attentions(diffusion.unet):
        prompt = diffusion.unet.get_submodule(name.removesuffix(".processor"))
        attention[f"{key}.to_k_ip.weight"] = prompt.to_k.weight.detach().float().clone()
        attention[f"{key}.to_v_ip.weight"] = prompt.to_v.weight.detach().float().clone()
    return {"image_proj": image, "ip_adapter": attention}


def adapter_modules(unet: Any) -> nn.ModuleDict:
    """What is trained of a model with an adapter: the projection, and the adapter's part of each cross-attention."""
    parts: dict[str, nn.Module] = {"image_proj": projection(unet)}
    parts |= {str(key): unet.attn_processors[name] for key, name in _cross_attentions(unet)}
    return nn.ModuleDict(parts)


def save_adapter(folder: str | Path, parts: nn.ModuleDict, mean: Tensor, scale: float, config: dict[str, Any]) -> None:
    """Write ``ip_adapter.safetensors`` in diffusers' format and ``config.json``, aside and renamed.

    Args:
        folder: Folder to make.
        parts: From :func:`adapter_modules`, trained on ``(embedding - mean) / scale``; that is folded into the weights.
        mean: ``(E,)``.
        scale: Positive.
        config: What to note.
    """
    from safetensors.torch import save

    image = {name: value.detach().float().cpu() for name, value in parts["image_proj"].state_dict().items()}
    weight = image["image_embeds.weight"] / scale
    state = {
        "image_proj.proj.weight": weight,
        "image_proj.proj.bias": image["image_embeds.bias"] - weight @ mean,
        "image_proj.norm.weight": image["norm.weight"],
        "image_proj.norm.bias": image["norm.bias"],
    }
    for key, part in parts.items():
        if key != "image_proj":
            for name, value in part.state_dict().items():  # to_k_ip.0.weight, to_v_ip.0.weight
                state[f"ip_adapter.{key}.{name.replace('.0.', '.')}"] = value.detach().float().cpu()
    with write_decoder(folder) as aside:
        (aside / FILE).write_bytes(save({name: value.contiguous() for name, value in state.items()}))
        write_json(aside / "config.json", {"format": _FORMAT, **config})


def projection(unet: Any) -> Any:
    """The adapter's image projection in a model.

    Raises:
        InputError: It is not of the plain kind, which takes one embedding an image.
    """
    layer = unet.encoder_hid_proj.image_projection_layers[0]
    if not hasattr(layer, "image_embeds"):
        raise InputError(
            expected="a plain IP-Adapter, which takes one embedding an image",
            found=f"one with {type(layer).__name__}",
            fix="Use a plain IP-Adapter (not Plus, Full or FaceID).",
        )
    return layer


def _cross_attentions(unet: Any) -> list[tuple[int, str]]:
    """Numbers and processor names of the cross-attentions, as diffusers counts them in the file format."""
    names = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    return [(2 * place + 1, name) for place, name in enumerate(names)]


def _read(file: Path) -> dict[str, dict[str, Tensor]]:
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except Exception as error:  # safetensors raises its own kinds
        raise InputError(
            expected=f"an IP-Adapter: a folder with {FILE}, or a .safetensors file",
            found=f"{file}: {str(error)[:200]}",
            fix="Name a folder that 'neurobridge train-decoder backend=ip_adapter' wrote.",
        ) from error
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        state.setdefault(group, {})[rest] = value
    return state
