"""Train decoders on any pictures and their features by any image encoder."""

from pathlib import Path
from typing import Any

import torch

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.alignment.encoders import load_image_encoder
from neurobridge_tb.alignment.source import describe_source, same_source
from neurobridge_tb.configs.train_decoder import TrainDecoderConfig
from neurobridge_tb.datasets.image_binding import held_out_images
from neurobridge_tb.datasets.stimuli import StimulusImages, find_images
from neurobridge_tb.devices import allow_tf32, find_device
from neurobridge_tb.engine.config import settle
from neurobridge_tb.engine.pictures.adapter_training import BACKENDS, train_adapter
from neurobridge_tb.engine.pictures.flow_training import AUTOENCODER_BATCH, FLOW_BATCH, StoredPictures, train_flow
from neurobridge_tb.engine.pictures.step_training import Progress, Schedule, contents_of
from neurobridge_tb.errors import InputError
from neurobridge_tb.generation.autoencoder import FACTOR
from neurobridge_tb.generation.flow import SHIPPED, FlowDecoder, FlowModel
from neurobridge_tb.generation.target_codes import TargetCodes
from neurobridge_tb.progress import progress_bars

_IMAGE_SIZE = 64
_FLOW_STEPS, _ADAPTER_STEPS = 8000, 2000
_COMPONENTS = 500
_AUTOENCODER_SHARE = 0.25  # of the steps
_USUAL_INFORMATION = 25.0  # about the leading code, from 30 presentations to one of the simulator's animals
_DTYPES = {"32-true": "float32", "tf32": "float32", "bf16-mixed": "bfloat16"}  # of precision; float16 would overflow
_OWN_CODES = ("codes.", "network.layout.", "network.trust.", "network.content.0.")


def train_decoder(config: TrainDecoderConfig | None = None, /, **settings: Any) -> Path:
    """Train a decoder from features to pictures on a folder of images, or resume it; returns its folder.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`TrainDecoderConfig`.
        **settings: Settings by name, e.g. ``images="images", embeddings="embeddings.h5", steps=2000``; see
            :func:`~neurobridge_tb.engine.config.settle`.

    Raises:
        InputError: A backend that cannot be trained, an option that it does not have, or no images.
    """
    config = settle(TrainDecoderConfig, config, settings)
    _check_options(config)
    allow_tf32(config.precision)
    cache = EmbeddingCache.load(config.embeddings)
    left_out = held_out_images(config.images, config.exclude) if config.exclude is not None else set()
    ids = [image_id for image_id in find_images(config.images) if image_id not in left_out]
    stimuli = StimulusImages(config.images, ids)
    if left_out:  # copies of them, too
        stimuli = stimuli.without(StimulusImages(config.images, sorted(left_out)).fingerprints())
    with progress_bars() as progress:
        if config.backend == "flow":
            _train_flow(config, cache, stimuli, progress)
        else:
            train_adapter(
                config.backend,
                stimuli,
                cache,
                config.run_dir,
                Schedule(config.steps or _ADAPTER_STEPS, lr=config.lr or 1e-4),
                weights=config.weights,
                image_size=config.image_size,
                batch_size=config.batch_size or 8,
                device=find_device(config.device),
                dtype=_DTYPES[config.precision],
                seed=config.seed,
                progress=progress,
            )
    return Path(config.run_dir)


def _train_flow(config: TrainDecoderConfig, cache: EmbeddingCache, stimuli: StimulusImages, progress: Progress) -> None:
    size = config.image_size or _IMAGE_SIZE
    encoder = load_image_encoder(cache.encoder, _size_of(cache.preprocessing_hash), find_device(config.device))
    made_by = cache.encoder, cache.preprocessing_hash
    if not same_source(made_by, (encoder.name, encoder.preprocessing_hash)):
        raise InputError(
            expected=f"features of {describe_source(encoder.name, encoder.preprocessing_hash)}",
            found=f"those of {describe_source(*made_by)}",
            fix="Embed the images anew with 'neurobridge embed'.",
        )
    features = cache.lookup(stimuli.ids)
    fitted = TargetCodes.fit(features, cache.layers, _COMPONENTS)
    torch.manual_seed(config.seed)
    model = FlowModel(cache.layers, len(fitted.variance), network={"grid": size // FACTOR})
    if not config.from_scratch:
        _go_on_from(model, FlowDecoder.load(config.start or SHIPPED).model)
    model.codes.load_state_dict(fitted.state_dict())
    pictures, codes = stimuli.load(stimuli.ids, size), fitted(features)
    image_files = sorted(stimuli.fingerprints())
    steps = config.steps or _FLOW_STEPS
    autoencoder_steps = round(_AUTOENCODER_SHARE * steps)
    train_flow(
        model,
        lambda batch_size: StoredPictures(pictures, codes, batch_size, config.seed),
        encoder,
        config.run_dir,
        autoencoder_steps=autoencoder_steps,
        flow_steps=max(1, steps - autoencoder_steps),
        information=torch.diag(_USUAL_INFORMATION * fitted.variance / fitted.variance[0])[None],
        autoencoder_batch=config.batch_size or AUTOENCODER_BATCH,
        flow_batch=config.batch_size or FLOW_BATCH,
        lr=config.lr or 1e-3,
        settings={"images": len(pictures), "contents": contents_of(image_files, features)},
        described={"image_files": image_files},
        device=find_device(config.device),
        dtype=_DTYPES[config.precision],
        seed=config.seed,
        progress=progress,
    )


def _size_of(preprocessing: str) -> int | None:
    size = preprocessing.partition("px-")[0]
    return int(size) if size.isdigit() else None


def _go_on_from(model: FlowModel, trained: FlowModel) -> None:
    """Take over all weights that do not depend on what the codes mean, where the shapes agree."""
    ours, theirs = model.state_dict(), trained.state_dict()
    fits = {k: v for k, v in theirs.items() if k in ours and v.shape == ours[k].shape and not k.startswith(_OWN_CODES)}
    model.load_state_dict({**ours, **fits})


def _check_options(config: TrainDecoderConfig) -> None:
    wrong = ""
    if config.backend not in ("flow", *BACKENDS):
        wrong = f"backend {config.backend}"
    elif config.precision not in _DTYPES:
        wrong = f"precision {config.precision}"
    elif config.backend == "flow" and config.weights is not None:
        wrong = "weights for flow, which goes on from `start`"
    elif config.backend in BACKENDS and (config.start is not None or config.from_scratch):
        wrong = f"a start for {config.backend}, which has none"
    if wrong:
        raise InputError(
            expected="the backend flow (with or without a start), or sd_adapter or ip_adapter with weights; precision "
            + " or ".join(_DTYPES),
            found=wrong,
            fix="Correct these options.",
        )
