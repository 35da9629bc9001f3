"""Ways to fit on a worker, tried in the order of ``RANK``; the first way that any worker offers is taken.

A way is asked for each number of requests at a time that may be chosen, the most first.
"""
