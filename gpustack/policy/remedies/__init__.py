"""Kinds of change that would make a replica fit, tried in the order of ``RANK``, the least costly first.

A module has ``KIND``, ``RANK`` and ``find(trial)``: the smallest change of its kind with which there is a place, or
``None``. What is tried is tried as data (``gpustack/policy/remedy.py``), which is what users get.
With ``ONLY_ASKED`` it is looked for only where somebody asks for all of them, not for the message of each that waits.
"""
