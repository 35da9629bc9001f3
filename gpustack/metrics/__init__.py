"""What is exported to Prometheus: declared once, sampled from state, rendered, and served on a port of its own."""
