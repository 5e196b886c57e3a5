"""Whole files and saves on other file systems than the disk's, place by place."""

from tensorhold_bench.places import FUSE, LOOP, MEMORY
from tensorhold_bench.rows import save, whole

for place in (MEMORY, LOOP, FUSE):
    whole.load_elsewhere(place)
    save.save_elsewhere(place)
