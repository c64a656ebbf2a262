"""Does some test fail when a line is wrong? ``make mutation``, or ``python -m mutation`` in ``Testing``.

The modules whose every figure must be right are changed one small change at a time, properties and constants included,
and their own quick tests are run against each change. A change that no test sees is a survivor: it is killed by a new
promise, or explained in ``explained.toml``. What was run and found is told in ``Testing/TRUST.md``.
"""
