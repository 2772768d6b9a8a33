"""How the page looks: system fonts, colours that hold in light and dark, and focus that can be seen."""

from __future__ import annotations

from typing import Any

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CONTAIN: dict[str, Any] = {"format": "png", "object_fit": "contain"}
"""Of galleries: pictures as they are, none cut off."""

CSS = """
.gradio-container { width: 100% !important; max-width: min(1500px, 100vw) !important;
  margin: 0 auto !important; padding: 0.5rem 1rem 2rem !important; }
#title h1 { font-size: 1.35rem; margin: 0; font-weight: 650; }
#title p { margin: 0.1rem 0 0; color: var(--body-text-color); opacity: 0.82; }
#notice { border-left: 4px solid #b45309; background: #fef3c7; color: #451a03; padding: 0.45rem 0.8rem;
  border-radius: 4px; font-size: 0.95rem; }
.dark #notice { background: #3b2a06; color: #fde68a; border-color: #f59e0b; }
.state { min-height: 1.6rem; padding: 0.35rem 0.7rem; border-radius: 4px; }
.state.good { background: #dcfce7; color: #052e16; }
.state.bad { background: #fee2e2; color: #450a0a; border-left: 4px solid #b91c1c; }
.dark .state.good { background: #0b2f1b; color: #bbf7d0; }
.dark .state.bad { background: #3f1212; color: #fecaca; border-color: #ef4444; }
.quiet { color: var(--body-text-color); opacity: 0.82; margin: 0.2rem 0; }
.warned { color: #92400e; }
.dark .warned { color: #fcd34d; }
table.facts { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
table.facts caption { text-align: left; font-weight: 600; padding-bottom: 0.25rem; color: var(--body-text-color); }
table.facts th, table.facts td { border: 1px solid var(--border-color-primary); padding: 0.25rem 0.5rem;
  text-align: left; color: var(--body-text-color); }
.wide { overflow-x: auto; max-width: 100%; }
@media (max-width: 800px) { .sides { flex-direction: column !important; flex-wrap: nowrap !important; }
  .sides > *, .sides .column { min-width: 0 !important; width: 100% !important; } }
.bar { display: block; padding: 0 0.3rem; border-radius: 2px;
  background: linear-gradient(to right, rgba(37, 99, 235, 0.28) var(--part), transparent var(--part)); }
iframe.page { width: 100%; height: 75vh; border: 1px solid var(--border-color-primary); background: white; }
.log textarea { font-family: var(--font-mono); font-size: 0.85rem; white-space: pre; }
*:focus-visible { outline: 3px solid #2563eb !important; outline-offset: 2px; }
.dark *:focus-visible { outline-color: #93c5fd !important; }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""

NOTICE = (
    '<div id="notice" role="note"><strong>Synthetic images, not for diagnosis.</strong> An edit shows what a model has '
    "learned to associate with a word. It is not a prognosis.</div>"
)

TITLE = (
    '<div id="title"><h1>latentdrift studio</h1><p>What would this scan look like under another attribute? '
    "Everything stays on this machine.</p></div>"
)


def theme() -> Any:
    """Return the theme: no font is fetched."""
    import gradio as gr

    fonts = [gr.themes.Font(name) for name in FONTS]
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=[gr.themes.Font(name) for name in MONO]
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        body_text_color_subdued="*neutral_600",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


def good(text: str) -> str:
    """Return a message (HTML) that screen readers read out."""
    return f'<div class="state good" role="status">{text}</div>'


def bad(text: str) -> str:
    """Return an error's message (HTML), read out at once."""
    from html import escape

    return f'<div class="state bad" role="alert">{escape(text)}</div>'
