"""The rows, a file for each kind of work; importing this lists them in the order of the table."""

from tensorhold_bench.rows import header, load, call, model, whole, part, parallel, save  # noqa: F401, I001 (the order of the table)
from tensorhold_bench.rows import convert, quantized, elsewhere, device, cuda  # noqa: F401
