"""Tiny pipelines of the real diffusers and transformers classes, with random weights, saved for from_pretrained."""

import json

import torch

from neurobridge_tb.vision_imports import prepare_torchvision

prepare_torchvision()

TOKEN_DIM, SIZE = 32, 16


def _text(folder):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder.mkdir(parents=True)
    words = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=TOKEN_DIM, intermediate_size=37, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=TOKEN_DIM,
    )  # fmt: skip
    return {"tokenizer": tokenizer, "text_encoder": CLIPTextModel(config)}


def _image_parts(**unet):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    return {
        "unet": UNet2DConditionModel(
            block_out_channels=(32, 64), layers_per_block=1, sample_size=SIZE // 2, norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=TOKEN_DIM, **unet,
        ),
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        "vae": AutoencoderKL(
            block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=8,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        ),
    }  # fmt: skip


def save_stable_diffusion(folder):
    """A Stable Diffusion that draws 16 x 16 pictures from 77 tokens of 32 values."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    parts = _text(folder.parent / "tokenizer") | _image_parts()
    pipeline = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder)
    return folder


def save_stable_unclip(folder, dim):
    """A Stable unCLIP that draws 16 x 16 pictures from embeddings of ``dim`` values."""
    from diffusers import DDPMScheduler, StableUnCLIPImg2ImgPipeline
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    parts = _text(folder.parent / "tokenizer")
    parts |= _image_parts(class_embed_type="projection", projection_class_embeddings_input_dim=2 * dim)
    vision = CLIPVisionConfig(
        hidden_size=32, projection_dim=dim, num_hidden_layers=1, num_attention_heads=4, image_size=16,
        intermediate_size=37, patch_size=8,
    )  # fmt: skip
    pipeline = StableUnCLIPImg2ImgPipeline(
        **parts,
        feature_extractor=CLIPImageProcessor(size=16, crop_size=16),
        image_encoder=CLIPVisionModelWithProjection(vision),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=dim),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    )
    pipeline.save_pretrained(folder)
    return folder
