"""Without torch there is nothing to test here: `./dev test` says so, `--recover` installs it."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]
