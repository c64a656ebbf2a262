"""Many cases in one command: found, planned, run, resumed and summarized."""
