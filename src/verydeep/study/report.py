"""The report of a study: one self-contained HTML page."""

from collections.abc import Sequence
from pathlib import Path

from verydeep.basics.files import write_text
from verydeep.datasets.dataset import Dataset
from verydeep.study.folder import StudyFolder
from verydeep.study.plan import Run
from verydeep.study.preset import Preset
from verydeep.study.render import as_html
from verydeep.study.tables import read_tables


def write_report(
    folder: StudyFolder, preset: Preset, runs: Sequence[Run], testing: Dataset, data: str, device: str
) -> Path:
    """Write `report.html`."""
    write_text(folder.report, as_html(read_tables(folder.path)))
    return folder.report
