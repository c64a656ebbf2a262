"""Jobs that are killed at random moments: ``make faults``, or ``python -m faults --help`` in ``Testing``.

The promise: SIGKILL at any moment leaves nothing half-written under its final name and no results of two runs side by
side; the same command, given again, ends with the outputs of an unbroken run and leaves nothing behind. What was run
and found is told in ``Testing/TRUST.md``.
"""
