"""Metrics for Prometheus: declared in one registry, sampled from an observation, rendered, and served by exporters."""
