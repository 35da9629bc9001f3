"""What ``gpustack doctor`` looks at: one file a check, each with ``async def look(context) -> list[Finding]``."""
