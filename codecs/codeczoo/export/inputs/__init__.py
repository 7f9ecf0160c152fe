"""What is to be exported: files, and what lies inside tar shards, data sets on disk and manifests."""

from codeczoo.export.inputs.entry import Absent as Absent
from codeczoo.export.inputs.entry import Input as Input
from codeczoo.export.inputs.listing import inputs as inputs

__all__ = ["Absent", "Input", "inputs"]
