"""`python -m quanto.runtime.worker ADDRESS --nworkers N`: `dask worker` with the arithmetic that all runs share.

Run it in a checkout of the commit that runs, on every machine of the cluster; takes all options of `dask worker`.
"""

from __future__ import annotations

import sys

from distributed.cli.dask_worker import main

from quanto.runtime.processor import fix_processor

if __name__ == "__main__":
    # This process only starts the workers and starts them again: they are new processes and inherit these settings, which
    # NumPy reads when it is loaded. One thread each: tasks share neither interpreter lock nor random state.
    fix_processor()
    main(["--nthreads", "1", *sys.argv[1:]])
