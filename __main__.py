"""`python -m spikedeblur`, the same as the `spikedeblur` command."""

import sys

from .cli import main

sys.exit(main())
