"""What the backends on Stable Diffusion share: a frozen pipeline, img2img from an init image, item by item noise."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.autoencoder import to_signed
from neurobridge_tb.generation.base import check_init_images, check_pictures
from neurobridge_tb.generation.batches import draw_items
from neurobridge_tb.generation.pipelines import load_pipeline
from neurobridge_tb.vision_imports import prepare_torchvision

SUGGESTION = "stable-diffusion-v1-5/stable-diffusion-v1-5"


class StableDiffusion:
    """A Stable Diffusion pipeline (Rombach et al. 2022) with DDIM, its safety checker left out.

    Args:
        weights: Hub id or local folder.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        device: Where it runs.
        image_size: Side of the pictures in pixels; default: the model's own.
        steps: DDIM steps.
        guidance: Weight of classifier-free guidance; 1 is none.
        strength: With init images: share of the steps that are run, at least one; 1 all but ignores the init image.
        batch_size: Pictures a forward pass.

    Raises:
        InputError: No such weights, or settings out of bounds.
    """

    def __init__(
        self,
        weights: str | None,
        *,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
        image_size: int | None = None,
        steps: int = 30,
        guidance: float = 5.0,
        strength: float = 0.8,
        batch_size: int = 4,
    ):
        if steps < 1 or not 0 < strength <= 1:
            raise InputError(
                expected="at least one step, and a strength above 0 and at most 1",
                found=f"steps={steps}, strength={strength}",
                fix="Set them within these bounds.",
            )
        self.pipeline = load_pipeline(
            "StableDiffusionPipeline", weights, suggestion=SUGGESTION, dtype=dtype, device=device,
            safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
        )  # fmt: skip
        self.weights, self.device = str(weights), torch.device(device)
        import diffusers

        self.pipeline.scheduler = diffusers.DDIMScheduler.from_config(self.pipeline.scheduler.config)
        self.image_size = image_size or self.unet.config.sample_size * self.pipeline.vae_scale_factor
        self.steps, self.guidance, self.strength, self.batch_size = steps, guidance, strength, batch_size

    @property
    def unet(self) -> Any:
        """The denoising network."""
        return self.pipeline.unet

    @torch.no_grad()
    def empty_prompt(self) -> Tensor:
        """Tokens ``(1, 77, D)`` of the prompt ``""``: what the network takes as "nothing known"."""
        return self.pipeline.encode_prompt("", self.device, 1, do_classifier_free_guidance=False)[0]

    @torch.no_grad()
    def draw(
        self,
        items: int,
        conditions: Callable[[Tensor], dict[str, Any]],
        *,
        num_samples: int,
        seed: int,
        init_images: Tensor | None,
    ) -> Tensor:
        """Draw pictures.

        Args:
            items: How many there are.
            conditions: Arguments of the pipeline's call for the items whose numbers it is given.
            num_samples: Samples S an item.
            seed: Seed.
            init_images: Where img2img (SDEdit, Meng et al. 2022) starts, uint8 ``(items, 3, h, w)``; None: noise.

        Returns:
            uint8 ``(items, S, 3, size, size)``.
        """
        if init_images is not None:
            check_init_images(init_images, items)

        def draw(rows: Tensor, generators: list[torch.Generator]) -> Tensor:
            start = None if init_images is None else self._resize(init_images[rows])
            return self._call(start, generator=generators, **conditions(rows))

        return draw_items(items, num_samples, draw, seed=seed, batch_size=self.batch_size)

    def _call(self, start: Tensor | None, **arguments: Any) -> Tensor:
        pipeline: Any
        arguments |= {"num_inference_steps": self.steps, "guidance_scale": self.guidance, "output_type": "pt"}
        if start is None:
            pipeline = self.pipeline
            arguments |= {"height": self.image_size, "width": self.image_size}
        else:
            prepare_torchvision()
            import diffusers

            pipeline = diffusers.StableDiffusionImg2ImgPipeline(
                **self.pipeline.components, requires_safety_checker=False
            )
            pipeline.set_progress_bar_config(disable=True)
            arguments |= {"image": start, "strength": min(max(self.strength, 1.01 / self.steps), 1.0)}
        # diffusers repeats ip_adapter_image_embeds once an item of the batch, which mixes items (diffusers #9813)
        pipeline.prepare_ip_adapter_image_embeds = lambda image, embeds, device, *_: [e.to(device) for e in embeds]
        return quantize(pipeline(**arguments).images)

    def _resize(self, images: Tensor) -> Tensor:
        """uint8 to [0, 1], as diffusers takes tensors, at the pictures' size."""
        size = (self.image_size, self.image_size)
        resized = F.interpolate(to_signed(images), size=size, mode="bicubic", antialias=True)
        return ((resized + 1) / 2).clamp(0, 1)


def quantize(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] to uint8.

    Raises:
        InputError: NaN or infinity, as an autoencoder that overflows in float16 gives.
    """
    return (check_pictures(pictures).float().clamp(0, 1) * 255).round().to(torch.uint8)
