"""Ray at work: sessions, the executor of stages with its worker groups, and jobs."""

import os

# Read when Ray is imported: otherwise a thread still working when a session ends would start
# another one, or join an unrelated one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
