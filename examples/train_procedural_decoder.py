"""Train the decoder weights that come with the package, on procedurally drawn pictures.

    python examples/train_procedural_decoder.py --out neurobridge_tb/generation/weights/procedural_64 \
        --device cuda --dtype bfloat16 --workers 14

Pictures are drawn as they are needed, never the same twice, with seed 20001 and of all concepts that can be drawn; none
of the demo's (seed 0) is among them. The codes are fitted to pictures of seed 19999. What a reader of activity
knows of them is measured on three virtual animals of their own (seeds 101 to 103).
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neurobridge_tb.alignment.encoders import ImageEncoder, load_image_encoder
from neurobridge_tb.datasets import StimulusImages
from neurobridge_tb.engine.pictures.flow_training import train_flow
from neurobridge_tb.estimators.encoding_readout import EncodingReadout
from neurobridge_tb.generation.flow import FlowModel
from neurobridge_tb.generation.target_codes import TargetCodes
from neurobridge_tb.simulation import VentralStream, concept_names, draw_image, write_procedural_images
from neurobridge_tb.simulation.recording import draw_design, record

LAYERS = ["blocks.1@4x4", "blocks.2@4x4", "blocks.3@4x4", "blocks.4@4x4", "final"]
CONCEPTS = concept_names(2016)
ANIMALS, REPEATS = (101, 102, 103), 30


class DrawnPictures(Dataset):
    """Batches of freshly drawn pictures of random concepts; item k is the same in every run."""

    def __init__(self, batch_size: int, seed: int):
        self.batch_size, self.seed = batch_size, seed

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        drawn = [draw_image(CONCEPTS[rng.integers(len(CONCEPTS))], rng) for _ in range(self.batch_size)]
        return {"pictures": torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)}


def features(encoder: ImageEncoder, pictures: Tensor) -> dict[str, Tensor]:
    return encoder.targets(pictures, encoder.layers(LAYERS))


def information(encoder: ImageEncoder, codes: TargetCodes, animal: int) -> Tensor:
    """What 30 presentations to a virtual animal tell of the codes, (K, K)."""
    with TemporaryDirectory() as folder:
        train, test = write_procedural_images(folder, seed=animal)
        pictures = StimulusImages(folder, train + test).load(train + test)
    stream, rng = VentralStream("F", animal), np.random.default_rng(animal)
    design = draw_design(len(train), len(test), REPEATS, rng)
    drive = stream.drive(pictures.permute(0, 2, 3, 1).numpy())
    responses = record(drive, stream.electrodes, design, monkey="F", noise=1.0, rng=rng).normalised()
    once, repeated = design.rows()
    shown = torch.cat(list(features(encoder, pictures[: len(train)]).values()), 1)
    readout = EncodingReadout.fit(
        responses[once],
        codes(shown),
        codes.variance,
        repeats=(responses[repeated.ravel()], np.tile(np.arange(len(test)), REPEATS)),
    )
    return torch.from_numpy(readout.posterior(responses[repeated].mean(0), presentations=REPEATS)[1]).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained model")
    parser.add_argument("--autoencoder-steps", type=int, default=2100)
    parser.add_argument("--autoencoder-batch", type=int, default=384)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--components", type=int, default=500)
    parser.add_argument("--fitted-to", type=int, default=8064, help="pictures to which the codes are fitted")
    parser.add_argument("--animals", type=int, default=len(ANIMALS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw")
    options = parser.parse_args()
    encoder = load_image_encoder("timm:tf_efficientnet_lite2", image_size=96, device=options.device)
    of_layers = features(encoder, DrawnPictures(options.fitted_to, seed=19999)[0]["pictures"])
    widths = {layer: part.shape[1] for layer, part in of_layers.items()}
    codes = TargetCodes.fit(torch.cat(list(of_layers.values()), 1), widths, options.components)
    known = torch.stack([information(encoder, codes, animal) for animal in ANIMALS[: options.animals]])
    torch.manual_seed(0)
    model = FlowModel(widths, len(codes.variance))
    model.codes.load_state_dict(codes.state_dict())
    train_flow(
        model,
        lambda batch_size: DrawnPictures(batch_size, seed=20001),
        encoder,
        options.out,
        autoencoder_steps=options.autoencoder_steps,
        autoencoder_batch=options.autoencoder_batch,
        flow_steps=options.steps,
        flow_batch=options.batch_size,
        information=known,
        device=options.device,
        dtype=options.dtype,
        workers=options.workers,
        progress=lambda stage, done, total: print(stage, flush=True),
    )


if __name__ == "__main__":
    main()
