"""Mutated inputs for every loader: ``make fuzz``.

The promise: whatever lies in a file, a loader loads it or raises one ``LesionDecompError``; no other exception, no
crash, no hang, and no more than 1 GB of memory. What was run and found is reported in ``Documentation/trust.md``.
"""
