"""Replay one seed and tell what happened: `python -m tests.simulation SEED`."""

import sys

from tests.simulation.scenarios import BreachError, make, play


def main(seed: int) -> int:
    world = make(seed)
    breach = ""
    try:
        play(world)
    except BreachError as error:
        breach = str(error)
    lines = sorted([*world.happened, *world.coordinator.said], key=lambda entry: entry[0])
    sys.stdout.writelines(f"{at:>8} ms  {what}\n" for at, what in lines)
    sys.stdout.write(f"seed {seed}: {breach or 'every invariant held'}\n")
    return 1 if breach else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
