#!/usr/bin/env bash
# NVIDIA's Python binding raises what is no NVMLError where the driver is older than the binding.
#
# Surprise:  asked which processes use a device, nvidia-ml-py calls the newest form of the question. A driver that has only the
#            form before makes it raise NVMLLibraryMismatchError, which is a plain Exception, while every other question that a
#            driver lacks raises a kind of NVMLError (FunctionNotFound). Whoever catches NVMLError dies of it.
# Bites:     monitors that look at machines with older drivers; three questions are of this kind (processes that compute, that draw,
#            and of MPS), and they are the ones that are asked again and again.
# Versions:  nvidia-ml-py 13.615.71, with a library of ours in place of the driver's, which has the second form alone.
# Needs:     a C compiler.
# We:        ask for each form by its number, the newest first: gpustack/hardware/detectors/_nvidia_process.py.
source "$(dirname "$0")/fresh.sh"
fresh nvidia-ml-py==13.615.71
cat > driver.c <<'C'
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, void *out) {
    (void)device; (void)out;
    *count = 0;
    return 0;
}
C
cc -shared -fPIC -o libnvidia-ml.so.1 driver.c
LD_LIBRARY_PATH=$PWD try <<'PYTHON'
import pynvml
import report

report.versions("nvidia-ml-py")
pynvml.nvmlInit()


def raised(question):
    """What a question raises, and whether that is an NVMLError; or that it is answered."""
    try:
        question(None)
    except Exception as error:
        return type(error).__name__, isinstance(error, pynvml.NVMLError)
    return "answered"


for what, question, expected, recorded in (
    ("the processes", pynvml.nvmlDeviceGetComputeRunningProcesses, "an NVMLError", ("NVMLLibraryMismatchError", False)),
    ("the processes, second form", pynvml.nvmlDeviceGetComputeRunningProcesses_v2, "answered", "answered"),
    ("the power", pynvml.nvmlDeviceGetPowerUsage, "an NVMLError", ("NVMLError_FunctionNotFound", True)),
):
    report.observe(f"{what}: what is raised, and whether it is an NVMLError", expected=expected, recorded=recorded, seen=raised(question))
report.conclude()
PYTHON
