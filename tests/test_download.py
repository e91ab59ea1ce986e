"""Files on demand: continued, checked, kept whole or not at all; every failure is one sentence."""

import contextlib
import hashlib
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from scdl_teach import DataError, datasets
from scdl_teach.datasets import download

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def server():
    """A server on this machine that knows ranges, counts what it is asked and can break off or lie."""

    class Answer(BaseHTTPRequestHandler):
        asked, stop_after, lie, pause, reply = [], None, False, 0.0, None

        def do_GET(self):
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            Answer.asked.append(start)
            if Answer.reply:
                return Answer.reply(self, start)
            time.sleep(Answer.pause)
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


def names(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_downloads_once_and_says_how_far_it_is(one_file, server, tmp_path):
    seen = []
    path = download.fetch("a.bin", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT and seen[-1] == (len(CONTENT), len(CONTENT)) and len(seen) > 3
    assert download.fetch("a.bin") == path and server[1].asked == [0]
    assert names(path.parent) == ["a.bin"]


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
    assert names(tmp_path / "cache") == []


def test_two_downloads_at_once_ask_once(one_file, server):
    server[1].pause, done = 0.3, []
    runs = [threading.Thread(target=lambda: done.append(download.fetch("a.bin").read_bytes() == CONTENT)) for _ in range(4)]
    for r in runs:
        r.start()
    for r in runs:
        r.join()
    assert done == [True] * 4 and server[1].asked == [0]


@pytest.mark.parametrize("other", ["page", "wrong range", "page as a range", "endless"])
def test_a_bad_answer_leaves_a_good_part(one_file, server, tmp_path, other):
    """A page of a portal, of the right status or not, an endless answer: the bytes that are there stay, and are gone on with."""
    part = tmp_path / "cache" / "a.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT[:200_000])

    def reply(self, start):
        self.send_response(206 if start and "range" in other else 200)
        if other == "wrong range":
            self.send_header("Content-Range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
        if other.startswith("page"):
            self.send_header("Content-Length", "9000")
        self.end_headers()
        sent = 0
        while sent < (3 * len(CONTENT) if other in ("endless", "wrong range") else 9000):
            sent += self.wfile.write(b"<p>log in</p>" * 500)

    server[1].reply = reply
    with pytest.raises(DataError, match="could not be downloaded|is not the published a.bin"):
        download.fetch("a.bin")
    assert part.read_bytes() == CONTENT[:200_000]
    server[1].reply = None
    assert download.fetch("a.bin").read_bytes() == CONTENT and names(part.parent) == ["a.bin"]


def test_an_endless_answer_is_cut_at_the_published_size(one_file, server, tmp_path):
    seen = []

    def reply(self, start):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):  # the reader has closed
            while True:
                self.wfile.write(b"x" * 65536)

    server[1].reply = reply
    with pytest.raises(DataError, match="is not the published a.bin"):
        download.fetch("a.bin", progress=lambda done, total: seen.append(done))
    assert seen[-1] == len(CONTENT) and names(tmp_path / "cache") == []


def test_a_bad_part_is_overcome(one_file, server, tmp_path):
    part = tmp_path / "cache" / "a.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"?" * 1000)
    assert download.fetch("a.bin").read_bytes() == CONTENT and server[1].asked == [1000, 0]


def test_a_link_is_not_written_through(one_file, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "mine").write_bytes(CONTENT[:7])
    for end in ("part", "new"):
        (tmp_path / "cache" / f"a.bin.{end}").symlink_to(tmp_path / "mine")
    assert download.fetch("a.bin").read_bytes() == CONTENT and (tmp_path / "mine").read_bytes() == CONTENT[:7]
    assert names(tmp_path / "cache") == ["a.bin"] and not (tmp_path / "cache" / "a.bin").is_symlink()


def test_a_wrong_file_stays_until_the_right_one_is_there(one_file, server):
    path = download.fetch("a.bin")
    path.write_bytes(b"mended by hand")
    server[1].lie = True
    with pytest.raises(DataError, match="is not the published"):
        download.fetch("a.bin")
    assert path.read_bytes() == b"mended by hand"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"odd\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort",
    ],
)
def test_no_http_is_one_sentence(one_file, server, sent):
    """BadStatusLine, IncompleteRead, too many headers: kinds that are no OSError."""
    server[1].reply = lambda self, start: self.wfile.write(sent)
    with pytest.raises(DataError, match="a.bin \\(0.5 MB\\) could not be downloaded"):
        download.fetch("a.bin")


def test_a_cache_that_cannot_be_made_is_one_sentence(one_file, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCDL_TEACH_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match=r"could not be downloaded \(.*Not a directory"):
        download.fetch("a.bin")


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
