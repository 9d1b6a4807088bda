"""`python -m spikedeblur.cli`, the same as the `spikedeblur` command."""

import sys

from . import main

sys.exit(main())
