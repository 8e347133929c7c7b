"""An app with a heavy import, as frameworks have: 20 MB of modules that stay and are only read."""

from __future__ import annotations

from importlib import import_module

from preforkd.workers import ServerHttpProtocol

MODULES = """
ast asyncio concurrent.futures csv ctypes dataclasses decimal difflib doctest email.mime.multipart ftplib html.parser
http.server imaplib inspect json logging.config mailbox multiprocessing.managers optparse pdb pickletools platform
plistlib pydoc sqlite3 statistics tarfile unittest.mock urllib.request uuid wsgiref.simple_server xml.dom.minidom
xml.etree.ElementTree xmlrpc.server zipfile
"""

for module in MODULES.split():
    import_module(module)


class Site(ServerHttpProtocol):
    """The seed's default answers: 404."""
