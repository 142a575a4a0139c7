"""The list of commands that `neurobridge` and `neurobridge --help` print: by what they are for, in the order of use."""

import click

SECTIONS = {
    "Recordings": {
        "import": "from NWB, Kilosort or Phy, SpikeInterface, MATLAB, ALF or NLB files",
        "validate": "what is in a recording, and what is wrong with it",
        "images": "does each image that was shown have its file?",
        "simulate": "raw files of a virtual monkey, in TVSD's layout",
        "simulate-allen": "a simulated session in the layout of Allen Visual Coding",
        "simulate-ibl": "simulated sessions in the layout of IBL's Brain-Wide Map",
    },
    "An encoder": {
        "pretrain": "masked pretraining, without labels",
        "adapt": "a trained encoder for new recordings",
        "score": "how well it fills in hidden units, areas and the future",
        "decode": "what its latents tell of stimuli, choices and behaviour",
        "latents": "its latents of whole recordings, as arrays and pictures",
        "finetune": "train it on a behaviour, from many labels or few",
    },
    "Forecasts": {
        "forecast": "spikes up to a second ahead, also of units never seen",
    },
    "Images": {
        "embed": "embeddings of the stimulus images",
        "align": "from activity to the embedding of what was seen",
        "evaluate": "which image was it? retrieval, beside its baselines",
        "train-decoder": "a decoder of your own photos",
        "reconstruct": "pictures, beside their baselines",
        "rate": "a blind test of the pictures for people, on one page",
    },
    "Results": {
        "report": "one HTML page of all runs in a folder",
        "push": "a model and its card to the Hugging Face hub",
        "submit-nlb": "rates for the Neural Latents Benchmark",
        "submit-bwb": "predictions for BrainWideBench",
    },
    "Many runs": {
        "experiment": "a recipe of jobs over seeds, each run once, on a laptop or a cluster",
        "table": "means, intervals and paired differences over runs",
        "plot": "curves of an experiment",
        "check-plan": "which of the plan's go/no-go points hold",
    },
    "This installation": {
        "demo": "all steps on simulated data; --tiny tests the installation",
        "models": "the models that come with the package",
        "info": "versions, devices and which optional packages are there",
    },
}
_WIDTH = max(len(name) for section in SECTIONS.values() for name in section)


class Overview(click.Group):
    """A group whose help lists its commands by section."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(_WIDTH), text) for name, text in commands.items()])
