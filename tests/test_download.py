"""Files on demand: continued, checked, kept whole or not at all; every failure is one sentence."""

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from scdl_teach import DataError, datasets, download

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def server():
    """A server on this machine that knows ranges, counts what it is asked and can break off or lie."""

    class Answer(BaseHTTPRequestHandler):
        asked, stop_after, lie = [], None, False

        def do_GET(self):
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            Answer.asked.append(start)
            body = (b"x" * len(CONTENT) if Answer.lie else CONTENT)[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: Answer.stop_after])

        def log_message(self, *args): ...

    s = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s, Answer
    s.shutdown()
    s.server_close()


@pytest.fixture
def one_file(tmp_path, monkeypatch, server):
    row = dict(file="a.bin", set="a", url=f"http://127.0.0.1:{server[0].server_port}/a.bin", bytes=len(CONTENT))
    table = pd.DataFrame([{**row, "sha256": hashlib.sha256(CONTENT).hexdigest()}]).set_index("file")
    monkeypatch.setattr(download, "registry", lambda: table)
    monkeypatch.setenv("SCDL_TEACH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(download.MIRROR, raising=False)
    return table


def test_downloads_once_and_says_how_far_it_is(one_file, server, tmp_path):
    seen = []
    path = download.fetch("a.bin", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT and seen[-1] == (len(CONTENT), len(CONTENT)) and len(seen) > 3
    assert download.fetch("a.bin") == path and server[1].asked == [0]
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_a_corrupt_cache_is_fetched_again(one_file, server):
    path = download.fetch("a.bin")
    path.write_bytes(CONTENT[:-1] + b"?")
    assert download.fetch("a.bin").read_bytes() == CONTENT and server[1].asked == [0, 0]


def test_goes_on_where_it_stopped(one_file, server):
    server[1].stop_after = 200_000
    with pytest.raises(DataError, match=r"could not be downloaded \(the connection ended after 200,000 of 512,000 bytes\)"):
        download.fetch("a.bin")
    server[1].stop_after = None
    assert download.fetch("a.bin").read_bytes() == CONTENT
    assert server[1].asked[1] == 200_000


def test_other_bytes_are_not_kept(one_file, server, tmp_path):
    server[1].lie = True
    with pytest.raises(DataError, match=r"is not the published a.bin \(its sha256 differs\), so nothing was kept"):
        download.fetch("a.bin")
    assert not list((tmp_path / "cache").iterdir())


def test_no_network_is_one_sentence(one_file, monkeypatch):
    one_file.loc["a.bin", "url"] = "http://127.0.0.1:9/a.bin"
    with pytest.raises(
        DataError, match=r"a.bin \(0.5 MB\) could not be downloaded .*or put the file from http.* SCDL_TEACH_DATA_MIRROR"
    ):
        download.fetch("a.bin")


def test_mirror(one_file, server, tmp_path, monkeypatch):
    monkeypatch.setenv(download.MIRROR, str(tmp_path))
    with pytest.raises(DataError, match=f"the folder {tmp_path} .* does not hold a.bin; copy it there from http"):
        download.fetch("a.bin")
    (tmp_path / "a.bin").write_bytes(b"short")
    with pytest.raises(DataError, match="is not the published file"):
        download.fetch("a.bin")
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert download.fetch("a.bin") == tmp_path / "a.bin" and server[1].asked == []


def test_unknown_names():
    with pytest.raises(DataError, match=r"there is no file 'b.h5' to fetch; known are mouse_bladder.h5"):
        download.fetch("b.h5")
    with pytest.raises(DataError, match=r"there is no data set 'imune_raw'; did you mean 'immune_raw'\?"):
        datasets.load("imune_raw")


def test_registry_is_pinned():
    table = download.registry()
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all() and table.index.is_unique and len(table) == 23
    assert table["url"].str.fullmatch(r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/[0-9a-f]{40}/.+").all()
    assert table["licence"].notna().all() and table["citation"].notna().all()


MIRROR = os.environ.get(download.MIRROR)
SHAPES = {
    "mouse_bladder": (2100, 20670),
    "human_dc": (576, 859),
    "pbmc_cite": (400, 15792),
    "scgem": (177, 61),
    "scdna": (500, 1380),
    "cytof": (14622, 25),
    "scbs": (17023, 2),
}


@pytest.mark.skipif(not MIRROR or not Path(MIRROR).is_dir(), reason="needs the files: set SCDL_TEACH_DATA_MIRROR to their folder")
@pytest.mark.parametrize("name", SHAPES)
def test_downloaded_sets(name):
    if name == "human_dc":
        pytest.importorskip("rdata")
    a = datasets.load(name)
    assert a.shape == SHAPES[name] and a.obs_names.is_unique
    if name == "human_dc":  # each batch lacks one type
        types = {b: set(t) for b, t in a.obs.groupby("batch", observed=True)["cell_type"].unique().items()}
        assert types["Batch1"] - types["Batch2"] == {"CD141"} and types["Batch2"] - types["Batch1"] == {"CD1C"}
    if name in ("mouse_bladder", "pbmc_cite", "scdna"):
        x = a.layers["counts"]
        values = x.data if name != "scdna" else x
        assert (values == values.round()).all() and values.min() >= 0
