"""Pictures drawn by flow matching in an autoencoder's latents, from what is known of an image's features."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neurobridge_tb.alignment.encoders import ImageEncoder, load_image_encoder
from neurobridge_tb.alignment.layers import on_places
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.autoencoder import Autoencoder
from neurobridge_tb.generation.base import check_embeddings, check_pictures, check_source
from neurobridge_tb.generation.batches import draw_items
from neurobridge_tb.generation.flow_network import FlowNetwork
from neurobridge_tb.generation.folders import load_network, save_network
from neurobridge_tb.generation.target_codes import TargetCodes
from neurobridge_tb.hub import model_folder

SHIPPED = Path(__file__).parent / "weights" / "procedural_64"
Fit = Callable[[Tensor, Tensor], Tensor]


class FlowModel(nn.Module):
    """What is trained and saved together: codes of features, the autoencoder and the flow network.

    Args:
        layers: Width of each layer of the features, in order.
        components: Size K of the codes.
        autoencoder: Arguments of :class:`Autoencoder`.
        network: Arguments of :class:`FlowNetwork` besides ``condition_dim`` and ``latent_channels``.
    """

    def __init__(
        self,
        layers: Mapping[str, int],
        components: int,
        autoencoder: Mapping[str, Any] | None = None,
        network: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.codes = TargetCodes(layers, components)
        self.autoencoder = Autoencoder(**(autoencoder or {}))
        channels = self.autoencoder.config["latent_channels"]
        self.network = FlowNetwork(**{**(network or {}), "condition_dim": components, "latent_channels": channels})
        self.config: dict[str, Any] = {
            "layers": dict(layers),
            "components": components,
            "autoencoder": self.autoencoder.config,
            "network": self.network.config,
        }


class FlowDecoder:
    """Backend ``flow``: pictures from true features, or from codes that were read from activity.

    Args:
        model: The trained model.
        encoder_name: The image encoder whose features it was trained on.
        preprocessing_hash: Its preprocessing.
        steps: Steps of the flow; 1 draws the mean of all pictures that fit, which is blurred.
        guidance: How far each step follows the gradient of how well the picture's own features fit, in standard
            deviations of the latents; 0: not at all.
        candidates: Pictures drawn for each sample; the one whose own features fit best is kept. Guidance and several
            candidates need the encoder.
        batch_size: Pictures at a time.
        device: Where to draw.
    """

    def __init__(
        self,
        model: FlowModel,
        *,
        encoder_name: str,
        preprocessing_hash: str,
        steps: int = 8,
        guidance: float = 0.0,
        candidates: int = 1,
        batch_size: int = 64,
        device: str | torch.device = "cpu",
    ):
        if steps < 1 or candidates < 1 or not 0 <= guidance < float("inf"):
            raise InputError(
                expected="at least one step and one candidate, and guidance of 0 or more",
                found=f"steps={steps}, candidates={candidates}, guidance={guidance}",
                fix="8 steps and guidance of 0.1 are enough for sharp pictures.",
            )
        self.model = model.to(device).eval().requires_grad_(False)
        self.encoder_name, self.preprocessing_hash = encoder_name, preprocessing_hash
        self.steps, self.guidance, self.candidates, self.batch_size = steps, guidance, candidates, batch_size
        self.device = torch.device(device)

    def encode(self, features: Tensor) -> Tensor:
        """Codes ``(n, K)`` of features ``(n, D)``, the layers of :attr:`layers` side by side."""
        features = check_embeddings(features, len(self.model.codes.mean))
        return self.model.codes(features.to(self.device)).cpu()

    @property
    def layers(self) -> dict[str, int]:
        """Width of each layer of the features, in order."""
        return self.model.codes.layers

    def generate(
        self,
        embedding: Tensor,
        *,
        num_samples: int = 1,
        seed: int = 0,
        init_images: Tensor | None = None,
        information: Tensor | None = None,
    ) -> Tensor:
        """Draw pictures; see :meth:`ImageGenerator.generate`.

        Args:
            embedding: True features ``(B, D)``; with ``information``, the posterior means ``(B, K)`` of their codes.
            num_samples: Pictures S an item.
            seed: Same seed, same pictures.
            init_images: Not used.
            information: ``(K, K)`` precision that an observation adds to the codes' prior, which is standard normal;
                see :class:`neurobridge_tb.estimators.EncodingReadout`. Default: the codes are known.

        Raises:
            InputError: Features of another size, or values that are not finite.
        """
        size = self.model.network.config["condition_dim"]
        if information is None:
            mean, reliability = self.encode(embedding), torch.ones(size)
        else:
            mean, information = check_embeddings(embedding, size), information.cpu()
            reliability = (1 - torch.linalg.inv(torch.eye(size) + information).diagonal()).clamp(0, 1).float()
        shape = (self.model.network.latent_channels, self.model.network.grid, self.model.network.grid)
        fit = self._fit(mean, information)

        def draw(rows: Tensor, generators: list[torch.Generator]) -> Tensor:
            latents = self.model.network.sample(
                noise=torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device),
                condition=mean[rows].to(self.device),
                reliability=reliability.expand(len(rows), -1).to(self.device),
                steps=self.steps,
                correct=(lambda clean: self._towards(clean, rows, fit)) if self.guidance else None,
            )
            pictures = check_pictures(self.model.autoencoder.decode(latents))
            return pictures.clamp(0, 255).round().to(torch.uint8)

        drawn = draw_items(len(embedding), num_samples * self.candidates, draw, seed=seed, batch_size=self.batch_size)
        return drawn if self.candidates == 1 else self._choose(drawn, fit)

    def _fit(self, mean: Tensor, information: Tensor | None) -> Fit:
        """How well codes ``(n, K)`` fit the items of numbers ``(n,)``: the log-likelihood, up to a constant."""
        mean = mean.to(self.device)
        if information is None:  # the codes are known: how much of the features' variance is missed
            variance = self.model.codes.variance
            return lambda codes, rows: -((codes - mean[rows]).square() * variance).sum(-1)
        precision = information.to(self.device, torch.float32)
        evidence = mean + mean @ precision
        return lambda codes, rows: (codes * evidence[rows]).sum(-1) - ((codes @ precision) * codes).sum(-1) / 2

    @torch.enable_grad()
    def _towards(self, latents: Tensor, rows: Tensor, fit: Fit) -> Tensor:
        """Latents moved by ``guidance`` along the gradient of their picture's fit."""
        latents = latents.detach().requires_grad_()
        drawn = self.model.autoencoder.decode(latents)
        pictures = drawn + (drawn.clamp(0, 255) - drawn).detach()
        layers = self._encoder.layers(list(self.layers))
        maps = self._encoder.maps(pictures, [layer.module for layer in layers])
        codes = self.model.codes(torch.cat([on_places(maps, layer) for layer in layers], 1))
        (gradient,) = torch.autograd.grad(fit(codes, rows).sum(), latents)
        size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        return latents.detach() + self.guidance * gradient / size

    def _choose(self, drawn: Tensor, fit: Fit) -> Tensor:
        """Of each ``candidates`` pictures the one that fits best: ``(B, S * candidates, ...)`` to ``(B, S, ...)``."""
        features = self._encoder.targets(drawn.flatten(0, 1), self._encoder.layers(list(self.layers)))
        codes = self.model.codes(torch.cat(list(features.values()), 1).to(self.device))
        rows = torch.arange(len(drawn))
        fits = fit(codes, rows.repeat_interleave(drawn.shape[1])).view(len(drawn), -1, self.candidates).cpu()
        best = fits.argmax(2)
        return drawn.unflatten(1, (-1, self.candidates))[rows[:, None], torch.arange(best.shape[1]), best]

    @cached_property
    def _encoder(self) -> ImageEncoder:
        size = self.preprocessing_hash.partition("px")[0]
        return load_image_encoder(self.encoder_name, int(size) if size.isdigit() else None, self.device)

    def save(self, folder: str | Path, *, training: dict[str, Any] | None = None) -> None:
        """Write ``model.safetensors`` (half precision) and ``config.json``, aside and renamed.

        Args:
            folder: Folder to make; a decoder that stands there is replaced.
            training: What to note about the training.

        Raises:
            InputError: The folder holds anything but a decoder, or a weight is beyond half precision.
        """
        half = {name: value.half() for name, value in self.model.state_dict().items()}
        beyond = [name for name, value in half.items() if not torch.isfinite(value).all()]
        if beyond:
            raise InputError(
                expected="weights within half precision (65,504)",
                found=f"larger ones, or NaN, in {', '.join(beyond[:3])}",
                fix="The training diverged: train again with a lower learning rate.",
            )
        config = {
            "model": self.model.config,
            "encoder": self.encoder_name,
            "preprocessing_hash": self.preprocessing_hash,
            "training": training or {},
        }
        save_network(folder, "flow", half, config)

    @classmethod
    def load(
        cls,
        weights: str | Path = SHIPPED,
        *,
        encoder_name: str | None = None,
        preprocessing_hash: str | None = None,
        **settings: Any,
    ) -> "FlowDecoder":
        """Load a saved decoder.

        Args:
            weights: Folder with ``model.safetensors`` and ``config.json``, or ``"organisation/model"`` on the hub;
                default: the weights for drawn pictures that come with the package.
            encoder_name: The encoder whose features will be given; another one is refused.
            preprocessing_hash: Its preprocessing; another one is refused.
            **settings: ``steps``, ``guidance``, ``candidates``, ``batch_size``, ``device``.

        Raises:
            InputError: No such model in the folder, or one trained on another encoder's features.
        """
        model, config = load_network(model_folder(weights), "flow", lambda config: FlowModel(**config["model"]))
        stored = config["encoder"], config["preprocessing_hash"]
        check_source(str(weights), stored, (encoder_name, preprocessing_hash))
        return cls(model, encoder_name=stored[0], preprocessing_hash=stored[1], **settings)
