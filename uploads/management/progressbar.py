"""The progress bar that a command shows in a terminal."""

WIDTH = 40  # characters


def show_progress(stdout, number, count):
    if stdout.isatty():
        done = WIDTH * number // count
        bar = f"{'█' * done}{'░' * (WIDTH - done)}"
        stdout.write(f"\r{bar} {number} of {count}", ending="\n" * (number == count))
        stdout.flush()
