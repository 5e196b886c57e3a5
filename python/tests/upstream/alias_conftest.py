"""Stands as `conftest.py` beside the published tests: their `safetensors` is tensorhold."""

import tensorhold
import tensorhold.dropin

tensorhold.dropin.install()

import safetensors  # noqa: E402

assert safetensors is tensorhold
