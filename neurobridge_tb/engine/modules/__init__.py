"""LightningModules: one training step a file."""
