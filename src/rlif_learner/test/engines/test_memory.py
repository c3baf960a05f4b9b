"""Memory that was freed is used again."""

import subprocess
import sys

import pytest

from rlif_learner.engines.memory import free_memory

# Page faults while 40 times 40 MB are taken and freed, in a thread that begins later. Pieces below
# 32 MB may be kept by the default settings, once there were some.
SCRIPT = """
import resource, threading
import numpy as np
from rlif_learner.engines.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()

def work():
    global faults
    for i in range(20):
        if i == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            np.full(5 * 2**20, 1.0)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
def test_the_next_update_finds_the_pages_of_the_last():
    faults = {}
    for keep in (False, True):
        words = [sys.executable, "-c", SCRIPT.format(keep=keep)]
        faults[keep] = int(subprocess.run(words, check=True, capture_output=True).stdout)
    # Anew it is at least 20 faults each, even where the kernel gives pages of 2 MB.
    assert faults[True] < 40 < faults[False] / 10, faults


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says it")
def test_some_memory_is_free():
    assert 10**7 < free_memory() < 10**15
