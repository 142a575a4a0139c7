"""Pictures from image embeddings by a small diffusion model, in pixels or in the latents of an autoencoder.

DDIM (Song et al. 2021) with classifier-free guidance (Ho & Salimans 2022). It starts from noise, or
from a noised low-level guess (``init_images``), as SDEdit does (Meng et al. 2022). On the way the image
encoder can look at the picture so far, and its gradient pull it towards the embedding: CLIP-guided
diffusion, with the encoder in CLIP's place (Bansal et al. 2023, https://arxiv.org/abs/2302.07121). Weights for
the procedurally drawn pictures come with the package; ``training.decoder`` trains others on any folder.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from neurobridge_tb.alignment.encoders import ImageEncoder, load_image_encoder
from neurobridge_tb.alignment.source import same_source
from neurobridge_tb.errors import InputError
from neurobridge_tb.files import write_json
from neurobridge_tb.generation.autoencoder import BOUND, FACTOR, Autoencoder
from neurobridge_tb.generation.base import check_embeddings, check_init_images, check_source
from neurobridge_tb.generation.batches import draw_items
from neurobridge_tb.generation.conditional_unet import (
    ConditionalUNet,
    noise_schedule,
    to_signed,
    to_uint8,
)
from neurobridge_tb.generation.folders import write_decoder

SHIPPED = Path(__file__).parent / "weights" / "procedural_64"
_FORMAT = "neurobridge small_diffusion 1"


class SmallDiffusion:
    """Generator over a :class:`ConditionalUNet`.

    Args:
        network: The trained network.
        encoder_name: Name of the image encoder whose embeddings it was trained on.
        preprocessing_hash: That encoder's preprocessing.
        autoencoder: The autoencoder in whose latents the network works; default: it works on pixels.
        steps: DDIM steps; fewer give smoother pictures, closer to the mean of what is possible.
        guidance: Weight of classifier-free guidance; 1 is none.
        strength: With ``init_images``: share of the steps that are run. 0 returns the init image, 1
            ignores it.
        encoder: The image encoder itself, for ``embedding_guidance``.
        embedding_guidance: How far each step goes towards a higher cosine between the embedding of the picture so far
            and the one asked for, both centred; in deviations of the noise. 0 is none.
        batch_size: Pictures a forward pass.
        device: Where the network runs.

    Raises:
        InputError: No steps, a strength beyond [0, 1], or embedding guidance without the encoder.
    """

    def __init__(
        self,
        network: ConditionalUNet,
        *,
        encoder_name: str,
        preprocessing_hash: str,
        autoencoder: Autoencoder | None = None,
        steps: int = 10,
        guidance: float = 2.0,
        strength: float = 0.7,
        encoder: ImageEncoder | None = None,
        embedding_guidance: float = 0.0,
        batch_size: int = 32,
        device: str | torch.device = "cpu",
    ):
        if steps < 1 or not 0 <= strength <= 1:
            raise InputError(
                expected="at least one step and a strength from 0 to 1",
                found=f"steps={steps}, strength={strength}",
                fix="Set them within these bounds.",
            )
        if embedding_guidance:
            found = None if encoder is None else (encoder.name, encoder.preprocessing_hash)
            if found is None or not same_source(found, (encoder_name, preprocessing_hash)):
                raise InputError(
                    expected=f"for embedding_guidance, the encoder {encoder_name} (preprocessing {preprocessing_hash})",
                    found="none" if found is None else f"{found[0]} (preprocessing {found[1]})",
                    fix="Set encoder_image_size to the image size of `neurobridge embed`, or embedding_guidance to 0.",
                )
        self.device = torch.device(device)
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.autoencoder = None if autoencoder is None else autoencoder.to(self.device)
        self.encoder_name, self.preprocessing_hash = encoder_name, preprocessing_hash
        self.steps, self.guidance, self.strength = steps, guidance, strength
        self.encoder, self.embedding_guidance = encoder, embedding_guidance
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
        if init_images is not None:
            check_init_images(init_images, len(embedding))
        shape = (self.network.data_channels, self.network.image_size, self.network.image_size)

        def draw(rows: Tensor, generators: list[torch.Generator]) -> Tensor:
            noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
            wanted = embedding[rows].float().to(self.device)
            start = None if init_images is None else self._encode(init_images[rows])
            return self._pictures(self._sample(noise.to(self.device), wanted, start)).round().to(torch.uint8)

        return draw_items(len(embedding), num_samples, draw, seed=seed, batch_size=self.batch_size)

    def _encode(self, pictures: Tensor) -> Tensor:
        """uint8 pictures of any size to what the network denoises."""
        side = self.network.image_size * (1 if self.autoencoder is None else FACTOR)
        signed = to_signed(pictures.to(self.device))
        if signed.shape[2:] != (side, side):
            signed = F.interpolate(signed, size=(side, side), mode="bicubic", antialias=True)
        return signed if self.autoencoder is None else self.autoencoder.encode(to_uint8(signed))

    def _pictures(self, values: Tensor) -> Tensor:
        """What the network denoises, as pictures in [0, 255]; lets gradients through."""
        return (values.clamp(-1, 1) + 1) * 127.5 if self.autoencoder is None else self.autoencoder.decode(values)

    def _sample(self, noise: Tensor, wanted: Tensor, init: Tensor | None) -> Tensor:
        """One batch: noise ``(b, C, size, size)`` and embeddings ``(b, E)`` to pictures in [-1, 1] or latents."""
        codes = self.network.code(wanted)
        scheduler = noise_schedule(1.0 if self.autoencoder is None else BOUND)
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
            if self.embedding_guidance:
                velocity = velocity - self.embedding_guidance * self._towards(wanted, x, velocity, step)
            x = scheduler.step(velocity, step, x, use_clipped_model_output=True).prev_sample
        return x

    def _towards(self, wanted: Tensor, x: Tensor, velocity: Tensor, step: Tensor) -> Tensor:
        """Where the picture has to go to be more like the embeddings ``wanted``, at a root mean square of 1.

        This is the gradient of the cosine, times the covariance of what the noise leaves open: the mean moves so if the
        likeness is one more observation. Without it the gradient goes into fine detail that no picture has.
        """
        assert self.encoder is not None
        signal = self.network.signal[step]
        with torch.enable_grad():
            clean = (signal * x - (1 - signal**2).sqrt() * velocity).requires_grad_()
            seen = self.encoder.embed(self._pictures(clean))
            likeness = torch.cosine_similarity(seen - self.network.mean, wanted - self.network.mean).sum()
            (gradient,) = torch.autograd.grad(likeness, clean)
        towards = self.network.covary(gradient, step)
        return towards / towards.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)

    def save(self, folder: str | Path, *, training: dict[str, Any] | None = None) -> None:
        """Write ``model.safetensors`` (half precision) and ``config.json``, aside and renamed.

        Args:
            folder: Folder to make; one that stands there is replaced.
            training: What to note about the training.
        """
        from safetensors.torch import save

        with write_decoder(folder) as aside:
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
                    "autoencoder": self.autoencoder
                    and {"folder": str(self.autoencoder.folder), "fingerprint": self.autoencoder.fingerprint},
                    "training": training or {},
                },
            )

    @classmethod
    def load(
        cls,
        weights: str | Path = SHIPPED,
        *,
        encoder_name: str | None = None,
        preprocessing_hash: str | None = None,
        autoencoder: str | Path | None = None,
        embedding_guidance: float = 0.0,
        encoder_image_size: int | None = None,
        **settings: Any,
    ) -> "SmallDiffusion":
        """Load a saved generator.

        Args:
            weights: Folder with ``model.safetensors`` and ``config.json``; default: the weights for
                procedurally drawn pictures that come with the package.
            encoder_name: The encoder whose embeddings will be given; another one is refused.
            preprocessing_hash: That encoder's ``preprocessing_hash``; another one is refused.
            autoencoder: Folder of the autoencoder of a model that draws in latents; default: where it lay in training.
            embedding_guidance: See the class.
            encoder_image_size: The encoder's input size, for embedding guidance; default: the encoder's own.
            **settings: ``steps``, ``guidance``, ``strength``, ``batch_size``, ``device``.

        Raises:
            InputError: No such model in the folder, trained on another encoder's embeddings, or in the latents of an
                autoencoder that is missing or another one; embedding guidance by an encoder of another image size.
        """
        from safetensors.torch import load_file

        folder = Path(weights)
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
        encoder = None
        try:
            if embedding_guidance:
                encoder = load_image_encoder(config["encoder"], encoder_image_size, settings.get("device", "cpu"))
        except InputError as error:
            raise InputError(
                expected=f"{error.expected}, for embedding_guidance",
                found=error.found,
                fix=f"{error.fix} Or set embedding_guidance to 0.",
            ) from error
        return cls(
            network,
            encoder=encoder,
            embedding_guidance=embedding_guidance,
            encoder_name=config["encoder"],
            preprocessing_hash=config["preprocessing_hash"],
            autoencoder=_find_autoencoder(folder, config.get("autoencoder"), autoencoder),
            **settings,
        )


def _find_autoencoder(folder: Path, noted: dict[str, str] | None, given: str | Path | None) -> Autoencoder | None:
    """The autoencoder that a model notes, from where it says or from where it is said to be now."""
    if noted is None:
        return None
    found = Autoencoder.load(given or noted["folder"])
    if found.fingerprint != noted["fingerprint"]:
        raise InputError(
            expected=f"the autoencoder of fingerprint {noted['fingerprint']}, in whose latents {folder} was trained",
            found=f"{found.fingerprint} in {found.folder}",
            fix="Name the folder of that one as `autoencoder`, or train the decoder anew.",
        )
    return found
