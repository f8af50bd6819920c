"""replicate.py, whose runs are forked from its own process instead of started by `accelerate launch`: seconds less for each."""

import subprocess
from types import SimpleNamespace

import replicate
from helpers.processes import Forked
from utils.core.errors import run_script
from utils.experiments import runner


if __name__ == "__main__":
    runner.subprocess = SimpleNamespace(Popen=Forked, STDOUT=subprocess.STDOUT)
    run_script(replicate.main)
