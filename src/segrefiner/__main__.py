"""`python -m segrefiner` is the command `segrefiner`; `torchrun -m segrefiner train …` trains on several GPUs."""

from .cli.main import main

main(prog_name="segrefiner")
