"""Pictures by Stable unCLIP, which was trained to draw from CLIP image embeddings: nothing to train here.

Published weights take the embeddings of OpenAI's ViT-L/14 (768, "…-unclip-small") or OpenCLIP's ViT-H/14 (1,024).
"""

from typing import Any

import torch
from torch import Tensor

from neurobridge_tb.generation.base import check_embeddings
from neurobridge_tb.generation.batches import draw_items
from neurobridge_tb.generation.pipelines import load_pipeline
from neurobridge_tb.generation.stable_diffusion import quantize

SUGGESTION = "sd2-community/stable-diffusion-2-1-unclip-small"


class StableUnclip:
    """Generator over diffusers' ``StableUnCLIPImg2ImgPipeline`` (after Ramesh et al. 2022).

    Args:
        weights: Hub id or local folder of such a pipeline.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device: Where it runs.
        image_size: Side of the pictures in pixels; default: the model's own.
        steps: Denoising steps.
        guidance: Weight of classifier-free guidance; 1 is none.
        noise_level: Noise on the embedding, 0 to 999: more lets pictures differ more from what the embedding says, and
            forgives an embedding that is only predicted.
        batch_size: Pictures a forward pass.

    Raises:
        InputError: No such weights.
    """

    def __init__(
        self,
        weights: str | None = None,
        *,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
        image_size: int | None = None,
        steps: int = 20,
        guidance: float = 10.0,
        noise_level: int = 0,
        batch_size: int = 4,
    ):
        self.pipeline: Any = load_pipeline(
            "StableUnCLIPImg2ImgPipeline", weights, suggestion=SUGGESTION, dtype=dtype, device=device
        )
        self.image_size = image_size or self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor
        self.dim = self.pipeline.image_normalizer.config.embedding_dim
        self.steps, self.guidance, self.noise_level, self.batch_size = steps, guidance, noise_level, batch_size

    @torch.no_grad()
    def generate(
        self,
        embedding: Tensor,
        *,
        num_samples: int = 1,
        seed: int = 0,
        init_images: Tensor | None = None,
    ) -> Tensor:
        """Draw pictures; the pipeline has no img2img, so init images are left aside.

        Args:
            embedding: ``(B, E)`` on CLIP's own scale, not of unit length.
            num_samples: Pictures S an embedding.
            seed: Same seed, same pictures.
            init_images: Without effect.

        Returns:
            uint8 ``(B, S, 3, size, size)``.

        Raises:
            InputError: Embeddings of another size than the weights take.
        """
        embedding = check_embeddings(embedding, self.dim)

        def draw(rows: Tensor, generators: list[torch.Generator]) -> Tensor:
            pictures = self.pipeline(
                prompt=[""] * len(rows),
                image_embeds=embedding[rows].to(self.pipeline.device, self.pipeline.dtype),
                generator=generators,
                height=self.image_size,
                width=self.image_size,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                noise_level=self.noise_level,
                output_type="pt",
            ).images
            return quantize(pictures)

        return draw_items(len(embedding), num_samples, draw, seed=seed, batch_size=self.batch_size)
