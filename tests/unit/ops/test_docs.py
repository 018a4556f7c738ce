"""The generated pages say what the code says."""

import pytest

from scripts.generate_docs import PAGES
from scripts.pages.configuration import SERVICES
from scripts.pages.errors import error_classes, errors_page
from scripts.pages.markdown import table
from scripts.protos import ROOT
from vscan.config import ServiceSettings, variable_name


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_generated(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("settings", SERVICES.values(), ids=SERVICES)
def test_every_setting_has_a_line_with_its_meaning(settings: type[ServiceSettings]) -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    for name, field in settings.model_fields.items():
        assert field.description, f"{name} has no description"
        assert f"| `{variable_name(settings, name)}` |" in page


def test_every_error_stands_in_the_tree_and_in_the_table() -> None:
    page = errors_page()
    for kind in error_classes():
        assert page.count(kind.__name__) >= 2
        assert f"| `{kind.__name__}` | {kind.status.name} |" in page


def test_a_cell_cannot_break_its_table() -> None:
    assert table(["a"], [["x | y\nz"]]).splitlines()[-1] == "| x \\| y z |"
