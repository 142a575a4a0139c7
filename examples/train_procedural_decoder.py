"""Train the decoder weights that come with the package, on procedurally drawn pictures.

    python examples/train_procedural_decoder.py --out neurobridge_tb/generation/weights/procedural_64

Pictures are drawn with seed 1000 and up, so that none of the demo's (seed 0) is among them; the
concepts are all that can be drawn. Takes about five minutes to draw and encode, then --minutes.
"""

import argparse
import zlib
from pathlib import Path

import numpy as np
import torch

from neurobridge_tb.alignment.encoders import DEFAULT_ENCODER, load_image_encoder
from neurobridge_tb.files import write_aside
from neurobridge_tb.jobs.train_decoder import DEFAULT_NETWORK, train_small_diffusion
from neurobridge_tb.simulation.procedural import concept_names, draw_image

ALL_CONCEPTS = 2016


def draw(per_concept: int, seed: int) -> torch.Tensor:
    """uint8 pictures (n, 3, 64, 64), ``per_concept`` of every concept."""
    pictures = []
    for concept in concept_names(ALL_CONCEPTS):
        rng = np.random.default_rng([seed, zlib.crc32(concept.encode())])
        pictures += [draw_image(concept, rng, 64) for _ in range(per_concept)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained model")
    parser.add_argument("--data", type=Path, default=Path("procedural_pictures.pt"))
    parser.add_argument("--per-concept", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--bf16", action="store_true", help="faster on processors with bfloat16")
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    encoder = load_image_encoder(DEFAULT_ENCODER, image_size=128)
    if not options.data.exists():
        pictures = draw(options.per_concept, options.seed)
        print(f"drew {len(pictures)} pictures", flush=True)
        embeddings = encoder.encode(pictures)
        with write_aside(options.data) as aside:
            torch.save({"pictures": pictures, "embeddings": embeddings}, aside)
    data = torch.load(options.data, weights_only=True)
    train_small_diffusion(
        data["pictures"],
        data["embeddings"],
        options.out,
        encoder_name=encoder.name,
        preprocessing_hash=encoder.preprocessing_hash,
        max_minutes=options.minutes,
        batch_size=options.batch_size,
        lr=options.lr,
        bf16=options.bf16,
        seed=options.seed,
        network=DEFAULT_NETWORK,
        progress=lambda stage, done, total: print(f"{done:.3f} {stage}", flush=True),
    )


if __name__ == "__main__":
    main()
