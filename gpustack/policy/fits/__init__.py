"""Ways to fit, tried in the order of ``RANK``; the first way that offers any place is taken.

A module has ``candidates(request, worker, snapshot)``, a way to fit on one worker, or ``gangs(request, workers,
snapshot)``, a way to fit on several of those workers together. It is called for each number of requests at a time that
may be chosen, the largest first.
"""
