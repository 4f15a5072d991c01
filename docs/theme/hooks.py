"""What the site has beyond the pages in docs/: a page per package, tables of commands and configs, and
the files of the repository that pages link to. All of it is read, nothing of dlmjoint is imported."""

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PACKAGE = "dlmjoint"
API = "reference/api"
COPIED = "files"
"""Where copies of the repository's files are, under their paths."""
LINK = re.compile(r"(?<=\]\()(?!https?://|#)([^)#\s]+)")
RANGE = re.compile(r"(?<=\d)–(?=\d)")
"""An interval's dash, at which a table's cell would be broken."""
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sbatch": "bash", ".toml": "toml"}
TRAINER = ("dlmjoint.distill.module.Distillation", "dlmjoint.distill.data.TrajectoryData")
"""What `fit` takes as `model` and `data`."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The generated pages' places in the navigation."""
    reference = _named(_named(config.nav)["Reference"])
    for package in packages():
        title = package.partition(".")[2] or PACKAGE
        reference["Python"].append({title: f"{API}/{package}.md"})
    reference["Files"] += [{path: page} for path in linked() if (page := _page(path))]
    return config


def _named(entries: Any) -> dict[str, Any]:
    """A level of the navigation, by title."""
    return {name: part for entry in entries for name, part in entry.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The generated pages."""
    for package, modules in packages().items():
        text = "\n\n".join([f"# {package}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"{API}/{package}.md", content=text))
    for path in linked():
        if page := _page(path):
            files.append(File.generated(config, page, content=_shown(ROOT / path)))
        else:
            copy = f"{COPIED}/{path}"
            files.append(File.generated(config, copy, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its tables filled in, and with links that hold in the site, too."""
    for mark, table in {"public names": public, "help": commands, "configs": configs}.items():
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", table())
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        there = _in_site(_in_repository(_origin(here), match[1]))
        path, _, anchor = there.partition("#")
        return posixpath.relpath(path, posixpath.dirname(here) or ".") + (
            f"#{anchor}" * bool(anchor)
        )

    parts = re.split(f"({FENCE.pattern})", markdown, flags=FENCE.flags)
    words = [part if part.startswith("```") else LINK.sub(moved, part) for part in parts]
    return RANGE.sub("\u2060–\u2060", "".join(words))


@cache
def packages() -> dict[str, list[str]]:
    """Every package with code of its own, and its public modules."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") for part in parts):
            found.setdefault(".".join(parts[:-1]), []).append(".".join(parts))
    return dict(sorted(found.items()))


@cache
def linked() -> list[str]:
    """Files of the repository, outside of docs/, that pages link to, or that such files link to."""
    waiting = [
        f"docs/{path.relative_to(ROOT / 'docs')}" for path in sorted((ROOT / "docs").rglob("*.md"))
    ]
    found: list[str] = []
    for page in waiting:
        text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
        for target in LINK.findall(text):
            path = _in_repository(page, target)
            if path.startswith(("docs/", f"{PACKAGE}/")) and not path.endswith(".yaml"):
                continue
            if path not in found and (ROOT / path).is_file():
                found.append(path)
                waiting += [path] * path.endswith(".md")
    return sorted(found)


def _in_repository(page: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def _origin(page: str) -> str:
    """The file of the repository that a page of the site shows."""
    if not page.startswith(f"{COPIED}/"):
        return f"docs/{page}"
    return next(path for path in linked() if _page(path) == page)


def _in_site(path: str) -> str:
    """Where the site has a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith(f"{PACKAGE}/") and path.endswith(".py"):
        module = path.removesuffix(".py").replace("/", ".")
        return f"{API}/{module.rpartition('.')[0]}.md#{module}"
    return _page(path) or f"{COPIED}/{path}"


def _page(path: str) -> str | None:
    """The page that shows a file; None for a picture, which is copied."""
    kind = posixpath.splitext(path)[1]
    if kind == ".md":
        return f"{COPIED}/{path}"
    return f"{COPIED}/{path}.md" if kind in LANGUAGES or kind == ".ipynb" else None


def _shown(path: Path) -> str:
    """A file of the repository as a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        parts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        return "\n\n".join(f"```python\n{s}\n```" if kind == "code" else s for kind, s in parts)
    return f"# {path.relative_to(ROOT)}\n\n```{LANGUAGES[path.suffix]}\n{text.rstrip()}\n```\n"


@cache
def code() -> Any:
    """The package as griffe reads it."""
    return griffe.load(PACKAGE, search_paths=[str(ROOT)], docstring_parser="google")


def _constant(name: str) -> dict[str, str]:
    """A dictionary of the package that is written out, or what a class is made of."""
    node = ast.parse(str(code()[name].value), mode="eval").body
    return ast.literal_eval(node.args[0] if isinstance(node, ast.Call) else node)


def public() -> str:
    """The names of `dlmjoint` itself, and where each is told of in full."""
    rows = [
        f"| [`{name}`][{PACKAGE}.{module}.{name}] | {_summary(code()[f'{module}.{name}'])} |"
        for name, module in sorted(_constant("WHERE").items())
    ]
    return "\n".join(["| name | is |", "|---|---|", *rows])


def commands() -> str:
    """Every command's settings."""
    parts = []
    for verb, where in _constant("verbs.COMMANDS").items():
        module, _, function = where.removeprefix(f"{PACKAGE}.").partition(":")
        found = code()[f"{module}.{function}"]
        parts += [f"## dlmjoint {verb}", _told(found), *_settings(found, "")]
    parts += [
        "## dlmjoint fit",
        "`trainer` is Lightning's. `data` may name another class by `class_path`. `validate` takes the same.",
    ]
    for prefix, name in zip(("model", "data"), TRAINER, strict=True):
        found = code()[name.removeprefix(f"{PACKAGE}.")]
        parts += [f"### `{prefix}`: [{found.name}][{name}]", *_settings(found, f"{prefix}.")]
    return "\n\n".join(parts)


def _settings(found: Any, prefix: str) -> list[str]:
    """A table of a function's or a class's parameters."""
    function = found.members["__init__"] if found.is_class else found
    sections = (function.docstring or found.docstring).parse("google")
    told = {
        p.name: p.description for s in sections if s.kind.value == "parameters" for p in s.value
    }
    rows = []
    for parameter in function.parameters:
        if parameter.name == "self":
            continue
        default = "**required**" if parameter.default is None else f"`{parameter.default}`"
        kind = parameter.annotation
        words = " ".join(told.get(parameter.name, "").split()).replace("|", "\\|")
        rows.append(f"| `{prefix}{parameter.name}` | `{kind}` | {default} | {words} |")
    return (
        ["\n".join(["| setting | type | default | is |", "|---|---|---|---|", *rows])]
        if rows
        else []
    )


def _told(found: Any) -> str:
    sections = found.docstring.parse("google")
    return next(section.value for section in sections if section.kind.value == "text")


def _summary(found: Any) -> str:
    """The first sentence of a docstring."""
    told = " ".join(_told(found).split("\n\n")[0].split()) if found.docstring else ""
    return re.split(r"(?<=\.) (?=[A-Z`])", told)[0].replace("|", "\\|")


def configs() -> str:
    """Every config with what its first lines say of it."""
    parts: list[str] = []
    for folder, paths in _by_folder():
        parts += [f"## {folder}", "| file | is |\n|---|---|"]
        rows = [f"| `{path.name}` | {_comment(path)} |" for path in paths]
        parts[-1] = "\n".join([parts[-1], *rows])
    return "\n\n".join(parts)


def _by_folder() -> Iterator[tuple[str, list[Path]]]:
    folders = sorted({path.parent for path in (ROOT / "configs").rglob("*.yaml")})
    for folder in folders:
        yield str(folder.relative_to(ROOT)), sorted(folder.glob("*.yaml"))


def _comment(path: Path) -> str:
    """The comment that a file begins with."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines).replace("|", "\\|")
