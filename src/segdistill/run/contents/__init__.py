"""What the files of a run hold, and reading them so that nothing damaged passes for a figure."""

from segdistill.run.contents.files import SETS, Damaged, is_there, read_file, read_json
from segdistill.run.contents.rows import read_metrics

__all__ = ["SETS", "Damaged", "is_there", "read_file", "read_json", "read_metrics"]
