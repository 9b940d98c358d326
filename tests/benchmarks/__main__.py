"""Run all the benchmarks that the README speaks of, one after the other.

python -m tests.benchmarks
"""

from . import crowd, hosts, hung, job, lists, pictures, polls, receive, size, uploadhandler

BENCHMARKS = (
    receive,
    job,
    hosts,
    hung,
    polls,
    crowd,
    size,
    uploadhandler,
    pictures,
    lists,
)

if __name__ == "__main__":
    for benchmark in BENCHMARKS:
        print(f"## {benchmark.__doc__.splitlines()[0]}\n")
        benchmark.main()
        print(flush=True)
