"""Settings of ``reconstruct``."""

from dataclasses import dataclass
from typing import Any, ClassVar

from neurobridge_tb.configs.parts import PairsConfig
from neurobridge_tb.configs.settings import REQUIRED, setting


@dataclass
class FlowConfig:
    """Flow matching in an autoencoder's latents."""

    weights: str | None = setting(
        None, "Folder made by `neurobridge train-decoder`; null: the packaged one, for drawn images.", path=True
    )
    steps: int = setting(8, "Steps of the flow; 1 draws a blurred mean.")
    guidance: float = setting(0.1, "How far each step moves towards what fits the activity best; 0: not at all.")
    candidates: int = setting(2, "Pictures drawn for each sample; the one that fits the activity best is kept.")


@dataclass
class StableDiffusionConfig:
    """What the backends with Stable Diffusion share."""

    weights: str | None = setting(None, "Hub id or folder; null: what the adapter was trained for.", path=True)
    image_size: int | None = setting(None, "Pixels; null: the model's own.")
    guidance: float = setting(5.0, "Weight of classifier-free guidance.")
    steps: int = setting(30, "Denoising steps.")
    batch_size: int = setting(4, "Pictures at a time.")


@dataclass
class StableUnclipConfig(StableDiffusionConfig):
    """Stable unCLIP."""

    weights: str | None = setting(None, "Hub id or folder of a StableUnCLIPImg2ImgPipeline.", path=True)
    guidance: float = setting(10.0, "Weight of classifier-free guidance.")
    steps: int = setting(20, "Denoising steps.")
    noise_level: int = setting(0, "0-999: noise on the embedding, which forgives errors in it.")


@dataclass
class SdAdapterConfig(StableDiffusionConfig):
    """Stable Diffusion with an adapter."""

    adapter: str | None = setting(None, "Folder made by `neurobridge train-decoder backend=sd_adapter`.", path=True)
    strength: float = setting(0.8, "1: from the embedding alone; below: from the ridge picture's layout.")


@dataclass
class IpAdapterConfig(StableDiffusionConfig):
    """Stable Diffusion with an IP-Adapter."""

    adapter: str | None = setting(
        None, "Folder made by `neurobridge train-decoder backend=ip_adapter`, or a .safetensors file.", path=True
    )
    scale: float = setting(1.0, "Weight of the adapter's attention.")
    strength: float = setting(0.8, "1: from the embedding alone; below: from the ridge picture's layout.")


@dataclass
class JudgeConfig:
    """The network whose features judge the pictures, beside the standard ones with local weights."""

    encoder: str = setting("timm:tf_efficientnet_lite1", "timm:NAME[@WEIGHTS] or open_clip:NAME/TAG.")
    image_size: int = setting(240, "Pixels.")


@dataclass
class ReconstructConfig(PairsConfig):
    """Pictures of the test images from neural activity, beside nearest image and ridge pixels, with metrics.

    Example: neurobridge reconstruct dataset.root=processed aligned=runs/align embeddings=embeddings.h5 images=images
    """

    groups: ClassVar[dict[str, str]] = {"dataset": "tvsd"}

    run_dir: str = setting("runs/reconstruct", "Folder of the results.", path=True)
    aligned: str = setting("runs/align", "Run folder of `neurobridge align`.", path=True)
    images: str = setting(
        REQUIRED, "Folder of the stimulus images, or a binding made by `neurobridge images`.", path=True
    )
    features: str | None = setting(
        None,
        "For flow: file made by `neurobridge embed` with its decoder's layers; null: embeddings.",
        source=True,
    )
    image_size: int = setting(64, "Pixels.")
    backends: list[str] = setting(
        ["nearest", "ridge_pixels", "flow"],
        "nearest, ridge_pixels, flow, stable_unclip, sd_adapter, ip_adapter, your own.",
    )
    modules: list[str] = setting([], "Modules to import first: they register your own with register_generator().")
    num_samples: int = setting(1, "Pictures of each image.")
    candidates: int = setting(
        1, "Backends but flow: draw so many a sample; the one whose embedding is nearest to the predicted one is kept."
    )
    flow: FlowConfig = setting(FlowConfig(), "Flow matching in an autoencoder's latents.")
    stable_unclip: StableUnclipConfig = setting(StableUnclipConfig(), "Stable unCLIP.")
    sd_adapter: SdAdapterConfig = setting(SdAdapterConfig(), "Stable Diffusion with an adapter.")
    ip_adapter: IpAdapterConfig = setting(IpAdapterConfig(), "Stable Diffusion with an IP-Adapter.")
    options: dict[str, Any] = setting({}, "Options of backends of your own, e.g. options.mine.steps=20.")
    judge: JudgeConfig = setting(JudgeConfig(), "The network whose features judge the pictures.")
