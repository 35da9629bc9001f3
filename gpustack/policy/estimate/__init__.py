"""How many bytes a model will need, and of what, before anything of it is loaded."""
