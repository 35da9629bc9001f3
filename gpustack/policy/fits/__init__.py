"""Ways to fit on a worker, tried in the order of ``RANK``; the first way that any worker offers is taken.

Each module has ``candidates(request, worker, snapshot)``. It is called for each number of requests at a time that may
be chosen, the largest first.
"""
