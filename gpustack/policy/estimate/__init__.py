"""How many bytes of which memory a model will need, before it is loaded."""
