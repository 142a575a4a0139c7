"""Pictures from image embeddings by a small pixel-space diffusion model.

DDIM (Song et al. 2021) with classifier-free guidance (Ho & Salimans 2022). It starts from noise, or
from a noised low-level guess (``init_images``), as SDEdit does (Meng et al. 2022). Weights for the
procedurally drawn pictures come with the package; ``training.decoder`` trains others on any folder.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_aside, write_json
from neurobridge_tb.generation.base import check_embeddings, check_init_images, check_source
from neurobridge_tb.generation.conditional_unet import (
    ConditionalUNet,
    noise_schedule,
    to_signed,
    to_uint8,
)

SHIPPED = Path(__file__).parent / "weights" / "procedural_64"
_FORMAT = "neurobridge small_diffusion 1"


class SmallDiffusion:
    """Generator over a :class:`ConditionalUNet`.

    Args:
        network: The trained network.
        encoder_name: Name of the image encoder whose embeddings it was trained on.
        preprocessing_hash: That encoder's preprocessing.
        steps: DDIM steps; fewer give smoother pictures, closer to the mean of what is possible.
        guidance: Weight of classifier-free guidance; 1 is none.
        strength: With ``init_images``: share of the steps that are run. 0 returns the init image, 1
            ignores it.
        batch_size: Pictures a forward pass.
        device: Where the network runs.

    Raises:
        InputError: No steps, or a strength beyond [0, 1].
    """

    def __init__(
        self,
        network: ConditionalUNet,
        *,
        encoder_name: str,
        preprocessing_hash: str,
        steps: int = 10,
        guidance: float = 2.0,
        strength: float = 0.7,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
    ):
        if steps < 1 or not 0 <= strength <= 1:
            raise InputError(
                expected="at least one step and a strength from 0 to 1",
                found=f"steps={steps}, strength={strength}",
                fix="Set them within these bounds.",
            )
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.encoder_name, self.preprocessing_hash = encoder_name, preprocessing_hash
        self.steps, self.guidance, self.strength = steps, guidance, strength
        self.batch_size = batch_size

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
            seed: Seed; the noise of item ``i`` and sample ``s`` follows from ``(seed, i, s)`` alone.
            init_images: Low-level guesses ``(B, 3, h, w)``, uint8, of any size.

        Returns:
            uint8 ``(B, S, 3, size, size)``.

        Raises:
            InputError: An embedding of another size, or init images of another number or type.
        """
        check_embeddings(embedding, self.network.config["embedding_dim"])
        size = self.network.image_size
        noise = torch.stack([_noise((seed, i, s), size) for i in range(len(embedding)) for s in range(num_samples)])
        codes = self.network.code(embedding.float().to(self.device))
        codes = codes.repeat_interleave(num_samples, 0)
        start = None
        if init_images is not None:
            check_init_images(init_images, len(embedding))
            start = to_signed(init_images)
            if start.shape[2:] != (size, size):
                start = F.interpolate(start, size=(size, size), mode="bicubic", antialias=True)
            start = start.repeat_interleave(num_samples, 0)
        parts = []
        for first in range(0, len(noise), self.batch_size):
            rows = slice(first, first + self.batch_size)
            init = None if start is None else start[rows].to(self.device)
            parts.append(to_uint8(self._sample(noise[rows].to(self.device), codes[rows], init)))
        return torch.cat(parts).cpu().unflatten(0, (len(embedding), num_samples))

    def _sample(self, noise: Tensor, codes: Tensor, init: Tensor | None) -> Tensor:
        """One batch: noise ``(b, 3, size, size)`` and codes ``(b, K)`` to pictures in [-1, 1]."""
        scheduler = noise_schedule()
        scheduler.set_timesteps(self.steps, device=self.device)
        timesteps, x = scheduler.timesteps, noise
        if init is not None:
            timesteps = timesteps[self.steps - round(self.steps * self.strength) :]
            if len(timesteps) == 0:
                return init
            x = scheduler.add_noise(init, noise, timesteps[:1].expand(len(init)))
        for step in timesteps:
            steps = step.expand(len(x))
            velocity = self.network(noisy=x, step=steps, code=codes)
            if self.guidance != 1:
                blind = self.network(noisy=x, step=steps, code=torch.zeros_like(codes))
                velocity = blind + self.guidance * (velocity - blind)
            x = scheduler.step(velocity, step, x, use_clipped_model_output=True).prev_sample
        return x

    def save(self, folder: str | Path, *, training: dict[str, Any] | None = None) -> None:
        """Write ``model.safetensors`` (half precision) and ``config.json``, aside and renamed.

        Args:
            folder: Folder to make; one that stands there is replaced.
            training: What to note about the training.
        """
        from safetensors.torch import save

        with write_aside(folder) as aside:
            aside.mkdir()
            state = self.network.state_dict()
            half = {name: value.half().contiguous().cpu() for name, value in state.items()}
            (aside / "model.safetensors").write_bytes(save(half))
            write_json(
                aside / "config.json",
                {
                    "format": _FORMAT,
                    "network": self.network.config,
                    "encoder": self.encoder_name,
                    "preprocessing_hash": self.preprocessing_hash,
                    "training": training or {},
                },
            )

    @classmethod
    def load(
        cls,
        folder: str | Path = SHIPPED,
        *,
        encoder_name: str | None = None,
        preprocessing_hash: str | None = None,
        **settings: Any,
    ) -> "SmallDiffusion":
        """Load a saved generator.

        Args:
            folder: Folder with ``model.safetensors`` and ``config.json``; default: the weights for
                procedurally drawn pictures that come with the package.
            encoder_name: The encoder whose embeddings will be given; another one is refused.
            preprocessing_hash: That encoder's ``preprocessing_hash``; another one is refused.
            **settings: ``steps``, ``guidance``, ``strength``, ``batch_size``, ``device``.

        Raises:
            InputError: No such model in the folder, or trained on another encoder's embeddings.
        """
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config.get("format") != _FORMAT:
                raise ValueError(f"format {config.get('format')!r}")
            state = load_file(folder / "model.safetensors")
            network = ConditionalUNet(**config["network"])
            network.load_state_dict({name: value.float() for name, value in state.items()})
        except Exception as error:  # json, safetensors and torch each raise their own kinds
            raise InputError(
                expected=f"a small_diffusion model (config.json of format {_FORMAT!r} and model.safetensors)",
                found=f"{folder}: {str(error)[:200]}",
                fix="Name a folder that train_small_diffusion() wrote, or leave it out for the "
                "weights that come with the package.",
            ) from error
        asked = (encoder_name, preprocessing_hash)
        check_source(str(folder), (config["encoder"], config["preprocessing_hash"]), asked)
        return cls(
            network,
            encoder_name=config["encoder"],
            preprocessing_hash=config["preprocessing_hash"],
            **settings,
        )


def _noise(key: tuple[int, ...], size: int) -> Tensor:
    """Standard normal ``(3, size, size)`` that depends on the key alone."""
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator().manual_seed(state)
    return torch.randn(3, size, size, generator=generator)
