"""Alignment of a pretrained encoder with image embeddings, in two stages."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L

from neurobridge_tb.alignment.cache import EmbeddingCache
from neurobridge_tb.configs.align import AlignConfig
from neurobridge_tb.data.masked_windows import masked_loaders
from neurobridge_tb.data.pairs import PairBatches
from neurobridge_tb.data.responses import check_test_images, pair_splits
from neurobridge_tb.datasets import is_simulated
from neurobridge_tb.devices import place
from neurobridge_tb.engine.config import files_of, open_dataset, settle
from neurobridge_tb.engine.epoch_seeds import EpochSeeds, PairEpochs
from neurobridge_tb.engine.modules.alignment import AlignmentModule
from neurobridge_tb.engine.run_folder import RunFolder
from neurobridge_tb.engine.saved_settings import masking_of_run
from neurobridge_tb.engine.starts.linear_start import fit_linear_path
from neurobridge_tb.errors import InputError
from neurobridge_tb.models import ImageAligner, NeuroBridgeModel
from neurobridge_tb.processes import is_first_process
from neurobridge_tb.progress import say
from neurobridge_tb.scoring.masked.masked_rows import masked_scores


def align(config: AlignConfig | None = None, /, **settings: Any) -> Path:
    """Run both stages, or resume them; returns the run folder.

    Args:
        config: Complete settings, of the command or of a Hydra script. Default: those of :class:`AlignConfig`.
        **settings: Settings by name, e.g. ``root="processed", embeddings="embeddings.h5"``; see
            :func:`~neurobridge_tb.engine.config.settle`.
    """
    config = settle(AlignConfig, config, settings)
    max_epochs = config.stage1.epochs + config.stage2.epochs
    if not max_epochs and not config.readout.linear_path:
        raise InputError(
            expected="an epoch of training, or readout.linear_path=true, which starts in closed form",
            found="stage1.epochs=0, stage2.epochs=0 and readout.linear_path=false",
            fix="Set stage1.epochs.",
        )
    began, dataset = time.monotonic(), open_dataset(config.dataset)
    run = RunFolder(config, files_of(dataset))
    L.seed_everything(config.seed, verbose=False)
    encoder = NeuroBridgeModel.from_pretrained(config.pretrained)
    embeddings = EmbeddingCache.load(config.embeddings, layers=config.layers)
    model = ImageAligner(
        encoder=encoder.config,
        image_encoder=embeddings.encoder,
        preprocessing_hash=embeddings.preprocessing_hash,
        dim_embedding=embeddings.dim,
        layers=embeddings.layers,
        **asdict(config.readout),
    )
    model.set_encoder(encoder)
    say("Reading the responses")
    splits = [pair_splits(dataset, encoder, recording_id, config) for recording_id in dataset.recording_ids]
    check_test_images(dict(zip(dataset.recording_ids, splits, strict=True)), embeddings, config)
    size = config.loader.batch_size
    train = PairBatches([s["train"] for s in splits], embeddings, batch_size=size, shuffle=True, seed=config.seed)
    valid = PairBatches([s["valid"] for s in splits], embeddings, batch_size=size)
    images = [id_ for s in splits for id_ in dict.fromkeys(s["train"].image_ids.tolist())]
    model.fit_embedding_statistics(embeddings.lookup(images))

    replayed = replace(config.loader, batch_size=min(size, config.stage2.replay_batch))
    masking = masking_of_run(Path(config.pretrained)) or config.masking
    masked_train, masked_valid = masked_loaders(replace(config, loader=replayed, masking=masking), dataset, encoder)
    stage1_model = run.path / "model_stage1" if config.stage2.epochs else run.model
    module = AlignmentModule(model, config, masked_train, (stage1_model, run.model))
    callbacks = [PairEpochs(config.seed, train, valid), EpochSeeds(config.seed, masked_train)]
    trainer = run.trainer(
        replace(config.trainer, max_epochs=max_epochs), callbacks, monitor="val/loss", some_unused=True
    )
    if model.linear is not None:
        of_train, of_valid = (list(zip(p.recordings, p.targets, strict=True)) for p in (train, valid))
        found, train.linear = fit_linear_path(model, of_train, of_valid, seed=config.seed)
        module.temperature.set(found["temperature"])
        if run.resumed is None:
            run.note("linear_start.json", found)
            if is_first_process():
                model.save_pretrained(run.start)
            trainer.validate(module, valid, verbose=False)  # what training has to improve upon
    run.fit(trainer, module, train, valid)
    if not trainer.is_global_zero:
        return run.path  # the first process alone goes on

    say("Scoring what was forgotten")
    final = place(ImageAligner.load_pretrained(run.model).encoder.eval(), config)
    start = place(NeuroBridgeModel.from_pretrained(config.pretrained).eval(), config)
    before, after = (masked_scores(encoder, masked_valid) for encoder in (start, final))
    run.note(
        "metrics.json",
        {
            "dataset": ", ".join(dataset.recording_ids),
            "simulated": is_simulated(dataset),
            "command": config.command,
            "forgetting": [
                {"scheme": b["scheme"], "metric": b["metric"], "before": b["model"], "after": a["model"]}
                for b, a in zip(before, after, strict=True)
            ],
            "seconds": time.monotonic() - began,
        },
    )
    return run.path
