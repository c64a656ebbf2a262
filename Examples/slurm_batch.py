"""A cohort on a SLURM cluster: workers are SLURM jobs, as many as there is work for, up to a limit.

    pip install '.[cluster]' dask-jobqueue
    python Examples/slurm_batch.py --jobs 16 --cores 8 --memory 16GB --interface ib0 -- STUDIES -o cohort

Runs on the login node, or as a small job of its own. What stands behind ``--`` goes to ``lesiondecomp segment``. The
folders of inputs and results must have the same paths on all nodes. SLURM's other settings (partition, account, GPUs)
are those of dask-jobqueue, in ~/.config/dask/jobqueue.yaml. For PBS, LSF or SGE put its other classes in the place of
SLURMCluster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from dask_jobqueue import SLURMCluster


def main() -> int:
    """Run the batch; the exit status is that of ``lesiondecomp segment``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=8, help="most SLURM jobs at a time (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=8, help="of each job (default: %(default)s)")
    parser.add_argument("--memory", default="16GB", help="of each job (default: %(default)s)")
    parser.add_argument("--walltime", default="08:00:00", help="of each job (default: %(default)s)")
    parser.add_argument("--interface", help="network that the nodes share, e.g. ib0 or eth0")
    parser.add_argument("segment", nargs="+", help="arguments of lesiondecomp segment")
    args = parser.parse_args()
    with SLURMCluster(
        cores=1,  # of Dask: one case in the networks at a time, on all of SLURM's
        processes=1,
        job_cpu=args.cores,
        memory=args.memory,
        walltime=args.walltime,
        interface=args.interface,
        scheduler_options={"dashboard_address": ":0"},
    ) as cluster:
        cluster.adapt(minimum_jobs=0, maximum_jobs=args.jobs)
        command = [sys.executable, "-m", "LesionDecompLib", "segment", *args.segment]
        command += ["--scheduler", cluster.scheduler_address, "--threads", str(args.cores)]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
