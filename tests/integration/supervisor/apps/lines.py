"""Writes so many numbered lines and ends."""

import sys

for number in range(int(sys.argv[1])):
    sys.stdout.write(f"line {number}\n")
