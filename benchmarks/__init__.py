"""Measurements of poolkit, each beside the thing it is compared with, taken in one run on one machine.

``python -m benchmarks [NAME...] [--quick]`` prints one table. A benchmark is a module here with a function
``run(bench)`` that yields :class:`~benchmarks.harness.Row`; a new one is found by its file alone. What is worth
keeping is a ratio: seconds of one machine say nothing about another.
"""
