"""`python -m testbed.agent FILE.toml`: run the agent that the file describes."""

import sys

from testbed.agent.daemon import main

sys.exit(main())
