"""Pictures by a frozen Stable Diffusion that reads the embedding through an adapter to its cross-attention."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.base import check_embeddings, check_source
from neurobridge_tb.generation.folders import load_network, save_network
from neurobridge_tb.generation.stable_diffusion import StableDiffusion
from neurobridge_tb.generation.token_adapter import TokenAdapter


class SdAdapter:
    """Generator over a :class:`TokenAdapter`; guidance is away from the empty prompt.

    Args:
        adapter: The trained adapter.
        diffusion: The model whose tokens it makes.
        encoder_name: Name of the image encoder whose embeddings it was trained on.
        preprocessing_hash: That encoder's preprocessing.

    Raises:
        InputError: The model takes tokens of another size.
    """

    def __init__(
        self, adapter: TokenAdapter, diffusion: StableDiffusion, *, encoder_name: str, preprocessing_hash: str
    ):
        taken, made = diffusion.unet.config.cross_attention_dim, adapter.config["token_dim"]
        if taken != made:
            raise InputError(
                expected=f"a Stable Diffusion whose tokens have {made} values, as the adapter makes",
                found=f"{taken} in {diffusion.weights}",
                fix="Name the weights that the adapter was trained for, or train it for these.",
            )
        self.adapter, self.diffusion = adapter.to(diffusion.device).eval().requires_grad_(False), diffusion
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
            InputError: Embeddings of another size, or init images of another number or type.
        """
        embedding = check_embeddings(embedding, self.adapter.config["embedding_dim"])
        dtype = self.diffusion.pipeline.dtype

        def conditions(rows: Tensor) -> dict[str, Any]:
            tokens = self.adapter(embedding[rows].to(self.diffusion.device))
            empty = self.adapter.empty.expand(len(rows), -1, -1)
            return {"prompt_embeds": tokens.to(dtype), "negative_prompt_embeds": empty.to(dtype)}

        return self.diffusion.draw(
            len(embedding), conditions, num_samples=num_samples, seed=seed, init_images=init_images
        )

    def save(self, folder: str | Path, *, training: dict[str, Any] | None = None) -> None:
        """Write ``model.safetensors`` and ``config.json``, aside and renamed; Stable Diffusion is named, not copied."""
        config = {
            "adapter": self.adapter.config,
            "stable_diffusion": self.diffusion.weights,
            "encoder": self.encoder_name,
            "preprocessing_hash": self.preprocessing_hash,
            "training": training or {},
        }
        save_network(folder, "sd_adapter", self.adapter.state_dict(), config)

    @classmethod
    def load(
        cls,
        adapter: str | Path,
        weights: str | None = None,
        *,
        encoder_name: str | None = None,
        preprocessing_hash: str | None = None,
        **settings: Any,
    ) -> "SdAdapter":
        """Load a saved adapter and its Stable Diffusion.

        Args:
            adapter: Folder that ``neurobridge train-decoder backend=sd_adapter`` wrote.
            weights: Hub id or local folder of Stable Diffusion; default: what the adapter was trained for.
            encoder_name: The encoder whose embeddings will be given; another one is refused.
            preprocessing_hash: That encoder's ``preprocessing_hash``; another one is refused.
            **settings: Go to :class:`StableDiffusion`.

        Raises:
            InputError: No such adapter, one of another encoder, or weights that cannot be had or do not fit.
        """
        network, config = load_network(adapter, "sd_adapter", lambda config: TokenAdapter(**config["adapter"]))
        stored = (config["encoder"], config["preprocessing_hash"])
        check_source(str(adapter), stored, (encoder_name, preprocessing_hash))
        diffusion = StableDiffusion(weights or config["stable_diffusion"], **settings)
        return cls(network, diffusion, encoder_name=stored[0], preprocessing_hash=stored[1])
