"""One command for each job."""

from importlib import import_module

import click

_JOBS = {
    "pretrain": "Masked pretraining of a NeuroBridgeModel. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge pretrain dataset=tvsd dataset.root=processed model=small trainer.max_epochs=50",
    "adapt": "Adapt a trained model to new recordings: rows for their units and sessions, and with mode=gradual the "
    "rest of the model after them. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge adapt dataset=binned dataset.root=processed pretrained=runs/pretrain/model mode=units",
    "probe": "Linear probe of a pretrained encoder: R^2 of a behaviour from its frozen latents, beside random weights "
    "and raw activity.\n\n"
    "Example: neurobridge probe dataset=binned dataset.root=processed pretrained=runs/pretrain/model "
    "target=hand_velocity_2d",
    "score": "Bits/spike of a pretrained model where fixed masks hide units, areas or the future, beside a "
    "Poisson GLM on the same inputs.\n\n"
    "Example: neurobridge score dataset=binned dataset.root=processed pretrained=runs/pretrain/model "
    "'tasks=[co_smoothing, intra_region, inter_region]'",
    "finetune": "Fine-tune a pretrained encoder on a continuous behaviour, beside the same network from scratch, a "
    "GRU, POYO and ridge on the same labels. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge finetune dataset=binned dataset.root=processed pretrained=runs/pretrain/model "
    "target=hand_velocity_2d labels=21",
    "align": "Align a pretrained encoder with image embeddings: stage 1 with the encoder frozen, stage 2 with its "
    "last layers free and masked loss replayed. Run again with the same run_dir to resume.\n\n"
    "Example: neurobridge align dataset.root=processed pretrained=runs/pretrain/model embeddings=embeddings.h5",
    "forecast": "Train a NeuroHorizonModel to forecast spikes up to a second ahead, and score it rolled out, beside "
    "the last smoothed rate; also on recordings whose units it never saw. Run again with the same run_dir to "
    "resume.\n\n"
    "Example: neurobridge forecast dataset=binned dataset.root=processed forecaster=laptop model.bin_size=0.05 "
    "model.history=0.25 model.horizon=0.5",
    "evaluate": "Retrieval of the test images, with confidence intervals, beside ridge, shuffled labels and chance.\n\n"
    "Example: neurobridge evaluate dataset.root=processed aligned=runs/align embeddings=embeddings.h5",
    "reconstruct": "Pictures of the test images from neural activity, beside nearest image and ridge pixels, with "
    "metrics.\n\n"
    "Example: neurobridge reconstruct dataset.root=processed aligned=runs/align embeddings=embeddings.h5 images=images",
}


class JobCommand(click.Command):
    """A command whose options are Hydra overrides; its help shows the config."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from importlib.resources import files

        configs = files("neurobridge_tb.configs")
        formatter.write_paragraph()
        with formatter.section("Groups (choose with group=name)"):
            text = (configs / f"{self.name}.yaml").read_text(encoding="utf-8")
            for group in (g for g in ("dataset", "model", "forecaster") if f"- {g}:" in text):
                names = sorted(f.name[:-5] for f in (configs / group).iterdir() if f.name.endswith(".yaml"))
                formatter.write_text(f"{group}: {', '.join(names)}")
        with formatter.section(f"Config (neurobridge_tb/configs/{self.name}.yaml)"):
            for line in text.splitlines():
                formatter.write(f"  {line}\n")


def job_commands() -> list[click.Command]:
    """A command for each job: it composes a config from its arguments and calls the job with it."""
    return [_command(name, text) for name, text in _JOBS.items()]


def _command(name: str, text: str) -> click.Command:
    @click.command(name, cls=JobCommand, help=text)
    @click.argument("overrides", nargs=-1, metavar="[NAME=VALUE]...")
    def command(overrides: tuple[str, ...]) -> None:
        from neurobridge_tb.engine.config import compose_config
        from neurobridge_tb.report.terminal_table import print_rows

        config = compose_config(name, list(overrides))
        result = getattr(import_module(f"neurobridge_tb.jobs.{name}"), name)(config)
        print_rows(result / "metrics.json")
        click.echo(f"Results lie in {result}")

    return command
