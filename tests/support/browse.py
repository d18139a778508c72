"""Drives the page of medjax.bin.serve in QtWebEngine, without anything of medjax: python browse.py URL PICTURE.

Prints a JSON object of what was on the page at each step, and saves the last state as a picture.
"""

import json
import sys

from PySide6.QtCore import QEventLoop, QTimer, QUrl
from PySide6.QtWebEngineCore import QWebEnginePage
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

app = QApplication([sys.argv[0], "--disable-gpu"])
complaints = []


class Page(QWebEnginePage):
    """Keeps what the console says: errors, and what the Content-Security-Policy stopped."""

    def javaScriptConsoleMessage(self, level, message, line, source):  # noqa: N802
        complaints.append(message)


view = QWebEngineView()
view.setPage(Page(view))
view.resize(1280, 900)


def pause(milliseconds):
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def js(code):
    found, loop = [], QEventLoop()
    view.page().runJavaScript(code, lambda value: (found.append(value), loop.quit()))
    QTimer.singleShot(10000, loop.quit)
    loop.exec()
    return found[0] if found else None


def state(wanted):
    """What the page shows once its status holds these words."""
    for _ in range(150):
        if wanted in (
            js("document.querySelector('.busy') ? '' : document.getElementById('status')?.textContent") or ""
        ):
            break
        pause(100)
    shown = (
        "{title: document.title, status: document.getElementById('status').textContent,"
        " rule: document.getElementById('rule').textContent, error: document.getElementById('error').textContent,"
        " like: document.getElementById('like-id').textContent, focus: document.activeElement.id,"
        " numbers: [...document.querySelectorAll('.card')].map(c => Number(c.dataset.number)),"
        " foreign: document.querySelectorAll('img[src=x]').length, notes: document.getElementById('notes').textContent}"
    )
    return json.loads(js(f"JSON.stringify({shown})") or "{}")


steps = {}
view.show()
view.load(QUrl(sys.argv[1]))
steps["start"] = state("The first")
js("document.getElementById('text').value = 'effusion'; document.getElementById('form').requestSubmit()")
steps["text"] = state("by text")
js("document.querySelectorAll('.card-foot button')[2].click()")
steps["neighbours"] = state("by image")
js(
    "document.getElementById('split').value = 'test';"
    "document.getElementById('split').dispatchEvent(new Event('change'))"
)
steps["filtered"] = state("in these filters")
view.grab().save(sys.argv[2])
js("state.like = {number: 10000}; search()")
pause(1500)
steps["error"] = state("")
print(json.dumps({"steps": steps, "complaints": complaints}))
