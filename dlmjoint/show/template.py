"""Pages from templates; whatever is put into one is escaped."""

from functools import cache
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

SHARED = "dlmjoint.show"
"""Its templates can be included and extended by every page."""


def render(package: str, name: str, **values: object) -> str:
    """The page that a template of a package makes of some values.

    Texts are escaped for HTML, and `tojson` for a script element; `asset(file)` puts a file of the
    package, or of the shared ones, into the page as it is.
    """
    return _environment(package).get_template(name).render(**values)


@cache
def _environment(package: str) -> Environment:
    """A package's templates, each compiled when it is first used."""
    packages = (package, SHARED)

    def asset(file: str) -> Markup:
        found = next(path for path in (files(each) / file for each in packages) if path.is_file())
        return Markup(found.read_text(encoding="utf-8"))

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(each, ".") for each in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {}  # keys as they come, not sorted
    environment.globals["asset"] = asset
    return environment
