"""Programs that run an engine; each runs in a process of its own and imports nothing else of gpustack."""
