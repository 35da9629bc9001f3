"""``python -m gpustack``: the same program as the ``gpustack`` command."""

import sys

from gpustack.cli.main import main

sys.exit(main())
