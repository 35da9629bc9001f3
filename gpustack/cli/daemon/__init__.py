"""What ``gpustack start`` puts together: listeners, hand-over, front and the two roles (see ``cli/README.md``)."""
