"""Whether a recording's file is what the models expect."""
