"""Ways to fit on a worker, tried in the order of ``RANK``; the first way that any worker offers is taken."""
