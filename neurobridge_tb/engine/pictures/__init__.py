"""Training of picture decoders, and what they read of activity."""
