from . import main

# Renderers would run a module of any other name once more, and import all that serving needs.
main()
