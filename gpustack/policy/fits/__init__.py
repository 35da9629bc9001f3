"""Ways to fit, tried in the order of ``RANK``; the first way that offers any place is taken.

A module has ``candidates(request, here)``, a way to fit on one worker with what it can give, or ``gangs(request,
rooms, snapshot)``, a way to fit on several of all workers that were kept. It is called for each number of requests at
a time that may be chosen, the largest first. ``ONE_SIZE = True`` says that all of its places use as many devices and
layers, so that smaller numbers need not be tried where a larger one fits. The first ways have ``best(request, key,
drives, prospect)`` too: the best that there could be, told from numbers, so that only workers that can win are looked
at.
"""
