"""All tests compute with the processor settings of a run: set here, before NumPy and torch load, as in `python -m quanto`.

Otherwise a test that sets them later would leave this process and the ones it starts with different instruction sets.
"""

from __future__ import annotations

from quanto.runtime.processor import fix_processor

fix_processor()
