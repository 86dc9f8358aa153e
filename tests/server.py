"""A tiny CIFAR-10 in its own files, and a web server on this machine that gives them well or badly."""

import io
import pickle
import tarfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import torch


def batches(arrays, protocol=None):
    """The six files of torchvision's folder, by name."""
    images, labels = arrays["train_images"].reshape(5, -1, 3072), arrays["train_labels"].reshape(5, -1)
    parts = {f"data_batch_{i + 1}": (images[i], labels[i]) for i in range(5)}
    parts["test_batch"] = arrays["test_images"].reshape(-1, 3072), arrays["test_labels"]
    return {name: pickle.dumps({b"data": x, b"labels": y.tolist()}, protocol) for name, (x, y) in parts.items()}


def packed(files):
    """The bytes of cifar-10-python.tar.gz."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def assert_holds(dataset, arrays):
    for key, array in arrays.items():
        found, dtype = getattr(dataset, key), torch.int64 if "labels" in key else torch.uint8
        assert torch.equal(found, torch.from_numpy(array).to(dtype))
        assert found.dtype == dtype


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Handler(BaseHTTPRequestHandler):
    """Notes the Range header of every request, then lets the server's `answer(handler, body, start)` speak."""

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        self.server.answer(self, self.server.body, int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0)

    def head(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, *parts, pause=0.0):
        """The parts, one by one, as long as the test goes on."""
        for part in parts:
            self.wfile.write(part)
            if self.server.over.wait(pause):
                return

    def hang(self):
        self.server.over.wait(10)

    def log_message(self, *_):
        pass


def good(h, body, start):
    if start >= len(body):
        return h.send_error(416)
    h.head(206 if start else 200, Content_Length=len(body) - start)
    h.send(body[start:])


def without_ranges(h, body, start):
    good(h, body, 0)


def other_range(h, body, start):
    h.head(206 if start else 200, Content_Length=len(body))
    h.send(body)


def chunked(h, body, start, size=None):
    h.protocol_version = "HTTP/1.1"
    h.close_connection = True
    h.head(Transfer_Encoding="chunked")
    h.send(size or b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n")


def without_length(h, body, start):
    h.head()
    h.send(body)


def redirecting(h, body, start):
    if h.path.endswith("moved"):
        return good(h, body, start)
    h.head(302, Location="/moved")


def cut(h, body, start):
    h.head(206 if start else 200, Content_Length=len(body) - start)
    h.send(body[start : len(body) // 2])


def stalling(h, body, start):
    cut(h, body, start)
    h.hang()


def dribbling(h, body, start):
    h.head(Content_Length=len(body))
    h.send(*(body[i : i + 1] for i in range(len(body))), pause=0.01)


def slow_head(h, body, start):
    h.send(*[b"H"], *[b"T"] * 1000, pause=0.01)


def says(status, content=b"", **headers):
    """Always the same answer."""
    def answer(h, body, start):
        h.head(status, **headers)
        h.send(content)

    return answer


PAGE = b"<html>please log in</html>\r\n\r\n"

# Servers that have the file, each in its own way.
GOOD = {
    "plain": good, "without ranges": without_ranges, "another range than asked for": other_range, "chunked": chunked,
    "without a length": without_length, "redirecting": redirecting,
    "a length that is none": lambda h, body, start: says(200, body, Content_Length="many")(h, body, start),
}

# Servers from which it cannot be had.
BAD = {
    "refusing connections": None,
    "closing at once": lambda h, body, start: None,
    "silent": lambda h, body, start: h.hang(),
    "no HTTP": lambda h, body, start: h.send(PAGE),
    "headers drop by drop": slow_head,
    "403": says(403), "404": says(404), "416": says(416), "500": says(500), "503": says(503),
    "204": says(204),
    "empty": says(200, Content_Length=0),
    "a page": says(200, PAGE, Content_Length=len(PAGE)),
    "a page without a length": says(200, PAGE),
    "one byte wrong": lambda h, body, start: good(h, body[:-1] + bytes([body[-1] ^ 1]), start),
    "one byte too few": lambda h, body, start: good(h, body[:-1], start),
    "one byte too many": lambda h, body, start: good(h, body + b"!", start),
    "cut": cut,
    "cut, without a length": lambda h, body, start: without_length(h, body[: len(body) // 2], start),
    "cut, chunked": lambda h, body, start: chunked(h, body[: len(body) // 2], start, b"%x\r\n" % len(body)),
    "chunks of no size": lambda h, body, start: chunked(h, body, start, b"many\r\n"),
    "stalling": stalling,
    "drop by drop": dribbling,
    "redirecting in a circle": says(302, Location="/cifar-10-python.tar.gz"),
    "redirecting nowhere": says(302, Location="http://[nowhere/"),
    "redirecting to a file": says(302, Location="file:///etc/hostname"),
    "redirecting to silence": lambda h, body, start: h.hang() if "moved" in h.path else redirecting(h, body, start),
}
WAITED_FOR = {"silent", "headers drop by drop", "stalling", "drop by drop", "redirecting to silence"}


@contextmanager
def mirror(body=b"", answer=good):
    """Yields the server's address and the list of the Range headers it was sent; `answer` None: it is gone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.body, server.answer, server.asked, server.over = body, answer, [], Event()
    server.handle_error = lambda *_: None  # a client that hangs up is part of the plan
    thread = Thread(target=server.serve_forever, args=(0.01,))
    if answer:
        thread.start()
    else:
        server.server_close()
    try:
        yield f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz", server.asked
    finally:
        server.over.set()
        if answer:
            server.shutdown()
            server.server_close()
            thread.join()
