"""What mkdocs calls: it adds the generated pages and the repository's READMEs, and turns links and formulas round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from api_links import with_api_links
from code_references import with_code, wrong_references
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from reference_api import api_page
from reference_commands import commands_page
from reference_components import component_pages, recipe_page
from reference_hooks import hooks_page
from repository_files import Page, pages, with_site_links

from clora.contracts.hookspecs import KINDS
from clora.errors import CloraError
from clora.plugin_system.discovery import discover


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the generated pages in the navigation, and have blocks of `math` set as MathML."""
    fence = {"name": "math", "class": "math", "format": _formula}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    plugins = [page.uri for page in pages(_root(config)) if page.uri.startswith("plugins/")]
    for section in config.nav or []:
        if "Plugins" in section:
            section["Plugins"] = plugins
        for inner in section.get("Reference", ()):
            if "Components" in inner:
                inner["Components"] = [f"reference/components/{kind}.md" for kind in KINDS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the pages that lie outside docs/, and the files that a page links."""
    root = _root(config)
    for uri, text in _generated(root).items():
        files.append(File.generated(config, uri, content=with_api_links(text, uri)))
    written = [Page(file.src_uri, f"docs/{file.src_uri}") for file in files.documentation_pages() if file.abs_src_path]
    for page in [*written, *pages(root)]:
        text = (root / page.path).read_text()
        if wrong := wrong_references(root, text):
            raise PluginError(f"{page.path}: there is no {', '.join(wrong)}")
        text, copies = with_site_links(root, page, with_code(root, text))
        old = files.get_file_from_path(page.uri)
        if old is not None:
            files.remove(old)
        files.append(File.generated(config, page.uri, content=with_api_links(text, page.uri)))
        for uri, path in copies.items():
            if files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def _generated(root: Path) -> dict[str, str]:
    catalogue = discover()
    broken = [f"plugin {plugin} is {plugin.state}: {plugin.reason}" for plugin in catalogue.plugins if plugin.reason]
    if broken:  # the pages would lack its components
        raise PluginError("; ".join(broken))
    try:
        components = component_pages(catalogue, {Path(page.path).parent.name: page.uri for page in pages(root)})
    except CloraError as error:
        raise PluginError(str(error)) from error
    return {
        "reference/recipe.md": recipe_page(),
        "reference/hooks.md": hooks_page(),
        "reference/commands.md": commands_page(),
        "reference/api.md": api_page(),
        **{f"reference/components/{kind}.md": text for kind, text in components.items()},
    }


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _formula(source: str, *_: Any, **__: Any) -> str:
    """A formula in LaTeX as MathML, which browsers show without a script."""
    return f'<div class="formula">{convert(source, display="block")}</div>'
