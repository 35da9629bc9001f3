"""Programs of ours that run an engine; each stands alone and imports nothing else of ours."""
