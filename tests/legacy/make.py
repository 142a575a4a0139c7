"""Made the models of this folder and ``outputs.safetensors``, once, with the code of commit 40538b3.

git checkout 40538b3 && python tests/legacy/make.py

One model folder and one Lightning checkpoint of each kind, tiny, with parameters that all matter. They must load for
ever, with equal outputs on two windows of ``legacy.h5``, at 1 s and at 2 s; all but the forecaster's, whose network is
another one since, and which must be refused.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from neurobridge_tb import ImageAligner, NeuroBridgeModel
from neurobridge_tb._upstream import DatasetIndex, collate
from neurobridge_tb.datasets import BinnedRecordings, build_recording, save_recording
from neurobridge_tb.masking import Mask
from neurobridge_tb.models import BehaviorDecoder
from neurobridge_tb.models.neurohorizon import NeuroHorizonModel
from neurobridge_tb.vision_imports import prepare_torchvision

FOLDER = Path(__file__).parent
SIZES = dict(latent_step=0.25, num_latents_per_step=2, dim=16, depth=1, dim_head=8, self_heads=2, dim_population=8)
LENGTH, BIN = 1.0, 0.05


def make_recording() -> None:
    """Six units in two areas: spikes, their counts and an envelope, of which some values are absent."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.4, (400, 6)).astype(np.uint8)
    bins, units = np.nonzero(counts)
    times = (bins + rng.uniform(0, 1, len(bins))) * BIN
    order = np.argsort(times)
    envelope = np.float32(rng.normal(3.0, 2.0, (400, 6)))
    envelope[22:24, 4] = np.nan
    recording = build_recording(
        brainset_id="legacy",
        session_id="legacy",
        subject_id="subject",
        units={"id": [f"u{i}" for i in range(6)], "area": ["A", "A", "A", "B", "B", "B"]},
        spikes=(times[order], units[order]),
        counts=(counts, BIN),
        mua=(envelope, BIN),
        splits={"train": ([0.0], [15.0]), "valid": ([15.0], [20.0])},
        simulated=True,
    )
    save_recording(recording, FOLDER / "legacy.h5")


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Biases, gains and rows that start at zero matter too."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def save_checkpoint(model: torch.nn.Module, path: Path) -> None:
    """A checkpoint as a run writes it."""
    prepare_torchvision()
    import lightning as L

    module = L.LightningModule()
    module.save_hyperparameters({"model": {"class": type(model).__name__, "config": model.config}})
    module.model = model
    module.configure_optimizers = lambda: None
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)


def make_encoder(dataset: BinnedRecordings, modality: str) -> NeuroBridgeModel:
    torch.manual_seed(0)
    model = NeuroBridgeModel(modality=modality, sequence_length=LENGTH, bin_size=BIN, **SIZES)
    model.init_vocabs(dataset)
    model.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    return shaken(model)


@torch.no_grad()
def main() -> None:
    make_recording()
    dataset = BinnedRecordings(root=FOLDER)
    windows = [dataset[DatasetIndex("legacy", start, start + LENGTH)] for start in (1.0, 2.0)]
    target = np.zeros((20, 6), dtype=bool)
    target[:, :2] = target[15:] = True
    outputs = {}
    for modality in ("mua", "spike_counts", "spikes"):
        model = make_encoder(dataset, modality)
        batch = collate([model.tokenize(w, Mask("neuron", ~target, target)) for w in windows])
        output = model(**batch["model_inputs"])
        asked = batch["model_inputs"]["output_mask"]
        outputs[f"neurobridge_{modality}"] = output.masked_fill(~asked, 0.0)
        outputs[f"neurobridge_{modality}.loss"] = model.masked_loss(output, batch)
        model.save_pretrained(FOLDER / f"neurobridge_{modality}")
        save_checkpoint(model, FOLDER / f"neurobridge_{modality}.ckpt")

    encoder = make_encoder(dataset, "mua")
    aligner = ImageAligner(
        encoder=encoder.config, image_encoder="timm:net", preprocessing_hash="abc", dim_embedding=12, num_queries=2,
        dim_hidden=16, linear_path=True,
    )  # fmt: skip
    aligner.set_encoder(encoder)
    aligner.fit_embedding_statistics(torch.randn(20, 12) + 1)
    shaken(aligner)
    inputs = collate([encoder.tokenize(w) for w in windows])["model_inputs"]
    outputs["aligner.contrastive"], outputs["aligner.regression"] = aligner(**inputs)
    aligner.save_pretrained(FOLDER / "aligner")
    save_checkpoint(aligner, FOLDER / "aligner.ckpt")

    decoder = BehaviorDecoder(encoder=make_encoder(dataset, "spike_counts").config, dim_out=2)
    decoder.init_vocabs(dataset)
    decoder.encoder.fit_unit_statistics(dataset, dataset.get_sampling_intervals("train"))
    shaken(decoder)
    inputs = collate([decoder.tokenize(w) for w in windows])
    outputs["behavior_decoder"] = decoder(**inputs)
    decoder.save_pretrained(FOLDER / "behavior_decoder")
    save_checkpoint(decoder, FOLDER / "behavior_decoder.ckpt")

    torch.manual_seed(0)
    horizon = NeuroHorizonModel(
        modality="spikes", history=0.5, horizon=0.5, bin_size=BIN, latent_step=0.25, num_latents_per_step=2,
        dim_feedback=8, dim_hidden=8, dim_identity=8, unit_identity="features",
        encoder={k: v for k, v in SIZES.items() if k not in ("latent_step", "num_latents_per_step")},
    )  # fmt: skip
    horizon.init_vocabs(dataset)
    features = {"legacy": np.random.default_rng(0).uniform(0, 5, (6, 33)).astype(np.float32)}
    horizon.fit_units(dataset, dataset.get_sampling_intervals("train"), features)
    shaken(horizon)
    horizon.save_pretrained(FOLDER / "neurohorizon")
    save_checkpoint(horizon, FOLDER / "neurohorizon.ckpt")
    save_file({k: v.contiguous() for k, v in outputs.items()}, FOLDER / "outputs.safetensors")


if __name__ == "__main__":
    main()
