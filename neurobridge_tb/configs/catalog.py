"""Every job's settings, by the job's name."""

from neurobridge_tb.configs.adapt import AdaptConfig
from neurobridge_tb.configs.align import AlignConfig
from neurobridge_tb.configs.decode import DecodeConfig
from neurobridge_tb.configs.embed import EmbedConfig
from neurobridge_tb.configs.evaluate import EvaluateConfig
from neurobridge_tb.configs.finetune import FinetuneConfig
from neurobridge_tb.configs.forecast import ForecastConfig
from neurobridge_tb.configs.latents import LatentsConfig
from neurobridge_tb.configs.pretrain import PretrainConfig
from neurobridge_tb.configs.reconstruct import ReconstructConfig
from neurobridge_tb.configs.score import ScoreConfig
from neurobridge_tb.configs.settings import JobConfig
from neurobridge_tb.configs.submit_bwb import SubmitBwbConfig
from neurobridge_tb.configs.submit_nlb import SubmitNlbConfig
from neurobridge_tb.configs.train_decoder import TrainDecoderConfig

JOBS: dict[str, type[JobConfig]] = {
    "pretrain": PretrainConfig,
    "adapt": AdaptConfig,
    "score": ScoreConfig,
    "decode": DecodeConfig,
    "latents": LatentsConfig,
    "finetune": FinetuneConfig,
    "forecast": ForecastConfig,
    "embed": EmbedConfig,
    "align": AlignConfig,
    "evaluate": EvaluateConfig,
    "train_decoder": TrainDecoderConfig,
    "reconstruct": ReconstructConfig,
    "submit_bwb": SubmitBwbConfig,
    "submit_nlb": SubmitNlbConfig,
}
