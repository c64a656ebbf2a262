"""Jobs that are killed at random moments: ``make faults``.

The promise: SIGKILL at any moment leaves nothing half-written under its final name and no results of two runs side by
side; the same command, given again, ends with the outputs of an unbroken run and leaves nothing behind. What was run
and found is reported in ``Documentation/trust.md``.
"""
