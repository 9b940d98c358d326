# multiprocessing runs the main module once more in each renderer, unless it has this name.
from . import main

main()
