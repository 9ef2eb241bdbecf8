"""The web page of view_images.py: photographs in, pictures out as they are made. It knows nothing of networks.

`studio` keeps what visitors bring and get, `jobs` does the work in one thread, `app` is the page over HTTP and what it
refuses, `serving` the server; `static/` is the page itself: HTML, CSS and plain JavaScript modules.

Flask: turning a camera by dragging in a picture, an overlay that obeys the camera, a timeline of key frames need a
script of one's own in any framework; what is left for the server are ten small routes and a stream of events, which
Flask does with six packages where gradio brings some forty, and nothing is loaded from outside.
"""

from __future__ import annotations

from dnnlib.page.app import create_app
from dnnlib.page.jobs import Cancelled, Made, NewFrame, Progress, Send
from dnnlib.page.serving import serve, stop_signal
from dnnlib.page.studio import OfferedPath, Opened, OpenedPath, Plan, Renderer, Studio, Upload

__all__ = [
    "Cancelled", "Made", "NewFrame", "OfferedPath", "Opened", "OpenedPath", "Plan", "Progress", "Renderer", "Send",
    "Studio", "Upload", "create_app", "serve", "stop_signal",
]  # fmt: skip
