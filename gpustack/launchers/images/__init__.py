"""An OpenAI-compatible server of images: draws after a text, and after other images."""
