"""Run all the benchmarks that the README speaks of, one after the other.

python -m tests.benchmarks
"""

from . import crowd, hung, job, lists, pictures, polls, receive, size, uploadhandler

if __name__ == "__main__":
    for benchmark in (receive, job, hung, polls, crowd, size, uploadhandler, pictures, lists):
        print(f"## {benchmark.__doc__.splitlines()[0]}\n")
        benchmark.main()
        print(flush=True)
