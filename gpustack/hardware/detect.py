"""A former name of ``look``.

A daemon of before the renaming starts this program to look at devices, from the upgrade on disk to its reload.
"""

import sys

from gpustack.hardware.look import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
