"""Headers of model files: what is in them, read in a fraction of a second without the weights."""
