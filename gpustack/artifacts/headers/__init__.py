"""The headers of model files, and the facts about a model that they state. The weights are not read."""
