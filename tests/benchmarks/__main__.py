"""Run all the benchmarks that the README speaks of, one after the other.

python -m tests.benchmarks
"""

from . import crowd, polls, receive, size, uploadhandler

for benchmark in (receive, polls, crowd, size, uploadhandler):
    print(f"## {benchmark.__doc__.splitlines()[0]}\n")
    benchmark.main()
    print(flush=True)
