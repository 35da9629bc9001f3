"""An OpenAI-compatible server of speech: writes down what is spoken, and speaks."""
